//! The older `filter.attributes`: equal to the text, or not empty where the text is.
//!
//! Integers and booleans compare as the text they are in a header. Upstream compares typed, but its events have passed
//! through headers by the time they are filtered, and are all text.

use super::{Pair, Verdict};
use crate::{Event, work::Work};

/// Stands for any value that is not empty.
pub(super) const ANY: &str = "";

pub(super) fn verdict(pairs: &[Pair], work: &Work, event: &Event) -> Verdict {
    super::every(pairs, work, event, |text, value| if value == ANY { !text.is_empty() } else { text == value })
}
