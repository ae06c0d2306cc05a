//! `all`: fails with the first that fails, else says what the last one says.

use super::{Filter, Verdict, up_to};
use crate::Event;

pub(super) fn verdict(filters: &[Filter], event: &Event) -> Verdict {
    up_to(Verdict::Fail, filters, event)
}
