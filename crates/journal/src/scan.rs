//! What a file of frames holds, and what stands behind the first place where none can be read.

use crate::{
    Frame,
    frame::{HEADER, claimed_end},
    read_frame,
};

/// Most bytes that are checked for frames behind a damaged place, so that no content makes the search endless.
const SEARCH_BUDGET: usize = 1 << 30;
/// Zeros at the end of a file that a frame which is searched for may end with: were it all of the room, the search in what a
/// kill left of numbers that are small would cost the budget.
const MOST_ZEROS: usize = 4096;

/// The frames of a file, up to the first place where none can be read.
pub struct Scan<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Scan<'a> {
    /// Starts at the beginning of a file.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Where the next frame would start: after the last one, the end of the file or a damaged place.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is left where no frame could be read.
    pub fn remains(&self) -> Remains<'a> {
        remains(self.bytes, self.offset)
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = (usize, Frame<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.offset;
        let (frame, next) = read_frame(self.bytes, at)?;
        self.offset = next;
        Some((at, frame))
    }
}

/// What stands behind the last readable frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Remains<'a> {
    /// Nothing.
    Nothing,
    /// The beginning of a frame that was not written to its end.
    Torn,
    /// Bytes that no write that was cut short explains, and no frame behind them.
    Broken,
    /// Something unreadable, and then frames that can be read.
    Followed {
        /// The next readable frame and its place.
        next: (usize, Frame<'a>),
        /// The most bytes before the damage that a later mark says were synced.
        synced: u64,
    },
    /// So much unreadable that the search for frames was given up.
    Unsearched,
}

fn remains(bytes: &[u8], bad: usize) -> Remains<'_> {
    if bad >= written(bytes) {
        return Remains::Nothing;
    }
    let mut budget = SEARCH_BUDGET;
    let mut first = None;
    let mut synced = 0;
    let mut from = bad + 1;
    loop {
        match next_frame(bytes, from, &mut budget) {
            Ok(Some((at, frame, end))) => {
                if let Frame::Synced(length) = frame {
                    synced = synced.max(length);
                }
                first.get_or_insert((at, frame));
                from = end;
            }
            Ok(None) => break,
            Err(BudgetSpent) if first.is_none() => return Remains::Unsearched,
            Err(BudgetSpent) => break,
        }
    }
    match first {
        Some(next) => Remains::Followed { next, synced },
        None if is_beginning(bytes, bad) => Remains::Torn,
        None => Remains::Broken,
    }
}

/// Where the zeros at the end of a file begin. They are room for what comes next
/// ([`DiskFile::make_room`](crate::DiskFile::make_room)), or a frame's own: no frame begins with eight of them.
pub(crate) fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Whether the bytes from `bad` on can be the beginning of a longer frame, behind which stands nothing or room.
fn is_beginning(bytes: &[u8], bad: usize) -> bool {
    let rest = &bytes[bad..];
    if rest.len() < HEADER {
        return true;
    }
    let written = written(bytes);
    // Where the content is that of a whole frame, it is the length that is wrong.
    let content = bytes.get(bad + HEADER..written).unwrap_or_default();
    let whole = !content.is_empty() && crc32fast::hash(content).to_le_bytes() == rest[4..HEADER];
    let is_cut = |end: usize| end > bytes.len() || (end < bytes.len() && end > written);
    claimed_end(bytes, bad).is_some_and(is_cut) && !whole
}

struct BudgetSpent;

/// The first frame at or after `from`.
fn next_frame<'a>(
    bytes: &'a [u8],
    from: usize,
    budget: &mut usize,
) -> Result<Option<(usize, Frame<'a>, usize)>, BudgetSpent> {
    let written = written(bytes);
    let longest = bytes.len().min(written + MOST_ZEROS);
    for at in from..written {
        let Some(end) = claimed_end(bytes, at).filter(|end| *end <= longest) else { continue };
        *budget = budget.checked_sub(end - at).ok_or(BudgetSpent)?;
        if let Some((frame, end)) = read_frame(bytes, at) {
            return Ok(Some((at, frame, end)));
        }
    }
    Ok(None)
}

/// Where the first frame at or after `from` starts.
pub(crate) fn resume_at(bytes: &[u8], from: usize) -> Option<usize> {
    let mut budget = SEARCH_BUDGET;
    next_frame(bytes, from, &mut budget).ok().flatten().map(|(at, _, _)| at)
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survey<'a> {
    /// A readable record.
    Record {
        /// Where it starts.
        offset: usize,
        /// Its content.
        payload: &'a [u8],
    },
    /// Bytes that cannot be read.
    Unreadable {
        /// Where they start.
        offset: usize,
        /// They.
        bytes: &'a [u8],
    },
}

/// Everything of a file, readable or not, in order: what is left to save of a damaged one.
pub fn survey(bytes: &[u8]) -> Vec<Survey<'_>> {
    let mut found = Vec::new();
    let mut budget = SEARCH_BUDGET;
    let (mut offset, end) = (0, written(bytes));
    while offset < end {
        if let Some((frame, next)) = read_frame(bytes, offset) {
            if let Frame::Record(payload) = frame {
                found.push(Survey::Record { offset, payload });
            }
            offset = next;
            continue;
        }
        let next = match next_frame(bytes, offset + 1, &mut budget) {
            Ok(Some((at, _, _))) => at,
            Ok(None) | Err(BudgetSpent) => end,
        };
        found.push(Survey::Unreadable { offset, bytes: &bytes[offset..next] });
        offset = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{frame, mark};

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&mark(0));
        frame(b"one", &mut bytes);
        frame(b"two", &mut bytes);
        bytes.extend_from_slice(&mark(27));
        frame(b"three", &mut bytes);
        bytes
    }

    fn remains_of(bytes: &[u8]) -> (usize, Remains<'_>) {
        let mut scan = Scan::new(bytes);
        scan.by_ref().for_each(drop);
        (scan.offset(), scan.remains())
    }

    #[test]
    fn a_whole_file_leaves_nothing() {
        let bytes = file();
        assert_eq!(Scan::new(&bytes).count(), 5);
        assert_eq!(remains_of(&bytes), (bytes.len(), Remains::Nothing));
    }

    #[test]
    fn a_file_cut_anywhere_is_torn_there() {
        let bytes = file();
        let ends: Vec<usize> = Scan::new(&bytes).map(|(at, _)| at).collect();
        for end in 0..bytes.len() {
            let (offset, remains) = remains_of(&bytes[..end]);
            let expected = if ends.contains(&end) { Remains::Nothing } else { Remains::Torn };
            assert_eq!((remains, offset <= end), (expected, true), "cut at {end}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_room_and_a_frame_that_was_cut_before_them_is_torn() {
        let whole = file();
        let ends: Vec<usize> = Scan::new(&whole).map(|(at, _)| at).chain([whole.len()]).collect();
        for cut in 0..=whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(whole.len() + 100, 0);
            let (offset, remains) = remains_of(&bytes);
            let frame = ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or_default();
            // A frame of which only zeros are missing is whole.
            assert!(offset >= frame && [Remains::Nothing, Remains::Torn].contains(&remains), "{cut}: {remains:?}");
            assert_eq!(remains == Remains::Nothing, bytes[offset..].iter().all(|byte| *byte == 0), "{cut}");
            assert!(survey(&bytes).iter().all(|stretch| match stretch {
                Survey::Record { offset, payload } => offset + payload.len() <= cut,
                Survey::Unreadable { offset: at, bytes } => *at == offset && at + bytes.len() <= cut,
            }));
        }
        let mut bytes = whole.clone();
        bytes[16 + 8] ^= 1;
        bytes.truncate(54);
        bytes.resize(1000, 0);
        assert_eq!(
            remains_of(&bytes).1,
            Remains::Followed { next: (27, Frame::Record(b"two")), synced: 27 },
            "a mark ends with zeros of its own"
        );
    }

    #[test]
    fn what_is_left_of_small_numbers_before_room_is_searched() {
        let mut bytes = file();
        let at = bytes.len();
        let numbers: Vec<u8> = (0..16_384_u32).flat_map(|n| (300_000 + n).to_le_bytes()).collect();
        frame(&numbers, &mut bytes);
        bytes.truncate(at + 40_000);
        bytes.resize(at + (512 << 10), 0);
        assert_eq!(remains_of(&bytes), (at, Remains::Torn));
    }

    #[test]
    fn damage_in_the_middle_shows_what_follows_and_what_was_synced() {
        let mut bytes = file();
        bytes[16 + 8] ^= 1;
        let (offset, remains) = remains_of(&bytes);
        assert_eq!(offset, 16);
        assert_eq!(remains, Remains::Followed { next: (27, Frame::Record(b"two")), synced: 27 });
        let stretches = survey(&bytes);
        assert_eq!(stretches[0], Survey::Unreadable { offset: 16, bytes: &bytes[16..27] });
        assert_eq!(stretches[1], Survey::Record { offset: 27, payload: b"two" });
        assert_eq!(stretches.len(), 3);
    }

    #[test]
    fn a_wrong_last_record_of_full_length_is_not_taken_for_a_torn_one() {
        let mut bytes = file();
        let last = 54;
        for at in last..bytes.len() {
            for value in 0..=255 {
                let was = std::mem::replace(&mut bytes[at], value);
                let expected = if was == value { Remains::Nothing } else { Remains::Broken };
                assert_eq!(remains_of(&bytes).1, expected, "byte {at} set to {value}");
                bytes[at] = was;
            }
        }
    }
}
