//! Where the data of a sparse file lies.

use super::{header::number, pax::PaxRecord};
use crate::limits::{LimitError, Limits};

/// A stretch of data in a file; between stretches are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// GNU's table of 24-byte entries; an empty one ends it.
pub(super) fn from_table(table: &[u8], into: &mut Vec<Segment>) -> Option<()> {
    for entry in table.as_chunks::<24>().0 {
        if entry[0] == 0 {
            break;
        }
        let offset = u64::try_from(number(&entry[..12])?).ok()?;
        let length = u64::try_from(number(&entry[12..])?).ok()?;
        into.push(Segment { offset, length });
    }
    Some(())
}

/// What PAX records say of a sparse file.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) segments: Vec<Segment>,
    pub(super) real_size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Form 1.0 keeps the map before the data.
    pub(super) map_in_data: bool,
}

fn decimal(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Pairs of numbers.
fn pairs(numbers: &[u64]) -> Option<Vec<Segment>> {
    let (pairs, []) = numbers.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[offset, length]| Segment { offset: *offset, length: *length }).collect())
}

/// The sparse file that `records` describe, if they describe one. `Some(None)` when they contradict themselves.
pub(super) fn from_pax(records: &[PaxRecord]) -> Option<Option<PaxSparse>> {
    records.iter().any(|(key, _)| key.starts_with("GNU.sparse.")).then(|| read_pax(records))
}

fn read_pax(records: &[PaxRecord]) -> Option<PaxSparse> {
    let mut sparse = PaxSparse::default();
    let mut numbers = Vec::new();
    for (key, value) in records {
        match key.as_str() {
            "GNU.sparse.major" => sparse.map_in_data = decimal(value)? == 1,
            "GNU.sparse.size" | "GNU.sparse.realsize" => sparse.real_size = Some(decimal(value)?),
            "GNU.sparse.name" => sparse.name = Some(value.clone()),
            "GNU.sparse.offset" if numbers.len() % 2 == 0 => numbers.push(decimal(value)?),
            "GNU.sparse.numbytes" if numbers.len() % 2 == 1 => numbers.push(decimal(value)?),
            "GNU.sparse.offset" | "GNU.sparse.numbytes" => return None,
            "GNU.sparse.map" if value.is_empty() => {}
            "GNU.sparse.map" => numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>()?,
            _ => {}
        }
    }
    sparse.segments = pairs(&numbers)?;
    Some(sparse)
}

/// The map before the data in form 1.0: a count, then offset and length of each stretch, a number a line, filled up
/// to whole blocks. `next` gives a block. Returns the map and how many bytes it took.
pub(super) fn from_data<E: From<LimitError>>(
    limits: &Limits,
    mut next: impl FnMut() -> Result<[u8; 512], E>,
) -> Result<Option<(Vec<Segment>, u64)>, E> {
    let (mut numbers, mut wanted, mut taken) = (Vec::new(), None, 0);
    let mut digits = Vec::new();
    loop {
        let block = next()?;
        taken += block.len() as u64;
        for byte in block {
            if byte != b'\n' {
                if digits.len() > 20 {
                    return Ok(None);
                }
                digits.push(byte);
                continue;
            }
            let Some(number) = decimal(&digits) else { return Ok(None) };
            digits.clear();
            match wanted {
                None => {
                    LimitError::check("stretches of a sparse file", number, limits.sparse_segments as u64)?;
                    wanted = Some(2 * number as usize);
                }
                Some(_) => numbers.push(number),
            }
            if wanted == Some(numbers.len()) {
                return Ok(pairs(&numbers).map(|segments| (segments, taken)));
            }
        }
    }
}

/// Whether stretches follow each other inside a file of `size` bytes and hold `stored` bytes in all.
pub(super) fn is_sound(segments: &[Segment], size: u64, stored: u64) -> bool {
    let mut end = 0;
    let mut sum = 0u64;
    for segment in segments {
        let Some(next) = segment.offset.checked_add(segment.length) else { return false };
        if segment.offset < end || next > size {
            return false;
        }
        end = next;
        sum += segment.length;
    }
    sum == stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn stretches_that_overlap_or_leave_the_file_are_unsound() {
        assert!(is_sound(&[segment(0, 4), segment(8, 2)], 10, 6));
        assert!(!is_sound(&[segment(4, 4), segment(0, 2)], 10, 6));
        assert!(!is_sound(&[segment(0, 4), segment(2, 2)], 10, 6));
        assert!(!is_sound(&[segment(8, 4)], 10, 4));
        assert!(!is_sound(&[segment(u64::MAX, 2)], 10, 2));
        assert!(!is_sound(&[segment(0, 4)], 10, 5));
    }

    #[test]
    fn each_pax_form_gives_its_map() {
        let record = |key: &str, value: &str| (format!("GNU.sparse.{key}"), value.as_bytes().to_vec());
        let read = |records: &[PaxRecord]| from_pax(records).expect("is sparse").map(|sparse| sparse.segments);
        let wanted = Some(vec![segment(0, 4), segment(8, 2)]);
        let each = [("offset", "0"), ("numbytes", "4"), ("offset", "8"), ("numbytes", "2")];
        assert_eq!(read(&each.map(|(key, value)| record(key, value))), wanted);
        assert_eq!(read(&[record("map", "0,4,8,2")]), wanted);
        assert_eq!(read(&[record("map", "0,4,8")]), None);
        assert_eq!(read(&[record("offset", "0"), record("offset", "4")]), None);
        assert!(from_pax(&[("path".into(), b"a".to_vec())]).is_none());
        let mut block = [0; 512];
        block[..10].copy_from_slice(b"2\n0\n4\n8\n2\n");
        let map = from_data::<LimitError>(&Limits::default(), || Ok(block)).expect("is within bounds");
        assert_eq!(map, wanted.map(|segments| (segments, 512)));
        block[..10].copy_from_slice(b"999999999\n");
        assert!(from_data::<LimitError>(&Limits::default(), || Ok(block)).is_err());
    }
}
