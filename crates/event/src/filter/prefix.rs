//! `prefix`: begins with the text.

use super::{Pair, Verdict};
use crate::{Event, work::Work};

pub(super) fn verdict(pairs: &[Pair], work: &Work, event: &Event) -> Verdict {
    super::every(pairs, work, event, |text, value| text.starts_with(value))
}
