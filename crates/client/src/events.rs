//! The events of a watch, as they come: one JSON object a line.

use std::{fmt, io};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use crate::{
    api::Body,
    error::{Error, Result, Status},
    slim::Slim,
    watch::revision_of,
};

/// What happened.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// An object is new.
    Added(Value),
    /// An object is different.
    Modified(Value),
    /// An object is gone; its last state.
    Deleted(Value),
    /// Nothing, up to this revision.
    Bookmark(String),
    /// The watch cannot go on.
    Error(Status),
}

/// The events of a body.
pub(crate) struct Events {
    /// `None` once it ended.
    body: Option<Body>,
    /// What came of a line that is not complete, or of lines that were not asked for yet.
    rest: BytesMut,
    /// Bytes of it in which no line ends.
    searched: usize,
    /// Whether objects come without the record of who manages which field.
    slim: bool,
}

impl Events {
    pub(crate) fn new(body: Body, slim: bool) -> Events {
        Events { body: Some(body), rest: BytesMut::new(), searched: 0, slim }
    }

    /// The next event; `None` when the server ended the watch, or it was cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            while let Some(line) = self.line() {
                if !line.trim_ascii().is_empty() {
                    return read(&line, self.slim).map(Some);
                }
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) if !is_cut_off(&*error) => {
                    self.body = None;
                    return Err(Error::Service(error));
                }
                end => {
                    if let Some(Err(error)) = end {
                        tracing::warn!(error = knoll_faults::chain(&*error), "a watch was cut off");
                    }
                    self.body = None;
                    return self.last();
                }
            }
        }
    }

    /// The next whole line. Between lines nothing is held: most watches are quiet for long.
    fn line(&mut self) -> Option<BytesMut> {
        match self.rest[self.searched..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let line = self.rest.split_to(self.searched + at + 1);
                self.searched = 0;
                Some(line)
            }
            None => {
                if self.rest.is_empty() {
                    self.rest = BytesMut::new();
                }
                self.searched = self.rest.len();
                None
            }
        }
    }

    /// The event of a last line without an end; none where it is not complete.
    fn last(&mut self) -> Result<Option<Event>> {
        self.searched = 0;
        match read(&std::mem::take(&mut self.rest), self.slim) {
            Err(Error::Answer(error)) if error.is_eof() => Ok(None),
            event => event.map(Some),
        }
    }
}

/// Whether the other end went away without a word, as it does with what lies between.
fn is_cut_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
    })
}

fn read(line: &[u8], slim: bool) -> Result<Event> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let read = Line { slim }.deserialize(&mut reader).and_then(|(kind, object)| {
        reader.end()?;
        Ok(match kind.as_str() {
            "ADDED" => Event::Added(object),
            "MODIFIED" => Event::Modified(object),
            "DELETED" => Event::Deleted(object),
            "BOOKMARK" if revision_of(&object).is_empty() => {
                return Err(serde_json::Error::custom("a bookmark without a revision"));
            }
            "BOOKMARK" => Event::Bookmark(revision_of(&object).to_owned()),
            "ERROR" => Event::Error(status(object.to_string().as_bytes())?),
            // Some answer with a bare refusal.
            "" => Event::Error(status(line)?),
            other => return Err(serde_json::Error::custom(format!("{other:?} is no event of a watch"))),
        })
    });
    read.map_err(Error::Answer)
}

fn status(text: &[u8]) -> serde_json::Result<Status> {
    serde_json::from_slice(text)
}

/// A line: what happened, and to what.
struct Line {
    slim: bool,
}

impl<'de> DeserializeSeed<'de> for Line {
    type Value = (String, Value);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Line {
    type Value = (String, Value);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of a watch")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> std::result::Result<Self::Value, A::Error> {
        let (mut kind, mut object) = (String::new(), Value::Null);
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "type" => kind = fields.next_value()?,
                "object" if self.slim => object = fields.next_value::<Slim>()?.0,
                "object" => object = fields.next_value()?,
                _ => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok((kind, object))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use serde_json::json;

    use super::*;
    use crate::error::BoxError;

    /// A body of these pieces.
    fn body(pieces: Vec<std::result::Result<Vec<u8>, BoxError>>) -> Body {
        StreamBody::new(stream::iter(pieces.into_iter().map(|piece| piece.map(|p| Frame::data(Bytes::from(p))))))
            .boxed_unsync()
    }

    async fn all(mut events: Events) -> (Vec<Event>, Option<Error>) {
        let mut seen = Vec::new();
        loop {
            match events.next().await {
                Ok(Some(event)) => seen.push(event),
                Ok(None) => return (seen, None),
                Err(error) => return (seen, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_read_however_they_are_cut() {
        let object = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "7", "managedFields": [1]}});
        let text = [
            json!({"type": "ADDED", "object": object("a")}).to_string(),
            String::new(),
            format!(r#"{{"object": {}, "type": "MODIFIED"}}"#, object("b")),
            json!({"type": "BOOKMARK", "object": object("")}).to_string(),
            json!({"type": "ERROR", "object": {"code": 410, "message": "old"}}).to_string(),
            json!({"type": "DELETED", "object": object("c")}).to_string(),
        ]
        .join("\r\n");
        let slim = |name: &str| json!({"metadata": {"name": name, "resourceVersion": "7"}});
        let gone = Status { code: 410, message: "old".to_owned(), ..Status::default() };
        let wanted = [
            Event::Added(slim("a")),
            Event::Modified(slim("b")),
            Event::Bookmark("7".to_owned()),
            Event::Error(gone),
            Event::Deleted(slim("c")),
        ];
        for size in [1, 7, text.len()] {
            let pieces = text.as_bytes().chunks(size).map(|piece| Ok(piece.to_vec())).collect();
            let (seen, error) = all(Events::new(body(pieces), true)).await;
            assert_eq!(seen, wanted, "in pieces of {size}");
            assert!(error.is_none());
        }
        let (seen, _) = all(Events::new(body(vec![Ok(text.into_bytes())]), false)).await;
        assert_eq!(seen[0], Event::Added(object("a")), "objects come whole");
    }

    #[tokio::test]
    async fn a_watch_that_is_cut_off_ends_and_one_that_breaks_fails() {
        let first = || {
            Ok(br#"{"type": "ADDED", "object": {}}
            {"type": "ADDED", "obj"#
                .to_vec())
        };
        let cut = || Err(io::Error::new(io::ErrorKind::UnexpectedEof, "gone").into());
        let (seen, error) = all(Events::new(body(vec![first(), cut()]), true)).await;
        assert!(seen.len() == 1 && error.is_none(), "{error:?}");
        let broken = Err(io::Error::other("nonsense").into());
        let (seen, error) = all(Events::new(body(vec![first(), broken]), true)).await;
        assert!(seen.len() == 1 && matches!(error, Some(Error::Service(_))), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_no_event_is_told() {
        let of = async |line: &str| all(Events::new(body(vec![Ok(format!("{line}\n").into_bytes())]), true)).await;
        for line in
            [r#"{"type": "ODD", "object": {}}"#, r#"{"type": "BOOKMARK", "object": {}}"#, "junk", r#"{"type": "#]
        {
            let (seen, error) = of(line).await;
            assert!(seen.is_empty() && matches!(error, Some(Error::Answer(_))), "{line}: {error:?}");
        }
        let (seen, _) = of(r#"{"kind": "Status", "code": 500, "reason": "InternalError"}"#).await;
        assert_eq!(seen, [Event::Error(Status { code: 500, reason: "InternalError".to_owned(), ..Status::default() })]);
    }

    #[tokio::test]
    async fn a_quiet_watch_holds_nothing() {
        let line = format!("{}\n", json!({"type": "ADDED", "object": {"long": "x".repeat(100_000)}}));
        let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(line)))]);
        let quiet = StreamBody::new(first.chain(stream::pending())).map_err(|never| match never {}).boxed_unsync();
        let mut events = Events::new(quiet, true);
        assert!(events.next().await.expect("an event").is_some());
        assert!(events.next().now_or_never().is_none());
        assert_eq!(events.rest.capacity(), 0);
    }
}
