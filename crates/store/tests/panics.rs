//! What a panic of the thread that packs costs. The panics are real: a subscriber of this test's process panics when the
//! packer says that it begins a round.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use knoll_journal::MemoryDisk;
use knoll_store::{Durability, Expect, Options, Store};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// How many rounds are still to panic.
static ARMED: AtomicUsize = AtomicUsize::new(0);

struct Mines;

impl Visit for Mines {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" && format!("{value:?}") == "pack what has grown cold" {
            let hit = ARMED.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            assert!(!hit, "a mine went off");
        }
    }
}

impl Subscriber for Mines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("knoll_store")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Mines);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A value like others of its kind, so that it packs.
fn value(n: u64) -> Bytes {
    let filler = "\"apiVersion\":\"v1\",\"kind\":\"Thing\",\"spec\":{\"replicas\":3,\"paused\":false},".repeat(8);
    Bytes::from(format!("{{{filler}\"n\":{n}}}"))
}

/// Writes enough to be packed, under keys of this round.
async fn write(store: &Store, round: u64) {
    for n in 0..40 {
        let key = format!("/test/things/{round}-{n}");
        store.put(key, value(n), Expect::Absent, Durability::Relaxed).await.expect("it is written");
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_panic_while_packing_costs_a_round_is_counted_and_packing_goes_on() {
    tracing::subscriber::set_global_default(Mines).expect("the first subscriber");
    let options = Options { cold_after: Duration::ZERO, ..Options::default() };
    let store = Store::open_on(Arc::new(MemoryDisk::default()), options).expect("opens");
    for round in 1..=2 {
        ARMED.store(1, Ordering::SeqCst);
        write(&store, round).await;
        until("the panic is counted", || store.figures().pack_panics == round).await;
    }
    let before = store.figures().packed;
    write(&store, 3).await;
    until("the next are packed", || store.figures().packed >= before + 40).await;
    for round in 1..=3 {
        for n in 0..40 {
            let found = store.get(&format!("/test/things/{round}-{n}")).expect("nothing is lost");
            assert_eq!(found.value, value(n));
        }
    }
    assert_eq!(store.figures().pack_panics, 2);
    store.close().await;
}
