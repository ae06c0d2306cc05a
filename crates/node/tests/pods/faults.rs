//! Faults of parts of the node that a test cannot reach otherwise: what they call panics, a number of times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use knoll_client::Client;
use knoll_node::InstanceEvent;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, filter::Targets};

/// How often each part has still to panic.
#[derive(Default)]
pub(crate) struct Faults {
    told: AtomicU32,
    /// Telling the API an Event.
    pub(crate) events: AtomicU32,
    /// Writing the status of the pod `written`.
    pub(crate) statuses: AtomicU32,
    /// Asking the container `asked`.
    pub(crate) probes: AtomicU32,
    /// Reading the ConfigMap `changing`.
    pub(crate) reads: Slow,
}

/// Holds one answer back.
#[derive(Default)]
pub(crate) struct Slow {
    is_next: AtomicBool,
    held: Notify,
    go_on: Notify,
}

impl Slow {
    /// Holds the next answer back.
    pub(crate) fn hold_next(&self) {
        self.is_next.store(true, Ordering::Relaxed);
    }

    /// Waits until one is held back.
    pub(crate) async fn held(&self) {
        self.held.notified().await;
    }

    /// Lets it go.
    pub(crate) fn let_go(&self) {
        self.go_on.notify_one();
    }

    async fn pass(&self) {
        if self.is_next.swap(false, Ordering::Relaxed) {
            self.held.notify_one();
            self.go_on.notified().await;
        }
    }
}

fn strike(left: &AtomicU32, what: &str) {
    let struck = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    assert!(struck.is_err(), "{what}");
}

impl Faults {
    /// The callbacks about pods of certain names: `twice` panics the first two times, `always` each time.
    pub(crate) fn about(&self, event: &InstanceEvent) {
        match event.pod.metadata.name.as_deref() {
            Some("twice") => assert!(self.told.fetch_add(1, Ordering::Relaxed) >= 2, "a fault that goes away"),
            Some("always") => panic!("a fault that stays"),
            _ => {}
        }
    }

    /// A client whose requests panic in whoever waits for them.
    pub(crate) fn client(self: &Arc<Self>, client: Client) -> Client {
        let faults = Arc::clone(self);
        Client::new(move |request| {
            let (faults, client) = (Arc::clone(&faults), client.clone());
            async move {
                let path = request.uri().path();
                if request.method() == "POST" && path.ends_with("/events") {
                    strike(&faults.events, "an Event cannot be told");
                }
                if request.method() == "PATCH" && path.ends_with("/pods/written/status") {
                    strike(&faults.statuses, "a status cannot be written");
                }
                let is_slow = request.method() == "GET" && path.ends_with("/configmaps/changing");
                let answer = client.send(request).await;
                if is_slow {
                    faults.reads.pass().await;
                }
                answer
            }
        })
    }

    /// What the program logs goes to `self` and, when the environment asks for it, to the terminal.
    pub(crate) fn listen(self: Arc<Self>) {
        let shown = std::env::var_os("KNOLL_TEST_LOG").map(|_| {
            tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_filter(tracing::level_filters::LevelFilter::DEBUG)
        });
        let probes = Targets::new().with_target("knoll_node::probes", tracing::Level::TRACE);
        tracing_subscriber::registry().with(shown).with(Asked(self).with_filter(probes)).init();
    }
}

/// Panics where the container `asked` is asked something.
struct Asked(Arc<Faults>);

impl<S: tracing::Subscriber> Layer<S> for Asked {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut about = About(false);
        event.record(&mut about);
        if about.0 {
            strike(&self.0.probes, "a probe cannot be asked");
        }
    }
}

struct About(bool);

impl Visit for About {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0 |= field.name() == "container" && value == "asked";
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
