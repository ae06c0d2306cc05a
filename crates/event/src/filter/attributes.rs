//! The older `filter.attributes`: equal to the text, or not empty where the text is.
//!
//! Integers and booleans compare as the text they are in a header. Upstream compares typed, but its events have passed
//! through headers by the time they are filtered, and are all text.

use super::Verdict;
use crate::Event;

/// Stands for any value that is not empty.
pub(super) const ANY: &str = "";

pub(super) fn verdict(pairs: &[(Box<str>, Box<str>)], event: &Event) -> Verdict {
    super::every(pairs, event, |text, value| if value == ANY { !text.is_empty() } else { text == value })
}
