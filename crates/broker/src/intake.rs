//! Taking an event: what a broker adds to it, and the wait until it is kept. The one way in, for senders, replies and
//! deliveries from one broker or channel to another.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use knoll_event::{Event, Invalid, Value, knative};
use knoll_journal::events::{Durability, StreamId, SubmitError, Write, WriteError};

use crate::{
    Log,
    budget::{From, NoRoom},
    metrics::Metrics,
    record::{Kept, Record},
    topology::{Addressable, Kind},
};

/// How long a broker or channel that was just made is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It came back too often.
    #[error(transparent)]
    OutOfHops(#[from] knative::OutOfHops),
    /// It went from one broker or channel to another too often.
    #[error("it went through {0} brokers and channels: they deliver to each other in a loop")]
    Loop(u16),
    /// What a broker adds finds no room.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It is longer than the log takes.
    #[error(transparent)]
    TooLarge(WriteError),
    /// There is no room in the log. It may be sent again later.
    #[error("{0}: send it again later")]
    NoRoom(NoRoom),
    /// There is no time. It may be sent again later.
    #[error("{0}: send it again later")]
    Unavailable(String),
}

impl Refused {
    /// What whoever sends it is answered.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::OutOfHops(_) | Self::Loop(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRoom(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Is told of each event that was taken, replies among them, and by which broker or channel. It must not wait for anything.
pub type Taken = Arc<dyn Fn(&Addressable, &Event) + Send + Sync>;

/// Takes events.
#[derive(Clone)]
pub(crate) struct Intake {
    pub(crate) log: Log,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) max_hops: i32,
    pub(crate) taken: Option<Taken>,
}

impl Intake {
    /// Takes these events, and returns once all are on disk. Where it fails for want of room, some may have been taken.
    pub(crate) async fn take(&self, into: &Addressable, mut events: Vec<Record>, from: From) -> Result<(), Refused> {
        let now = Timestamp::now();
        let arrival = knative::arrival_time(now);
        for event in &mut events {
            self.prepare(into, event, &arrival)?;
        }
        let time = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let room = |bytes| self.log.room(&into.name().namespace, from, bytes, time).map_err(|full| self.no_room(full));
        drop(room(0)?);
        let Some(stream) = self.log.registered_within(into.uid(), PATIENCE).await else {
            return Err(Refused::Unavailable(format!("the {} is being set up", into.name().kind.as_str())));
        };
        let count = events.len() as u64;
        let (writes, records) = self.writes(events, stream, time);
        let _room = room(writes.iter().map(length).sum())?;
        let outcomes = match from {
            From::Sender => self.log.try_write(writes, Durability::Synced).await,
            From::Forward | From::Delivery => self.log.write(writes, Durability::Synced).await,
        };
        for outcome in outcomes? {
            if matches!(outcome, Err(WriteError::Budget { .. } | WriteError::Full)) {
                self.log.make_room(time);
            }
            outcome?;
        }
        self.metrics.accepted.add(count);
        if let Some(taken) = &self.taken {
            let told = knoll_faults::catch(|| records.iter().for_each(|record| taken(into, &record.event)));
            if let Err(panic) = told {
                self.metrics.panics.count();
                tracing::error!(panic, "told of an event that was taken, somebody panicked");
            }
        }
        Ok(())
    }

    /// What is to be written, and the records where somebody is told of them.
    //
    // One by itself goes on to who delivers it as it is. Those of a batch are written into one piece of memory that nobody
    // keeps, and are decoded by who delivers them, which is little beside a request for each.
    fn writes(&self, mut records: Vec<Record>, stream: StreamId, time: u64) -> (Vec<Write>, Vec<Arc<Record>>) {
        if records.len() == 1 {
            let record = records.remove(0);
            let key = record.key();
            let Kept { payload, record, decoded } = record.into_kept();
            let write = Write::Append { stream, time, key, payload, decoded };
            return (vec![write], self.taken.is_some().then_some(record).into_iter().collect());
        }
        let mut all = Vec::with_capacity(records.iter().map(Record::length).sum());
        let ends: Vec<usize> = records.iter().map(|record| record.written_to(&mut all)).collect();
        let (all, mut begin) = (Bytes::from(all), 0);
        let write = |(record, end): (&Record, usize)| {
            let payload = all.slice(std::mem::replace(&mut begin, end)..end);
            Write::Append { stream, time, key: record.key(), payload, decoded: None }
        };
        let writes = records.iter().zip(ends).map(write).collect();
        (writes, if self.taken.is_some() { records.into_iter().map(Arc::new).collect() } else { Vec::new() })
    }

    fn no_room(&self, no_room: NoRoom) -> Refused {
        if matches!(no_room, NoRoom::Namespace { .. }) {
            self.metrics.over_part.count();
        }
        Refused::NoRoom(no_room)
    }

    /// What a broker adds; a channel changes nothing.
    fn prepare(&self, into: &Addressable, record: &mut Record, arrival: &Value) -> Result<(), Refused> {
        if i32::from(record.hops) > self.max_hops {
            self.metrics.out_of_hops.count();
            return Err(Refused::Loop(record.hops));
        }
        if into.name().kind == Kind::Broker {
            knative::take_hop(&mut record.event, self.max_hops).inspect_err(|_| self.metrics.out_of_hops.count())?;
            knative::set_arrival_time(&mut record.event, arrival.clone())?;
        }
        Ok(())
    }
}

/// How much an event takes in the log, about.
fn length(write: &Write) -> usize {
    match write {
        Write::Append { key, payload, .. } => key.len() + payload.len(),
        _ => 0,
    }
}

impl std::convert::From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl std::convert::From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::TooLarge { .. } => Self::TooLarge(error),
            WriteError::Budget { used, budget } => Self::NoRoom(NoRoom::Log { used, most: budget }),
            WriteError::Full => Self::NoRoom(NoRoom::Disk),
            // The broker or channel is being deleted.
            WriteError::NoStream => Self::Unavailable("it is being deleted".to_owned()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
