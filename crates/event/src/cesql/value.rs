//! The three types of the language and the casts between them (section 3.7).

use std::{borrow::Cow, fmt};

use super::EvaluationError;

/// What an attribute is, and what an expression comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text. Attributes that are URIs, times or bytes come as text, too (section 3.2).
    String(Cow<'a, str>),
    /// A whole number of 32 bits.
    Integer(i32),
    /// `true` or `false`.
    Boolean(bool),
}

/// The type of a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Integer,
    /// `true` or `false`.
    Boolean,
}

impl Type {
    /// What stands for a value of this type where there is none (section 3.1).
    pub(super) fn zero(self) -> Value<'static> {
        match self {
            Type::String => Value::String(Cow::Borrowed("")),
            Type::Integer => Value::Integer(0),
            Type::Boolean => Value::Boolean(false),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::String => "String",
            Type::Integer => "Integer",
            Type::Boolean => "Boolean",
        })
    }
}

impl<'a> Value<'a> {
    /// Its type.
    pub(super) fn kind(&self) -> Type {
        match self {
            Value::String(_) => Type::String,
            Value::Integer(_) => Type::Integer,
            Value::Boolean(_) => Type::Boolean,
        }
    }

    /// The same as another type.
    pub(super) fn cast(self, to: Type) -> Result<Value<'a>, EvaluationError<'a>> {
        match to {
            Type::String => Ok(Value::String(self.into_text())),
            Type::Integer => self.into_integer().map(Value::Integer),
            Type::Boolean => self.into_boolean().map(Value::Boolean),
        }
    }

    /// As text: every value is some.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Value::String(text) => text,
            Value::Integer(number) => Cow::Owned(number.to_string()),
            Value::Boolean(true) => Cow::Borrowed("true"),
            Value::Boolean(false) => Cow::Borrowed("false"),
        }
    }

    /// As a number: of text the decimal digits, with a sign or without.
    pub(super) fn into_integer(self) -> Result<i32, EvaluationError<'a>> {
        match self {
            Value::String(text) => text.parse().map_err(|_| EvaluationError::Cast { text, to: Type::Integer }),
            Value::Integer(number) => Ok(number),
            Value::Boolean(truth) => Ok(i32::from(truth)),
        }
    }

    /// As a truth: of text `true` and `false` in any case, of numbers all but zero.
    pub(super) fn into_boolean(self) -> Result<bool, EvaluationError<'a>> {
        match self {
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Value::String(text) => Err(EvaluationError::Cast { text, to: Type::Boolean }),
            Value::Integer(number) => Ok(number != 0),
            Value::Boolean(truth) => Ok(truth),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::String(Cow::Borrowed(text))
    }
}

impl From<i32> for Value<'_> {
    fn from(number: i32) -> Self {
        Value::Integer(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Value::Boolean(truth)
    }
}
