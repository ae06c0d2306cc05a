//! Sinks: where the way of an event ends here. A JobSink has a Job made of it, an IntegrationSink writes it into the log of
//! this process. Neither answers before that is done. What is written has a bound in bytes, and each namespace a part of it:
//! the log is the operator's, and keeps only so much.

mod line;
mod mask;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use knoll_api::sinks;
use knoll_bounds::{Rates, Spent};
use knoll_event::Event;
use tokio::{task::yield_now, time::Instant};

use self::line::Line;
use crate::{
    Authorize, Denied,
    ingress::{Answer, refusal},
    metrics::Metrics,
    topology::{
        JobSink, LogSink,
        access::{Access, Guard},
    },
};

/// The while in which so many bytes of lines may be written.
const SPAN: Duration = Duration::from_secs(10);
/// Bytes of lines that are made or written before others have the thread: some milliseconds.
const AT_ONCE: usize = 64 << 10;

/// How the Job of an event is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has not ended.
    Running,
    /// It is complete.
    Complete,
    /// It failed.
    Failed,
}

/// Why there is no Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoJob {
    /// What a sender is answered: 413, 500, or 503 where it is to send the event again.
    pub status: StatusCode,
    /// Why.
    pub reason: String,
}

/// Makes the Jobs of JobSinks, and knows how they are doing.
pub trait Jobs: Send + Sync {
    /// Makes the Job of an event, and what it needs, unless they are there. They are when this is done; of one event there
    /// is one Job, however often it comes.
    fn make(&self, sink: Arc<sinks::JobSink>, event: Event) -> BoxFuture<'static, Result<(), NoJob>>;

    /// How the Job of the event of this source and id is doing.
    fn progress(
        &self,
        sink: Arc<sinks::JobSink>,
        source: String,
        id: String,
    ) -> BoxFuture<'static, Result<Progress, NoJob>>;
}

/// What takes the events of sinks.
#[derive(Clone)]
pub(crate) struct Sinks {
    pub(crate) jobs: Option<Arc<dyn Jobs>>,
    pub(crate) authorize: Option<Authorize>,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes of lines, by namespace.
    pub(crate) lines: Arc<Rates>,
}

/// Why the events of a message are not written.
pub(crate) enum NotLogged {
    /// Who sends them is refused, or they are more than may be written at a time.
    Refused(Answer),
    /// There is no room now.
    NoRoom(Answer),
}

impl From<NotLogged> for Answer {
    fn from(not: NotLogged) -> Self {
        match not {
            NotLogged::Refused(answer) | NotLogged::NoRoom(answer) => answer,
        }
    }
}

impl From<Answer> for NotLogged {
    fn from(answer: Answer) -> Self {
        Self::Refused(answer)
    }
}

/// Bytes of lines of `most` for all namespaces in each [`SPAN`], and one in `parts` of what the others leave for each.
pub(crate) fn lines(most: usize, parts: usize) -> Arc<Rates> {
    Arc::new(Rates::new(most as u64, parts as u64, SPAN))
}

impl Sinks {
    /// Whether senders are asked who they are.
    pub(crate) fn asks(&self, guard: &Guard) -> bool {
        self.authorize.is_some() && !matches!(guard.access(), Access::Open)
    }

    /// Lets a sender in, or does not.
    pub(crate) async fn authorized(&self, guard: &Guard, headers: &HeaderMap, events: &[Event]) -> Result<(), Answer> {
        let Some(authorize) = self.authorize.as_ref().filter(|_| self.asks(guard)) else { return Ok(()) };
        let denied = |Denied { status, reason }| Answer { status, reason };
        authorize(guard.clone(), headers.clone(), events.into()).await.map_err(denied)
    }

    /// Has a Job made of an event of a sender whom these headers let in.
    pub(crate) async fn make_job(&self, sink: &JobSink, headers: &HeaderMap, event: Event) -> Result<(), Answer> {
        self.authorized(&sink.guard, headers, std::slice::from_ref(&event)).await?;
        self.jobs()?.make(sink.object.clone(), event).await.map_err(no_job)?;
        self.metrics.jobs.count();
        Ok(())
    }

    /// How the Job of an event is doing that somebody whom these headers let in asks about.
    pub(crate) async fn progress(
        &self,
        sink: &JobSink,
        headers: &HeaderMap,
        source: String,
        id: String,
    ) -> Result<Progress, Answer> {
        self.authorized(&sink.guard, headers, &[]).await?;
        self.jobs()?.progress(sink.object.clone(), source, id).await.map_err(no_job)
    }

    fn jobs(&self) -> Result<&dyn Jobs, Answer> {
        let missing = || refusal(StatusCode::SERVICE_UNAVAILABLE, "nobody makes Jobs here");
        self.jobs.as_deref().ok_or_else(missing)
    }

    /// Writes events of a sender whom these headers let in into the log: all of them, or none.
    pub(crate) async fn log(&self, sink: &LogSink, headers: &HeaderMap, events: &[Event]) -> Result<(), NotLogged> {
        self.authorized(&sink.guard, headers, events).await?;
        let lines = self.read(sink, events).await?;
        let mut written = 0;
        for line in lines {
            line.write(sink);
            give_way(&mut written, line.bytes(sink)).await;
        }
        self.metrics.logged.add(events.len() as u64);
        Ok(())
    }

    /// What is written of events, once there is room for it.
    async fn read(&self, sink: &LogSink, events: &[Event]) -> Result<Vec<Line>, NotLogged> {
        let (mut lines, mut bytes, mut read) = (Vec::new(), 0, 0);
        for line in events.iter().filter_map(|event| Line::of(sink, event)) {
            let length = line.bytes(sink);
            bytes += length as u64;
            if bytes > self.lines.each() {
                return Err(too_many(self.lines.each()).into());
            }
            lines.push(line);
            give_way(&mut read, length).await;
        }
        match self.lines.take(&sink.namespace, bytes, Instant::now()) {
            Ok(()) => Ok(lines),
            Err(Spent::TooMany(most)) => Err(too_many(most).into()),
            Err(Spent::For(span)) => {
                self.metrics.logs_over_part.count();
                let (namespace, seconds) = (&sink.namespace, span.as_secs() + 1);
                let why = format!("IntegrationSinks of {namespace} have written as much as they may into the log");
                Err(NotLogged::NoRoom(refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("{why}: send it again in {seconds} seconds"),
                )))
            }
        }
    }
}

fn too_many(most: u64) -> Answer {
    let why = format!("more than {most} bytes of lines in the log: send fewer events at a time, or smaller ones");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// Lets others have the thread each [`AT_ONCE`] bytes.
async fn give_way(done: &mut usize, bytes: usize) {
    *done += bytes;
    if *done >= AT_ONCE {
        *done = 0;
        yield_now().await;
    }
}

fn no_job(NoJob { status, reason }: NoJob) -> Answer {
    Answer { status, reason }
}
