//! Durations as people read them.

use jiff::Timestamp;

/// Time since an RFC 3339 instant; `<unknown>` when it is none.
pub(crate) fn since(at: &str, now: Timestamp) -> String {
    match at.parse::<Timestamp>() {
        Ok(then) => duration(now.as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// Two units at most, coarser the longer: `118s`, `2m23s`, `47h`, `5d`, `3y45d`.
pub(crate) fn duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let minutes = seconds / 60;
    if minutes < 10 {
        return pair(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return pair(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 192 {
        return pair(days, "d", hours % 24, "h");
    }
    if days < 730 {
        return format!("{days}d");
    }
    let years = days / 365;
    if years < 8 { pair(years, "y", days % 365, "d") } else { format!("{years}y") }
}

fn pair(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_get_coarser_with_length() {
        let of = |seconds, text: &str| assert_eq!(duration(seconds), text);
        of(118, "118s");
        of(143, "2m23s");
        of(120, "2m");
        of(3600, "60m");
        of(3 * 3600, "3h");
        of(3 * 3600 + 60, "3h1m");
        of(47 * 3600, "47h");
        of(5 * 86400, "5d");
        of(5 * 86400 + 3600, "5d1h");
        of((3 * 365 + 45) * 86400, "3y45d");
    }
}
