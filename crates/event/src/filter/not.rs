//! `not`: the contrary, but nothing stays nothing.

use super::{Filter, Verdict};
use crate::{Event, work::Work};

pub(super) fn verdict(filter: &Filter, work: &Work, event: &Event) -> Verdict {
    match filter.within(work, event) {
        Verdict::Pass => Verdict::Fail,
        Verdict::Fail => Verdict::Pass,
        Verdict::Unfiltered => Verdict::Unfiltered,
    }
}
