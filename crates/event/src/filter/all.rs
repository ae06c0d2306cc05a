//! `all`: fails with the first that fails, else says what the last one says.

use super::{Filter, Verdict, up_to};
use crate::{Event, work::Work};

pub(super) fn verdict(filters: &[Filter], work: &Work, event: &Event) -> Verdict {
    up_to(Verdict::Fail, filters, work, event)
}
