//! Events that come by the clock: when the next one is due, and what it says.

use std::time::Duration;

use jiff::Timestamp;
use knoll_event::{Event, Invalid};
use uuid::Uuid;

use crate::{Id, Ping, Source, Timer, Work};

/// Type of a PingSource's events.
const PING_TYPE: &str = "dev.knative.sources.ping";
/// Type, source and subject of a timer's events, as upstream's connector has them.
const TIMER: (&str, &str, &str) = ("dev.knative.eventing.timer", "dev.knative.eventing.timer-source", "timer-source");
/// How long a timer waits before its first event, whatever its period.
const TIMER_DELAY: Duration = Duration::from_secs(1);

/// When the first event of a source is due that begins now; nothing for one that is not due by the clock, or never.
pub(crate) fn first(source: &Source, now: Timestamp) -> Option<Timestamp> {
    match &source.work {
        Ok(Work::Ping(ping)) => ping.schedule.next_after(now, &ping.zone),
        Ok(Work::Timer(_)) => now.checked_add(TIMER_DELAY).ok(),
        Ok(Work::ApiServer(_)) | Err(_) => None,
    }
}

/// When the one after that which was due at `due`, and was told `told` before this one, is due. What came in between is not
/// made up.
pub(crate) fn next(source: &Source, due: Timestamp, told: u64, now: Timestamp) -> Option<Timestamp> {
    match &source.work {
        Ok(Work::Ping(ping)) => ping.schedule.next_after(now, &ping.zone),
        Ok(Work::Timer(timer)) if timer.repeat.is_some_and(|most| told >= most) => None,
        Ok(Work::Timer(timer)) => {
            let after = |from: Timestamp| from.checked_add(timer.period).ok();
            after(due).filter(|next| *next > now).or_else(|| after(now))
        }
        Ok(Work::ApiServer(_)) | Err(_) => None,
    }
}

/// Whether both are due at the same times, so that one that follows the other goes on where it was.
pub(crate) fn keeps_time(one: &Source, other: &Source) -> bool {
    match (&one.work, &other.work) {
        (Ok(Work::Ping(one)), Ok(Work::Ping(other))) => one.schedule == other.schedule && one.zone == other.zone,
        (Ok(Work::Timer(one)), Ok(Work::Timer(other))) => one == other,
        _ => false,
    }
}

/// The event of a tick, as far as the source's own extensions and the time; nothing for a source without ticks.
///
/// # Errors
/// When what the source says breaks a rule of CloudEvents.
pub(crate) fn event(source: &Source) -> Option<Result<Event, Invalid>> {
    match &source.work {
        Ok(Work::Ping(ping)) => Some(ping_event(&source.id, ping)),
        Ok(Work::Timer(timer)) => Some(timer_event(timer)),
        Ok(Work::ApiServer(_)) | Err(_) => None,
    }
}

pub(crate) fn ping_event(id: &Id, ping: &Ping) -> Result<Event, Invalid> {
    let source = format!("/apis/v1/namespaces/{}/pingsources/{}", id.namespace, id.name);
    let mut event = Event::new(&Uuid::new_v4().to_string(), &source, PING_TYPE)?;
    if let Some(data) = &ping.data {
        event.set_data(&ping.content_type, data.clone())?;
    }
    Ok(event)
}

pub(crate) fn timer_event(timer: &Timer) -> Result<Event, Invalid> {
    let (kind, source, subject) = TIMER;
    let mut event = Event::new(&Uuid::new_v4().to_string(), source, kind)?;
    event.set("subject", subject)?;
    event.set_data(&timer.content_type, timer.message.clone())?;
    Ok(event)
}
