//! The two forms of time in objects.

use jiff::Timestamp;

const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A time in the form objects keep: UTC, whole seconds.
///
/// # Errors
/// The message clients know, when the text is no RFC 3339 time.
pub(crate) fn seconds(text: &str) -> Result<String, String> {
    let time = parse(text, SECONDS_LAYOUT)?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A time in the form leases and events keep: UTC, exactly six decimals, both ways.
///
/// # Errors
/// The message clients know, when the text is no such time.
pub(crate) fn micros(text: &str) -> Result<String, String> {
    let time = parse(text, MICROS_LAYOUT)?;
    let rest = text.get(19..).unwrap_or_default();
    let decimals = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if decimals != 6 {
        return Err(format!("parsing time {text:?} as {MICROS_LAYOUT:?}: cannot parse {rest:?} as \".000000\""));
    }
    Ok(format_micros(time))
}

/// Six decimals, UTC.
pub(crate) fn format_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn parse(text: &str, layout: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
}
