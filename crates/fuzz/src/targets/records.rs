//! What is read from a disk that somebody else may have written to.

use knoll_journal::{Frame, Remains, Scan, Survey, frame, read_frame, survey};
use knoll_store::{Record, glean_operations, parse_checkpoint, parse_record};

use super::parts;
use crate::Target;

pub(super) const JOURNAL: Target =
    Target { name: "journal", cases: 3000, words: &["\u{8}\u{0}\u{0}", "\u{0}\u{0}\u{0}\u{0}"], check: journal };
pub(super) const RECORD: Target = Target { name: "record", cases: 5000, words: WORDS, check: record };
pub(super) const CHECKPOINT: Target = Target { name: "checkpoint", cases: 3000, words: WORDS, check: checkpoint };

const WORDS: &[&str] =
    &["T", "R", "B", "H", "D", "P", "E", "\u{1}", "\u{2}", "/pods/a/b", "knoll-store checkpoint 2", "\n---\n"];

/// Stretches follow each other without a gap, whole frames read back, and nothing readable is passed over.
fn journal(input: &[u8]) {
    let mut scan = Scan::new(input);
    let frames = scan.by_ref().count();
    let remains = scan.remains();
    // Zeros at the end are room.
    let has_more = input.get(scan.offset()..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0));
    assert_eq!(remains == Remains::Nothing, !has_more);
    if let Remains::Followed { next: (at, found), .. } = remains {
        assert_eq!(read_frame(input, at).map(|(frame, _)| frame), Some(found));
    }
    let stretches = survey(input);
    let mut end = 0;
    for stretch in &stretches {
        let (at, length) = match stretch {
            Survey::Record { offset, payload } => (*offset, payload.len()),
            Survey::Unreadable { offset, bytes } => (*offset, bytes.len()),
        };
        assert!(at >= end && at + length <= input.len());
        end = at + length;
    }
    assert!(stretches.len() >= usize::from(frames == 0 && has_more));
    let mut written = Vec::new();
    frame(input, &mut written);
    if !input.is_empty() {
        assert_eq!(read_frame(&written, 0), Some((Frame::Record(input), written.len())));
    }
}

fn record(input: &[u8]) {
    let bytes = match parse_record(input) {
        None => 0,
        Some(Record::Transaction(operations)) => {
            operations.iter().map(|op| op.key.len() + op.value.as_ref().map_or(0, |v| v.len())).sum()
        }
        Some(Record::Boot(boot) | Record::Head { boot, .. }) => boot.len(),
        Some(Record::Dictionary(bytes) | Record::Packed { bytes, .. }) => bytes.len(),
        Some(Record::Reserve(_) | Record::End { .. }) => 0,
    };
    assert!(bytes <= input.len());
    let gleaned = glean_operations(input);
    assert!(gleaned.iter().map(|(_, key)| key.len()).sum::<usize>() <= input.len());
    assert!(gleaned.iter().all(|(_, key)| key.starts_with('/')));
}

/// A file as it is, and one whose frames hold the parts of the input.
fn checkpoint(input: &[u8]) {
    let mut framed = Vec::new();
    frame(b"knoll-store checkpoint 2", &mut framed);
    parts(input).filter(|part| !part.is_empty()).for_each(|part| frame(part, &mut framed));
    for bytes in [input, &framed] {
        match parse_checkpoint(bytes) {
            Ok(snapshot) => {
                let keys = snapshot.keys("").count();
                assert!(keys == snapshot.count("") && keys <= bytes.len());
            }
            Err(damage) => assert!(damage.offset <= bytes.len() && !damage.reason.is_empty()),
        }
    }
}
