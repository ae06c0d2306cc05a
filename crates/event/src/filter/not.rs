//! `not`: the contrary, but nothing stays nothing.

use super::{Filter, Verdict};
use crate::Event;

pub(super) fn verdict(filter: &Filter, event: &Event) -> Verdict {
    match filter.verdict(event) {
        Verdict::Pass => Verdict::Fail,
        Verdict::Fail => Verdict::Pass,
        Verdict::Unfiltered => Verdict::Unfiltered,
    }
}
