//! Events under harm: none that was accepted is lost, and what comes again is no more than what is promised.

use std::sync::Mutex;

use knoll_sim::{EventFault, EventSimulation, Tally, each_seed};

#[test]
fn events_survive_harm() {
    let all = Mutex::new(Tally::default());
    each_seed(30, &[], |number| {
        let run = EventSimulation::new(number).run();
        let mut all = all.lock().expect("nobody panics with it");
        all.accepted += run.accepted;
        all.refused += run.refused;
        all.delivered += run.delivered;
        all.again += run.again;
        all.letters += run.letters;
        all.put_aside += run.put_aside;
        all.disk_failures += run.disk_failures;
        all.checks += run.checks;
    });
    let all = all.into_inner().expect("nobody panicked with it");
    println!("{all:?}");
    // What never happens proves nothing.
    let happened = [all.accepted, all.refused, all.again, all.letters, all.put_aside, all.disk_failures];
    assert!(happened.iter().all(|count| *count > 0), "{all:?}");
}

/// Whether a run of one of the first seeds finds the fault, and says so.
fn finds(fault: EventFault, words: &str) -> bool {
    (0..40).any(|number| {
        let caught = std::panic::catch_unwind(|| EventSimulation::with(fault, number).run());
        let message = caught.err().and_then(|payload| payload.downcast::<String>().ok());
        message.is_some_and(|text| text.contains(words))
    })
}

#[test]
fn events_that_are_accepted_before_they_are_on_disk_are_missed() {
    assert!(finds(EventFault::SkipsSyncs, "is lost to"), "40 seeds did not see that some was not synced");
}

#[test]
fn an_event_that_comes_again_though_nothing_crashed_is_seen() {
    assert!(
        finds(EventFault::TakesAndRefuses, "where the log has it"),
        "40 seeds did not see that an event came again"
    );
}
