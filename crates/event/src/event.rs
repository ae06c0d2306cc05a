//! The event: attributes that obey the specification, and data.

use std::{borrow::Cow, fmt};

use bytes::Bytes;

use crate::{
    Attribute, Data, Fault, Invalid, Uri, UriReference, Value, data::Form, knative, limits, media_type, time::Time,
};

/// The version of the specification that an event obeys. An event is delivered in the version it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// 0.3, which calls `dataschema` `schemaurl` and has `datacontentencoding`.
    V03,
    /// 1.0.
    V1,
}

impl SpecVersion {
    /// As `specversion` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V03 => "0.3",
            Self::V1 => "1.0",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        match text {
            "0.3" => Ok(Self::V03),
            "1.0" => Ok(Self::V1),
            _ => Err(Fault::Version),
        }
    }

    pub(crate) const fn schema_name(self) -> &'static str {
        match self {
            Self::V03 => "schemaurl",
            Self::V1 => "dataschema",
        }
    }
}

/// An attribute of the specification.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    SpecVersion,
    Id,
    Source,
    Type,
    Subject,
    Time,
    DataContentType,
    /// `schemaurl` in 0.3.
    DataSchema,
    /// Of 0.3 alone.
    DataContentEncoding,
}

impl Own {
    /// The one that has this name in this version.
    fn of(name: &str, version: SpecVersion) -> Option<Self> {
        Some(match name {
            "specversion" => Self::SpecVersion,
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "subject" => Self::Subject,
            "time" => Self::Time,
            "datacontenttype" => Self::DataContentType,
            _ if name == version.schema_name() => Self::DataSchema,
            "datacontentencoding" if version == SpecVersion::V03 => Self::DataContentEncoding,
            _ => return None,
        })
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// A CloudEvent. Every rule of the specification holds for it that can be checked on one event alone.
///
/// An optional attribute of the specification that is given empty is one that is not given, as upstream's SDK has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    version: SpecVersion,
    id: Box<str>,
    source: UriReference,
    kind: Box<str>,
    subject: Option<Box<str>>,
    /// As it is written, once for all who ask.
    time: Option<Box<str>>,
    data_content_type: Option<Box<str>>,
    /// A reference in 0.3, an absolute URI in 1.0.
    data_schema: Option<UriReference>,
    /// `datacontentencoding: base64` of 0.3.
    is_encoded: bool,
    /// It came in headers whose values were not percent-encoded, and goes on so.
    is_unencoded: bool,
    /// By name.
    extensions: Vec<(Box<str>, Value)>,
    data: Option<Data>,
}

impl Event {
    /// An event of version 1.0 without more than it must have.
    ///
    /// # Errors
    /// When one of them breaks a rule.
    pub fn new(id: &str, source: &str, kind: &str) -> Result<Self, Invalid> {
        let given = [("id", id), ("source", source), ("type", kind)];
        Self::assemble(SpecVersion::V1, given.map(|(name, text)| (Cow::Borrowed(name), text.into())).into())
    }

    /// An event of everything that a message gives, `specversion` among it.
    pub(crate) fn of(given: Vec<(Cow<'_, str>, Value)>) -> Result<Self, Invalid> {
        let version = version(&given)?;
        Self::assemble(version, given)
    }

    fn assemble(version: SpecVersion, given: Vec<(Cow<'_, str>, Value)>) -> Result<Self, Invalid> {
        let mut event = Self {
            version,
            id: Box::default(),
            source: UriReference::default(),
            kind: Box::default(),
            subject: None,
            time: None,
            data_content_type: None,
            data_schema: None,
            is_encoded: false,
            is_unencoded: false,
            extensions: Vec::new(),
            data: None,
        };
        let mut seen = 0;
        for (name, value) in given {
            event.give(&name, value, &mut seen).map_err(|fault| Invalid::new(&name, fault))?;
        }
        let required = [("id", &*event.id), ("source", event.source.as_str()), ("type", &*event.kind)];
        match required.iter().find(|(_, text)| text.is_empty()) {
            Some((name, _)) => Err(Invalid::new(name, Fault::Missing)),
            None => Ok(event),
        }
    }

    /// Sets what a message gives, once. `seen` has a bit for each attribute of the specification that came before.
    fn give(&mut self, name: &str, value: Value, seen: &mut u16) -> Result<(), Fault> {
        let own = Own::of(name, self.version);
        let is_again = match own {
            // Names that differ in capitals alone are one.
            None => self.extension(&small(name)).is_some(),
            Some(own) => std::mem::replace(seen, *seen | own.bit()) & own.bit() != 0,
        };
        if is_again {
            return Err(Fault::Twice);
        }
        value.check()?;
        match own {
            None => self.set_extension(name, value),
            // That is what the event was begun with.
            Some(Own::SpecVersion) => Ok(()),
            Some(own) => self.set_own(own, value),
        }
    }

    /// The version of the specification.
    pub const fn version(&self) -> SpecVersion {
        self.version
    }

    /// `id`, of its own within its source.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `source`.
    pub fn source(&self) -> &str {
        self.source.as_str()
    }

    /// `type`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// `subject`.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// `datacontenttype`.
    pub fn data_content_type(&self) -> Option<&str> {
        self.data_content_type.as_deref()
    }

    /// `dataschema`, or `schemaurl` in 0.3.
    pub fn data_schema(&self) -> Option<&str> {
        self.data_schema.as_ref().map(UriReference::as_str)
    }

    /// The data.
    pub const fn data(&self) -> Option<&Data> {
        self.data.as_ref()
    }

    /// An extension.
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.place(name).ok().map(|at| &self.extensions[at].1)
    }

    /// Names of the extensions, in order.
    pub(crate) fn extension_names(&self) -> impl Iterator<Item = &str> {
        self.extensions.iter().map(|(name, _)| &**name)
    }

    pub(crate) const fn is_encoded(&self) -> bool {
        self.is_encoded
    }

    /// An attribute by the name its version of the specification, or the extension, gives it.
    pub fn attribute(&self, name: &str) -> Option<Attribute<'_>> {
        let text = |text| Some(Attribute::String(Cow::Borrowed(text)));
        match name {
            "specversion" => text(self.version.as_str()),
            "id" => text(&self.id),
            "source" => text(self.source.as_str()),
            "type" => text(&self.kind),
            "subject" => self.subject().and_then(text),
            "time" => self.time.as_deref().and_then(text),
            "datacontenttype" => self.data_content_type().and_then(text),
            _ if name == self.version.schema_name() => self.data_schema().and_then(text),
            "datacontentencoding" if self.is_encoded => text("base64"),
            _ => self.extension(name).map(Value::borrowed),
        }
    }

    /// Every attribute that is there, those of the specification first.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, Attribute<'_>)> {
        let own = [
            ("specversion", Some(self.version.as_str())),
            ("id", Some(self.id())),
            ("source", Some(self.source())),
            ("type", Some(self.kind())),
            ("subject", self.subject()),
            ("datacontenttype", self.data_content_type()),
            (self.version.schema_name(), self.data_schema()),
            ("time", self.time.as_deref()),
            ("datacontentencoding", self.is_encoded.then_some("base64")),
        ];
        let own = own.into_iter().filter_map(|(name, text)| Some((name, Attribute::String(Cow::Borrowed(text?)))));
        own.chain(self.extensions.iter().map(|(name, value)| (&**name, value.borrowed())))
    }

    /// Sets an attribute, of the specification or an extension. Capitals in the name of an extension become small, as
    /// upstream's SDK has it.
    ///
    /// # Errors
    /// When name or value breaks a rule, or the event has as many extensions as it may; it is then as it was.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Invalid> {
        let value = value.into();
        let set = value.check().and_then(|()| self.set_checked(name, value));
        set.map_err(|fault| Invalid::new(name, fault))
    }

    fn set_checked(&mut self, name: &str, value: Value) -> Result<(), Fault> {
        match Own::of(name, self.version) {
            Some(own) => self.set_own(own, value),
            None => self.set_extension(name, value),
        }
    }

    fn set_own(&mut self, own: Own, value: Value) -> Result<(), Fault> {
        match own {
            Own::SpecVersion => return Err(Fault::Fixed),
            Own::Id => self.id = required(value)?,
            Own::Source => self.source = UriReference::of(required(value)?)?,
            Own::Type => self.kind = required(value)?,
            Own::Subject => self.subject = optional(value, Ok)?,
            Own::Time => {
                let time = match value {
                    Value::Timestamp(instant) => Some(Time::of(instant)?),
                    value => optional(value, |text| Time::parse(&text))?,
                };
                self.time = time.map(|time| time.text().into());
            }
            Own::DataContentType => {
                let checked = |text: Box<str>| media_type::check(&text).map(|()| text.trim_ascii().into());
                self.data_content_type = optional(value, checked)?;
            }
            Own::DataSchema => {
                let version = self.version;
                self.data_schema = optional(value, |text| match version {
                    SpecVersion::V03 => UriReference::of(text),
                    SpecVersion::V1 => Uri::parse(&text).map(UriReference::from),
                })?;
            }
            Own::DataContentEncoding => {
                let is_base64 = |text: &str| text.trim_ascii().eq_ignore_ascii_case("base64");
                let checked = |text: Box<str>| if is_base64(&text) { Ok(()) } else { Err(Fault::ContentEncoding) };
                self.is_encoded = optional(value, checked)?.is_some();
            }
        }
        Ok(())
    }

    fn set_extension(&mut self, name: &str, value: Value) -> Result<(), Fault> {
        let name = extension_name(name, self.version)?;
        match self.place(&name) {
            Ok(at) => self.extensions[at].1 = value,
            Err(_) if !self.has_room(&name) => return Err(Fault::TooMany),
            Err(at) => self.extensions.insert(at, (name.into(), value)),
        }
        Ok(())
    }

    /// Knative's own extensions are few, and no sender may crowd them out.
    fn has_room(&self, name: &str) -> bool {
        let own = || knative::OWN.iter().filter(|own| self.extension(own).is_some()).count();
        let most = limits::MOST_EXTENSIONS;
        self.extensions.len() < most || knative::OWN.contains(&name) || self.extensions.len() - own() < most
    }

    /// Takes an extension away.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.place(name).ok().map(|at| self.extensions.remove(at).1)
    }

    /// Sets the data to what a body of this content type would be.
    ///
    /// # Errors
    /// When the content type is none.
    pub fn set_data(&mut self, content_type: &str, bytes: impl Into<Bytes>) -> Result<(), Invalid> {
        self.set("datacontenttype", content_type)?;
        self.data = Some(Data::new(bytes.into(), Form::Plain));
        Ok(())
    }

    pub(crate) fn with_data(mut self, data: Option<Data>) -> Self {
        self.data = data;
        self
    }

    pub(crate) fn change_extensions(&mut self, change: impl Fn(Value) -> Value) {
        for (_, value) in &mut self.extensions {
            *value = change(std::mem::replace(value, Value::Boolean(false)));
        }
    }

    /// Has the data be a part of these bytes where they end with it, and a copy of its own otherwise, so that it keeps
    /// nothing else of the message that it came in from being given back. How many bytes it has of its own.
    pub fn keep_data_in(&mut self, bytes: &Bytes) -> usize {
        let Some(data) = &mut self.data else { return 0 };
        let is_within = bytes.ends_with(data.bytes());
        let length = data.bytes().len();
        let own = || Bytes::copy_from_slice(data.bytes());
        let kept = if is_within { bytes.slice(bytes.len() - length..) } else { own() };
        *data = Data::new(kept, data.form());
        if is_within { 0 } else { length }
    }

    /// Whether its headers came without percent-encoding.
    pub(crate) const fn is_unencoded(&self) -> bool {
        self.is_unencoded
    }

    pub(crate) fn with_unencoded(mut self, is_unencoded: bool) -> Self {
        self.is_unencoded = is_unencoded;
        self
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.extensions.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.data.as_ref().map(|data| (data.form(), data.bytes()));
        out.debug_map().entries(self.attributes()).entry(&"data", &data).finish()
    }
}

/// What a required attribute holds.
fn required(value: Value) -> Result<Box<str>, Fault> {
    let text = owned(value)?;
    if is_blank(&text) { Err(Fault::Empty) } else { Ok(text) }
}

/// What an optional attribute holds, unless it is empty.
fn optional<T>(value: Value, read: impl FnOnce(Box<str>) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
    match owned(value)? {
        text if text.is_empty() => Ok(None),
        text if is_blank(&text) => Err(Fault::Empty),
        text => read(text).map(Some),
    }
}

fn is_blank(text: &str) -> bool {
    text.trim_start().is_empty()
}

fn owned(value: Value) -> Result<Box<str>, Fault> {
    match value {
        Value::String(text) => Ok(text),
        value => string(&value).map(Into::into),
    }
}

fn string(value: &Value) -> Result<&str, Fault> {
    match value {
        Value::String(text) => Ok(text),
        Value::Uri(uri) => Ok(uri.as_str()),
        Value::UriReference(reference) => Ok(reference.as_str()),
        Value::Boolean(_) | Value::Integer(_) | Value::Binary(_) | Value::Timestamp(_) => Err(Fault::NotString),
    }
}

fn version(given: &[(Cow<'_, str>, Value)]) -> Result<SpecVersion, Invalid> {
    let invalid = |fault| Invalid::new("specversion", fault);
    let (_, value) = given.iter().find(|(name, _)| name == "specversion").ok_or_else(|| invalid(Fault::Missing))?;
    string(value).and_then(SpecVersion::parse).map_err(invalid)
}

fn small(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// An extension's name in small letters (specification, "Naming Conventions").
fn extension_name(name: &str, version: SpecVersion) -> Result<Cow<'_, str>, Fault> {
    if name.len() > limits::LONGEST_NAME {
        return Err(Fault::LongName);
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Fault::Name);
    }
    let small = small(name);
    if Own::of(&small, version).is_some() {
        return Err(Fault::Name);
    }
    if small == "data" { Err(Fault::Reserved) } else { Ok(small) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Event {
        Event::new("1", "/s", "t").expect("an event")
    }

    fn given(attributes: &[(&str, &str)]) -> Result<Event, Invalid> {
        Event::of(attributes.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect())
    }

    fn fault(result: Result<impl fmt::Debug, Invalid>) -> (String, Fault) {
        let invalid = result.expect_err("a rule is broken");
        (invalid.name.into(), invalid.fault)
    }

    const REQUIRED: [(&str, &str); 4] = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];

    #[test]
    fn each_required_attribute_is_missed_by_name() {
        for at in 0..REQUIRED.len() {
            let mut attributes = REQUIRED.to_vec();
            let (name, _) = attributes.remove(at);
            assert_eq!(fault(given(&attributes)), (name.to_owned(), Fault::Missing));
        }
    }

    #[test]
    fn required_attributes_are_not_empty_and_come_once() {
        for name in ["id", "source", "type"] {
            for text in ["", "  "] {
                assert_eq!(fault(minimal().set(name, text)), (name.to_owned(), Fault::Empty));
            }
        }
        assert_eq!(fault(given(&[&REQUIRED[..], &[("id", "2")]].concat())), ("id".into(), Fault::Twice));
        assert_eq!(
            fault(given(&[&REQUIRED[..], &[("foo", "1"), ("Foo", "2")]].concat())),
            ("Foo".into(), Fault::Twice)
        );
        assert_eq!(
            fault(given(&[&REQUIRED[..], &[("FOO", "1"), ("Foo", "2")]].concat())),
            ("Foo".into(), Fault::Twice)
        );
    }

    #[test]
    fn only_the_versions_that_are_known_are_read_and_an_event_keeps_its_own() {
        assert_eq!(fault(given(&[("specversion", "2.0")])), ("specversion".into(), Fault::Version));
        assert_eq!(fault(minimal().set("specversion", "0.3")), ("specversion".into(), Fault::Fixed));
        let old = given(&[("specversion", "0.3"), ("id", "1"), ("source", "/s"), ("type", "t"), ("schemaurl", "/x")]);
        let old = old.expect("an event of 0.3");
        assert_eq!((old.version(), old.data_schema()), (SpecVersion::V03, Some("/x")));
        assert_eq!(old.attribute("dataschema"), None);
        let new = given(&[&REQUIRED[..], &[("schemaurl", "/x")]].concat()).expect("an extension in 1.0");
        assert_eq!((new.data_schema(), new.extension("schemaurl")), (None, Some(&Value::from("/x"))));
    }

    #[test]
    fn optional_attributes_obey_their_rules() {
        let cases = [
            ("subject", " ", Fault::Empty),
            ("time", "soon", Fault::Time),
            ("dataschema", "/relative", Fault::Relative),
            ("datacontenttype", "text", Fault::MediaType),
            ("source", ":bad", Fault::UriReference("a colon follows what is no scheme; put / or ./ before it")),
            ("data", "x", Fault::Reserved),
            ("foo-bar", "x", Fault::Name),
            ("Id", "x", Fault::Name),
            ("", "x", Fault::Name),
            ("ext", "a\nb", Fault::Characters),
        ];
        for (name, text, expected) in cases {
            let mut event = minimal();
            assert_eq!(fault(event.set(name, text)), (name.to_owned(), expected));
            assert_eq!(event, minimal(), "refused {name}, and nothing changed");
        }
        assert_eq!(fault(minimal().set(&"x".repeat(129), "x")), ("x".repeat(128), Fault::LongName));
        assert_eq!(fault(minimal().set("subject", 5)), ("subject".into(), Fault::NotString));
        let mut old = given(&[("specversion", "0.3"), ("id", "1"), ("source", "/s"), ("type", "t")]).expect("an event");
        assert_eq!(
            fault(old.set("datacontentencoding", "gzip")),
            ("datacontentencoding".into(), Fault::ContentEncoding)
        );
    }

    #[test]
    fn an_optional_attribute_given_empty_is_not_given() {
        let mut event = minimal();
        for name in ["subject", "time", "dataschema", "datacontenttype"] {
            event.set(name, "").expect("empty is unset");
        }
        assert_eq!(event, minimal());
        event.set("ext", "").expect("an extension may be empty");
        assert_eq!(event.attribute("ext"), Some(Attribute::String("".into())));
    }

    #[test]
    fn extensions_keep_their_type_and_lose_their_capitals() {
        let mut event = minimal();
        event.set("Seq", 5).expect("an extension");
        event.set("flag", true).expect("an extension");
        event.set("seq", 6).expect("the same one");
        assert_eq!(
            (event.extension("seq"), event.extension("flag")),
            (Some(&Value::Integer(6)), Some(&Value::Boolean(true)))
        );
        assert_eq!(event.remove("seq"), Some(Value::Integer(6)));
        assert_eq!(event.attribute("seq"), None);
    }

    #[test]
    fn the_number_of_extensions_is_bounded() {
        let mut event = minimal();
        for at in 0..limits::MOST_EXTENSIONS {
            event.set(&format!("ext{at}"), 1).expect("room");
        }
        assert_eq!(fault(event.set("onemore", 1)), ("onemore".into(), Fault::TooMany));
        event.set("ext4", 2).expect("it is there already");
    }

    #[test]
    fn a_time_is_written_once_however_many_ask_for_it() {
        let mut event = minimal();
        event.set("time", "2023-06-30T09:45:22.50+02:00").expect("a time");
        assert!(matches!(event.attribute("time"), Some(Attribute::String(Cow::Borrowed("2023-06-30T07:45:22.5Z")))));
    }

    #[test]
    fn every_attribute_is_found_by_name_and_listed_once() {
        let attributes = [
            ("specversion", "1.0"),
            ("id", "1"),
            ("source", "/s"),
            ("type", "t"),
            ("subject", "sub"),
            ("datacontenttype", "text/plain"),
            ("dataschema", "https://a/b"),
            ("time", "2023-06-30T07:45:22Z"),
            ("ext", "e"),
        ];
        let event = given(&attributes).expect("an event");
        let listed: Vec<_> =
            event.attributes().map(|(name, value)| (name.to_owned(), value.into_text().into_owned())).collect();
        assert_eq!(listed, attributes.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(event.attribute("nope"), None);
    }
}
