//! Sending an event to a source's sink, again while that fails, and telling of it.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use knoll_api::Kind;
use knoll_bounds::Turns;
use knoll_broker::{
    Origin, Sender,
    delivery::{
        Backoff, BackoffPolicy,
        retry::{Cause, Failure},
    },
};
use knoll_event::{Event, Invalid};
use tokio::time::sleep;

use crate::{Config, Source, metrics::Metrics};

/// Attempts beyond the first, as upstream's sources make them.
const RETRIES: u32 = 5;
/// Waits between them: upstream's client doubles its period of 50 milliseconds before the first retry already.
const BACKOFF: Backoff = Backoff { policy: BackoffPolicy::Exponential, delay: Duration::from_millis(100) };

/// What sources send by.
pub(crate) struct Outlet {
    sender: Sender,
    pub(crate) config: Config,
    pub(crate) metrics: Arc<Metrics>,
    /// For [`Config::most_at_once`], by namespace.
    turns: Turns,
}

impl Outlet {
    pub(crate) fn new(sender: Sender, config: Config) -> Self {
        let turns = Turns::new(config.most_at_once, config.most_at_once.div_ceil(config.most_of_namespace));
        Self { sender, config, metrics: Arc::new(Metrics::default()), turns }
    }

    /// Sends an event, whenever its namespace has a turn, and counts how that ended.
    ///
    /// # Errors
    /// When it was not taken: it is lost.
    pub(crate) async fn send(&self, source: &Source, event: &Event) -> Result<(), Failure> {
        let origin = Origin { namespace: source.id.namespace.clone(), service_account: source.service_account.clone() };
        let (mut unsent, mut made) = (Unsent { metrics: &self.metrics, kind: Some(source.id.kind) }, 0);
        loop {
            match self.attempt(source, event, &origin).await {
                Ok(_) => {
                    unsent.kind = None;
                    self.metrics.sent.count(source.id.kind);
                    return Ok(());
                }
                Err(failure) if made < RETRIES && is_retriable(failure.cause) => {
                    sleep(BACKOFF.wait(made)).await;
                    made += 1;
                    self.metrics.retried.count(source.id.kind);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn attempt(&self, source: &Source, event: &Event, origin: &Origin) -> Result<StatusCode, Failure> {
        let waiting = self.metrics.waiting.enter();
        let _turn = self.turns.take(&origin.namespace, 1).await;
        drop(waiting);
        let _entered = self.metrics.in_flight.enter();
        self.sender.send(&source.sink, event, origin, self.config.attempt_timeout).await
    }
}

/// An event that is lost unless it is taken; also where whoever sends it is ended.
struct Unsent<'a> {
    metrics: &'a Metrics,
    /// Of which kind its source is; nothing once it is taken.
    kind: Option<Kind>,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if let Some(kind) = self.kind {
            self.metrics.failed.count(kind);
        }
    }
}

/// What upstream's client for sources sends again after: less than brokers and channels do.
fn is_retriable(cause: Cause) -> bool {
    match cause {
        Cause::Status(status) => matches!(
            status,
            StatusCode::NOT_FOUND
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        Cause::Transport | Cause::Timeout | Cause::NoRoom => true,
        Cause::NoEvent | Cause::Unresolved | Cause::Unsendable => false,
    }
}

/// Completes an event: the time, and the source's own extensions.
///
/// # Errors
/// When an extension breaks a rule.
pub(crate) fn complete(event: &mut Event, source: &Source, now: Timestamp) -> Result<(), Invalid> {
    event.set("time", now)?;
    source.extensions.iter().try_for_each(|(name, value)| event.set(name, &**value))
}

/// Whether a source's events are taken, so that the log tells of the turn and not of each event.
#[derive(Debug, Default)]
pub(crate) struct Health {
    is_failing: bool,
}

impl Health {
    /// Hears how an event ended.
    pub(crate) fn hear(&mut self, source: &Source, ended: Result<(), Failure>) {
        let (namespace, name, kind) = (&*source.id.namespace, &*source.id.name, source.id.kind.kind());
        let was_failing = std::mem::replace(&mut self.is_failing, ended.is_err());
        match ended {
            Ok(()) if was_failing => tracing::info!(kind, namespace, name, "a source's events are taken again"),
            Ok(()) => {}
            Err(failure) => {
                let (code, sink) = (failure.cause.code(), &*failure.destination);
                let said = String::from_utf8_lossy(&failure.data);
                if was_failing {
                    tracing::debug!(kind, namespace, name, code, sink, %said, "an event is lost");
                } else {
                    tracing::warn!(kind, namespace, name, code, sink, %said, "a source's event is not taken, and lost");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstreams_sources_send_again_is_sent_again() {
        let again: Vec<u16> = (100..600)
            .filter(|code| is_retriable(Cause::Status(StatusCode::from_u16(*code).expect("a code"))))
            .collect();
        assert_eq!(again, [404, 413, 425, 429, 502, 503, 504]);
        let waits: Vec<u128> = (0..RETRIES).map(|made| BACKOFF.wait(made).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600]);
    }
}
