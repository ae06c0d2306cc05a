//! Records of the log and of checkpoints.
//!
//! A transaction is one record, so that it is replayed whole or not at all.

use bytes::Bytes;

const PUT: u8 = 1;
const DELETE: u8 = 2;

const TRANSACTION: u8 = b'T';
const RESERVE: u8 = b'R';
const BOOT: u8 = b'B';
const HEAD: u8 = b'H';
const DICTIONARY: u8 = b'D';
const PACKED: u8 = b'P';
const END: u8 = b'E';

/// One operation of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its revision.
    pub revision: u64,
    /// What it writes.
    pub key: String,
    /// The new value; `None` deletes.
    pub value: Option<Bytes>,
}

/// A record of the log or of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// Writes that happened together.
    Transaction(Vec<Operation>),
    /// Revisions up to this one may have been handed out.
    Reserve(u64),
    /// What follows was written while the machine ran under this boot id.
    Boot(String),
    /// The first record of a segment.
    Head {
        /// Revision of the last write before it.
        revision: u64,
        /// Revisions up to this one may have been handed out.
        reserved: u64,
        /// What follows was written while the machine ran under this boot id.
        boot: String,
    },
    /// Of a checkpoint: what packed values after it are described by. Numbered from 0 in their order.
    Dictionary(Bytes),
    /// Of a checkpoint: an entry whose value is packed.
    Packed {
        /// Number of its dictionary.
        dictionary: u32,
        /// Revision of its last write.
        revision: u64,
        /// Key.
        key: String,
        /// The packed value.
        bytes: Bytes,
    },
    /// The last record of a checkpoint, which tells a whole one from what a crash left.
    End {
        /// Revision of the state.
        revision: u64,
        /// How many entries it has.
        entries: u64,
    },
}

pub(crate) fn begin_transaction(out: &mut Vec<u8>) {
    out.push(TRANSACTION);
}

pub(crate) fn operation(revision: u64, key: &str, value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.push(if value.is_some() { PUT } else { DELETE });
    out.extend_from_slice(&revision.to_le_bytes());
    put_bytes(key.as_bytes(), out);
    if let Some(value) = value {
        put_bytes(value, out);
    }
}

pub(crate) fn reserve(revision: u64) -> Vec<u8> {
    let mut out = vec![RESERVE];
    out.extend_from_slice(&revision.to_le_bytes());
    out
}

pub(crate) fn head(revision: u64, reserved: u64, boot: &str) -> Vec<u8> {
    let mut out = vec![HEAD];
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&reserved.to_le_bytes());
    out.extend_from_slice(boot.as_bytes());
    out
}

pub(crate) fn dictionary(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![DICTIONARY];
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn packed(dictionary: u32, revision: u64, key: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(PACKED);
    out.extend_from_slice(&dictionary.to_le_bytes());
    out.extend_from_slice(&revision.to_le_bytes());
    put_bytes(key.as_bytes(), out);
    out.extend_from_slice(bytes);
}

pub(crate) fn end(revision: u64, entries: u64) -> Vec<u8> {
    let mut out = vec![END];
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&entries.to_le_bytes());
    out
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("records are bounded well below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a record; `None` when it is not one this version knows.
pub fn parse_record(payload: &[u8]) -> Option<Record> {
    let (&tag, mut rest) = payload.split_first()?;
    let rest = &mut rest;
    Some(match tag {
        TRANSACTION => {
            let mut operations = Vec::new();
            while !rest.is_empty() {
                operations.push(take_operation(rest)?);
            }
            Record::Transaction(operations)
        }
        RESERVE => Record::Reserve(u64::from_le_bytes((*rest).try_into().ok()?)),
        BOOT => Record::Boot(take_text(rest)?),
        HEAD => Record::Head { revision: take_number(rest)?, reserved: take_number(rest)?, boot: take_text(rest)? },
        DICTIONARY => Record::Dictionary(Bytes::copy_from_slice(rest)),
        PACKED => Record::Packed {
            dictionary: u32::from_le_bytes(take(rest, 4)?.try_into().ok()?),
            revision: take_number(rest)?,
            key: take_key(rest)?,
            bytes: Bytes::copy_from_slice(rest),
        },
        END => {
            let end = Record::End { revision: take_number(rest)?, entries: take_number(rest)? };
            rest.is_empty().then_some(end)?
        }
        _ => return None,
    })
}

/// Revisions and keys that can still be made out in the bytes of a damaged record.
pub fn glean_operations(frame: &[u8]) -> Vec<(u64, String)> {
    const FRAME_HEADER: usize = 8;
    let mut found = Vec::new();
    let Some((&TRANSACTION, mut rest)) = frame.get(FRAME_HEADER..).and_then(<[u8]>::split_first) else { return found };
    while let Some((&tag, tail)) = rest.split_first() {
        rest = tail;
        let known = take_number(&mut rest).zip(take_key(&mut rest));
        let Some((revision, key)) = known.filter(|(_, key)| key.starts_with('/')) else { break };
        found.push((revision, key));
        if tag == PUT && take_bytes(&mut rest).is_none() {
            break;
        }
    }
    found
}

fn take_operation(rest: &mut &[u8]) -> Option<Operation> {
    let (&tag, tail) = rest.split_first()?;
    *rest = tail;
    let revision = take_number(rest)?;
    let key = take_key(rest)?;
    let value = match tag {
        PUT => Some(Bytes::copy_from_slice(take_bytes(rest)?)),
        DELETE => None,
        _ => return None,
    };
    Some(Operation { revision, key, value })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
    take(rest, length)
}

fn take_key(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(rest)?.to_vec()).ok()
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(std::mem::take(rest).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction() -> Vec<u8> {
        let mut out = Vec::new();
        begin_transaction(&mut out);
        operation(7, "/a/b/c", Some(b"value"), &mut out);
        operation(8, "/a/b/d", None, &mut out);
        out
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let expected = vec![
            Operation { revision: 7, key: "/a/b/c".into(), value: Some(Bytes::from_static(b"value")) },
            Operation { revision: 8, key: "/a/b/d".into(), value: None },
        ];
        assert_eq!(parse_record(&transaction()), Some(Record::Transaction(expected)));
        let expected = Record::Head { revision: 3, reserved: 9, boot: "boot".into() };
        assert_eq!(parse_record(&head(3, 9, "boot")), Some(expected));
        assert_eq!(parse_record(&end(3, 9)), Some(Record::End { revision: 3, entries: 9 }));
        let mut out = Vec::new();
        packed(1, 2, "/a/b/c", b"bytes", &mut out);
        let bytes = Bytes::from_static(b"bytes");
        assert_eq!(
            parse_record(&out),
            Some(Record::Packed { dictionary: 1, revision: 2, key: "/a/b/c".into(), bytes })
        );
    }

    #[test]
    fn a_cut_record_is_not_read() {
        let whole = transaction();
        for end in 2..whole.len() {
            let read = parse_record(&whole[..end]);
            assert!(
                read.is_none() || matches!(&read, Some(Record::Transaction(some)) if some.len() == 1),
                "cut at {end}"
            );
        }
    }

    #[test]
    fn a_damaged_transaction_still_tells_what_it_was_about() {
        let mut framed = vec![0; 8];
        framed.extend_from_slice(&transaction());
        let end = framed.len() - 3;
        framed[8 + 24] ^= 1;
        assert_eq!(glean_operations(&framed), [(7, "/a/b/c".to_owned()), (8, "/a/b/d".to_owned())]);
        assert_eq!(glean_operations(&framed[..end]), [(7, "/a/b/c".to_owned())]);
        assert!(glean_operations(b"short").is_empty());
    }
}
