//! Records of the log and of checkpoints.
//!
//! A transaction is one record, so that it is replayed whole or not at all.

use bytes::Bytes;

const PUT: u8 = 1;
const DELETE: u8 = 2;

const TRANSACTION: u8 = b'T';
const RESERVE: u8 = b'R';
const BOOT: u8 = b'B';

/// One operation of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) revision: u64,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
}

/// A record of the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Writes that happened together.
    Transaction(Vec<Operation>),
    /// Revisions up to this one may have been handed out.
    Reserve(u64),
    /// What follows was written while the machine ran under this boot id.
    Boot(String),
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

pub(crate) fn boot(id: &str) -> Vec<u8> {
    let mut out = vec![BOOT];
    out.extend_from_slice(id.as_bytes());
    out
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("records are bounded well below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Reads a record; `None` when it is not one this version knows.
pub(crate) fn decode(payload: &[u8]) -> Option<Record> {
    let (&tag, mut rest) = payload.split_first()?;
    match tag {
        TRANSACTION => {
            let mut operations = Vec::new();
            while !rest.is_empty() {
                operations.push(take_operation(&mut rest)?);
            }
            Some(Record::Transaction(operations))
        }
        RESERVE => Some(Record::Reserve(u64::from_le_bytes(rest.try_into().ok()?))),
        BOOT => Some(Record::Boot(String::from_utf8(rest.to_vec()).ok()?)),
        _ => None,
    }
}

fn take_operation(rest: &mut &[u8]) -> Option<Operation> {
    let (&tag, tail) = rest.split_first()?;
    *rest = tail;
    let revision = u64::from_le_bytes(take(rest, 8)?.try_into().ok()?);
    let key = String::from_utf8(take_bytes(rest)?.to_vec()).ok()?;
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

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize;
    take(rest, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_reads_back_as_it_was_written() {
        let mut out = Vec::new();
        begin_transaction(&mut out);
        operation(7, "/a/b/c", Some(b"value"), &mut out);
        operation(8, "/a/b/d", None, &mut out);
        let expected = vec![
            Operation { revision: 7, key: "/a/b/c".into(), value: Some(Bytes::from_static(b"value")) },
            Operation { revision: 8, key: "/a/b/d".into(), value: None },
        ];
        assert_eq!(decode(&out), Some(Record::Transaction(expected)));
    }

    #[test]
    fn a_cut_record_is_not_read() {
        let mut out = Vec::new();
        begin_transaction(&mut out);
        operation(7, "/a/b/c", Some(b"value"), &mut out);
        assert_eq!(decode(&out[..out.len() - 1]), None);
    }
}
