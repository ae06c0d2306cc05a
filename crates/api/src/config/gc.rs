//! `config-gc`.

use std::time::Duration;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::duration;

/// Which unused revisions are collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageCollectionConfig {
    /// How long a revision is kept after it was created; `None` keeps it for ever.
    pub retain_since_create_time: Option<Duration>,
    /// How long a revision is kept after it was last used; `None` keeps it for ever.
    pub retain_since_last_active_time: Option<Duration>,
    /// Unused revisions that are always kept.
    pub min_non_active_revisions: i64,
    /// Unused revisions that are kept at most, whatever their age; `None` is unlimited.
    pub max_non_active_revisions: Option<i64>,
}

impl Default for GarbageCollectionConfig {
    fn default() -> Self {
        GarbageCollectionConfig {
            retain_since_create_time: Some(Duration::from_secs(48 * 3600)),
            retain_since_last_active_time: Some(Duration::from_secs(15 * 3600)),
            min_non_active_revisions: 20,
            max_non_active_revisions: Some(1000),
        }
    }
}

impl GarbageCollectionConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<GarbageCollectionConfig, ConfigError> {
        let d = GarbageCollectionConfig::default();
        let read = Reader(data);
        let min = read.int(&["min-non-active-revisions"], d.min_non_active_revisions)?;
        let max = unless_disabled(&read, "max-non-active-revisions", d.max_non_active_revisions, |raw| {
            let value: u64 = raw.parse().map_err(|_| format!("{raw:?} is not a number"))?;
            i64::try_from(value).map_err(|_| format!("value should be lower than {}", i64::MAX))
        })?;
        ensure!(min >= 0, "min-non-active-revisions must be non-negative, was: {min}");
        if let Some(max) = max {
            ensure!(min <= max, "min-non-active-revisions({min}) must be <= max-non-active-revisions({max})");
        }
        Ok(GarbageCollectionConfig {
            retain_since_create_time: unless_disabled(
                &read,
                "retain-since-create-time",
                d.retain_since_create_time,
                span,
            )?,
            retain_since_last_active_time: unless_disabled(
                &read,
                "retain-since-last-active-time",
                d.retain_since_last_active_time,
                span,
            )?,
            min_non_active_revisions: min,
            max_non_active_revisions: max,
        })
    }
}

/// `disabled` is `None`; an absent or empty value is the default.
fn unless_disabled<T>(
    read: &Reader<'_>,
    key: &str,
    default: Option<T>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    match read.raw(&[key]).map(str::trim) {
        None | Some("") => Ok(default),
        Some(raw) if raw.eq_ignore_ascii_case("disabled") => Ok(None),
        Some(raw) => parse(raw).map(Some).map_err(|problem| ConfigError::value(key, problem)),
    }
}

fn span(raw: &str) -> Result<Duration, String> {
    let value = duration::parse(raw).map_err(|e| e.to_string())?;
    if value < 0 { Err("must be non-negative".to_owned()) } else { Ok(duration::to_std(value)) }
}
