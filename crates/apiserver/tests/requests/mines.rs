//! Panics that are planted in the server's own steps: while a test's thread, on which everything of its server runs, has
//! armed some, the subscriber panics when such a step says that it begins.

use std::{
    cell::{Cell, RefCell},
    sync::Once,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

thread_local! {
    static STEP: RefCell<String> = const { RefCell::new(String::new()) };
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

struct Mines;

impl Visit for Mines {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "doing" || STEP.with_borrow(|step| step != value) || LEFT.get() == 0 {
            return;
        }
        LEFT.set(LEFT.get() - 1);
        panic!("a mine went off at: {value}");
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Subscriber for Mines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What tells of a panic names the step, too.
        metadata.is_event() && *metadata.level() == tracing::Level::TRACE
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

/// One subscriber for all threads: what a step says is looked up once for the whole program, so one of this thread alone
/// would miss a step that another thread came by first.
static LAID: Once = Once::new();

/// The next `times` beginnings of a step on this thread panic.
pub(crate) fn arm(step: &str, times: u32) {
    LAID.call_once(|| {
        tracing::subscriber::set_global_default(Mines).expect("the only one");
        // What was looked up while it was put in place.
        tracing::callsite::rebuild_interest_cache();
    });
    STEP.set(step.to_owned());
    LEFT.set(times);
}

/// Mines that are still armed.
pub(crate) fn left() -> u32 {
    LEFT.get()
}
