//! A file that holds one line: written with a checksum behind it, so that no altered byte goes unnoticed. Who opens it
//! with an editor reads it as before.

use std::io;

/// What the last line begins with; what follows is a checksum of the line before.
const CHECK: &str = "crc32 ";

/// A line, without its end, as it is kept on disk.
#[must_use]
pub fn with_checksum(mut line: Vec<u8>) -> Vec<u8> {
    let check = crc32fast::hash(&line);
    line.extend(format!("\n{CHECK}{check:08x}\n").bytes());
    line
}

/// The line that a file holds. One without a checksum is of an earlier version, and taken as it is.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is not what was written.
pub fn without_checksum(bytes: &[u8]) -> io::Result<&[u8]> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(bytes) };
    let (line, check) = (&bytes[..end], &bytes[end + 1..]);
    if check == format!("{CHECK}{:08x}\n", crc32fast::hash(line)).as_bytes() {
        return Ok(line);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_an_earlier_version_too() {
        let kept = with_checksum(b"{\"a\":1}".to_vec());
        assert_eq!(without_checksum(&kept).expect("is whole"), b"{\"a\":1}");
        assert_eq!(without_checksum(b"{\"a\":1}").expect("has no checksum"), b"{\"a\":1}");
        assert_eq!(without_checksum(b"").expect("is empty"), b"");
    }

    #[test]
    fn an_altered_bit_is_noticed_or_leaves_what_is_no_line_of_json() {
        let kept = with_checksum(b"{\"a\":1}".to_vec());
        for (at, bit) in (0..kept.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = kept.clone();
            altered[at] ^= 1 << bit;
            let ends_with_check = |line: &[u8]| line.ends_with(&kept[kept.len() - 9..]);
            assert!(without_checksum(&altered).map_or(true, ends_with_check), "bit {bit} of byte {at}");
        }
    }
}
