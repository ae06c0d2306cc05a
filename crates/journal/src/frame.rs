//! How bytes stand in a file.
//!
//! A frame is `length: u32 LE, crc32 of the payload: u32 LE, payload`. The highest bit of the length tells marks,
//! which are the log's own, from records, which are its user's.

pub(crate) const HEADER: usize = 8;
const MARK: u32 = 1 << 31;
/// Length of a mark's frame.
pub(crate) const MARK_BYTES: usize = HEADER + 8;

/// What stands at a place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record of the log's user.
    Record(&'a [u8]),
    /// The log's word that so many bytes of this file were synced before what follows was written.
    Synced(u64),
}

/// Appends a record's frame to `out`.
pub fn frame(payload: &[u8], out: &mut Vec<u8>) {
    frame_with(out, |out| out.extend_from_slice(payload));
}

/// The frame of a mark.
pub(crate) fn mark(synced: u64) -> [u8; MARK_BYTES] {
    let payload = synced.to_le_bytes();
    let mut out = [0; MARK_BYTES];
    out[..4].copy_from_slice(&(MARK | 8).to_le_bytes());
    out[4..HEADER].copy_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    out[HEADER..].copy_from_slice(&payload);
    out
}

/// Appends the frame of a record that `fill` appends, without a copy of it.
pub(crate) fn frame_with(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    fill(out);
    let payload = &out[start + HEADER..];
    let length = u32::try_from(payload.len()).expect("records are shorter than 2 GiB: callers bound them");
    assert!(length < MARK, "records are shorter than 2 GiB: callers bound them");
    let crc = crc32fast::hash(payload);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Where the frame at `offset` ends by what its header says; `None` without a whole header that can be one.
pub(crate) fn claimed_end(bytes: &[u8], offset: usize) -> Option<usize> {
    let header = bytes.get(offset..offset.checked_add(HEADER)?)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
    if length & MARK != 0 {
        return (length == MARK | 8).then(|| offset + HEADER + 8);
    }
    (length > 0).then(|| offset + HEADER + length as usize)
}

/// The records of a batch that was just put together, each with where its frame begins and ends. Their checksums are not
/// looked at: nobody else had them.
pub(crate) fn records_of_batch(frames: &[u8]) -> impl Iterator<Item = (usize, usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let begin = at;
        at = claimed_end(frames, begin)?;
        Some((begin, at, frames.get(begin + HEADER..at)?))
    })
}

/// The frame that starts at `offset`, and where the next one starts; `None` where no whole one stands.
pub fn read_frame(bytes: &[u8], offset: usize) -> Option<(Frame<'_>, usize)> {
    let end = claimed_end(bytes, offset)?;
    let payload = bytes.get(offset + HEADER..end)?;
    let crc = u32::from_le_bytes(bytes[offset + 4..offset + HEADER].try_into().expect("four bytes"));
    if crc32fast::hash(payload) != crc {
        return None;
    }
    let is_mark = bytes[offset + 3] & 0x80 != 0;
    let read =
        if is_mark { Frame::Synced(u64::from_le_bytes(payload.try_into().ok()?)) } else { Frame::Record(payload) };
    Some((read, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_as_they_were_written() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&mark(7));
        frame(b"record", &mut bytes);
        let (first, next) = read_frame(&bytes, 0).expect("a whole frame");
        assert_eq!(first, Frame::Synced(7));
        assert_eq!(read_frame(&bytes, next), Some((Frame::Record(b"record"), bytes.len())));
        assert_eq!(read_frame(&bytes, bytes.len()), None);
    }

    #[test]
    fn a_batch_is_gone_through_as_it_is_read() {
        let mut bytes = Vec::new();
        [&b"one"[..], b"a longer one", b"3"].iter().for_each(|record| frame(record, &mut bytes));
        let mut read = Vec::new();
        let mut at = 0;
        while let Some((Frame::Record(payload), end)) = read_frame(&bytes, at) {
            read.push((at, end, payload));
            at = end;
        }
        assert_eq!((read.len(), records_of_batch(&bytes).collect::<Vec<_>>()), (3, read));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut bytes = Vec::new();
        frame(b"some record", &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_frame(&flipped, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn lengths_beyond_the_file_are_no_frame() {
        for length in [0, 1, u32::MAX, MARK, MARK - 1, MARK | 9] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(&[0; 4]);
            assert_eq!(read_frame(&bytes, 0), None);
            assert_eq!(read_frame(&bytes, usize::MAX - 3), None);
        }
    }
}
