//! What a request may come to instead of an answer.

use std::fmt;

use http::StatusCode;
use serde::Deserialize;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a request came to.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no answer: said with all its causes, and without a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, and says why.
    #[error("{0}")]
    Api(Box<Status>),
    /// The server was not reached, or the exchange broke.
    #[error("ask the API server: {}", knoll_faults::chain(&**.0))]
    Service(BoxError),
    /// What was to be asked makes no request.
    #[error("make a request: {0}")]
    Request(http::Error),
    /// The answer is not what was asked for.
    #[error("read the API server's answer: {0}")]
    Answer(serde_json::Error),
}

/// A refusal, as far as somebody reads it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Status {
    /// HTTP status; 0 when the server does not say.
    pub code: u16,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// What it is about.
    pub details: Option<Details>,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Details {
    /// Name of the object; empty where it is about none.
    pub name: String,
    /// What each part of it is about.
    pub causes: Vec<Cause>,
}

/// A part of a refusal.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Cause {
    /// One word.
    pub reason: String,
}

impl Status {
    /// Reads the body of a refusal. What stands between may answer in its own words.
    pub(crate) fn read(body: &[u8], code: StatusCode) -> Status {
        serde_json::from_slice(body).unwrap_or_else(|_| Status {
            code: code.as_u16(),
            reason: "Failed to parse error data".to_owned(),
            message: String::from_utf8_lossy(body).trim().to_owned(),
            details: None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { reason, message, .. } = self;
        if reason.is_empty() { f.write_str(message) } else { write!(f, "{reason}: {message}") }
    }
}
