//! The functions (section 3.5, and the casting functions of section 3.7).
//!
//! Which there are, what they return and what they do with values. Their arguments are evaluated, and cast to the types
//! of their parameters, by the evaluator.

use std::borrow::Cow;

use super::{EvaluationError, Type};

/// A function, for all numbers of arguments that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Length,
    Concat,
    ConcatWs,
    Lower,
    Upper,
    Trim,
    Left,
    Right,
    Substring,
    Abs,
    Int,
    Bool,
    String,
    IsInt,
    IsBool,
}

/// Each with its name and what it returns.
const FUNCTIONS: &[(&str, Function, Type)] = &[
    ("LENGTH", Function::Length, Type::Integer),
    ("CONCAT", Function::Concat, Type::String),
    ("CONCAT_WS", Function::ConcatWs, Type::String),
    ("LOWER", Function::Lower, Type::String),
    ("UPPER", Function::Upper, Type::String),
    ("TRIM", Function::Trim, Type::String),
    ("LEFT", Function::Left, Type::String),
    ("RIGHT", Function::Right, Type::String),
    ("SUBSTRING", Function::Substring, Type::String),
    ("ABS", Function::Abs, Type::Integer),
    ("INT", Function::Int, Type::Integer),
    ("BOOL", Function::Bool, Type::Boolean),
    ("STRING", Function::String, Type::String),
    ("IS_INT", Function::IsInt, Type::Boolean),
    ("IS_BOOL", Function::IsBool, Type::Boolean),
];

impl Function {
    /// The function of a name in capitals.
    pub(super) fn named(name: &str) -> Option<Function> {
        FUNCTIONS.iter().find(|(known, ..)| *known == name).map(|(_, function, _)| *function)
    }

    fn entry(self) -> &'static (&'static str, Function, Type) {
        FUNCTIONS.iter().find(|(_, function, _)| *function == self).expect("every function is listed")
    }

    pub(super) fn name(self) -> &'static str {
        self.entry().0
    }

    pub(super) fn returns(self) -> Type {
        self.entry().2
    }
}

/// Characters of a text; as many as a number can say, where there are more.
pub(super) fn length(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX)
}

pub(super) fn lower(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { text } else { Cow::Owned(text.to_lowercase()) }
}

pub(super) fn upper(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_upper = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase());
    if is_upper { text } else { Cow::Owned(text.to_uppercase()) }
}

/// Without white space, as Unicode knows it, at both ends.
pub(super) fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    let start = text.len() - text.trim_start().len();
    let end = start + text.trim().len();
    cut(text, start, end)
}

/// The first `count` characters; `None` if that is negative.
pub(super) fn left(text: Cow<'_, str>, count: i32) -> Option<Cow<'_, str>> {
    let end = place(&text, usize::try_from(count).ok()?);
    Some(cut(text, 0, end))
}

/// The last `count` characters; `None` if that is negative.
pub(super) fn right(text: Cow<'_, str>, count: i32) -> Option<Cow<'_, str>> {
    let start = place_from_end(&text, usize::try_from(count).ok()?).unwrap_or(0);
    let end = text.len();
    Some(cut(text, start, end))
}

/// What begins at the character of this position, one being the first and minus one the last, and is `length` characters
/// long, where so many follow and any length is asked for.
pub(super) fn substring(
    text: Cow<'_, str>,
    position: i32,
    length: Option<i32>,
) -> Result<Cow<'_, str>, EvaluationError<'static>> {
    let refused = |problem, argument| EvaluationError::FunctionEvaluation { function: "SUBSTRING", problem, argument };
    let length = length.map(|length| usize::try_from(length).map_err(|_| refused("takes no negative length", length)));
    let length = length.transpose()?;
    let start = match usize::try_from(position) {
        Ok(0) => return Ok(Cow::Borrowed("")),
        // A place before which there is a character but at which there is none is one past the end.
        Ok(position) => Some(place(&text, position - 1)).filter(|start| *start < text.len()),
        Err(_) => place_from_end(&text, usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let start = start.ok_or_else(|| refused("has no such position in the text", position))?;
    let end = length.map_or(text.len(), |length| start + place(&text[start..], length));
    Ok(cut(text, start, end))
}

/// The absolute value. The one number that has none is the most negative.
pub(super) fn abs(number: i32) -> Result<i32, EvaluationError<'static>> {
    number.checked_abs().ok_or_else(|| EvaluationError::Math { operation: format!("ABS({number})") })
}

/// The byte that so many characters stand before; the end, if there are not so many.
fn place(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(index, _)| index)
}

/// The byte that so many characters stand after, if there are so many.
fn place_from_end(text: &str, characters: usize) -> Option<usize> {
    let Some(before) = characters.checked_sub(1) else { return Some(text.len()) };
    text.char_indices().nth_back(before).map(|(index, _)| index)
}

/// The bytes from `start` to `end`, without a copy where the text is borrowed.
fn cut(text: Cow<'_, str>, start: usize, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[start..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            text.drain(..start);
            Cow::Owned(text)
        }
    }
}
