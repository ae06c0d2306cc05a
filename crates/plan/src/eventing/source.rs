//! What sources have in common: where their events go.

use knoll_api::{
    Timestamp,
    duck::{Destination, SourceStatus},
};

use super::{Stopped, destination};
use crate::{World, status::Reporting};

const SINK_PROVIDED: &str = "SinkProvided";

/// Finds where a source's events go, and says how that went; `failed` makes reason and message from what went wrong.
///
/// # Errors
/// When the sink has no address; the status says so, and names none.
pub(super) fn settle_sink<R: Reporting>(
    world: &World,
    next: &mut R,
    sink: &Destination,
    now: Timestamp,
    failed: fn(String) -> (&'static str, String),
    status: fn(&mut R) -> &mut SourceStatus,
) -> Result<(), Stopped> {
    match find_sink(world, next, sink, status) {
        Ok(()) => {
            next.conditions(now).mark_true(SINK_PROVIDED);
            Ok(())
        }
        Err(why) => {
            let (reason, text) = failed(why);
            next.conditions(now).mark_false(SINK_PROVIDED, reason, &text);
            Err(Stopped)
        }
    }
}

/// Finds where a source's events go; the status names it, or nothing.
///
/// # Errors
/// Why the sink has no address, in words for the user.
pub(super) fn find_sink<R: Reporting>(
    world: &World,
    next: &mut R,
    sink: &Destination,
    status: fn(&mut R) -> &mut SourceStatus,
) -> Result<(), String> {
    let resolved = destination::resolve(world, sink, next.namespace());
    let found = resolved.as_ref().ok().cloned().unwrap_or_default();
    let to = status(next);
    (to.sink_uri, to.sink_ca_certs, to.sink_audience) = (found.url, found.ca_certs, found.audience);
    resolved.map(drop)
}
