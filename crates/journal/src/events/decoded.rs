//! What an event means to whoever wrote it, kept beside its bytes while they are in memory.

use std::{any::Any, fmt, sync::Arc};

/// What the bytes of an event say, as whoever writes it has it at hand: kept beside them in the tail in memory, and given to
/// who reads them there, so that it is not made out of them again. It is never written, and never there for what is read
/// from disk: who reads must get along without. Cheap to clone.
#[derive(Clone)]
pub struct Decoded {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
}

impl Decoded {
    /// This value, which takes about so many bytes of memory beside the event's own, or keeps them from being given back.
    pub fn new<T: Any + Send + Sync>(value: Arc<T>, bytes: usize) -> Self {
        Self { value, bytes }
    }

    /// The value, if it is one of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone().downcast().ok()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Decoded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Decoded").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl PartialEq for Decoded {
    /// One is itself: what it says is not known here.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

impl Eq for Decoded {}
