//! Typed values and their JSON, always by way of bytes: each further form that a type is read from or written to is code for
//! all that it holds, once more. [`crate::Resource`] has what reads and writes whole objects compiled here, for everybody.

use serde::{
    Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Error, Value};

/// The JSON of a typed value.
///
/// # Panics
/// When it has keys that are no strings, or fails to be written: typed objects have and do neither.
pub fn bytes_of<T: Serialize>(typed: &T) -> Vec<u8> {
    serde_json::to_vec(typed).expect("typed objects have string keys and finite numbers only")
}

/// The JSON value of a typed value.
///
/// # Panics
/// As [`bytes_of`].
pub fn value_of<T: Serialize>(typed: &T) -> Value {
    value(&bytes_of(typed))
}

/// Reads a typed value from a JSON value.
///
/// # Errors
/// When a known field has the wrong type.
pub fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    read(&bytes_of(value))
}

/// Reads a typed value from JSON that nobody has seen: errors do not say where in it they are.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| without_place(&error))
}

/// What was written just before.
pub(crate) fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("what was written as JSON reads as JSON")
}

pub(crate) fn without_place(error: &Error) -> Error {
    let text = error.to_string();
    Error::custom(text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::Revision;

    #[test]
    fn a_value_that_does_not_fit_is_refused_as_one_without_lines() {
        let odd = serde_json::json!({"metadata": {"name": "a"}, "spec": {"containerConcurrency": "many"}});
        let error = typed::<Revision>(&odd).expect_err("no number").to_string();
        assert_eq!(error, serde_json::from_value::<Revision>(odd).expect_err("no number").to_string());
    }

    #[test]
    fn a_value_comes_back_as_it_was() {
        let value = serde_json::json!({"metadata": {"name": "a", "labels": {"b": "c"}}, "spec": {"timeoutSeconds": 5}});
        let revision: Revision = typed(&value).expect("a Revision");
        assert_eq!(value_of(&revision), serde_json::to_value(&revision).expect("JSON"));
        assert_eq!(typed::<Revision>(&value_of(&revision)).expect("a Revision"), revision);
    }
}
