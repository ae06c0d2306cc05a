//! How many bytes of events somebody waits for, of several streams together.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Bytes of events, as they stand in the log, for which a cursor without a parent waits, of the streams that
/// [`EventReader::tally`](super::EventReader::tally) counts with it. Kept up with each write at the cost of a look-up among
/// the places of the stream's events, and right after a start. Of a place that holds several events of which some are
/// settled, it takes all to be of one size; what is awaited whole, or settled whole, counts exactly.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: AtomicU64,
    all: Option<Arc<Tally>>,
}

impl Tally {
    /// One that is a part of another.
    pub fn within(all: &Arc<Tally>) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), all: Some(all.clone()) })
    }

    /// Counts so many bytes, such as those of events that are about to be written, until what this returns is dropped.
    pub fn count(self: &Arc<Self>, bytes: u64) -> Counts {
        let mut counts = Counts::new(self.clone());
        counts.set(bytes);
        counts
    }

    /// How many they are.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn change(&self, before: u64, now: u64) {
        // More first, so that it is never less than nothing.
        self.bytes.fetch_add(now, Relaxed);
        self.bytes.fetch_sub(before, Relaxed);
        if let Some(all) = &self.all {
            all.change(before, now);
        }
    }
}

/// What counts with a tally, until this is dropped.
#[derive(Debug)]
pub struct Counts {
    with: Arc<Tally>,
    bytes: u64,
}

impl Counts {
    pub(super) fn new(with: Arc<Tally>) -> Self {
        Self { with, bytes: 0 }
    }

    pub(super) fn set(&mut self, bytes: u64) {
        if bytes != self.bytes {
            self.with.change(std::mem::replace(&mut self.bytes, bytes), bytes);
        }
    }

    pub(super) fn is_with(&self, tally: &Arc<Tally>) -> bool {
        Arc::ptr_eq(&self.with, tally)
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        MemoryDisk,
        events::{CursorId, EventLog, EventOptions, Retention, StreamId, Write, Written},
    };

    #[derive(Clone, Debug)]
    enum Step {
        Append { stream: usize, bytes: usize, count: usize },
        Settle { stream: usize, cursor: usize, first: u64, count: u64 },
        AddCursor { stream: usize, start: u64 },
        RemoveCursor { stream: usize, cursor: usize },
        RemoveStream { stream: usize },
        Tidy { late: bool },
        Reopen { power_cut: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let stream = || 0..2_usize;
        prop_oneof![
            6 => (stream(), 0..300_usize, 1..5_usize)
                .prop_map(|(stream, bytes, count)| Step::Append { stream, bytes, count }),
            6 => (stream(), 0..3_usize, 0..40_u64, 1..20_u64)
                .prop_map(|(stream, cursor, first, count)| Step::Settle { stream, cursor, first, count }),
            1 => (stream(), 0..40_u64).prop_map(|(stream, start)| Step::AddCursor { stream, start }),
            1 => (stream(), 0..3_usize).prop_map(|(stream, cursor)| Step::RemoveCursor { stream, cursor }),
            1 => stream().prop_map(|stream| Step::RemoveStream { stream }),
            4 => any::<bool>().prop_map(|late| Step::Tidy { late }),
            1 => any::<bool>().prop_map(|power_cut| Step::Reopen { power_cut }),
        ]
    }

    fn options() -> EventOptions {
        EventOptions {
            segment_bytes: 1500,
            budget_bytes: 1 << 20,
            reserve_bytes: 0,
            retention: Retention { age_ms: 1000, bytes: 1 << 20 },
            run: b"run".to_vec(),
            ..EventOptions::default()
        }
    }

    struct Bench {
        disk: MemoryDisk,
        log: Option<EventLog>,
        all: Arc<Tally>,
        tallies: [Arc<Tally>; 2],
    }

    impl Bench {
        fn new() -> Self {
            let all = Arc::<Tally>::default();
            let tallies = [Tally::within(&all), Tally::within(&all)];
            let mut bench = Self { disk: MemoryDisk::default(), log: None, all, tallies };
            bench.open();
            bench
        }

        fn open(&mut self) {
            let (log, _) = EventLog::open(Arc::new(self.disk.clone()), options()).expect("opens");
            self.log = Some(log);
            for number in 0..2 {
                self.stream(number);
            }
        }

        fn log(&mut self) -> &mut EventLog {
            self.log.as_mut().expect("it is open")
        }

        fn write(&mut self, write: Write) -> Option<Written> {
            self.log().write(&[write]).remove(0).ok()
        }

        fn stream(&mut self, number: usize) -> StreamId {
            let name = Bytes::from(format!("stream-{number}"));
            let Some(Written::Stream(id)) = self.write(Write::CreateStream { name }) else { panic!("no stream") };
            let tally = self.tallies[number].clone();
            self.log().reader().tally(id, &tally);
            id
        }

        fn cursor(&mut self, stream: StreamId, number: usize) -> Option<CursorId> {
            self.log().reader().cursors(stream).get(number).map(|(cursor, _)| *cursor)
        }

        fn take(&mut self, step: Step) {
            match step {
                Step::Append { stream, bytes, count } => {
                    let (stream, payload) = (self.stream(stream), Bytes::from(vec![7; bytes]));
                    let event = Write::Append { stream, time: 1, key: Bytes::new(), payload, decoded: None };
                    self.log().write(&vec![event; count]);
                    self.log().sync().expect("syncs");
                }
                Step::Settle { stream, cursor, first, count } => {
                    let stream = self.stream(stream);
                    if let Some(cursor) = self.cursor(stream, cursor) {
                        self.write(Write::Settle { cursor, ranges: vec![(first, first + count - 1)] });
                    }
                }
                Step::AddCursor { stream, start } => {
                    let (stream, name) = (self.stream(stream), Bytes::from(format!("cursor-{start}")));
                    self.write(Write::CreateCursor { stream, name, parent: None, start: Some(start) });
                }
                Step::RemoveCursor { stream, cursor } => {
                    let stream = self.stream(stream);
                    if let Some(cursor) = self.cursor(stream, cursor) {
                        self.write(Write::DeleteCursor(cursor));
                    }
                }
                Step::RemoveStream { stream } => {
                    let stream = self.stream(stream);
                    self.write(Write::DeleteStream(stream));
                }
                Step::Tidy { late } => drop(self.log().tidy(if late { 5000 } else { 1 }).expect("tidies")),
                Step::Reopen { power_cut } => {
                    self.log = None;
                    if power_cut {
                        self.disk = self.disk.after_power_cut();
                    }
                    self.open();
                }
            }
        }

        /// What is awaited of each stream, looked up run by run, as when segments are chosen that may go.
        fn looked_up(&mut self) -> [u64; 2] {
            let streams = [self.stream(0), self.stream(1)];
            let catalog = self.log().shared.read();
            streams.map(|id| {
                let awaited = catalog.awaited(&catalog.streams[&id]);
                let runs = catalog.streams[&id].index.runs().iter();
                runs.map(|run| run.share(awaited.count(run.first, run.last))).sum()
            })
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn what_is_counted_as_it_comes_and_goes_is_what_a_look_at_everything_finds(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut bench = Bench::new();
            for step in steps {
                bench.take(step.clone());
                let expected = bench.looked_up();
                let counted = [bench.tallies[0].bytes(), bench.tallies[1].bytes()];
                prop_assert_eq!(counted, expected, "after {:?}", step);
                prop_assert_eq!(bench.all.bytes(), counted.iter().sum::<u64>());
            }
            drop(bench.log.take());
            prop_assert_eq!(bench.all.bytes(), 0, "what is closed counts for nothing");
        }
    }

    #[test]
    fn what_waits_whole_counts_as_it_stands_in_the_log_and_nothing_once_it_is_settled() {
        let mut bench = Bench::new();
        let stream = bench.stream(0);
        bench.take(Step::AddCursor { stream: 0, start: 0 });
        bench.take(Step::Append { stream: 0, bytes: 100, count: 10 });
        let bytes = bench.tallies[0].bytes();
        assert!((1000..1400).contains(&bytes), "{bytes}");
        bench.take(Step::Reopen { power_cut: false });
        assert_eq!(bench.tallies[0].bytes(), bytes, "it is right from the log alone");
        let cursor = bench.cursor(stream, 0).expect("there");
        bench.write(Write::Settle { cursor, ranges: vec![(0, 4)] });
        assert_eq!(bench.tallies[0].bytes(), bytes / 2);
        bench.write(Write::Settle { cursor, ranges: vec![(5, 9)] });
        assert_eq!(bench.tallies[0].bytes(), 0);
    }
}
