//! Amounts of resources as Kubernetes writes them: `250m`, `1.5Gi`, `2e3`.

use std::{cmp::Ordering, fmt};

/// Nano-units in a unit: the finest amount there is.
const NANO: i128 = 1_000_000_000;

/// Why an amount could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text is no amount.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// The number is fine, its suffix is not.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How an amount is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalExponent,
    BinarySi,
    DecimalSi,
}

/// An amount, exact to a nano-unit (finer ones are rounded up) and bounded by 2⁶³−1 units.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    /// Reads an amount.
    ///
    /// # Errors
    /// When the text is not a number with a known suffix.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let end = text
            .char_indices()
            .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && (c == '+' || c == '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        let (negative, digits) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        let (format, base, exponent) = read_suffix(suffix).ok_or(QuantityError::Suffix)?;
        let magnitude = scale(whole, fraction, base, exponent);
        Ok(Quantity { nano: if negative { -magnitude } else { magnitude }, format })
    }

    /// In units, rounded up.
    pub fn units(self) -> i64 {
        narrow(div_up(self.nano, NANO))
    }

    /// In thousandths of a unit, rounded up.
    pub fn milli(self) -> i64 {
        narrow(div_up(self.nano, NANO / 1000))
    }

    /// In nano-units, exactly.
    pub fn nano(self) -> i128 {
        self.nano
    }

    /// Both together, in the notation of the first unless that is nothing.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_add(other.nano), format }
    }

    /// The first without the second, in the notation of the first.
    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        Quantity { nano: self.nano.saturating_sub(other.nano), format: self.format }
    }

    /// How many `divisor`s it holds, rounded up; a divisor of zero counts as one unit.
    pub fn divided_by(self, divisor: Quantity) -> i64 {
        let by = if divisor.is_zero() { NANO } else { divisor.nano };
        let (value, by) = if by < 0 { (-self.nano, -by) } else { (self.nano, by) };
        narrow(div_up(value, by))
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// A part of it, rounded down to a thousandth of a unit, in the same notation.
    pub fn fraction(self, share: f64) -> Quantity {
        #[expect(clippy::cast_possible_truncation, reason = "shares are fractions of amounts far below 2^53")]
        #[expect(clippy::cast_precision_loss, reason = "shares are fractions of amounts far below 2^53")]
        let milli = (self.milli() as f64 * share) as i128;
        Quantity { nano: milli * (NANO / 1000), format: self.format }
    }
}

/// Format, base and exponent that a suffix stands for.
fn read_suffix(suffix: &str) -> Option<(Format, i128, i32)> {
    let decimal = |exponent| Some((Format::DecimalSi, 10, exponent));
    let binary = |exponent| Some((Format::BinarySi, 2, exponent));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((Format::DecimalExponent, 10, exponent))
        }
    }
}

/// Digits that are kept of a number: more than the largest amount has nano-units.
const DIGITS: usize = 30;
/// The largest amount, in nano-units.
const MOST: i128 = i64::MAX as i128 * NANO;

/// `whole.fraction × base^exponent` in nano-units, rounded up and capped.
fn scale(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let count = |text: &str| i32::try_from(text.len()).unwrap_or(i32::MAX);
    let fraction = fraction.trim_end_matches('0');
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let (kept, rest) = digits.split_at(digits.len().min(DIGITS));
    let mut value: i128 = kept.parse().unwrap_or(0);
    if value == 0 {
        return 0;
    }
    value += i128::from(rest.bytes().any(|digit| digit != b'0'));
    let mut tens = 9_i32.saturating_add(count(rest)).saturating_sub(count(fraction));
    if base == 10 {
        tens = tens.saturating_add(exponent);
    } else {
        let factor = 1_i128 << exponent;
        while value.checked_mul(factor).is_none() {
            (value, tens) = (div_up(value, 10), tens.saturating_add(1));
        }
        value *= factor;
    }
    let power = 10_i128.checked_pow(tens.unsigned_abs());
    match (tens >= 0, power) {
        (true, power) => power.and_then(|power| value.checked_mul(power)).unwrap_or(MOST).min(MOST),
        (false, Some(power)) => div_up(value, power).min(MOST),
        (false, None) => 1,
    }
}

/// Division rounded up.
fn div_up(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

/// Capped where it does not fit.
fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
}

/// The canonical form: no fraction, the largest suffix that keeps it whole.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        // Binary suffixes exist for whole amounts of at least 1024 only.
        if self.format == Format::BinarySi && self.nano % NANO == 0 && self.nano.abs() >= 1024 * NANO {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut value, mut at) = (self.nano / NANO, 0);
            while value % 1024 == 0 && at < SUFFIXES.len() - 1 {
                value /= 1024;
                at += 1;
            }
            return write!(f, "{value}{}", SUFFIXES[at]);
        }
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        let (mut value, mut at) = (self.nano, 0);
        while value % 1000 == 0 && at < SUFFIXES.len() - 1 {
            value /= 1000;
            at += 1;
        }
        if self.format == Format::DecimalExponent && at != 3 {
            return write!(f, "{value}e{}", (i32::try_from(at).unwrap_or(0) - 3) * 3);
        }
        write!(f, "{value}{}", SUFFIXES[at])
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        Quantity::parse(text)
    }
}

/// Amounts are equal when they are the same, however they are written.
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).expect("a quantity").to_string()
    }

    #[test]
    fn suffixes_scale_exactly() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("500m", 500),
            ("1.5", 1500),
            (".5", 500),
            ("5.", 5000),
            ("2e3", 2_000_000),
            ("2E-3", 2),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("0.1m", 1),
            ("-250m", -250),
            ("+3", 3000),
            ("100u", 1),
        ] {
            assert_eq!(Quantity::parse(text).map(Quantity::milli), Ok(milli), "{text}");
        }
        assert_eq!(Quantity::parse("1.5Gi").map(Quantity::units), Ok(1_610_612_736));
        assert_eq!(Quantity::parse("9Ei").map(Quantity::units), Ok(i64::MAX));
        assert_eq!(Quantity::parse("1e400").map(Quantity::units), Ok(i64::MAX));
        let divided = |text: &str, by: &str| {
            Quantity::parse(text).expect("an amount").divided_by(Quantity::parse(by).expect("an amount"))
        };
        assert_eq!((divided("250m", "1m"), divided("1500m", "1"), divided("2Gi", "0")), (250, 2, 2 << 30));
    }

    #[test]
    fn sums_keep_the_notation_of_the_first_amount() {
        let sum = |a: &str, b: &str| Quantity::parse(a).unwrap().plus(Quantity::parse(b).unwrap()).to_string();
        assert_eq!(sum("200m", "800m"), "1");
        assert_eq!(sum("1Gi", "1073741824"), "2Gi");
        assert_eq!(sum("0", "1Ki"), "1Ki");
    }

    #[test]
    fn the_canonical_form_is_the_shortest_whole_one() {
        for (text, expected) in [
            ("1000m", "1"),
            ("25m", "25m"),
            ("0.5", "500m"),
            ("400Mi", "400Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.1Gi", "107374182400m"),
            ("100", "100"),
            ("2e3", "2e3"),
            ("1500k", "1500k"),
            ("0", "0"),
            ("-5", "-5"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn amounts_compare_by_size() {
        let parse = |text| Quantity::parse(text).expect("a quantity");
        assert_eq!(parse("1"), parse("1000m"));
        assert!(parse("1Mi") > parse("1M"));
        assert_eq!(parse("1m").units(), 1);
        assert_eq!(parse("1500m").milli(), 1500);
        assert_eq!(parse("1").fraction(0.2), parse("200m"));
    }

    #[test]
    fn amounts_are_exact_at_any_length_and_bounded() {
        let parse = |text: &str| Quantity::parse(text).expect("a quantity");
        // Finer than a nano-unit is one, however fine.
        assert_eq!(parse(&format!("0.{}1", "0".repeat(24))).nano(), 1);
        assert_eq!(parse(&format!("0.{}1", "0".repeat(300))).milli(), 1);
        assert_eq!(parse(&format!("1{}e-40", "0".repeat(39))), parse("100m"));
        assert_eq!(parse("0.123456789012345678901234567890Ei").units(), 142_335_986_942_043_634);
        for (text, units) in [("9Ei", i64::MAX), ("1e400", i64::MAX), ("-1e400", -i64::MAX), ("1.5Gi", 1_610_612_736)] {
            assert_eq!(parse(text).units(), units, "{text}");
        }
        assert_eq!((parse("1e400").milli(), parse("-1e400").milli()), (i64::MAX, i64::MIN));
        assert_eq!(
            (parse("-0.1m").milli(), parse("0.1m").milli(), parse("5.").units(), parse("+3").units()),
            (0, 1, 5, 3)
        );
    }

    #[test]
    fn division_rounds_up() {
        let divided = |a: &str, b: &str| Quantity::parse(a).expect("a").divided_by(Quantity::parse(b).expect("b"));
        assert_eq!(divided("1500m", "1"), 2);
        assert_eq!(divided("64Mi", "1Mi"), 64);
        assert_eq!(divided("250m", "1m"), 250);
        assert_eq!(divided("3", "0"), 3);
        assert_eq!((divided("3", "-2"), divided("-3", "-2"), divided("-1e400", "1n")), (-1, 2, i64::MIN));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "abc", "1.2.3", "1x", "1e", "--1", "Mi"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }
}
