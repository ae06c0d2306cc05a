//! Who listens to which keys.
//!
//! A change costs a few look-ups and one hand-over to each listener it concerns, however many others there are:
//! listeners are found by the folder of their prefix (up to its last `/`), and within a folder by what follows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::{Change, Watch, history::weight};

/// Changes a watcher may be behind before it is dropped.
const BACKLOG: usize = 8192;

/// So many additions are worth no look for those that have gone.
const FEW: usize = 64;

struct Listener {
    sender: mpsc::Sender<Arc<Change>>,
    lagged: Arc<AtomicBool>,
    /// Bytes of changes that wait for the listener.
    waiting: Arc<AtomicUsize>,
}

/// Listeners to prefixes in one folder.
#[derive(Default)]
struct Folder {
    /// To everything in it and below.
    whole: Vec<Listener>,
    /// To what begins so, by the beginning.
    partial: HashMap<String, Vec<Listener>>,
    /// Lengths of those beginnings, and how many have each.
    lengths: BTreeMap<usize, usize>,
}

/// Who listens to which keys.
#[derive(Default)]
pub(crate) struct Listeners {
    folders: HashMap<String, Folder>,
    /// Bytes of changes that may wait for one listener.
    most_waiting: usize,
    /// Listeners added since those that have gone were last looked for, and how many were left then.
    added: usize,
    left: usize,
    /// Listeners that were dropped because they were too slow.
    pub(crate) dropped: u64,
}

/// How a listener took a change.
enum Heard {
    Yes,
    Gone,
    TooSlow,
}

impl Listeners {
    pub(crate) fn new(most_waiting: usize) -> Self {
        Self { most_waiting, ..Self::default() }
    }

    /// Adds a listener to `prefix`.
    pub(crate) fn add(&mut self, prefix: &str) -> Watch {
        let (sender, live) = mpsc::channel(BACKLOG);
        let lagged = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicUsize::new(0));
        let listener = Listener { sender, lagged: lagged.clone(), waiting: waiting.clone() };
        let (folder, beginning) = prefix.split_at(prefix.rfind('/').map_or(0, |at| at + 1));
        let folder = self.folders.entry(folder.to_owned()).or_default();
        if beginning.is_empty() {
            folder.whole.push(listener);
        } else {
            let listeners = folder.partial.entry(beginning.to_owned()).or_default();
            if listeners.is_empty() {
                *folder.lengths.entry(beginning.len()).or_default() += 1;
            }
            listeners.push(listener);
        }
        self.added += 1;
        if self.added > self.left.max(FEW) {
            self.forget_gone();
        }
        Watch { backlog: Default::default(), live, lagged, waiting }
    }

    /// Hands a change to everybody it concerns.
    pub(crate) fn tell(&mut self, change: &Arc<Change>) {
        let ends = std::iter::once(0).chain(change.key.match_indices('/').map(|(at, _)| at + 1));
        for end in ends {
            let (name, rest) = change.key.split_at(end);
            let Some(folder) = self.folders.get_mut(name) else { continue };
            self.dropped += tell_all(&mut folder.whole, change, self.most_waiting);
            self.dropped += folder.tell_partial(rest, change, self.most_waiting);
            if folder.whole.is_empty() && folder.partial.is_empty() {
                self.folders.remove(name);
            }
        }
    }

    /// Forgets who has gone: where nothing changes nobody notices. Costs a look at each, once for as many additions.
    fn forget_gone(&mut self) {
        let gone = |listeners: &mut Vec<Listener>| listeners.retain(|listener| !listener.sender.is_closed());
        self.folders.retain(|_, folder| {
            gone(&mut folder.whole);
            folder.partial.values_mut().for_each(gone);
            folder.partial.retain(|_, listeners| !listeners.is_empty());
            folder.lengths = BTreeMap::new();
            for beginning in folder.partial.keys() {
                *folder.lengths.entry(beginning.len()).or_default() += 1;
            }
            !(folder.whole.is_empty() && folder.partial.is_empty())
        });
        (self.added, self.left) = (0, self.count());
    }

    /// How many there are; those that have gone without a change since are counted, too.
    pub(crate) fn count(&self) -> usize {
        let partial = |folder: &Folder| folder.partial.values().map(Vec::len).sum::<usize>();
        self.folders.values().map(|folder| folder.whole.len() + partial(folder)).sum()
    }

    /// Ends every watch.
    pub(crate) fn clear(&mut self) {
        self.folders.clear();
    }
}

impl Folder {
    fn tell_partial(&mut self, rest: &str, change: &Arc<Change>, most_waiting: usize) -> u64 {
        let mut dropped = 0;
        let mut emptied = Vec::new();
        for &length in self.lengths.range(..=rest.len()).map(|(length, _)| length) {
            let Some(beginning) = rest.get(..length) else { continue };
            let Some(listeners) = self.partial.get_mut(beginning) else { continue };
            dropped += tell_all(listeners, change, most_waiting);
            if listeners.is_empty() {
                emptied.push(length);
            }
        }
        for length in emptied {
            self.partial.remove(&rest[..length]);
            if let Some(count) = self.lengths.get_mut(&length) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length);
                }
            }
        }
        dropped
    }
}

/// Hands a change to each. Returns how many were too slow for it.
fn tell_all(listeners: &mut Vec<Listener>, change: &Arc<Change>, most_waiting: usize) -> u64 {
    let mut dropped = 0;
    listeners.retain(|listener| match listener.hear(change, most_waiting) {
        Heard::Yes => true,
        Heard::Gone => false,
        Heard::TooSlow => {
            dropped += 1;
            false
        }
    });
    dropped
}

impl Listener {
    fn hear(&self, change: &Arc<Change>, most_waiting: usize) -> Heard {
        // What waits is what was read late: a single large change must reach a listener that is up to date.
        if self.waiting.load(Ordering::Acquire) > most_waiting {
            self.lagged.store(true, Ordering::Release);
            return Heard::TooSlow;
        }
        self.waiting.fetch_add(weight(change), Ordering::AcqRel);
        match self.sender.try_send(change.clone()) {
            Ok(()) => Heard::Yes,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                Heard::TooSlow
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Heard::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, revision: u64) -> Arc<Change> {
        Arc::new(Change { key: key.into(), revision, value: Some("value".into()), previous: None })
    }

    fn seen(watch: &mut Watch) -> Vec<String> {
        std::iter::from_fn(|| watch.try_next().expect("keeps up")).map(|change| change.key.to_string()).collect()
    }

    #[test]
    fn each_listener_hears_exactly_what_begins_with_its_prefix() {
        let keys = ["/g/pods/ns/a", "/g/pods/ns/ab", "/g/pods/ns2/a", "/g/pod/ns/a", "/h/pods/ns/é", "/g/pods/ns/é/b"];
        let prefixes =
            ["", "/", "/g", "/g/", "/g/pods", "/g/pods/", "/g/pods/n", "/g/pods/ns/", "/g/pods/ns/a", "/h/pods/ns/é"];
        let mut listeners = Listeners::new(1 << 20);
        let mut watches: Vec<Watch> = prefixes.iter().map(|prefix| listeners.add(prefix)).collect();
        for (revision, key) in (1..).zip(keys) {
            listeners.tell(&change(key, revision));
        }
        for (prefix, watch) in prefixes.iter().zip(&mut watches) {
            let expected: Vec<&str> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
            assert_eq!(seen(watch), expected, "prefix {prefix:?}");
        }
        assert_eq!(listeners.count(), prefixes.len());
        drop(watches);
        for (revision, key) in (10..).zip(keys) {
            listeners.tell(&change(key, revision));
        }
        assert_eq!(listeners.count(), 0, "those that have gone are forgotten");
        assert!(listeners.folders.is_empty());
    }

    #[test]
    fn those_that_have_gone_are_forgotten_where_nothing_changes_too() {
        let mut listeners = Listeners::new(1 << 20);
        let mut kept = [listeners.add("/quiet/"), listeners.add("/quiet/na")];
        for number in 0..10_000 {
            drop(listeners.add(&format!("/quiet/{}", ["", "n", "name", "other/"][number % 4])));
            assert!(listeners.count() <= 2 * FEW + 2, "{} after {number}", listeners.count());
        }
        listeners.tell(&change("/quiet/name", 1));
        assert!(kept.iter_mut().all(|watch| seen(watch) == ["/quiet/name"]));
    }

    #[test]
    fn a_listener_that_holds_too_many_bytes_is_dropped_and_told() {
        let mut listeners = Listeners::new(1000);
        let mut slow = listeners.add("/g/");
        let mut quick = listeners.add("/g/");
        for revision in 1..100 {
            listeners.tell(&change("/g/pods/ns/a", revision));
            seen(&mut quick);
        }
        assert_eq!(listeners.dropped, 1);
        let end = std::iter::from_fn(|| Some(slow.try_next())).find(|next| !matches!(next, Ok(Some(_))));
        assert_eq!(end, Some(Err(crate::Lagged)));
    }
}
