//! `cesql`: whatever a compiled expression says, with what else it was given to know.

use std::{fmt, sync::Arc};

use crate::Event;

/// A compiled expression.
#[derive(Clone)]
pub(super) struct Predicate(Arc<dyn Fn(&Event) -> bool + Send + Sync>);

impl Predicate {
    pub(super) fn new(passes: impl Fn(&Event) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(passes))
    }

    pub(super) fn passes(&self, event: &Event) -> bool {
        (self.0)(event)
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("expression")
    }
}
