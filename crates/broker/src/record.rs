//! An event as it stands in the log: in the form in which it came, with what travels beside it.
//!
//! A byte for the version, the number of headers, each header's name and value with their lengths before them, and the
//! body: `u8 1 | u16 n | n × (u16, name, u32, value) | body`, numbers in little-endian order. In binary mode attributes are
//! headers, in structured mode the body is the event, as in HTTP; so nothing of an event changes by being kept. Checksums
//! are the log's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BufMut as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use knoll_event::{
    Event, Value, knative,
    mode::{self, Format, Mode},
};
use knoll_journal::events::{self, Decoded};

use crate::delivery::headers;

const VERSION: u8 = 1;
/// What a record in memory takes beside the bytes of its event, about.
pub(crate) const RECORD_COST: usize = 1 << 10;
/// What it takes besides while it is known what it is sent as.
pub(crate) const OUTGOING_COST: usize = 1 << 10;
/// Bytes that most records have beside their data.
const HEAD: usize = 512;
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
    /// What it is sent as.
    pub(crate) outgoing: Outgoing,
}

/// What an event is sent as in the form in which it came. Made for the first who sends it, and shared by all who do, until
/// nobody does any more. A copy of a record begins without, since it is made to be changed.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(Mutex<Option<Arc<Sent>>>);

/// Headers, and the body.
#[derive(Debug)]
struct Sent {
    headers: Box<[(HeaderName, HeaderValue)]>,
    body: Bytes,
}

impl Outgoing {
    fn known(&self) -> MutexGuard<'_, Option<Arc<Sent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Outgoing {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Outgoing {
    /// It follows from the rest of the record.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A record as it goes into the log.
pub(crate) struct Kept {
    pub(crate) payload: Bytes,
    /// It.
    pub(crate) record: Arc<Record>,
    /// The same for who reads it there, if it is what decoding makes of the payload.
    pub(crate) decoded: Option<Decoded>,
}

/// Bytes that are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the event log is none that this version wrote")]
pub(crate) struct NoRecord;

impl Record {
    /// An event that came in this form, with these headers beside it.
    pub(crate) fn new(event: Event, format: Format, headers: HeaderMap) -> Self {
        Self { event, format, headers, subscription: None, hops: 0, outgoing: Outgoing::default() }
    }

    /// What orders the event; nothing for most.
    pub(crate) fn key(&self) -> Bytes {
        let key = self.event.extension(PARTITION_KEY).map(Value::text);
        key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes()))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// About as many bytes as it takes in the log.
    pub(crate) fn length(&self) -> usize {
        HEAD + self.event.data().map_or(0, |data| data.bytes().len())
    }

    /// Encodes it to the end of these bytes. Where they end then.
    pub(crate) fn written_to(&self, out: &mut Vec<u8>) -> usize {
        self.write(out);
        out.len()
    }

    /// Encodes it to the end of these bytes. In which mode its event stands there.
    fn write(&self, out: &mut Vec<u8>) -> Mode {
        out.reserve(self.length());
        let begin = out.len();
        out.put_u8(VERSION);
        out.put_u16_le(0);
        let mut count = 0_u16;
        let mut line = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
            count = count.checked_add(1).expect("headers are bounded");
            out.put_u16_le(u16::try_from(name.len()).expect("a header's name is below 65536 bytes"));
            out.put_slice(name.as_bytes());
            out.put_u32_le(u32::try_from(value.len()).expect("a header's value is bounded"));
            out.put_slice(value);
        };
        self.headers.iter().for_each(|(name, value)| line(out, name.as_str(), value.as_bytes()));
        if let Some(subscription) = &self.subscription {
            line(out, SUBSCRIPTION.as_str(), subscription.as_bytes());
        }
        if self.hops > 0 {
            line(out, HOPS.as_str(), self.hops.to_string().as_bytes());
        }
        let mode = mode::write_to(&self.event, self.format, out, line);
        out[begin + 1..begin + 3].copy_from_slice(&count.to_le_bytes());
        mode
    }

    /// The headers and the body that subscribers are sent: the event in this form, without the hops it has left, and what
    /// travels beside it.
    pub(crate) fn outgoing(&self, format: Format) -> (HeaderMap, Bytes) {
        if format != self.format {
            return self.sent_as(format);
        }
        let known = self.outgoing.known().clone();
        let sent = known.unwrap_or_else(|| self.first_sent());
        // Room for what is sent besides.
        let mut headers = HeaderMap::with_capacity(sent.headers.len() + 4);
        headers.extend(sent.headers.iter().cloned());
        (headers, sent.body.clone())
    }

    fn first_sent(&self) -> Arc<Sent> {
        let (headers, body) = self.sent_as(self.format);
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        // Of two who are the first at a time both are right.
        self.outgoing.known().insert(Arc::new(Sent { headers, body })).clone()
    }

    /// Nobody is sent it any more, for all that is known.
    pub(crate) fn forget_outgoing(&self) {
        self.outgoing.known().take();
    }

    fn sent_as(&self, format: Format) -> (HeaderMap, Bytes) {
        let (mut event, mut headers) = (self.event.clone(), self.headers.clone());
        event.remove(knative::TTL);
        let body = mode::write(&event, format, &mut headers);
        (headers, body)
    }

    /// Encodes it for the log. With it goes what decoding makes of that, where that is told without: then it takes no memory
    /// but its own, and nothing of the message that it came in.
    pub(crate) fn into_kept(mut self) -> Kept {
        let mut out = Vec::new();
        let mode = self.write(&mut out);
        // Kept as it is, without the room that is left.
        let payload = Bytes::copy_from_slice(&out);
        let is_in_its_form = mode == self.format.mode();
        let (event, is_decoded) = match mode::as_read(self.event, mode) {
            Ok(event) => (event, is_in_its_form),
            Err(event) => (event, false),
        };
        self.event = event;
        if !is_decoded {
            return Kept { payload, record: Arc::new(self), decoded: None };
        }
        // What stands behind the data: the end of the object that the event is.
        let behind = if mode == Mode::Structured { 1 } else { 0 };
        let own = self.event.keep_data_in(&payload.slice(..payload.len() - behind));
        let copy = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.clone(), HeaderValue::from_bytes(value.as_bytes()).expect("it was one"))
        };
        self.headers = self.headers.iter().map(copy).collect();
        let bytes = RECORD_COST + own + headers::bytes(&self.headers);
        let record = Arc::new(self);
        Kept { payload, decoded: Some(Decoded::new(record.clone(), bytes)), record }
    }

    /// The record that an event of the log is: as it is at hand, or decoded, and then with memory of its own.
    pub(crate) fn of(event: &events::Event) -> Result<Arc<Self>, NoRecord> {
        if let Some(record) = event.decoded.as_ref().and_then(Decoded::get) {
            return Ok(record);
        }
        // What was read shares its memory with its neighbours.
        Self::decode(Bytes::copy_from_slice(&event.payload)).map(Arc::new)
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
        Ok(Self { subscription, hops, ..Self::new(event, format, headers::passing(&all)) })
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

    /// What a record is to who reads it out of memory, once it is seen that decoding says the same.
    fn at_hand(record: Record) -> Option<Arc<Record>> {
        let Kept { payload, decoded, .. } = record.into_kept();
        let record: Arc<Record> = decoded?.get().expect("a record");
        assert_eq!(*record, Record::decode(payload).expect("a record"));
        Some(record)
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
    fn a_record_at_hand_is_what_decoding_makes_of_it_and_keeps_nothing_of_its_message() {
        let head = Bytes::from(vec![b'a'; 100]);
        let beside = HeaderValue::from_maybe_shared(head.clone()).expect("a value");
        let headers: HeaderMap = [(HeaderName::from_static("knative-a"), beside)].into_iter().collect();
        let body = Bytes::from(vec![b'x'; 1000]);
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set_data("text/plain", body.clone()).expect("a content type");
        // What a broker adds is a number until it is written.
        event.set("knativebrokerttl", 255).expect("an extension");
        let record = at_hand(Record { hops: 3, ..Record::new(event, Format::Binary, headers) }).expect("known");
        assert!(head.is_unique() && body.is_unique());
        assert_eq!(record.event.extension("knativebrokerttl"), Some(&Value::from("255")));
        let body = Bytes::from(format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","n":5,"data":[{}1]}}"#,
            "1,".repeat(500)
        ));
        let event = json::read(&body).expect("an event");
        let record = at_hand(Record::new(event, Format::Json, HeaderMap::new())).expect("known");
        assert!(body.is_unique() && record.event.extension("n") == Some(&Value::Integer(5)));
    }

    #[test]
    fn all_are_sent_the_same_and_a_copy_that_was_changed_is_sent_as_it_is() {
        let beside = [(HeaderName::from_static("traceparent"), HeaderValue::from_static("of-event"))];
        let mut event = binary(b"{}");
        event.set(knative::TTL, 7).expect("an extension");
        let record = Record::new(event, Format::Binary, beside.into_iter().collect());
        let sent: Vec<_> = (0..2).map(|_| record.outgoing(Format::Binary)).collect();
        assert_eq!(sent[0], sent[1]);
        let (headers, body) = &sent[0];
        assert_eq!(
            (&headers["ce-id"], &headers["traceparent"], &body[..]),
            (&HeaderValue::from_static("1"), &HeaderValue::from_static("of-event"), &b"{}"[..])
        );
        assert!(!headers.contains_key("ce-knativebrokerttl"), "nobody is told how many hops are left");
        record.forget_outgoing();
        assert_eq!(record.outgoing(Format::Binary), sent[0]);
        let (headers, _) = record.outgoing(Format::Json);
        assert_eq!(Mode::of(&headers), Some(Mode::Structured));
        let mut letter = record.clone();
        letter.event.set("knativeerrorcode", 500).expect("an extension");
        assert_eq!(letter.outgoing(Format::Binary).0["ce-knativeerrorcode"], "500");
    }

    #[test]
    fn what_is_kept_in_another_form_than_it_came_in_is_decoded() {
        let mut event = Event::new("1", "/s", "t").expect("an event");
        event.set("long", "x".repeat(60_000)).expect("an extension");
        let kept = Record::new(event, Format::Binary, HeaderMap::new()).into_kept();
        assert!(kept.decoded.is_none() && kept.record.format == Format::Binary);
        assert_eq!(Record::decode(kept.payload).expect("a record").format, Format::Json);
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
            let record = Record::new(event.clone(), format, HeaderMap::new());
            let kept = there_and_back(&record);
            prop_assert!(at_hand(record).is_some() || is_json);
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
