//! What must not be removed just now: an image on its way in, or in somebody's hands.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::Digest;

#[derive(Default)]
struct State {
    counts: BTreeMap<Digest, usize>,
    /// A collection goes on: it may not have seen yet why what is let go now is kept for good.
    collecting: bool,
    let_go: Vec<Digest>,
}

impl State {
    fn release(&mut self, digest: &Digest) {
        if let Some(count) = self.counts.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(digest);
            }
        }
    }
}

/// Digests of blobs and of unpacked layers that are held.
#[derive(Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<State>>);

/// Holds digests for as long as it lives.
pub(crate) struct Hold {
    holds: Holds,
    digests: Vec<Digest>,
}

/// Keeps an image's blobs and layers from being collected, for as long as anybody has it. The default holds nothing.
#[derive(Clone, Default)]
pub struct ImageHold(Option<Arc<Hold>>);

impl From<Hold> for ImageHold {
    fn from(hold: Hold) -> Self {
        Self(Some(Arc::new(hold)))
    }
}

impl std::fmt::Debug for ImageHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} held", self.0.as_ref().map_or(0, |hold| hold.digests.len()))
    }
}

/// A collection going on.
pub(crate) struct Collecting(Holds);

impl Holds {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Hold {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut state = self.state();
        for digest in &digests {
            *state.counts.entry(digest.clone()).or_default() += 1;
        }
        Hold { holds: self.clone(), digests }
    }

    /// Begins a collection; `None` while another goes on.
    pub(crate) fn collect(&self) -> Option<Collecting> {
        let mut state = self.state();
        (!std::mem::replace(&mut state.collecting, true)).then(|| Collecting(self.clone()))
    }
}

impl Collecting {
    /// Removes something unless it is held. Nobody comes to hold it meanwhile.
    pub(crate) fn remove(&self, digest: &Digest, remove: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let state = self.0.state();
        if state.counts.contains_key(digest) {
            return Ok(false);
        }
        remove().map(|()| true)
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.collecting = false;
        for digest in std::mem::take(&mut state.let_go) {
            state.release(&digest);
        }
    }
}

impl Hold {
    /// Holds more.
    pub(crate) fn add(&mut self, digests: impl IntoIterator<Item = Digest>) {
        let mut more = self.holds.hold(digests);
        self.digests.append(&mut more.digests);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.holds.state();
        for digest in self.digests.drain(..) {
            if state.collecting {
                state.let_go.push(digest);
            } else {
                state.release(&digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_or_was_held_during_a_collection_stays() {
        let holds = Holds::default();
        let [one, two, three] = [b"1", b"2", b"3"].map(|bytes| Digest::of(bytes));
        let mut first = holds.hold([one.clone()]);
        first.add([one.clone(), two.clone()]);
        let collecting = holds.collect().expect("none goes on");
        assert!(holds.collect().is_none());
        drop(first);
        let gone = |digest: &Digest| collecting.remove(digest, || Ok(())).expect("removes");
        assert_eq!((gone(&one), gone(&two), gone(&three)), (false, false, true));
        drop(collecting);
        let collecting = holds.collect().expect("none goes on");
        assert!(collecting.remove(&one, || Ok(())).expect("removes"));
    }
}
