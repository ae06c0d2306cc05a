//! Records Kubernetes Events. Best effort and bounded: repeats are counted on one Event, and an object that causes too
//! many different ones is silenced for a while. They let pass what requests wait for, and bear the time they happened at.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    api::{Client, JSON, MERGE_PATCH, METADATA},
    error::{Error, Result},
    rush::Rush,
};

/// Events that may wait to be recorded.
const WAITING: usize = 4096;
/// As many as may wait while requests do: more are recorded all the same, before there is no room.
const HELD: usize = WAITING / 2;
/// How long after it happened an event is recorded at the latest.
const LATE: Duration = Duration::from_secs(5);
/// Events remembered, to count repeats; and objects that caused some.
const REMEMBERED: usize = 4096;
/// How long a repeat is counted on the earlier Event.
const SERIES: Duration = Duration::from_secs(600);
/// Events of one object at once, and how long until it may cause another.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// Something that happened to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Event {
    /// Of the object.
    pub api_version: String,
    /// Of the object.
    pub kind: String,
    /// Of the object; empty for one of the whole cluster, whose events are in `default`.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// Of the object.
    pub uid: String,
    /// Which part of it, as `spec.containers{name}`.
    pub field_path: Option<String>,
    /// Whether something is wrong.
    pub warning: bool,
    /// One word in `CamelCase`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Who records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The part.
    pub component: &'static str,
    /// The machine it is about; empty where it is about none.
    pub host: String,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was recorded, or counted on an earlier one.
    Recorded,
    /// Its object causes too many.
    Throttled,
    /// Too many waited, or it was refused.
    Dropped,
}

/// Hears what becomes of each event.
pub type Tally = Arc<dyn Fn(Outcome) + Send + Sync>;

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Happened>,
    tally: Tally,
}

/// Writes what a [`Recorder`] takes.
pub struct Recording {
    client: Client,
    source: Source,
    rush: Rush,
    events: mpsc::Receiver<Happened>,
    tally: Tally,
    series: HashMap<Event, Series>,
    allowances: HashMap<Subject, Allowance>,
    serial: u64,
}

/// An event, and when it happened.
struct Happened {
    event: Event,
    at: Timestamp,
    instant: Instant,
}

/// API version, kind, namespace, name and uid of an object.
type Subject = [String; 5];

struct Series {
    name: String,
    count: u32,
    last: Instant,
}

#[derive(Clone, Copy)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    /// What it is by now.
    fn at(self, now: Instant) -> Allowance {
        let refilled = now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        Allowance { left: (self.left + refilled).min(BURST), at: now }
    }
}

impl Recorder {
    /// A recorder, and what writes for it while there is no rush.
    pub fn new(client: Client, source: Source, rush: Rush, tally: Tally) -> (Recorder, Recording) {
        let (queue, events) = mpsc::channel(WAITING);
        let (series, allowances) = (HashMap::new(), HashMap::new());
        let recording = Recording { client, source, rush, events, tally: tally.clone(), series, allowances, serial: 0 };
        (Recorder { queue, tally }, recording)
    }

    /// Has an event recorded, if there is room for it.
    pub fn record(&self, event: Event) {
        let happened = Happened { event, at: Timestamp::now(), instant: Instant::now() };
        if self.queue.try_send(happened).is_err() {
            (self.tally)(Outcome::Dropped);
        }
    }
}

impl Recording {
    /// Writes for as long as somebody may record something. May be begun again after a panic: the event that caused it
    /// is lost, all others are written.
    pub async fn run(&mut self) {
        while let Some(Happened { event, at, instant }) = self.events.recv().await {
            if self.events.len() < HELD {
                self.rush.pass(LATE.saturating_sub(instant.elapsed())).await;
            }
            let outcome = if self.allows(&event, Instant::now()) {
                match self.record(event, at).await {
                    Ok(()) => Outcome::Recorded,
                    Err(error) => {
                        tracing::debug!(error = knoll_faults::chain(&error), "cannot record an event");
                        Outcome::Dropped
                    }
                }
            } else {
                Outcome::Throttled
            };
            (self.tally)(outcome);
        }
    }

    fn allows(&mut self, event: &Event, now: Instant) -> bool {
        if self.allowances.len() >= REMEMBERED {
            self.allowances.retain(|_, allowance| allowance.at(now).left < BURST);
            if self.allowances.len() >= REMEMBERED {
                self.allowances.clear();
            }
        }
        let Event { api_version, kind, namespace, name, uid, .. } = event;
        let subject = [api_version, kind, namespace, name, uid].map(String::clone);
        let allowance = self.allowances.entry(subject).or_insert(Allowance { left: BURST, at: now });
        *allowance = allowance.at(now);
        let enough = allowance.left >= 1.0;
        if enough {
            allowance.left -= 1.0;
        }
        enough
    }

    async fn record(&mut self, event: Event, at: Timestamp) -> Result<()> {
        let now = Instant::now();
        if self.series.len() >= REMEMBERED {
            self.series.retain(|_, series| now - series.last < SERIES);
            if self.series.len() >= REMEMBERED {
                self.series.clear();
            }
        }
        let namespace = if event.namespace.is_empty() { "default" } else { &event.namespace };
        let root = format!("/api/v1/namespaces/{namespace}/events");
        let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if let Some(series) = self.series.get_mut(&event).filter(|series| now - series.last < SERIES) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            let patch = json!({"count": series.count, "lastTimestamp": at});
            let path = format!("{root}/{}", series.name);
            match send(&self.client, Method::PATCH, &path, MERGE_PATCH, &patch).await {
                // It expired: begin again.
                Err(Error::Api(status)) if status.code == 404 => {}
                result => return result,
            }
        }
        self.serial += 1;
        let unique = Timestamp::now().as_nanosecond().wrapping_add(i128::from(self.serial));
        let name = format!("{}.{unique:x}", event.name);
        let body = body(&event, &self.source, namespace, &name, &at);
        send(&self.client, Method::POST, &root, JSON, &body).await?;
        self.series.insert(event, Series { name, count: 1, last: now });
        Ok(())
    }
}

fn body(event: &Event, source: &Source, namespace: &str, name: &str, at: &str) -> Value {
    let Source { component, host } = source;
    let mut body = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": namespace, "name": name},
        "involvedObject": {
            "apiVersion": event.api_version, "kind": event.kind,
            "namespace": event.namespace, "name": event.name, "uid": event.uid,
        },
        "type": if event.warning { "Warning" } else { "Normal" },
        "reason": event.reason, "message": event.message, "count": 1, "firstTimestamp": at, "lastTimestamp": at,
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": host,
    });
    if let Some(field) = &event.field_path {
        body["involvedObject"]["fieldPath"] = field.as_str().into();
    }
    if !host.is_empty() {
        body["source"]["host"] = host.as_str().into();
    }
    body
}

/// Nothing of the answer is read.
async fn send(client: &Client, method: Method, path: &str, media_type: &str, body: &Value) -> Result<()> {
    let body = Some((media_type, body.to_string().into_bytes()));
    client.call(method, path, METADATA, body).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::api::{Body, whole};

    #[tokio::test]
    async fn an_object_that_talks_much_is_heard_less() {
        let client = Client::new(|_| async { Ok::<_, Infallible>(Response::new(whole(""))) });
        let (_recorder, mut recording) = Recorder::new(client, Source::default(), Rush::default(), Arc::new(|_| {}));
        let event = |name: &str| Event { name: name.into(), ..Event::default() };
        let now = Instant::now();
        assert_eq!((0..100).filter(|_| recording.allows(&event("a"), now)).count(), 25);
        assert!(recording.allows(&event("b"), now));
        assert!(!recording.allows(&event("a"), now + Duration::from_secs(100)));
        assert!(recording.allows(&event("a"), now + Duration::from_secs(301)));
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_recorded_after_what_requests_wait_for_with_the_time_they_happened_at() {
        let (told, mut heard) = mpsc::unbounded_channel();
        let client = Client::new(move |request: Request<Body>| {
            let told = told.clone();
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let event: Value = serde_json::from_slice(&body).expect("an event");
                told.send((event, Instant::now())).expect("somebody listens");
                Ok::<_, Infallible>(Response::new(whole("{}")))
            }
        });
        let rush = Rush::default();
        let source = Source::default();
        let (recorder, mut recording) = Recorder::new(client, source, rush.clone(), Arc::new(|_| {}));
        tokio::spawn(async move { recording.run().await });
        rush.begin("a/r");
        let (begun, before) = (Instant::now(), Timestamp::now());
        recorder.record(Event { name: "p".into(), ..Event::default() });
        tokio::time::sleep(LATE / 2).await;
        assert!(heard.try_recv().is_err(), "a request waits");
        rush.end("a/r");
        let (event, at) = heard.recv().await.expect("an event");
        assert_eq!(at - begun, LATE / 2);
        let stamp: Timestamp = event["lastTimestamp"].as_str().expect("a time").parse().expect("a time");
        assert!((stamp.as_second() - before.as_second()).abs() <= 1);

        rush.begin("a/s");
        recorder.record(Event { name: "q".into(), ..Event::default() });
        let begun = Instant::now();
        heard.recv().await.expect("an event");
        assert!(begun.elapsed() <= LATE, "not later than said");
    }
}
