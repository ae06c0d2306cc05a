//! What the log is to be told of a worker's progress: kept until the log has it, also where it refuses it for a while.

use std::collections::{BTreeMap, BTreeSet};

use knoll_journal::events::{CursorId, Ranges, StreamId, Write, WriteError, Written};

/// See the module. What is said of one cursor again and again takes the room of what it comes to.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    settled: BTreeMap<CursorId, Ranges>,
    attempts: BTreeMap<(CursorId, u64), u32>,
    cursors_gone: BTreeSet<CursorId>,
    streams_gone: BTreeSet<StreamId>,
    has_news: bool,
}

impl Untold {
    /// These are done with. How often they were tried says nothing any more.
    pub(crate) fn settle(&mut self, cursor: CursorId, first: u64, last: u64) {
        self.has_news = true;
        self.settled.entry(cursor).or_default().insert(first, last);
        let tried: Vec<_> = self.attempts.range((cursor, first)..=(cursor, last)).map(|(tried, _)| *tried).collect();
        for tried in tried {
            self.attempts.remove(&tried);
        }
    }

    /// This was tried so often.
    pub(crate) fn attempted(&mut self, cursor: CursorId, offset: u64, attempts: u32) {
        self.has_news = true;
        let most = self.attempts.entry((cursor, offset)).or_default();
        *most = attempts.max(*most);
    }

    /// A cursor is to go, and with it what was to be said of it.
    pub(crate) fn delete_cursor(&mut self, cursor: CursorId) {
        self.has_news = true;
        self.settled.remove(&cursor);
        self.attempts.retain(|(of, _), _| *of != cursor);
        self.cursors_gone.insert(cursor);
    }

    /// A stream is to go.
    pub(crate) fn delete_stream(&mut self, stream: StreamId) {
        self.has_news = true;
        self.streams_gone.insert(stream);
    }

    /// Whether a cursor is to go, and the log has not been told yet.
    pub(crate) fn deletes(&self, cursor: CursorId) -> bool {
        self.cursors_gone.contains(&cursor)
    }

    /// The same of a stream.
    pub(crate) fn deletes_stream(&self, stream: StreamId) -> bool {
        self.streams_gone.contains(&stream)
    }

    /// Whether there is something that the log was not asked to take yet.
    pub(crate) fn has_news(&self) -> bool {
        self.has_news
    }

    /// What is to be told, once.
    pub(crate) fn take(&mut self) -> Vec<Write> {
        let Self { settled, attempts, cursors_gone, streams_gone, .. } = std::mem::take(self);
        let tried = |((cursor, offset), attempts)| Write::Attempted { cursor, offset, attempts };
        let done = |(cursor, ranges): (CursorId, Ranges)| Write::Settle { cursor, ranges: ranges.iter().collect() };
        let mut writes: Vec<Write> = attempts.into_iter().map(tried).collect();
        writes.extend(settled.into_iter().map(done));
        writes.extend(cursors_gone.into_iter().map(Write::DeleteCursor));
        writes.extend(streams_gone.into_iter().map(Write::DeleteStream));
        writes
    }

    /// Keeps what the log refused of what it was told. The last refusal, if there is one.
    pub(crate) fn keep_refused(
        &mut self,
        told: Vec<Write>,
        outcomes: Vec<Result<Written, WriteError>>,
    ) -> Option<WriteError> {
        let (mut refusal, has_news) = (None, self.has_news);
        for (write, outcome) in told.into_iter().zip(outcomes) {
            match outcome {
                // What is deleted has no progress.
                Ok(_) | Err(WriteError::NoCursor | WriteError::NoStream) => {}
                // What never was cannot be done with, however often it is said.
                Err(error @ WriteError::OutOfStream { .. }) => refusal = Some(error),
                Err(error) => {
                    refusal = Some(error);
                    self.keep(write);
                }
            }
        }
        self.has_news = has_news;
        refusal
    }

    fn keep(&mut self, write: Write) {
        match write {
            Write::Settle { cursor, ranges } if !self.cursors_gone.contains(&cursor) => {
                ranges.into_iter().for_each(|(first, last)| self.settle(cursor, first, last));
            }
            Write::Attempted { cursor, offset, attempts } => {
                let is_settled = self.settled.get(&cursor).is_some_and(|settled| settled.around(offset).is_some());
                if !is_settled && !self.cursors_gone.contains(&cursor) {
                    self.attempted(cursor, offset, attempts);
                }
            }
            Write::DeleteCursor(cursor) => self.delete_cursor(cursor),
            Write::DeleteStream(stream) => self.delete_stream(stream),
            Write::Settle { .. } | Write::Append { .. } | Write::CreateStream { .. } | Write::CreateCursor { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::lane::tests::place;

    fn full(writes: &[Write]) -> Vec<Result<Written, WriteError>> {
        writes.iter().map(|_| Err(WriteError::Full)).collect()
    }

    #[test]
    fn what_is_refused_is_told_again_in_the_room_of_what_it_comes_to() {
        let ((stream, cursor), mut untold) = (place(), Untold::default());
        for offset in 0..1000 {
            untold.attempted(cursor, offset, 1);
            untold.settle(cursor, offset, offset);
            untold.attempted(cursor, 5000, u32::try_from(offset).expect("small"));
            let writes = untold.take();
            assert_eq!(untold.keep_refused(writes.clone(), full(&writes)), Some(WriteError::Full));
        }
        assert!(!untold.has_news(), "nothing new");
        untold.delete_stream(stream);
        let [
            Write::Attempted { offset: 5000, attempts: 999, .. },
            Write::Settle { ranges, .. },
            Write::DeleteStream(_),
        ] = &untold.take()[..]
        else {
            panic!("something else")
        };
        assert_eq!(ranges[..], [(0, 999)]);
    }

    #[test]
    fn what_the_log_has_and_what_is_gone_is_not_told_again() {
        let ((stream, cursor), mut untold) = (place(), Untold::default());
        untold.settle(cursor, 1, 2);
        untold.delete_stream(stream);
        let writes = untold.take();
        assert_eq!(untold.keep_refused(writes, vec![Ok(Written::Done), Err(WriteError::NoStream)]), None);
        assert!(untold.take().is_empty());
        untold.settle(cursor, 3, 3);
        let writes = untold.take();
        untold.delete_cursor(cursor);
        untold.keep_refused(writes.clone(), full(&writes));
        assert!(untold.deletes(cursor), "its progress is not");
        assert_eq!(untold.take().len(), 1);
    }
}
