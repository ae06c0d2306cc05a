//! Bodies of requests and responses.

use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};

use crate::status::Status;

/// What a body's transport may fail with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request or response body: whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Most bytes of a request body that are read; more is answered with 413.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// How long a client may take to send a body.
const SENDING: Duration = Duration::from_secs(60);

/// A body without bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that ends when `stream` ends; each item is flushed on its own.
pub fn stream<S>(stream: S) -> Body
where
    S: Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
{
    use futures_util::StreamExt as _;
    StreamBody::new(stream.map(|item| item.map(Frame::data))).boxed_unsync()
}

/// Any other body, boxed.
pub fn wrap<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// The whole of `body`.
///
/// # Errors
/// 413 beyond [`LIMIT`]; 400 when the transport fails, 504 when it takes too long.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    tokio::time::timeout(SENDING, collect(body)).await.unwrap_or_else(|_| Err(Status::overdue()))
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut whole = Vec::new();
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("reading the request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + whole.len() + data.len() > LIMIT {
            return Err(Status::too_large(&format!("limit is {LIMIT}")));
        }
        if first.is_empty() && whole.is_empty() {
            // Most bodies are one piece, which need not be copied.
            first = data;
            continue;
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&data);
    }
    if whole.is_empty() { Ok(first) } else { Ok(whole.into()) }
}
