//! `suffix`: ends with the text.

use super::Verdict;
use crate::Event;

pub(super) fn verdict(pairs: &[(Box<str>, Box<str>)], event: &Event) -> Verdict {
    super::every(pairs, event, |text, value| text.ends_with(value))
}
