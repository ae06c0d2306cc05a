//! Packs values that have grown cold.
//!
//! A thread of its own compresses; the committer only puts the result in place of what it was made from. A kind's
//! dictionary is made of a few of its objects and made anew each time the kind has grown eightfold, so that few objects
//! are described by one that does not fit them, and few dictionaries are kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc as requests;

use crate::{
    committer::Request,
    counters::count,
    snapshot::Snapshot,
    store::Shared,
    value::{Dictionary, Packed, Value},
};

/// How often the packer looks for what has grown cold while there is something that will.
const EVERY: Duration = Duration::from_secs(1);
/// Keys that wait to grow cold; beyond, the oldest count as cold.
const WAITING: usize = 1 << 16;
/// Keys that wait at most.
const MOST_WAITING: usize = 4 * WAITING;
/// Most values of one round.
const ROUND: usize = 128;
/// Fewest objects of a kind that are worth a dictionary.
const FEWEST: usize = 16;
/// How much a kind grows before it gets a new dictionary.
const GROWTH: usize = 8;
/// Objects and bytes of a dictionary.
const SAMPLES: usize = 8;
const DICTIONARY_BYTES: usize = 16 << 10;
/// Shortest value that is worth packing.
const SHORTEST: usize = 256;
/// How hard the compressor tries: reading back costs the same at every level.
const LEVEL: i32 = 9;

/// A key that was written.
pub(crate) struct Written {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) at: Instant,
}

/// What took the place of a value.
pub(crate) struct PackedValue {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) packed: Packed,
}

/// What is known of the packed values of one kind.
#[derive(Default)]
struct Packing {
    dictionary: Option<Arc<Dictionary>>,
    /// Values packed with it or with an older one.
    packed: usize,
    /// How many there must be for the next dictionary.
    renew_at: usize,
    /// Cold keys that wait until there are enough of them for a dictionary.
    few: Vec<(Arc<str>, u64)>,
}

/// Where the committer leaves word of what it wrote. Nobody is woken for it: packing is in no hurry.
pub(crate) struct Notes {
    written: mpsc::Sender<Written>,
    /// The packer ends when this goes.
    #[expect(dead_code, reason = "it is there to be dropped")]
    open: mpsc::Sender<()>,
}

impl Notes {
    /// Leaves word of a write. Without a packer values stay as they are.
    pub(crate) fn leave(&self, written: Written) {
        self.written.send(written).ok();
    }
}

struct Packer {
    shared: Arc<Shared>,
    written: mpsc::Receiver<Written>,
    open: mpsc::Receiver<()>,
    committer: requests::WeakSender<Request>,
    cold_after: Duration,
    waiting: VecDeque<Written>,
    kinds: HashMap<String, Packing>,
    /// A panic may have left `kinds` half changed.
    is_unsure: bool,
}

/// The folder of a key: objects in it are alike.
fn kind_of(key: &str) -> &str {
    key.match_indices('/').nth(2).map_or("", |(at, _)| &key[..=at])
}

/// Starts the thread. It ends when nobody sends to it any more.
pub(crate) fn start(
    shared: Arc<Shared>,
    committer: requests::WeakSender<Request>,
    cold_after: Duration,
    state: &Snapshot,
) -> std::io::Result<Notes> {
    let (notes, written) = mpsc::channel();
    let (opened, open) = mpsc::channel();
    let kinds = kinds_of(state);
    let mut packer =
        Packer { shared, written, open, committer, cold_after, waiting: VecDeque::new(), kinds, is_unsure: false };
    let now = Instant::now();
    // What was read from the log is as new as what is written now.
    let plain =
        state.map.iter().filter(|(_, slot)| matches!(&slot.value, Value::Plain(value) if value.len() >= SHORTEST));
    packer.waiting.extend(plain.map(|(key, slot)| Written { key: key.clone(), revision: slot.revision, at: now }));
    thread::Builder::new().name("store-pack".into()).spawn(move || packer.run())?;
    Ok(Notes { written: notes, open: opened })
}

/// Dictionaries that are in use, each kind's most used one.
fn kinds_of(state: &Snapshot) -> HashMap<String, Packing> {
    let mut kinds: HashMap<String, Packing> = HashMap::new();
    let mut uses: HashMap<*const Dictionary, usize> = HashMap::new();
    for (key, slot) in &state.map {
        let Value::Packed(packed) = &slot.value else { continue };
        let count = uses.entry(Arc::as_ptr(&packed.dictionary)).or_default();
        *count += 1;
        let count = *count;
        let kind = kinds.entry(kind_of(key).to_owned()).or_default();
        kind.packed += 1;
        let used = kind.dictionary.as_ref().and_then(|best| uses.get(&Arc::as_ptr(best))).copied().unwrap_or_default();
        if count >= used {
            kind.dictionary = Some(packed.dictionary.clone());
        }
    }
    kinds.values_mut().for_each(|kind| kind.renew_at = kind.packed.max(FEWEST) * GROWTH);
    kinds
}

impl Packer {
    fn run(&mut self) {
        while self.wait() {
            let packed = match knoll_faults::catch(|| self.round()) {
                Ok(packed) => packed,
                Err(panic) => {
                    self.begin_again(&panic);
                    continue;
                }
            };
            let Some(committer) = self.committer.upgrade() else { return };
            if !packed.is_empty() && committer.blocking_send(Request::Packed(packed)).is_err() {
                return;
            }
        }
    }

    /// Packs what has grown cold, as much as goes into one round.
    fn round(&mut self) -> Vec<PackedValue> {
        let cold = self.cold();
        if cold.is_empty() {
            return Vec::new();
        }
        tracing::trace!(keys = cold.len(), "pack what has grown cold");
        let state = self.shared.published();
        if self.is_unsure {
            self.kinds = kinds_of(&state);
            self.is_unsure = false;
        }
        self.pack(&state, cold)
    }

    /// Goes on after a panic. It costs that round: its values stay as they are until they are written again or the store
    /// is opened. What was known of the kinds, which may be half changed, is found out anew in the next round; keys that
    /// waited until there are enough of their kind wait from the beginning.
    fn begin_again(&mut self, panic: &str) {
        count(&self.shared.counters.pack_panics);
        tracing::error!(panic, "pack values that have grown cold; they stay as they are");
        let at = Instant::now();
        let few = self.kinds.values_mut().flat_map(|kind| kind.few.drain(..));
        self.waiting.extend(few.map(|(key, revision)| Written { key, revision, at }));
        self.is_unsure = true;
    }

    /// Waits until something is cold or was written. `false` when the store has gone.
    fn wait(&mut self) -> bool {
        match self.waiting.front() {
            None => match self.written.recv() {
                Ok(first) => self.waiting.push_back(first),
                Err(mpsc::RecvError) => return false,
            },
            Some(oldest) => {
                let wait = self.cold_after.saturating_sub(oldest.at.elapsed()).min(EVERY);
                if self.open.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Disconnected) {
                    return false;
                }
            }
        }
        self.waiting.extend(self.written.try_iter());
        // More than can be packed: the oldest stay as they are until they are written again or the store is opened.
        let surplus = self.waiting.len().saturating_sub(MOST_WAITING);
        self.waiting.drain(..surplus);
        true
    }

    /// The keys of the next round.
    fn cold(&mut self) -> Vec<(Arc<str>, u64)> {
        let mut round = Vec::new();
        while round.len() < ROUND {
            let crowded = self.waiting.len() > WAITING;
            let Some(oldest) = self.waiting.front().filter(|w| crowded || w.at.elapsed() >= self.cold_after) else {
                break;
            };
            round.push((oldest.key.clone(), oldest.revision));
            self.waiting.pop_front();
        }
        round
    }

    fn pack(&mut self, state: &Snapshot, round: Vec<(Arc<str>, u64)>) -> Vec<PackedValue> {
        let mut by_kind: HashMap<&str, Vec<(Arc<str>, u64)>> = HashMap::new();
        for (key, revision) in &round {
            if plain(state, key, *revision).is_some() {
                by_kind.entry(kind_of(key)).or_default().push((key.clone(), *revision));
            }
        }
        let mut packed = Vec::new();
        for (name, keys) in by_kind {
            let kind = self.kinds.entry(name.to_owned()).or_default();
            packed.extend(kind.pack(state, name, keys));
        }
        packed
    }
}

/// The value of a key, if it is still that of the revision and not packed.
fn plain<'a>(state: &'a Snapshot, key: &str, revision: u64) -> Option<&'a Bytes> {
    match state.map.get(key) {
        Some(slot) if slot.revision == revision => match &slot.value {
            Value::Plain(value) if value.len() >= SHORTEST => Some(value),
            _ => None,
        },
        _ => None,
    }
}

impl Packing {
    fn pack(&mut self, state: &Snapshot, name: &str, mut keys: Vec<(Arc<str>, u64)>) -> Vec<PackedValue> {
        if self.dictionary.is_none() {
            self.few.append(&mut keys);
            self.few.retain(|(key, revision)| plain(state, key, *revision).is_some());
            if self.few.len() < FEWEST {
                return Vec::new();
            }
            keys = std::mem::take(&mut self.few);
        }
        if self.packed >= self.renew_at || self.dictionary.is_none() {
            self.dictionary = keys.first().map(|(first, _)| Arc::new(dictionary(state, name, first)));
            self.renew_at = (self.packed + keys.len()).max(FEWEST) * GROWTH;
        }
        let Some(dictionary) = self.dictionary.clone() else { return Vec::new() };
        let Ok(mut packer) = zstd::bulk::Compressor::with_dictionary(LEVEL, &dictionary.0) else { return Vec::new() };
        let mut packed = Vec::with_capacity(keys.len());
        for (key, revision) in keys {
            let Some(value) = plain(state, &key, revision) else { continue };
            // What does not shrink, and what cannot be packed, stays as it is.
            let Some(bytes) = packer.compress(value).ok().filter(|bytes| bytes.len() < value.len() / 10 * 9) else {
                continue;
            };
            let packed_value = Packed { bytes: bytes.into(), dictionary: dictionary.clone() };
            packed.push(PackedValue { key, revision, packed: packed_value });
        }
        self.packed += packed.len();
        packed
    }
}

/// A few objects of the kind, from `first` on.
fn dictionary(state: &Snapshot, kind: &str, first: &str) -> Dictionary {
    let mut bytes = Vec::new();
    let here = state.slots(kind, Some(first)).chain(state.slots(kind, None)).take(SAMPLES);
    let values = here.filter_map(|(_, slot)| slot.value.read().ok());
    for value in values {
        let room = DICTIONARY_BYTES - bytes.len();
        bytes.extend_from_slice(&value[..value.len().min(room)]);
    }
    Dictionary(bytes.into())
}
