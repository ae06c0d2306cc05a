//! What becomes of a delivery: decided from values, without a clock or a connection.
//!
//! [`retry`] says which answers are tried again and when, [`reply`] what an answer means, [`dead_letter`] what an event
//! that could not be delivered carries, [`headers`] what travels beside events.

pub mod backoff;
pub mod dead_letter;
pub mod headers;
pub mod reply;
pub mod retry;
pub mod retry_after;

use std::{fmt, sync::Arc, time::Duration};

use http::{Uri, uri::InvalidUri};
use knoll_event::mode::Format;

pub use self::backoff::{Backoff, BackoffPolicy};

/// Where an event is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// An absolute URI.
    pub uri: Uri,
    /// Whether it is written without a path: `uri` shows one all the same.
    pub is_bare: bool,
    /// Certificates to trust besides those of the system, PEM; for `https`.
    pub ca_certs: Option<Arc<str>>,
    /// Who a token must be made for, where the destination asks for tokens.
    pub audience: Option<Arc<str>>,
}

impl Destination {
    /// A place that asks for no token and whose certificate, if it has one, the system trusts.
    pub fn new(uri: Uri) -> Self {
        Self { uri, is_bare: false, ca_certs: None, audience: None }
    }

    /// The same by its text, which [`Display`](fmt::Display) gives back. What admission and Go take in a path or query and an
    /// `Uri` does not is escaped, as Go escapes it when it sends.
    ///
    /// # Errors
    /// When it is no URI all the same.
    pub fn read(text: &str) -> Result<Self, InvalidUri> {
        let uri: Uri = text.parse().or_else(|error| escaped(text).ok_or(error)?.parse())?;
        let beyond_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        let is_bare = beyond_scheme.split(['?', '#']).next().is_some_and(|place| !place.contains('/'));
        Ok(Self { is_bare, ..Self::new(uri) })
    }
}

/// A URI with what may not stand in its path and query escaped; nothing where there is nothing to escape.
fn escaped(text: &str) -> Option<String> {
    let authority = text.find("://")? + 3;
    let path = authority + text[authority..].find(['/', '?'])?;
    let mut escaped = text[..path].to_owned();
    for byte in text[path..].bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                escaped += &format!("%{byte:02X}");
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    (escaped != text).then_some(escaped)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_bare {
            return self.uri.fmt(f);
        }
        let scheme = self.uri.scheme_str().map(|scheme| format!("{scheme}://")).unwrap_or_default();
        let query = self.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        write!(f, "{scheme}{}{query}", self.uri.authority().map_or("", |authority| authority.as_str()))
    }
}

/// A DeliverySpec, its references resolved and its spans read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts beyond the first.
    pub retry: u32,
    /// How long is waited between them; not at all where nothing is said.
    pub backoff: Option<Backoff>,
    /// Most time for one attempt; without it an attempt may take for ever.
    pub timeout: Option<Duration>,
    /// The longest wait that an answer's `Retry-After` may ask for; without it answers are not listened to.
    pub retry_after_max: Option<Duration>,
    /// In which form the subscriber is sent events; as they came where nothing is said. What goes elsewhere keeps its form.
    pub format: Option<Format>,
    /// Who gets what could not be delivered.
    pub dead_letter_sink: Option<Destination>,
}

impl Delivery {
    /// What counts for a Trigger or a Subscription: its own delivery as a whole, or else that of its broker or channel.
    /// Only the dead letter sink is looked for in both (upstream's `resolveDeadLetterSink`), so that a Trigger that says
    /// how often to retry keeps its broker's sink, and loses its broker's backoff. The format is a Trigger's own alone.
    pub fn effective(own: Option<&Self>, above: Option<&Self>) -> Self {
        let mut delivery = own.or(above).cloned().unwrap_or_default();
        if delivery.dead_letter_sink.is_none() {
            delivery.dead_letter_sink = above.and_then(|above| above.dead_letter_sink.clone());
        }
        delivery.format = own.and_then(|own| own.format);
        delivery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_sink(retry: u32, sink: Option<&'static str>) -> Delivery {
        let dead_letter_sink = sink.map(|uri| Destination::new(Uri::from_static(uri)));
        Delivery { retry, dead_letter_sink, ..Delivery::default() }
    }

    /// Dead letters name it.
    #[test]
    fn a_destination_is_shown_as_it_is_written() {
        for text in ["http://s", "http://s/", "http://s:80/a?b=c", "http://s?b=c", "https://[::1]:8443", "http://s/a/"]
        {
            assert_eq!(Destination::read(text).expect("a URI").to_string(), text);
        }
        for text in ["http://a b", "http://é/", ""] {
            assert!(Destination::read(text).is_err(), "{text}");
        }
        let escaped = Destination::read("http://s/<é>`?a b").expect("a URI");
        assert_eq!(escaped.uri, "http://s/%3C%C3%A9%3E%60?a%20b");
    }

    /// Upstream's conformance matrix of broker and trigger.
    #[test]
    fn a_triggers_delivery_replaces_the_brokers_but_for_a_sink_it_does_not_have() {
        let (own, above) = (Some("http://own/"), Some("http://above/"));
        let cases = [
            (None, None, (0, None)),
            (None, Some(with_sink(3, above)), (3, above)),
            (Some(with_sink(1, None)), Some(with_sink(3, above)), (1, above)),
            (Some(with_sink(0, own)), Some(with_sink(3, above)), (0, own)),
            (Some(with_sink(3, own)), None, (3, own)),
            (Some(with_sink(3, None)), Some(with_sink(0, None)), (3, None)),
        ];
        for (trigger, broker, (retry, sink)) in cases {
            let effective = Delivery::effective(trigger.as_ref(), broker.as_ref());
            assert_eq!(effective, with_sink(retry, sink), "{trigger:?} {broker:?}");
        }
    }

    #[test]
    fn a_trigger_that_only_says_how_often_loses_its_brokers_backoff() {
        let backoff = Some(Backoff { policy: BackoffPolicy::Exponential, delay: Duration::from_millis(200) });
        let broker = Delivery { retry: 10, backoff, ..Delivery::default() };
        let effective = Delivery::effective(Some(&with_sink(1, None)), Some(&broker));
        assert_eq!((effective.retry, effective.backoff), (1, None));
    }
    #[test]
    fn a_format_is_the_triggers_own() {
        let with_format = |format| Delivery { format: Some(format), ..Delivery::default() };
        let (own, above) = (with_format(Format::Json), with_format(Format::Binary));
        assert_eq!(Delivery::effective(Some(&own), Some(&above)).format, Some(Format::Json));
        assert_eq!(Delivery::effective(Some(&Delivery::default()), Some(&above)).format, None);
        assert_eq!(Delivery::effective(None, Some(&above)).format, None);
    }
}
