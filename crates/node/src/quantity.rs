//! Kubernetes quantities (`500m`, `1.5Gi`, `2e3`) as exact numbers.
//!
//! A value is held in nano-units, the finest a quantity can say; finer input is rounded away from zero, and
//! magnitudes are capped at 2^63-1 units, both as Kubernetes does it.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

/// A parsed quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

/// Why a text is no quantity. The texts are those that users know from Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number followed by letters.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The letters mean nothing.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number has two points.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(split);
        if !number.bytes().any(|b| b.is_ascii_digit()) || !legal_suffix(suffix) {
            return Err(QuantityError::Format);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Numeric);
        }
        let scale = Scale::parse(suffix)?;
        let nanos = magnitude(whole, fraction.trim_end_matches('0'), scale).min(MAX);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos } })
    }

    /// Reads the API's form of a quantity.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn of(text: &Text) -> Result<Quantity, QuantityError> {
        Quantity::parse(&text.0)
    }

    /// In whole units, rounded up.
    pub fn units(self) -> i64 {
        ceil_div(self.nanos, NANO)
    }

    /// In thousandths, rounded up, capped at the largest `i64`.
    pub fn milli(self) -> i64 {
        ceil_div(self.nanos, NANO / 1000)
    }

    /// How many `divisor`s it holds, rounded up; a divisor of zero counts as one unit.
    pub fn divided_by(self, divisor: Quantity) -> i64 {
        ceil_div(self.nanos, if divisor.nanos == 0 { NANO } else { divisor.nanos })
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
}

impl std::ops::Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX) }
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// A power of 1024.
    Binary(u32),
    /// A power of ten, within ±40.
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<Scale, QuantityError> {
        Ok(match suffix {
            "" => Scale::Decimal(0),
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            "Ki" => Scale::Binary(1),
            "Mi" => Scale::Binary(2),
            "Gi" => Scale::Binary(3),
            "Ti" => Scale::Binary(4),
            "Pi" => Scale::Binary(5),
            "Ei" => Scale::Binary(6),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
                let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
                Scale::Decimal(exponent.clamp(-40, 40))
            }
        })
    }
}

/// Whether a suffix has the shape `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn legal_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

/// Nano-units of `whole.fraction` times `scale`, rounded up, saturating.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    // Past 30 digits the tail is below a nano-unit or the number is above the cap.
    let kept = digits.len().min(30);
    let dropped = i32::try_from(digits.len() - kept).unwrap_or(i32::MAX);
    let inexact = digits[kept..].bytes().any(|b| b != b'0');
    let mut value: i128 = digits[..kept].parse().unwrap_or(i128::MAX);
    if inexact {
        value += 1;
    }
    let mut ten = 9 + dropped - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    match scale {
        Scale::Binary(power) => match value.checked_mul(1i128 << (10 * power)) {
            Some(scaled) => value = scaled,
            None => return i128::MAX,
        },
        Scale::Decimal(power) => ten += power,
    }
    if ten >= 0 {
        10i128.checked_pow(ten.unsigned_abs()).and_then(|p| value.checked_mul(p)).unwrap_or(i128::MAX)
    } else {
        10i128.checked_pow(ten.unsigned_abs()).map_or(1, |p| value / p + i128::from(value % p != 0))
    }
}

fn ceil_div(value: i128, by: i128) -> i64 {
    let quotient = value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0);
    i64::try_from(quotient).unwrap_or(if quotient > 0 { i64::MAX } else { i64::MIN })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("Mi", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("one", QuantityError::Format),
            ("1.2.3", QuantityError::Numeric),
            ("1Kii", QuantityError::Suffix),
            ("1ii", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn division_rounds_up() {
        let divided = |a: &str, b: &str| Quantity::parse(a).expect("a").divided_by(Quantity::parse(b).expect("b"));
        assert_eq!(divided("1500m", "1"), 2);
        assert_eq!(divided("64Mi", "1Mi"), 64);
        assert_eq!(divided("250m", "1m"), 250);
        assert_eq!(divided("3", "0"), 3);
    }
}
