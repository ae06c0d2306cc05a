//! Sinks: where the way of an event ends here. A JobSink has a Job made of it, an IntegrationSink writes it into the log of
//! this process. Neither answers before that is done.

mod line;
mod mask;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, StatusCode};
use knoll_api::sinks;
use knoll_event::Event;

use crate::{
    Authorize, Denied,
    ingress::{Answer, refusal},
    metrics::Metrics,
    topology::{
        JobSink, LogSink,
        access::{Access, Guard},
    },
};

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

    /// Writes events of a sender whom these headers let in into the log.
    pub(crate) async fn log(&self, sink: &LogSink, headers: &HeaderMap, events: &[Event]) -> Result<(), Answer> {
        self.authorized(&sink.guard, headers, events).await?;
        for event in events {
            line::write(sink, event);
            self.metrics.logged.count();
        }
        Ok(())
    }
}

fn no_job(NoJob { status, reason }: NoJob) -> Answer {
    Answer { status, reason }
}
