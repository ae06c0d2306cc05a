//! Durations as ISO 8601 writes them (`PT0.2S`, `P1DT12H`), in the form that Eventing's delivery takes.

use std::time::Duration;

/// Nanoseconds of the units: a year and a month as they are on average in the Gregorian calendar.
const DATE: [(char, i128); 4] =
    [('Y', 31_556_952 * SECOND), ('M', 2_629_746 * SECOND), ('W', 7 * 86_400 * SECOND), ('D', 86_400 * SECOND)];
const TIME: [(char, i128); 3] = [('H', 3_600 * SECOND), ('M', 60 * SECOND), ('S', SECOND)];
const SECOND: i128 = 1_000_000_000;
/// Most digits before the decimal mark: no sum of such numbers leaves 128 bits.
const LONGEST: usize = 12;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no text.
    #[error("cannot parse a blank string as a period")]
    Blank,
    /// It does not begin with a `P`.
    #[error("expected 'P' period mark at the start: {0}")]
    NoMark(String),
    /// A unit has no number, or one of more than twelve digits.
    #[error("expected a number before the '{unit}' marker: {text}")]
    Number {
        /// The unit.
        unit: char,
        /// The whole text.
        text: String,
    },
    /// Something is left that is no number with a unit, or the units are not in their order.
    #[error("unexpected remaining components {rest}: {text}")]
    Rest {
        /// What is left.
        rest: String,
        /// The whole text.
        text: String,
    },
    /// There is no unit at all.
    #[error("expected 'Y', 'M', 'W', 'D', 'H', 'M', or 'S' marker: {0}")]
    Nothing(String),
}

/// A signed span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    nanoseconds: i128,
}

impl Period {
    /// Whether it is no time at all.
    pub fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    /// Whether it leads into the past.
    pub fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// The same as a span; nothing when it is negative.
    pub fn to_std(self) -> Option<Duration> {
        let seconds = u64::try_from(self.nanoseconds.div_euclid(SECOND)).ok()?;
        let rest = u32::try_from(self.nanoseconds.rem_euclid(SECOND)).ok()?;
        Some(Duration::new(seconds, rest))
    }
}

/// Reads `[+-]P[nY][nM][nW][nD][T[nH][nM][nS]]`, where any number may have decimals after `.` or `,`.
///
/// # Errors
/// When the text has another form.
pub fn parse(text: &str) -> Result<Period, Error> {
    if text.is_empty() {
        return Err(Error::Blank);
    }
    let is_negative = text.starts_with('-');
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let body = body.strip_prefix('P').ok_or_else(|| Error::NoMark(text.to_owned()))?;
    if body == "0" {
        return Ok(Period { nanoseconds: 0 });
    }
    let (date, time) = body.split_once('T').unwrap_or((body, ""));
    let (of_date, of_time) = (part(date, &DATE, text)?, part(time, &TIME, text)?);
    if of_date.is_none() && of_time.is_none() {
        return Err(Error::Nothing(text.to_owned()));
    }
    let nanoseconds = of_date.unwrap_or(0) + of_time.unwrap_or(0);
    Ok(Period { nanoseconds: if is_negative { -nanoseconds } else { nanoseconds } })
}

/// The sum of the numbers of one part; nothing when it has none.
fn part(mut rest: &str, units: &[(char, i128)], text: &str) -> Result<Option<i128>, Error> {
    let mut sum = None;
    for &(unit, worth) in units {
        let Some((number, after)) = rest.split_once(unit) else { continue };
        let amount = number_of(number, worth).ok_or_else(|| Error::Number { unit, text: text.to_owned() })?;
        sum = Some(sum.unwrap_or(0) + amount);
        rest = after;
    }
    if rest.is_empty() { Ok(sum) } else { Err(Error::Rest { rest: rest.to_owned(), text: text.to_owned() }) }
}

/// A decimal number of units. Decimals beyond the ninth are dropped: no unit resolves them.
fn number_of(text: &str, worth: i128) -> Option<i128> {
    let (whole, decimals) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > LONGEST || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let mut amount = whole.parse::<i128>().ok()? * worth;
    let mut place = worth;
    for digit in decimals.bytes().take(9) {
        place /= 10;
        amount += i128::from(digit - b'0') * place;
    }
    Some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Duration {
        parse(text).expect("a duration").to_std().expect("not negative")
    }

    #[test]
    fn durations_are_read_with_all_units_and_decimals() {
        assert_eq!(span("PT0.2S"), Duration::from_millis(200));
        assert_eq!(span("P1DT1H1M1,5S"), Duration::from_millis(90_061_500));
        assert_eq!(span("P1W"), Duration::from_secs(7 * 86_400));
        assert_eq!(span("P1Y2M"), Duration::from_secs(31_556_952 + 2 * 2_629_746));
        assert_eq!(span("P0"), Duration::ZERO);
        assert!(parse("PT0S").expect("zero").is_zero());
        let back = parse("-PT1S").expect("a second back");
        assert!(back.is_negative() && back.to_std().is_none());
    }

    #[test]
    fn other_texts_are_refused_by_what_is_wrong_with_them() {
        let why = |text: &str| parse(text).expect_err("no duration").to_string();
        assert_eq!(why(""), "cannot parse a blank string as a period");
        assert_eq!(why("1s"), "expected 'P' period mark at the start: 1s");
        assert_eq!(why("PTxS"), "expected a number before the 'S' marker: PTxS");
        assert_eq!(why("PT1S2M"), "expected a number before the 'M' marker: PT1S2M");
        assert_eq!(why("PT5"), "unexpected remaining components 5: PT5");
        assert_eq!(why("P"), "expected 'Y', 'M', 'W', 'D', 'H', 'M', or 'S' marker: P");
        assert_eq!(why("PT1\u{e9}S"), "expected a number before the 'S' marker: PT1\u{e9}S");
        assert!(parse("2007-03-01T13:00:00Z/P1Y2M10DT2H30M").is_err());
        assert!(parse("PT9999999999999S").is_err(), "thirteen digits");
        assert!(parse("P999999999999Y999999999999M").is_ok());
    }
}
