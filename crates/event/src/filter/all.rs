//! `all`: fails with the first that fails, else says what the last one says.

use super::{Filter, Verdict};
use crate::Event;

pub(super) fn verdict(filters: &[Filter], event: &Event) -> Verdict {
    let mut last = Verdict::Unfiltered;
    for filter in filters {
        last = filter.verdict(event);
        if last == Verdict::Fail {
            break;
        }
    }
    last
}
