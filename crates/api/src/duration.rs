//! Durations as they are written in annotations and ConfigMaps: `1h2m3.5s`.

use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;

/// Why a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is no duration.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number has no unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit is not one of ns, us, ms, s, m, h.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// Reads a signed sequence of numbers with units (`ns`, `us`, `ms`, `s`, `m`, `h`), in nanoseconds. A bare `0` is
/// zero; any other number needs a unit.
///
/// # Errors
/// When the text has another form, or the value exceeds 63 bits of nanoseconds (about 292 years).
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (amount, after) = take_number(rest).ok_or_else(invalid)?;
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit_text = &after[..end];
        if unit_text.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let unit = unit_nanoseconds(unit_text)
            .ok_or_else(|| DurationError::UnknownUnit { unit: unit_text.to_owned(), text: text.to_owned() })?;
        total += amount.in_unit(unit);
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = &after[end..];
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map_err(|_| invalid())
}

/// A decimal number: whole part, and the fraction as digits over a power of ten.
struct Amount {
    whole: i128,
    fraction: i128,
    scale: i128,
}

impl Amount {
    fn in_unit(&self, unit: i128) -> i128 {
        self.whole * unit + self.fraction * unit / self.scale
    }
}

/// Splits a decimal number off the front. Digits of the fraction beyond the 18th are dropped: no unit resolves them.
fn take_number(text: &str) -> Option<(Amount, &str)> {
    let is_other = |c: char| !c.is_ascii_digit();
    let whole_end = text.find(is_other).unwrap_or(text.len());
    let (whole, mut rest) = text.split_at(whole_end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(is_other).unwrap_or(after.len());
        (fraction, rest) = after.split_at(end);
    }
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = |d: &str| if d.is_empty() { Some(0) } else { d.parse::<i128>().ok() };
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    Some((Amount { whole: digits(whole)?, fraction: digits(fraction)?, scale }, rest))
}

fn unit_nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Writes nanoseconds the way [`parse`] reads them, largest unit first: `1h0m0s`, `1.5s`, `20ms`, `0s`.
pub fn format(nanoseconds: i64) -> String {
    let magnitude = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = match magnitude {
        0 => return "0s".to_owned(),
        1..1_000 => format!("{magnitude}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(magnitude, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(magnitude, 1_000_000)),
        _ => {
            let minutes = magnitude / 60_000_000_000;
            let seconds = decimal(magnitude % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `value / unit` with as many decimals as it needs.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

/// A count of nanoseconds as a span; negative counts become zero.
pub fn to_std(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// A span as it is written; spans beyond 292 years are cut.
pub fn format_std(duration: Duration) -> String {
    format(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_all_units() {
        assert_eq!(parse("1h2m3.5s"), Ok(3_723_500_000_000));
        assert_eq!(parse("-1.5ms"), Ok(-1_500_000));
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse(".5s"), Ok(500_000_000));
        assert_eq!(parse("1us"), Ok(1_000));
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        assert_eq!(parse("").unwrap_err().to_string(), r#"time: invalid duration """#);
        assert_eq!(parse("5").unwrap_err().to_string(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse("5d").unwrap_err().to_string(), r#"time: unknown unit "d" in duration "5d""#);
        assert!(parse("9999999999h").is_err());
        assert!(parse("1s x").is_err());
    }

    #[test]
    fn writing_uses_the_largest_units() {
        for text in ["0s", "1ns", "1.5µs", "20ms", "1.5s", "1m0s", "1h0m0s", "48h0m0s", "-2s", "1h2m3.5s"] {
            assert_eq!(format(parse(text).expect("a duration")), text);
        }
    }
}
