//! Kubernetes Events of plans.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use knoll_client::{
    Client,
    recorder::{Event, Outcome, Recorder, Recording, Source},
    rush::Rush,
};
use knoll_faults::caught;
use knoll_plan::{EventRecord, EventType};

use crate::{counters::Counters, lives::Lives};

/// Who records.
const COMPONENT: &str = "knoll";

/// A recorder that counts, and what writes for it.
pub(crate) fn recorder(client: Client, rush: Rush, counters: Arc<Counters>) -> (Recorder, Recording) {
    let tally = move |outcome| {
        let counter = match outcome {
            Outcome::Recorded => &counters.events_recorded,
            Outcome::Throttled | Outcome::Dropped => &counters.events_dropped,
        };
        counter.fetch_add(1, Relaxed);
    };
    Recorder::new(client, Source { component: COMPONENT, host: String::new() }, rush, Arc::new(tally))
}

/// Records events until nobody has any more. A panic costs the event it happened at.
pub(crate) async fn run(mut recording: Recording, counters: Arc<Counters>) {
    let mut lives = Lives::new("event recorder");
    while let Err(panic) = caught(recording.run()).await {
        lives.ended(&panic, &counters).await;
    }
}

/// An event as it is recorded.
pub(crate) fn event(record: EventRecord) -> Event {
    let EventRecord { api_version, kind, key, uid, type_, reason, message } = record;
    Event {
        api_version,
        kind,
        namespace: key.namespace,
        name: key.name,
        uid,
        field_path: None,
        warning: type_ == EventType::Warning,
        reason: reason.to_string(),
        message,
    }
}
