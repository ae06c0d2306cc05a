//! Times of RFC 3339, as the specification's `Timestamp` writes them.
//!
//! Read with any offset and any number of digits after the second, of which nine count; written in UTC. What other
//! parsers let pass (a space for the `T`, a date alone, no offset) is refused.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

use crate::Fault;

/// A run of exactly as many digits as asked for.
fn number(text: &[u8], at: usize, digits: usize) -> Option<i16> {
    let run = text.get(at..at + digits)?;
    run.iter().try_fold(0_i16, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i16::from(byte - b'0')))
}

fn is(text: &[u8], at: usize, one_of: &[u8]) -> Option<()> {
    text.get(at).filter(|byte| one_of.contains(byte)).map(|_| ())
}

/// Digits after the second: nanoseconds, and how many bytes they took with their point.
fn fraction(text: &[u8]) -> Option<(i32, usize)> {
    if text.first() != Some(&b'.') {
        return Some((0, 0));
    }
    let digits = text[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let nanosecond = (0..9).fold(0, |sum, at| {
        let digit = if at < digits { text[1 + at] - b'0' } else { 0 };
        sum * 10 + i32::from(digit)
    });
    (digits > 0).then_some((nanosecond, digits + 1))
}

/// Seconds east of Greenwich.
fn offset(text: &[u8]) -> Option<i64> {
    if text.eq_ignore_ascii_case(b"Z") {
        return Some(0);
    }
    is(text, 0, b"+-")?;
    is(text, 3, b":")?;
    let (hours, minutes) = (number(text, 1, 2)?, number(text, 4, 2)?);
    if text.len() != 6 || hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    Some(if text[0] == b'-' { -seconds } else { seconds })
}

/// An instant as date and time in UTC: `jiff`'s own instants end a day before the last that RFC 3339 can write, which
/// stands for "never" in some places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(DateTime);

fn instant(text: &[u8]) -> Option<DateTime> {
    for (at, signs) in [(4, &b"-"[..]), (7, b"-"), (10, b"Tt"), (13, b":"), (16, b":")] {
        is(text, at, signs)?;
    }
    let field = |at| number(text, at, 2).and_then(|value| i8::try_from(value).ok());
    let (nanosecond, length) = fraction(text.get(19..)?)?;
    // A leap second is the last one of its minute: instants here know none.
    let second = field(17).filter(|second| *second <= 60)?.min(59);
    let local =
        DateTime::new(number(text, 0, 4)?, field(5)?, field(8)?, field(11)?, field(14)?, second, nanosecond).ok()?;
    local.checked_sub(SignedDuration::from_secs(offset(&text[19 + length..])?)).ok()
}

impl Time {
    /// Reads a time.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        Self::written(instant(text.as_bytes()).ok_or(Fault::Time)?)
    }

    /// An instant, as long as RFC 3339 can write it.
    pub(crate) fn of(instant: Timestamp) -> Result<Self, Fault> {
        Self::written(TimeZone::UTC.to_datetime(instant))
    }

    fn written(utc: DateTime) -> Result<Self, Fault> {
        if utc.year() >= 0 { Ok(Self(utc)) } else { Err(Fault::Time) }
    }

    /// Writes it in UTC, with as many digits after the second as it has.
    pub(crate) fn text(self) -> String {
        format!("{}Z", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_3339_writes_is_kept_to_the_nanosecond() {
        let cases = [
            ("2023-06-30T07:45:22Z", "2023-06-30T07:45:22Z"),
            ("2023-06-30t07:45:22z", "2023-06-30T07:45:22Z"),
            ("2023-06-30T07:45:22.341714+00:00", "2023-06-30T07:45:22.341714Z"),
            ("2023-06-30T09:45:22.123456789+02:00", "2023-06-30T07:45:22.123456789Z"),
            ("2023-06-30T07:45:22.1234567899Z", "2023-06-30T07:45:22.123456789Z"),
            ("1937-01-01T12:00:27.87+00:20", "1937-01-01T11:40:27.87Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.9999999Z"),
        ];
        for (text, canonical) in cases {
            let read = Time::parse(text).expect(text);
            assert_eq!(read.text(), canonical);
            assert_eq!(Time::parse(canonical), Ok(read));
        }
    }

    #[test]
    fn what_sdks_write_beside_it_is_refused() {
        let cases = [
            "",
            "soon",
            "1688111122",
            "2023-06-30",
            "2023-06-30T07:45:22",
            "2020-06-17 12:52:43Z",
            "2023-01-25T19:07:06.370582GMT",
            "2023-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2023-06-30T24:00:00Z",
            "2023-06-30T07:45:61Z",
            "2023-06-30T07:45:22.Z",
            "2023-06-30T07:45:22+0200",
            "2023-06-30T07:45:22+02:60",
            "2023-06-30T07:45:22Z ",
            "-2023-06-30T07:45:22Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2023-06-30T07:45:22Z[UTC]",
        ];
        for text in cases {
            assert_eq!(Time::parse(text), Err(Fault::Time), "{text}");
        }
    }
}
