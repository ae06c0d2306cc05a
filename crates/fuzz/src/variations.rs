//! Seeds with a few changes: bits flipped, stretches cut, repeated and brought in from other seeds, numbers at their
//! edges, words of the language.

use proptest::{
    collection::vec,
    prelude::{BoxedStrategy, Strategy as _, any},
    prop_oneof,
    sample::Index,
};

/// Most bytes of a variation.
const LONGEST: usize = 64 << 10;
/// Numbers at the edges of their kinds, as bytes.
const EDGES: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
/// The same for numbers that are text.
const DIGITS: [&str; 8] =
    ["0", "-1", "255", "65536", "2147483648", "9223372036854775807", "18446744073709551616", "1e999"];

#[derive(Clone, Debug)]
enum Edit {
    Flip(Index, u8),
    Put(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index, u8),
    Number(Index, Index, u8),
    Word(Index, Index),
    Splice(Index, Index, Index),
}

fn edit() -> impl proptest::strategy::Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        3 => (index(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit % 8)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Put(at, byte)),
        2 => (index(), index()).prop_map(|(from, length)| Edit::Cut(from, length)),
        2 => (index(), index(), any::<u8>()).prop_map(|(from, length, times)| Edit::Repeat(from, length, times)),
        2 => (index(), index(), any::<u8>()).prop_map(|(at, which, width)| Edit::Number(at, which, width)),
        4 => (index(), index()).prop_map(|(at, word)| Edit::Word(at, word)),
        2 => (index(), index(), index()).prop_map(|(seed, from, at)| Edit::Splice(seed, from, at)),
    ]
}

/// A place between the first byte and behind the last.
fn place(at: Index, bytes: &[u8]) -> usize {
    at.index(bytes.len() + 1)
}

/// A short stretch.
fn stretch(from: Index, length: Index, bytes: &[u8]) -> std::ops::Range<usize> {
    let from = place(from, bytes);
    let left = bytes.len() - from;
    // Short ones are likelier to hit one thing.
    let most = if length.index(4) == 0 { left } else { left.min(16) };
    from..from + length.index(most + 1)
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) {
    match *edit {
        Edit::Flip(at, bit) if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Edit::Put(at, byte) => bytes.insert(place(at, bytes), byte),
        Edit::Cut(from, length) => drop(bytes.drain(stretch(from, length, bytes))),
        Edit::Repeat(from, length, times) => {
            let range = stretch(from, length, bytes);
            let end = range.end;
            let room = LONGEST.saturating_sub(bytes.len()) / range.len().max(1);
            let piece = bytes[range].repeat(usize::from(times).min(room));
            bytes.splice(end..end, piece);
        }
        Edit::Number(at, which, width) => {
            let at = place(at, bytes);
            let number = EDGES[which.index(EDGES.len())];
            let piece = match width % 5 {
                0 => DIGITS[which.index(DIGITS.len())].as_bytes().to_vec(),
                1 => number.to_le_bytes()[..4].to_vec(),
                2 => number.to_be_bytes()[4..].to_vec(),
                3 => number.to_le_bytes()[..2].to_vec(),
                _ => number.to_le_bytes().to_vec(),
            };
            let end = (at + piece.len()).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        Edit::Word(at, word) if !words.is_empty() => {
            let at = place(at, bytes);
            bytes.splice(at..at, words[word.index(words.len())].bytes());
        }
        Edit::Splice(seed, from, at) if !seeds.is_empty() => {
            let other = &seeds[seed.index(seeds.len())];
            let (from, at) = (place(from, other), place(at, bytes));
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        Edit::Flip(..) | Edit::Word(..) | Edit::Splice(..) => {}
    }
    bytes.truncate(LONGEST);
}

/// Variations of one of the seeds.
pub fn of(seeds: Vec<Vec<u8>>, words: &'static [&'static str]) -> BoxedStrategy<Vec<u8>> {
    (any::<Index>(), vec(edit(), 0..8))
        .prop_map(move |(seed, edits)| {
            let mut bytes = if seeds.is_empty() { Vec::new() } else { seeds[seed.index(seeds.len())].clone() };
            edits.iter().for_each(|edit| apply(edit, &mut bytes, &seeds, words));
            bytes
        })
        .boxed()
}
