//! Annotation keys that have more than one spelling, and values of annotations.

use std::{collections::BTreeMap, time::Duration};

use crate::duration;

/// The spellings of a key, preferred first. The first one present counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnotationKey(pub &'static [&'static str]);

impl AnnotationKey {
    /// The preferred spelling.
    pub fn name(self) -> &'static str {
        self.0[0]
    }

    /// The spelling found and its value.
    pub fn find(self, annotations: &BTreeMap<String, String>) -> Option<(&'static str, &str)> {
        self.0.iter().find_map(|&name| Some((name, annotations.get(name)?.as_str())))
    }

    /// The value.
    pub fn get(self, annotations: &BTreeMap<String, String>) -> Option<&str> {
        self.find(annotations).map(|(_, value)| value)
    }

    /// The value as a number; nothing when it is none.
    pub fn int(self, annotations: &BTreeMap<String, String>) -> Option<i32> {
        self.get(annotations)?.parse().ok()
    }

    /// The value as a number; nothing when it is none.
    pub fn float(self, annotations: &BTreeMap<String, String>) -> Option<f64> {
        self.get(annotations)?.parse().ok().filter(|value: &f64| !value.is_nan())
    }

    /// The value as a span; nothing when it is none or negative.
    pub fn span(self, annotations: &BTreeMap<String, String>) -> Option<Duration> {
        let nanoseconds = duration::parse(self.get(annotations)?).ok()?;
        (nanoseconds >= 0).then(|| duration::to_std(nanoseconds))
    }
}
