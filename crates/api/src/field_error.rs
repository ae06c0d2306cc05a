//! What is wrong with an object, and where.
//!
//! Checks give relative paths and their callers put the context in front, so that a rule is written once however
//! deep it applies. Rendering merges equal problems and sorts them.

use std::{collections::BTreeMap, fmt};

/// The path of the value that is checked itself.
pub const HERE: &str = "";

/// Whether a problem blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    #[default]
    Error,
    /// It is only told.
    Warning,
}

/// One problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub message: String,
    /// Where: dotted fields, `[i]` for indices, `[key]` for keys of maps.
    pub paths: Vec<String>,
    /// More about it; may be empty.
    pub details: String,
    /// Whether it blocks.
    pub severity: Severity,
}

impl FieldError {
    /// A problem at `paths`.
    pub fn new(message: impl Into<String>, paths: &[&str]) -> FieldError {
        FieldError {
            message: message.into(),
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
            ..FieldError::default()
        }
    }

    /// Fields that must be there.
    pub fn missing(paths: &[&str]) -> FieldError {
        FieldError::new("missing field(s)", paths)
    }

    /// Fields that must not be there.
    pub fn disallowed(paths: &[&str]) -> FieldError {
        FieldError::new("must not set the field(s)", paths)
    }

    /// A value that cannot be.
    pub fn invalid(value: impl fmt::Display, path: &str) -> FieldError {
        FieldError::new(format!("invalid value: {value}"), &[path])
    }

    /// A key of a map that cannot be.
    pub fn invalid_key(key: &str, path: &str) -> FieldError {
        FieldError::new(format!("invalid key name {key:?}"), &[path])
    }

    /// A value outside its bounds.
    pub fn out_of_bounds(
        value: impl fmt::Display,
        low: impl fmt::Display,
        high: impl fmt::Display,
        path: &str,
    ) -> FieldError {
        FieldError::new(format!("expected {low} <= {value} <= {high}"), &[path])
    }

    /// None of several fields, one of which must be there.
    pub fn none_of(paths: &[&str]) -> FieldError {
        FieldError::new("expected exactly one, got neither", paths)
    }

    /// More than one of several fields that exclude each other.
    pub fn several_of(paths: &[&str]) -> FieldError {
        FieldError::new("expected exactly one, got both", paths)
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> FieldError {
        self.details = details.into();
        self
    }

    /// The same as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> FieldError {
        self.severity = Severity::Warning;
        self
    }

    /// The same, seen from the value that holds the checked one as `prefix`.
    #[must_use]
    pub fn via_field(mut self, prefix: &str) -> FieldError {
        for path in &mut self.paths {
            *path = join(prefix, path);
        }
        self
    }
}

/// `message: path, path`, and the details on lines of their own.
impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.paths.join(", "))?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "\n{}", self.details) }
    }
}

impl std::error::Error for FieldError {}

/// Problems of one object, in the order they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// No problems.
    pub fn none() -> FieldErrors {
        FieldErrors::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Adds others.
    pub fn also(&mut self, others: impl Into<FieldErrors>) {
        self.0.extend(others.into().0);
    }

    /// The same, seen from the value that holds the checked one as `prefix`.
    #[must_use]
    pub fn via_field(self, prefix: &str) -> FieldErrors {
        FieldErrors(self.0.into_iter().map(|error| error.via_field(prefix)).collect())
    }

    /// The same, seen from the list that holds the checked value at `index`.
    #[must_use]
    pub fn via_index(self, index: usize) -> FieldErrors {
        self.via_field(&format!("[{index}]"))
    }

    /// The same, seen from the map that holds the checked value under `key`.
    #[must_use]
    pub fn via_key(self, key: &str) -> FieldErrors {
        self.via_field(&format!("[{key}]"))
    }

    /// The same, seen from the value whose list `field` holds the checked one at `index`.
    #[must_use]
    pub fn via_field_index(self, field: &str, index: usize) -> FieldErrors {
        self.via_index(index).via_field(field)
    }

    /// Those of one level.
    pub fn at(&self, severity: Severity) -> FieldErrors {
        FieldErrors(self.0.iter().filter(|error| error.severity == severity).cloned().collect())
    }

    /// Problems that differ only in their paths become one; all are sorted by message, details and level.
    pub fn merged(&self) -> Vec<FieldError> {
        let mut merged: BTreeMap<(&str, &str, Severity), Vec<String>> = BTreeMap::new();
        for error in self.0.iter().filter(|error| !error.message.is_empty()) {
            let paths = merged.entry((&error.message, &error.details, error.severity)).or_default();
            for path in &error.paths {
                if !paths.contains(path) {
                    paths.push(path.clone());
                }
            }
        }
        merged
            .into_iter()
            .map(|((message, details, severity), mut paths)| {
                paths.sort();
                FieldError { message: message.to_owned(), paths, details: details.to_owned(), severity }
            })
            .collect()
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> FieldErrors {
        FieldErrors(vec![error])
    }
}

impl From<Option<FieldError>> for FieldErrors {
    fn from(error: Option<FieldError>) -> FieldErrors {
        FieldErrors(error.into_iter().collect())
    }
}

impl Extend<FieldError> for FieldErrors {
    fn extend<I: IntoIterator<Item = FieldError>>(&mut self, errors: I) {
        self.0.extend(errors);
    }
}

impl FromIterator<FieldError> for FieldErrors {
    fn from_iter<I: IntoIterator<Item = FieldError>>(errors: I) -> FieldErrors {
        FieldErrors(errors.into_iter().collect())
    }
}

/// Merged, each on lines of its own.
impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.merged().iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}

/// Puts `prefix` in front of `path`: empty parts vanish and an index joins the part before it.
fn join(prefix: &str, path: &str) -> String {
    let mut joined = String::with_capacity(prefix.len() + path.len() + 1);
    for part in prefix.split('.').chain(path.split('.')).filter(|part| !part.is_empty()) {
        let is_index = part.starts_with('[') && part.ends_with(']');
        if !joined.is_empty() && !is_index {
            joined.push('.');
        }
        joined += part;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_flatten_around_indices_and_empty_parts() {
        let path = |error: FieldErrors| error.0[0].paths[0].clone();
        let bar = || FieldErrors::from(FieldError::missing(&["bar"]));
        assert_eq!(path(bar().via_index(0).via_field("foo")), "foo[0].bar");
        assert_eq!(path(bar().via_index(0).via_index(1).via_field("foo")), "foo[1][0].bar");
        assert_eq!(path(bar().via_field("foo").via_index(0)), "[0].foo.bar");
        assert_eq!(path(FieldErrors::from(FieldError::missing(&[HERE])).via_field_index("a", 2)), "a[2]");
        assert_eq!(path(bar().via_key("k").via_field("m")), "m[k].bar");
        assert_eq!(path(bar().via_field("containers[*]")), "containers[*].bar");
    }

    #[test]
    fn equal_problems_merge_and_all_are_sorted() {
        let mut errors = FieldErrors::none();
        errors.push(FieldError::missing(&["z"]));
        errors.push(FieldError::invalid("x", "v").with_details("why"));
        errors.push(FieldError::missing(&["a", "z"]));
        assert_eq!(errors.to_string(), "invalid value: x: v\nwhy\nmissing field(s): a, z");
    }

    #[test]
    fn warnings_are_told_apart() {
        let mut errors = FieldErrors::from(FieldError::missing(&["a"]));
        errors.push(FieldError::new("insecure", &["b"]).as_warning());
        assert_eq!(errors.at(Severity::Error).to_string(), "missing field(s): a");
        assert_eq!(errors.at(Severity::Warning).to_string(), "insecure: b");
    }

    #[test]
    fn the_canonical_messages_are_worded_as_clients_know_them() {
        assert_eq!(FieldError::out_of_bounds(5, 1, 3, "x").to_string(), "expected 1 <= 5 <= 3: x");
        assert_eq!(FieldError::none_of(&["a", "b"]).to_string(), "expected exactly one, got neither: a, b");
        assert_eq!(FieldError::invalid_key("k", "m").to_string(), "invalid key name \"k\": m");
    }
}
