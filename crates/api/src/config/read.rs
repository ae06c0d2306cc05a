//! Reads values of a ConfigMap. Each method takes the key and its legacy spellings, oldest first: the last one
//! present wins, and every one present must be readable.

use std::{collections::BTreeSet, time::Duration};

use super::{ConfigError, Data};
use crate::{duration, quantity::Quantity};

/// Reads keys of one map.
pub(super) struct Reader<'a>(pub(super) &'a Data);

impl<'a> Reader<'a> {
    fn with<T>(
        &self,
        keys: &[&str],
        default: T,
        parse: impl Fn(&'a str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let mut value = default;
        for key in keys {
            if let Some(raw) = self.0.get(*key) {
                value = parse(raw).map_err(|problem| ConfigError::value(key, problem))?;
            }
        }
        Ok(value)
    }

    /// The raw value of the last spelling present.
    pub(super) fn raw(&self, keys: &[&str]) -> Option<&'a str> {
        keys.iter().rev().find_map(|key| self.0.get(*key)).map(String::as_str)
    }

    /// Text without surrounding space.
    pub(super) fn text(&self, keys: &[&str], default: &str) -> String {
        self.raw(keys).unwrap_or(default).trim().to_owned()
    }

    pub(super) fn bool(&self, keys: &[&str], default: bool) -> Result<bool, ConfigError> {
        self.with(keys, default, |raw| parse_bool(raw).ok_or_else(|| syntax("ParseBool", raw)))
    }

    pub(super) fn int<T: TryFrom<i64>>(&self, keys: &[&str], default: T) -> Result<T, ConfigError> {
        self.with(keys, default, |raw| {
            let value: i64 = raw.parse().map_err(|_| syntax("ParseInt", raw))?;
            T::try_from(value).map_err(|_| format!("strconv.ParseInt: parsing {raw:?}: value out of range"))
        })
    }

    pub(super) fn float(&self, keys: &[&str], default: f64) -> Result<f64, ConfigError> {
        self.with(keys, default, |raw| {
            raw.parse().ok().filter(|value: &f64| !value.is_nan()).ok_or_else(|| syntax("ParseFloat", raw))
        })
    }

    /// A signed span, nanoseconds.
    pub(super) fn nanoseconds(&self, keys: &[&str], default: i64) -> Result<i64, ConfigError> {
        self.with(keys, default, |raw| duration::parse(raw).map_err(|e| e.to_string()))
    }

    /// A span that may be zero but not negative.
    pub(super) fn span(&self, keys: &[&str], default: Duration) -> Result<Duration, ConfigError> {
        let name = keys.last().copied().unwrap_or_default();
        let fallback = i64::try_from(default.as_nanos()).unwrap_or(i64::MAX);
        let value = self.nanoseconds(keys, fallback)?;
        super::ensure!(value >= 0, "{name} cannot be negative, was: {}", duration::format(value));
        Ok(duration::to_std(value))
    }

    /// Texts between commas.
    pub(super) fn set(&self, keys: &[&str], default: &[&str]) -> BTreeSet<String> {
        match self.raw(keys) {
            Some(raw) => raw.split(',').map(|part| part.trim().to_owned()).collect(),
            None => default.iter().map(|&part| part.to_owned()).collect(),
        }
    }

    /// An amount of a resource.
    pub(super) fn quantity(&self, keys: &[&str], default: Option<Quantity>) -> Result<Option<Quantity>, ConfigError> {
        self.with(keys, default, |raw| Quantity::parse(raw).map(Some).map_err(|e| e.to_string()))
    }

    /// A YAML document; an empty one is `None`.
    pub(super) fn yaml<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        self.0.get(key).map_or(Ok(None), |raw| yaml(key, raw))
    }
}

/// Reads a YAML document; an empty one is `None`.
pub(super) fn yaml<T: serde::de::DeserializeOwned>(key: &str, raw: &str) -> Result<Option<T>, ConfigError> {
    if raw.trim().is_empty() {
        return Ok(None);
    }
    // What follows the first line is a drawing of the place.
    serde_saphyr::from_str(raw).map_err(|e| ConfigError::value(key, e.to_string().lines().next().unwrap_or_default()))
}

fn syntax(function: &str, raw: &str) -> String {
    format!("strconv.{function}: parsing {raw:?}: invalid syntax")
}

/// The spellings of a truth value that ConfigMaps and annotations take.
pub fn parse_bool(raw: &str) -> Option<bool> {
    match raw {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
