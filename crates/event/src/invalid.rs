//! What is wrong with an event, and what to do about it.

use crate::limits;

/// An attribute that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute {name:?} {fault}")]
pub struct Invalid {
    /// The attribute; of a name that is too long, its beginning.
    pub name: Box<str>,
    /// The rule it breaks.
    pub fault: Fault,
}

impl Invalid {
    pub(crate) fn new(name: &str, fault: Fault) -> Self {
        let end = name.floor_char_boundary(limits::LONGEST_NAME.min(name.len()));
        Self { name: name[..end].into(), fault }
    }
}

/// A rule that an attribute breaks, with what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Required, and not there.
    #[error("is missing: every event has one")]
    Missing,
    /// Of no character but white space.
    #[error("is empty: give it a value")]
    Empty,
    /// Several values.
    #[error("is given twice: send it once")]
    Twice,
    /// Signs other than letters and digits in a name, or a capital in a name of the specification.
    #[error("has a name that is none: names consist of a to z and 0 to 9")]
    Name,
    /// Beyond [`limits::LONGEST_NAME`].
    #[error("has a name of more than {} bytes: shorten it", limits::LONGEST_NAME)]
    LongName,
    /// The one name that is no attribute's.
    #[error("has a name that the specification reserves: data travels in the body")]
    Reserved,
    /// Beyond [`limits::LONGEST_VALUE`].
    #[error("has more than {} bytes: move it into data", limits::LONGEST_VALUE)]
    LongValue,
    /// Beyond [`limits::MOST_EXTENSIONS`].
    #[error("is one extension too many, at most {} are taken: move some into data", limits::MOST_EXTENSIONS)]
    TooMany,
    /// Control characters, noncharacters, halves of surrogate pairs.
    #[error("holds a control character, a noncharacter or half of a surrogate pair: leave it out")]
    Characters,
    /// A number, a boolean or a structure where the specification asks for a string.
    #[error("is no string: put it in quotes")]
    NotString,
    /// An array or an object.
    #[error("is an array or an object: attributes are strings, integers or booleans, structure belongs in data")]
    Structure,
    /// A number that is no whole one of 32 bits.
    #[error("is no integer of 32 bits: send it as a string")]
    NotInteger,
    /// Not RFC 3339, or no such day.
    #[error("is no time of RFC 3339: send one like 2023-06-30T07:45:22Z")]
    Time,
    /// Not RFC 3986.
    #[error("is no URI reference of RFC 3986: {0}")]
    UriReference(&'static str),
    /// A reference where an absolute URI is asked for.
    #[error("is no absolute URI: begin it with a scheme, like https://example.com/schema")]
    Relative,
    /// Not RFC 2046.
    #[error("is no media type: send one like application/json")]
    MediaType,
    /// Another version of the specification.
    #[error("is not a version that is known: send 1.0 or 0.3")]
    Version,
    /// Several versions in one batch.
    #[error("differs from that of the event before it: batch events of one version")]
    MixedVersions,
    /// An attempt to change what cannot be.
    #[error("is set for good when the event is made")]
    Fixed,
    /// A header whose bytes are no UTF-8.
    #[error("is no UTF-8: encode its characters as UTF-8, and percent-encode that")]
    Utf8,
    /// 0.3's `datacontentencoding`.
    #[error("knows one value: send base64 or leave it out")]
    ContentEncoding,
    /// `ce-datacontenttype`.
    #[error("must not be a header of its own: binary mode says it in Content-Type")]
    ContentTypeTwice,
}

/// Why a message is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing says that it is one.
    #[error(
        "no CloudEvent: send the header ce-specversion, or Content-Type application/cloudevents+json with the event as body"
    )]
    NoEvent,
    /// Several, where one is taken.
    #[error("a batch of events: send them one by one")]
    Batch,
    /// The body is no JSON of the form that its content type says.
    #[error("no JSON event at byte {at}: {problem}")]
    Json {
        /// Bytes before the mistake.
        at: usize,
        /// The mistake.
        problem: &'static str,
    },
    /// An attribute breaks a rule.
    #[error(transparent)]
    Attribute(#[from] Invalid),
    /// `data` or `data_base64` is not what it has to be.
    #[error("the event's data {0}")]
    Data(DataFault),
    /// One event of a batch.
    #[error("event {index} of the batch: {error}")]
    Batched {
        /// Events before it.
        index: usize,
        /// What is wrong with it.
        error: Box<ReadError>,
    },
    /// Beyond [`limits::MOST_BATCHED`] or [`limits::MOST_BATCHED_ATTRIBUTES`].
    #[error(
        "a batch of more than {} events or {} attributes: send smaller ones",
        limits::MOST_BATCHED,
        limits::MOST_BATCHED_ATTRIBUTES
    )]
    LargeBatch,
}

/// What is wrong with data in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataFault {
    /// Both members.
    #[error("is there twice: send data or data_base64, once")]
    Twice,
    /// Another JSON value where the content type asks for text.
    #[error("is no string, and datacontenttype says that it is not JSON: send a string, or data_base64")]
    NotString,
    /// Not base64 of RFC 4648.
    #[error("is no base64: encode it by RFC 4648, with padding")]
    Base64,
    /// `data_base64` in 0.3.
    #[error("is in data_base64, which 0.3 does not know: send datacontentencoding base64 and data")]
    Member,
}
