//! `cesql`: passes what the expression is true for. An error while it is evaluated is no truth.

use super::{Filter, Verdict};
use crate::{Event, cesql, work::Work};

/// An expression, and what it cannot pass without as a filter.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    expression: cesql::Expression,
    needs: Option<Filter>,
}

impl Condition {
    pub(super) fn new(expression: cesql::Expression) -> Self {
        let needs = expression.needs();
        Self { expression, needs }
    }

    pub(super) const fn needs(&self) -> Option<&Filter> {
        self.needs.as_ref()
    }
}

pub(super) fn verdict(condition: &Condition, work: &Work, event: &Event) -> Verdict {
    Verdict::of(condition.expression.matches_within(work, &|name| event.attribute(name)))
}
