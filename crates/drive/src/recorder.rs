//! Records Kubernetes Events. Best effort and bounded: repeats are counted on one Event, and an object that causes too
//! many different ones is silenced for a while.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind};
use knoll_plan::{EventRecord, EventType};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::Api,
    counters::{Counters, count},
    panics::{Lives, caught},
};

/// Events that may wait to be recorded.
pub(crate) const WAITING: usize = 1024;
/// Events remembered, to count repeats.
const REMEMBERED: usize = 4096;
/// How long a repeat is counted on the earlier Event.
const SERIES: Duration = Duration::from_secs(600);
/// Events of one object at once, and how long until it may cause another.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Who records.
const COMPONENT: &str = "knoll";

/// What makes two events the same.
type Subject = (Kind, Key, String, bool, String, String);

struct Series {
    name: String,
    count: u32,
    last: Instant,
}

struct Allowance {
    left: f64,
    at: Instant,
}

/// Records events as they come.
struct Recorder {
    api: Api,
    counters: Arc<Counters>,
    series: HashMap<Subject, Series>,
    allowances: BTreeMap<(Kind, Key), Allowance>,
    serial: u64,
}

/// Records events until nobody has any more. A panic costs the event it happened at: what was remembered to count
/// repeats is forgotten.
pub(crate) async fn run(api: Api, counters: Arc<Counters>, mut events: mpsc::Receiver<EventRecord>) {
    let mut lives = Lives::new("event recorder");
    loop {
        match caught(Recorder::new(api.clone(), counters.clone()).run(&mut events)).await {
            Ok(()) => return,
            Err(panic) => lives.ended(&panic, &counters).await,
        }
    }
}

impl Recorder {
    fn new(api: Api, counters: Arc<Counters>) -> Self {
        Self { api, counters, series: HashMap::new(), allowances: BTreeMap::new(), serial: 0 }
    }

    /// Records until nobody has any more.
    async fn run(mut self, events: &mut mpsc::Receiver<EventRecord>) {
        while let Some(event) = events.recv().await {
            if !self.allows(&event, Instant::now()) {
                count(&self.counters.events_dropped);
                continue;
            }
            match self.record(event).await {
                Ok(()) => count(&self.counters.events_recorded),
                Err(error) => {
                    count(&self.counters.events_dropped);
                    tracing::debug!(%error, "cannot record an event");
                }
            }
        }
    }

    fn allows(&mut self, event: &EventRecord, now: Instant) -> bool {
        if self.allowances.len() >= REMEMBERED {
            self.allowances.retain(|_, allowance| (now - allowance.at).as_secs_f64() < BURST * REFILL_SECONDS);
            if self.allowances.len() >= REMEMBERED {
                self.allowances.clear();
            }
        }
        let subject = (event.kind, event.key.clone());
        let allowance = self.allowances.entry(subject).or_insert(Allowance { left: BURST, at: now });
        let refilled = (now - allowance.at).as_secs_f64() / REFILL_SECONDS;
        allowance.left = (allowance.left + refilled).min(BURST);
        allowance.at = now;
        if allowance.left < 1.0 {
            return false;
        }
        allowance.left -= 1.0;
        true
    }

    async fn record(&mut self, event: EventRecord) -> Result<(), crate::api::ApiError> {
        let now = Instant::now();
        if self.series.len() >= REMEMBERED {
            self.series.retain(|_, series| now - series.last < SERIES);
            if self.series.len() >= REMEMBERED {
                self.series.clear();
            }
        }
        let subject = subject(&event);
        let namespace = if event.key.namespace.is_empty() { "default" } else { &event.key.namespace };
        let root = format!("/api/v1/namespaces/{namespace}/events");
        let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if let Some(series) = self.series.get_mut(&subject).filter(|series| now - series.last < SERIES) {
            series.count += 1;
            series.last = now;
            let patch = json!({"count": series.count, "lastTimestamp": at});
            match self.api.merge(&format!("{root}/{}", series.name), &patch).await {
                // It expired: begin again.
                Err(error) if error.is_not_found() => {}
                result => return result.map(|_| ()),
            }
        }
        self.serial += 1;
        let unique = Timestamp::now().as_nanosecond().wrapping_add(i128::from(self.serial));
        let name = format!("{}.{:x}", event.key.name, unique);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": {
                "apiVersion": event.kind.api_version(), "kind": event.kind.kind(),
                "namespace": event.key.namespace, "name": event.key.name, "uid": event.uid,
            },
            "type": match event.type_ { EventType::Normal => "Normal", EventType::Warning => "Warning" },
            "reason": event.reason, "message": event.message, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at,
            "source": {"component": COMPONENT}, "reportingComponent": COMPONENT, "reportingInstance": "",
        });
        self.api.post(&root, &event).await?;
        self.series.insert(subject, Series { name, count: 1, last: now });
        Ok(())
    }
}

fn subject(event: &EventRecord) -> Subject {
    let warns = event.type_ == EventType::Warning;
    (event.kind, event.key.clone(), event.uid.clone(), warns, event.reason.clone(), event.message.clone())
}
