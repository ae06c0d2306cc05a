//! How much a tree may be: every decoder keeps to it, so that no text becomes a tree that cannot be held, walked or
//! read again.

use serde_json::Value;

/// Deepest nesting of lists and objects. Half of what readers of JSON usually take, so that lists, events and records
/// of managers around an object stay readable, too.
pub const DEPTH: usize = 100;
/// Most memory that a decoded tree takes, by estimate, in bytes. Text of many tiny objects grows a hundredfold.
pub const WEIGHT: usize = 64 << 20;
/// Longest name of a field, in bytes: messages repeat it for everything below.
pub const NAME: usize = 64 << 10;
/// Most findings about one tree that are told.
pub const FINDINGS: usize = 100;

/// Longest finding, in bytes.
const FINDING: usize = 4096;
/// What a value takes in its list or object.
const VALUE: usize = 32;
/// What the first entries of an object take.
pub(crate) const ENTRIES: usize = 640;

/// Which bound a tree exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// [`DEPTH`].
    #[error("nests deeper than {DEPTH} levels")]
    Depth,
    /// [`WEIGHT`].
    #[error("would take more memory than {WEIGHT} bytes")]
    Weight,
    /// [`NAME`].
    #[error("a field name is longer than {NAME} bytes")]
    Name,
}

/// What is left of [`WEIGHT`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(WEIGHT)
    }
}

impl Budget {
    /// Pays for a value that takes `bytes` beside its own place.
    pub(crate) fn pay(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.0 = self.0.checked_sub(VALUE.saturating_add(bytes)).ok_or(Exceeded::Weight)?;
        Ok(())
    }

    /// Pays for the name of an entry.
    pub(crate) fn name(&mut self, name: &str) -> Result<(), Exceeded> {
        if name.len() > NAME {
            return Err(Exceeded::Name);
        }
        self.pay(name.len())
    }
}

/// What a tree comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Levels of lists and objects.
    pub depth: usize,
    /// Length as JSON, in bytes; escapes count as what they stand for.
    pub bytes: usize,
    /// Memory, in bytes, by estimate.
    pub weight: usize,
}

/// Measures a tree, however deep it is.
pub fn measure(value: &Value) -> Measure {
    let mut found = Measure::default();
    let mut left = vec![(value, 0_usize)];
    while let Some((value, above)) = left.pop() {
        let (bytes, weight) = match value {
            Value::Null | Value::Bool(_) => (5, 0),
            Value::Number(number) => (number.to_string().len(), 0),
            Value::String(text) => (text.len() + 2, text.len()),
            Value::Array(items) => {
                left.extend(items.iter().map(|item| (item, above + 1)));
                (items.len() + 2, 0)
            }
            Value::Object(entries) => {
                left.extend(entries.values().map(|inner| (inner, above + 1)));
                let names: usize = entries.keys().map(|name| name.len() + 4).sum();
                (names + 2, names + ENTRIES)
            }
        };
        found.bytes = found.bytes.saturating_add(bytes);
        found.weight = found.weight.saturating_add(weight + VALUE);
        if value.is_array() || value.is_object() {
            found.depth = found.depth.max(above + 1);
        }
    }
    found
}

/// Refuses a tree beyond [`DEPTH`] or [`WEIGHT`], whoever made it.
///
/// # Errors
/// The bound it exceeds.
pub fn check(value: &Value) -> Result<(), Exceeded> {
    let found = measure(value);
    if found.depth > DEPTH {
        return Err(Exceeded::Depth);
    }
    if found.weight > WEIGHT { Err(Exceeded::Weight) } else { Ok(()) }
}

/// A finding that is not longer than a reader wants.
pub(crate) fn shortened(mut finding: String) -> String {
    if finding.len() > FINDING {
        let end = (0..=FINDING).rev().find(|&at| finding.is_char_boundary(at)).unwrap_or_default();
        finding.truncate(end);
        finding.push('…');
    }
    finding
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_measured_without_recursion() {
        assert_eq!(measure(&json!({"a": [1, {"b": "c"}]})).depth, 3);
        let mut deep = json!(1);
        for _ in 0..1_000_000 {
            deep = Value::Array(vec![deep]);
        }
        assert_eq!(measure(&deep).depth, 1_000_000);
        assert_eq!(check(&deep), Err(Exceeded::Depth));
        // Taken apart level by level: dropping it whole would recurse as deep.
        while let Value::Array(mut items) = deep {
            deep = items.pop().unwrap_or_default();
        }
    }

    #[test]
    fn long_findings_end_between_letters() {
        let short = shortened("é".repeat(5000));
        assert!(short.len() <= FINDING + '…'.len_utf8() && short.ends_with('…'));
    }
}
