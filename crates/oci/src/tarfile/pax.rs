//! The records of a PAX extended header.

/// One `key=value`; a value may hold any byte.
pub type PaxRecord = (String, Vec<u8>);

/// Reads `length key=value\n` records.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn parse_pax(mut bytes: &[u8]) -> Result<Vec<PaxRecord>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or("a PAX record has no length")?;
        let digits = str::from_utf8(&bytes[..space]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length: Option<usize> = digits.and_then(|text| text.parse().ok());
        let length = length.filter(|length| (space + 1..=bytes.len()).contains(length));
        let length = length.ok_or("a PAX record's length is none, or more than there is")?;
        let (record, rest) = bytes.split_at(length);
        let body = record[space + 1..].strip_suffix(b"\n").ok_or("a PAX record does not end with its line")?;
        let equals = body.iter().position(|byte| *byte == b'=').ok_or("a PAX record has no value")?;
        let key = str::from_utf8(&body[..equals]).map_err(|_| "a PAX record's key is no text")?;
        if key.is_empty() || key.contains('\0') {
            return Err("a PAX record has no key".into());
        }
        records.push((key.to_owned(), body[equals + 1..].to_vec()));
        bytes = rest;
    }
    Ok(records)
}

/// A time in decimal seconds, negative before 1970.
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_with_any_bytes_in_their_values() {
        let records = parse_pax(b"12 path=a=b\n11 k=x\ny\nz\n").expect("reads");
        assert_eq!(records, [("path".to_owned(), b"a=b".to_vec()), ("k".to_owned(), b"x\ny\nz".to_vec())]);
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        let bad: [&[u8]; 10] = [
            b"path=a\n",
            b"99 path=a\n",
            b"3 a\n",
            b"0 path=a\n",
            b"-9 path=a\n",
            b"+9 pat=a\n",
            b"18446744073709551616 path=a\n",
            b"9 path=a",
            b"5 =a\n",
            b"11 path=a\nxx",
        ];
        for bytes in bad {
            assert!(parse_pax(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"1.0000000001"), Some((1, 0)));
        for bad in [&b""[..], b"x", b"1.x", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }
}
