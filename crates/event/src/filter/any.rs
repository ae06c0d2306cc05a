//! `any`: passes with the first that passes, else says what the last one says.

use super::{Filter, Verdict};
use crate::Event;

pub(super) fn verdict(filters: &[Filter], event: &Event) -> Verdict {
    let mut last = Verdict::Unfiltered;
    for filter in filters {
        last = filter.verdict(event);
        if last == Verdict::Pass {
            break;
        }
    }
    last
}
