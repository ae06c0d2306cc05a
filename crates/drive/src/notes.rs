//! Records Kubernetes Events. Best effort and bounded: repeats are counted on one Event, and an object that causes too
//! many different ones is silenced for a while.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind};
use knoll_plan::{EventNote, NoteKind};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::Api,
    counters::{Counters, count},
    panics::{Lives, caught},
};

/// Notes that may wait to be recorded.
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

/// What makes two notes the same.
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

/// Records notes as they come.
struct Recorder {
    api: Api,
    counters: Arc<Counters>,
    series: HashMap<Subject, Series>,
    allowances: BTreeMap<(Kind, Key), Allowance>,
    serial: u64,
}

/// Records notes until nobody notes any more. A panic costs the note it happened at: what was remembered to count
/// repeats is forgotten.
pub(crate) async fn run(api: Api, counters: Arc<Counters>, mut notes: mpsc::Receiver<EventNote>) {
    let mut lives = Lives::new("event recorder");
    loop {
        match caught(Recorder::new(api.clone(), counters.clone()).run(&mut notes)).await {
            Ok(()) => return,
            Err(panic) => lives.ended(&panic, &counters).await,
        }
    }
}

impl Recorder {
    fn new(api: Api, counters: Arc<Counters>) -> Self {
        Self { api, counters, series: HashMap::new(), allowances: BTreeMap::new(), serial: 0 }
    }

    /// Records until nobody notes any more.
    async fn run(mut self, notes: &mut mpsc::Receiver<EventNote>) {
        while let Some(note) = notes.recv().await {
            if !self.allows(&note, Instant::now()) {
                count(&self.counters.events_dropped);
                continue;
            }
            match self.record(note).await {
                Ok(()) => count(&self.counters.events_recorded),
                Err(error) => {
                    count(&self.counters.events_dropped);
                    tracing::debug!(%error, "cannot record an event");
                }
            }
        }
    }

    fn allows(&mut self, note: &EventNote, now: Instant) -> bool {
        if self.allowances.len() >= REMEMBERED {
            self.allowances.retain(|_, allowance| (now - allowance.at).as_secs_f64() < BURST * REFILL_SECONDS);
            if self.allowances.len() >= REMEMBERED {
                self.allowances.clear();
            }
        }
        let subject = (note.kind, note.key.clone());
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

    async fn record(&mut self, note: EventNote) -> Result<(), crate::api::ApiError> {
        let now = Instant::now();
        if self.series.len() >= REMEMBERED {
            self.series.retain(|_, series| now - series.last < SERIES);
            if self.series.len() >= REMEMBERED {
                self.series.clear();
            }
        }
        let subject = subject(&note);
        let namespace = if note.key.namespace.is_empty() { "default" } else { &note.key.namespace };
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
        let name = format!("{}.{:x}", note.key.name, unique);
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": {
                "apiVersion": note.kind.api_version(), "kind": note.kind.kind(),
                "namespace": note.key.namespace, "name": note.key.name, "uid": note.uid,
            },
            "type": match note.note { NoteKind::Normal => "Normal", NoteKind::Warning => "Warning" },
            "reason": note.reason, "message": note.message, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at,
            "source": {"component": COMPONENT}, "reportingComponent": COMPONENT, "reportingInstance": "",
        });
        self.api.post(&root, &event).await?;
        self.series.insert(subject, Series { name, count: 1, last: now });
        Ok(())
    }
}

fn subject(note: &EventNote) -> Subject {
    let warns = note.note == NoteKind::Warning;
    (note.kind, note.key.clone(), note.uid.clone(), warns, note.reason.clone(), note.message.clone())
}
