//! Waiting for a place.

use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use crate::endpoint_pool::Permit;
use crate::errors::Refusal;
use crate::meter::Meter;
use crate::thread::Thread;

/// Takes a place in an instance, waiting in line until `deadline` when there is none.
pub(crate) async fn admit(thread: &Thread, meter: &Rc<Meter>, deadline: Option<Instant>) -> Result<Permit, Refusal> {
    let now = thread.now_millis();
    match meter.with_endpoints(|set| meter.pool.try_admit(set, thread.index, now)) {
        Some(permit) => Ok(permit),
        None => wait(thread, meter, deadline).await,
    }
}

async fn wait(thread: &Thread, meter: &Rc<Meter>, deadline: Option<Instant>) -> Result<Permit, Refusal> {
    let mut waiting = meter.pool.wait(thread.index, thread.now_millis())?;
    match deadline {
        Some(deadline) => timeout_at(deadline, waiting.answer()).await.unwrap_or(Err(Refusal::Timeout)),
        None => waiting.answer().await,
    }
}
