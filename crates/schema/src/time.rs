//! The two forms of time in objects.

use jiff::Timestamp;

use crate::limits::shortened;

const SECONDS: &str = "must be a time, as \"2026-01-01T00:00:00Z\"";
const MICROS: &str = "must be a time with six decimals, as \"2026-01-01T00:00:00.000000Z\"";

/// A time in the form objects keep: UTC, whole seconds.
///
/// # Errors
/// What it must be, when the text is no RFC 3339 time.
pub(crate) fn seconds(text: &str) -> Result<String, String> {
    let time = parse(text, SECONDS)?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A time in the form leases and events keep: UTC, exactly six decimals, both ways.
///
/// # Errors
/// What it must be, when the text is no such time.
pub(crate) fn micros(text: &str) -> Result<String, String> {
    let time = parse(text, MICROS)?;
    let rest = text.get(19..).unwrap_or_default();
    let decimals = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if decimals != 6 {
        return Err(refused(text, MICROS));
    }
    Ok(format_micros(time))
}

/// Six decimals, UTC.
pub(crate) fn format_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn parse(text: &str, wanted: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| refused(text, wanted))
}

fn refused(text: &str, wanted: &str) -> String {
    shortened(format!("{wanted}, not {text:?}"))
}
