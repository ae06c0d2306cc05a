//! An event as it stands in the log: in the form in which it came, with what travels beside it.
//!
//! A byte for the version, the number of headers, each header's name and value with their lengths before them, and the
//! body: `u8 1 | u16 n | n × (u16, name, u32, value) | body`, numbers in little-endian order. In binary mode attributes are
//! headers, in structured mode the body is the event, as in HTTP; so nothing of an event changes by being kept. Checksums
//! are the log's.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use knoll_event::{
    Event, Value,
    mode::{self, Format, Mode},
};

use crate::delivery::headers;

const VERSION: u8 = 1;
/// Whose dead letter it is: `<kind>/<namespace>/<name>/<uid>` of a Trigger or Subscription.
const SUBSCRIPTION: HeaderName = HeaderName::from_static("knoll-subscription");
/// Its [`Record::hops`], where there are some.
const HOPS: HeaderName = HeaderName::from_static("knoll-hops");
/// The extension that orders events (CloudEvents' Partitioning extension).
const PARTITION_KEY: &str = "partitionkey";

/// An event that is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// It.
    pub(crate) event: Event,
    /// The form in which it came.
    pub(crate) format: Format,
    /// What travels beside it.
    pub(crate) headers: HeaderMap,
    /// Whose dead letter it is.
    pub(crate) subscription: Option<Box<str>>,
    /// How often it went from one broker or channel to another here, one that it became among them. Nobody is told: channels
    /// change no event, and so cannot count in it.
    pub(crate) hops: u16,
}

/// Bytes that are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the event log is none that this version wrote")]
pub(crate) struct NoRecord;

impl Record {
    /// An event that came in this form, with these headers beside it.
    pub(crate) fn new(event: Event, format: Format, headers: HeaderMap) -> Self {
        Self { event, format, headers, subscription: None, hops: 0 }
    }

    /// What orders the event; nothing for most.
    pub(crate) fn key(&self) -> Bytes {
        let key = self.event.extension(PARTITION_KEY).map(Value::text);
        key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes()))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut headers = self.headers.clone();
        let body = mode::write(&self.event, self.format, &mut headers);
        if let Some(subscription) = &self.subscription {
            let value = HeaderValue::try_from(&**subscription);
            headers.insert(SUBSCRIPTION, value.expect("names of objects and uids are printable ASCII"));
        }
        if self.hops > 0 {
            headers.insert(HOPS, self.hops.into());
        }
        let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 6).sum();
        let mut out = BytesMut::with_capacity(3 + length + body.len());
        out.put_u8(VERSION);
        out.put_u16_le(u16::try_from(headers.len()).expect("a map of headers holds no more than 32768"));
        for (name, value) in &headers {
            out.put_u16_le(u16::try_from(name.as_str().len()).expect("a header's name is below 65536 bytes"));
            out.put_slice(name.as_str().as_bytes());
            out.put_u32_le(u32::try_from(value.len()).expect("a header's value is bounded"));
            out.put_slice(value.as_bytes());
        }
        out.put_slice(&body);
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, NoRecord> {
        let version = bytes.try_get_u8().map_err(|_| NoRecord)?;
        if version != VERSION {
            return Err(NoRecord);
        }
        let count = bytes.try_get_u16_le().map_err(|_| NoRecord)?;
        let mut all = HeaderMap::new();
        for _ in 0..count {
            let length = bytes.try_get_u16_le().map_err(|_| NoRecord)?;
            let name = HeaderName::from_bytes(&take(&mut bytes, length.into())?).map_err(|_| NoRecord)?;
            let length = bytes.try_get_u32_le().map_err(|_| NoRecord)?;
            let value = take(&mut bytes, length as usize)?;
            all.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| NoRecord)?);
        }
        let format = match Mode::of(&all) {
            Some(Mode::Binary) => Format::Binary,
            Some(Mode::Structured) => Format::Json,
            Some(Mode::Batched) | None => return Err(NoRecord),
        };
        let event = mode::read(&all, bytes).map_err(|_| NoRecord)?;
        let subscription = all.get(SUBSCRIPTION).and_then(|value| value.to_str().ok()).map(Into::into);
        let hops = all.get(HOPS).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(Self { event, format, headers: headers::passing(&all), subscription, hops })
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Result<Bytes, NoRecord> {
    if length <= bytes.len() { Ok(bytes.split_to(length)) } else { Err(NoRecord) }
}

#[cfg(test)]
mod tests {
    use knoll_event::json;
    use proptest::prelude::*;

    use super::*;

    fn binary(data: &[u8]) -> Event {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set("subject", "Euro € 100%").expect("a subject");
        event.set_data("application/json", data.to_vec()).expect("a content type");
        event
    }

    fn there_and_back(record: &Record) -> Record {
        Record::decode(record.encode()).expect("a record")
    }

    #[test]
    fn an_event_is_kept_byte_for_byte_in_the_form_in_which_it_came() {
        let headers: HeaderMap =
            [(HeaderName::from_static("knative-a"), HeaderValue::from_static("1"))].into_iter().collect();
        let odd = Record::new(binary(b" {\"a\":  1.0}\n"), Format::Binary, headers.clone());
        assert_eq!(there_and_back(&odd), odd);
        let body = br#"{"specversion":"0.3","id":"1","source":"/s","type":"t","n":5,"b":true,"data":{"a":1.0}}"#;
        let event = json::read(&Bytes::from_static(body)).expect("an event");
        let structured = Record {
            subscription: Some("trigger/ns/t/u".into()),
            hops: 7,
            ..Record::new(event, Format::Json, headers)
        };
        assert_eq!(there_and_back(&structured), structured);
    }

    #[test]
    fn the_key_is_the_partition_key() {
        let mut event = binary(b"{}");
        assert_eq!(Record::new(event.clone(), Format::Binary, HeaderMap::new()).key(), Bytes::new());
        event.set("partitionkey", "k").expect("an extension");
        assert_eq!(Record::new(event, Format::Binary, HeaderMap::new()).key(), "k");
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_no_record() {
        let whole = Record::new(binary(b"{}"), Format::Binary, HeaderMap::new()).encode();
        let body = whole.len() - 2;
        for end in 0..body - 10 {
            assert_eq!(Record::decode(whole.slice(..end)), Err(NoRecord), "{end}");
        }
        let mut other = whole.to_vec();
        other[0] = 2;
        assert_eq!(Record::decode(other.into()), Err(NoRecord));
    }

    proptest! {
        #[test]
        fn any_data_and_any_extension_come_back(
            data in prop::collection::vec(any::<u8>(), 0..200),
            text in "[ -~äß€😀]{0,40}",
            is_json: bool,
        ) {
            let mut event = binary(&data);
            event.set("ext", &*text).expect("an extension");
            let format = if is_json { Format::Json } else { Format::Binary };
            let kept = there_and_back(&Record::new(event.clone(), format, HeaderMap::new()));
            let attributes = |event: &Event| {
                event.attributes().map(|(name, value)| (name.to_owned(), value.into_text().into_owned())).collect::<Vec<_>>()
            };
            prop_assert_eq!(attributes(&kept.event), attributes(&event));
            // JSON leaves out the white space around a value.
            let bytes = |event: &Event| event.data().map(|data| data.bytes().trim_ascii().to_vec()).unwrap_or_default();
            prop_assert_eq!(bytes(&kept.event), bytes(&event));
        }

        #[test]
        fn bytes_of_anything_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut framed = vec![VERSION];
            framed.extend(&bytes);
            let _ = Record::decode(bytes.into()).is_ok() | Record::decode(framed.into()).is_ok();
        }
    }
}
