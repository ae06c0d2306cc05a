//! Waiting for a place.

use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use crate::errors::Refusal;
use crate::station::Permit;
use crate::stats::Desk;
use crate::thread::Thread;

/// Takes a place in an instance, waiting in line until `deadline` when there is none.
pub(crate) async fn admit(thread: &Thread, desk: &Rc<Desk>, deadline: Option<Instant>) -> Result<Permit, Refusal> {
    let now = thread.now_millis();
    match desk.with_fleet(|fleet| desk.station.try_admit(fleet, thread.index, now)) {
        Some(permit) => Ok(permit),
        None => wait(thread, desk, deadline).await,
    }
}

async fn wait(thread: &Thread, desk: &Rc<Desk>, deadline: Option<Instant>) -> Result<Permit, Refusal> {
    let mut waiting = desk.station.wait(thread.index, thread.now_millis())?;
    match deadline {
        Some(deadline) => timeout_at(deadline, waiting.answer()).await.unwrap_or(Err(Refusal::Timeout)),
        None => waiting.answer().await,
    }
}
