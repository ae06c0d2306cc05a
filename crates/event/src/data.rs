//! The payload of an event: bytes as the body of a message in binary mode has them.

use bytes::Bytes;

/// Data, shared with the message it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    bytes: Bytes,
    form: Form,
}

/// How it came, which decides how JSON holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As a body, or as a string of JSON that stood for one.
    Plain,
    /// As a value of JSON: the bytes are one.
    Json,
    /// As base64 in JSON: bytes to which JSON does no justice.
    Binary,
}

impl Data {
    pub(crate) const fn new(bytes: Bytes, form: Form) -> Self {
        Self { bytes, form }
    }

    /// What a body in binary mode holds.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) const fn form(&self) -> Form {
        self.form
    }
}
