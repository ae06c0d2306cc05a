//! Jobs of JobSinks: made at the API server, each with the Secret that holds its event.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use knoll_api::{Resource, sinks::JobSink};
use knoll_bounds::Turns;
use knoll_broker::{Jobs, NoJob, Progress};
use knoll_client::{Client, Error};
use knoll_event::{Event, json};
use knoll_plan::event_job::{self, Outcome};
use tokio::time::timeout;

use crate::{
    components::typed::{create, find},
    failure::chain,
};

/// Jobs that are made at a time, and one part in so many of them, and one, for one namespace.
const PLACES: usize = 64;
const PARTS: usize = 4;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes Jobs and looks at them.
pub(super) struct ApiJobs {
    client: Client,
    places: Turns,
}

impl ApiJobs {
    pub(super) fn new(client: Client) -> Self {
        Self { client, places: Turns::new(PLACES, PARTS) }
    }
}

impl Jobs for ApiJobs {
    fn make(&self, sink: Arc<JobSink>, event: Event) -> BoxFuture<'static, Result<(), NoJob>> {
        let (client, places) = (self.client.clone(), self.places.clone());
        Box::pin(async move {
            let place = places.take(&sink.namespace().into(), 1).await;
            // To its end, though the sender goes away: a Job without its Secret would wait for it.
            let making = tokio::spawn(async move {
                let made = patiently(Box::pin(make(&client, &sink, &event))).await;
                drop(place);
                made
            });
            making.await.unwrap_or_else(|_| Err(failed("making the Job panicked")))
        })
    }

    fn progress(&self, sink: Arc<JobSink>, source: String, id: String) -> BoxFuture<'static, Result<Progress, NoJob>> {
        let client = self.client.clone();
        Box::pin(async move { patiently(progress(&client, &sink, &source, &id)).await })
    }
}

async fn patiently<T>(asking: impl Future<Output = Result<T, NoJob>>) -> Result<T, NoJob> {
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(later("the API server does not answer")))
}

async fn make(client: &Client, sink: &JobSink, event: &Event) -> Result<(), NoJob> {
    let bytes = json::write(event);
    if bytes.len() > event_job::MOST_BYTES {
        let reason = format!("{} bytes as JSON: a Job gets its event by a Secret of 1 MiB at most", bytes.len());
        return Err(NoJob { status: StatusCode::PAYLOAD_TOO_LARGE, reason });
    }
    if earlier(client, sink, event.source(), event.id()).await?.is_some() {
        return Ok(());
    }
    let name = event_job::name(sink.name(), event.source(), event.id());
    let wanted = event_job::job(sink, &name);
    let wanted = wanted.ok_or_else(|| failed("the JobSink does not say what Jobs are made from"))?;
    let job = match create(client, sink.namespace(), &wanted).await {
        Ok(job) => job,
        Err(error) if is_taken(&error) => {
            let there: Option<Job> =
                find(client, sink.namespace(), &name).await.map_err(|e| refused("looked at", &e))?;
            there.ok_or_else(|| later(&format!("the Job {name} went away just now")))?
        }
        Err(error) => return Err(refused("made", &error)),
    };
    if !job.is_controlled_by(sink) {
        // Of a JobSink of this name that there was before it goes in a moment.
        return Err(later(&format!("there is a Job {name} of another's")));
    }
    // One that ended needs nothing more.
    if event_job::outcome(&job).is_some() {
        return Ok(());
    }
    hand_over(client, &job, bytes.to_vec()).await
}

/// The Job of an event under the name that it may have shared with other events, where the event is the one it was made of.
async fn earlier(client: &Client, sink: &JobSink, source: &str, id: &str) -> Result<Option<Job>, NoJob> {
    let name = event_job::earlier_name(sink.name(), source, id);
    let job: Option<Job> = find(client, sink.namespace(), &name).await.map_err(|e| refused("looked at", &e))?;
    let Some(job) = job.filter(|job| job.is_controlled_by(sink)) else { return Ok(None) };
    let secret: Option<Secret> = find(client, sink.namespace(), &name).await.map_err(|e| refused("looked at", &e))?;
    let made_of = secret.as_ref().and_then(|secret| event_job::event_of(secret, &job));
    let made_of = made_of.and_then(|event| json::read(&Bytes::copy_from_slice(event)).ok());
    Ok(made_of.filter(|event| (event.source(), event.id()) == (source, id)).map(|_| job))
}

/// Makes the Secret by which a Job gets its event.
async fn hand_over(client: &Client, job: &Job, event: Vec<u8>) -> Result<(), NoJob> {
    match create(client, job.namespace(), &event_job::secret(job, event)).await {
        Ok(_) => Ok(()),
        Err(error) if is_taken(&error) => {
            let there: Option<Secret> =
                find(client, job.namespace(), job.name()).await.map_err(|e| refused("given its event", &e))?;
            let there = there.ok_or_else(|| later(&format!("the Secret {} went away just now", job.name())))?;
            // The Secret of a Job of this name that there was before goes with that.
            event_job::event_of(&there, job)
                .map(drop)
                .ok_or_else(|| later(&format!("there is a Secret {} of another's", job.name())))
        }
        Err(error) => Err(refused("given its event", &error)),
    }
}

async fn progress(client: &Client, sink: &JobSink, source: &str, id: &str) -> Result<Progress, NoJob> {
    let name = event_job::name(sink.name(), source, id);
    let job: Option<Job> = find(client, sink.namespace(), &name).await.map_err(|e| refused("looked at", &e))?;
    let job = match job.filter(|job| job.is_controlled_by(sink)) {
        Some(job) => Some(job),
        None => earlier(client, sink, source, id).await?,
    };
    let job = job.ok_or_else(|| failed(&format!("there is no Job {name} of this event (any more)")))?;
    Ok(match event_job::outcome(&job) {
        Some(Outcome::Complete) => Progress::Complete,
        Some(Outcome::Failed) => Progress::Failed,
        None => Progress::Running,
    })
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == StatusCode::CONFLICT.as_u16())
}

/// What the API server said no to is no better later; what it could not do may be.
fn refused(doing: &str, error: &Error) -> NoJob {
    match error {
        Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            failed(&format!("the Job cannot be {doing}: {}", status.message))
        }
        error => {
            let error = chain(error);
            tracing::warn!(error, "the Job of an event cannot be {doing} now");
            later(&format!("the Job cannot be {doing} now"))
        }
    }
}

fn failed(reason: &str) -> NoJob {
    NoJob { status: StatusCode::INTERNAL_SERVER_ERROR, reason: reason.to_owned() }
}

fn later(reason: &str) -> NoJob {
    NoJob { status: StatusCode::SERVICE_UNAVAILABLE, reason: format!("{reason}: send it again later") }
}

#[cfg(test)]
mod tests;
