//! CESQL, the expression language of CloudEvents: [version 1.0.0][spec] of its specification, whole.
//!
//! An [`Expression`] is parsed once and evaluated for many events. Evaluation asks for attributes by name and comes to a
//! value and, where something went wrong, an error ([`Evaluation`]); as a filter, an expression lets through the events
//! that it is `true` for, without an error ([`Expression::matches`], section 1.2). Errors end the evaluation at once: the
//! *fail fast mode* that section 4.1 suggests for filters.
//!
//! Everything is bounded. A text of more than [`LONGEST_EXPRESSION`] bytes, or nested more than [`MOST_NESTED`] deep, is
//! no expression; an evaluation that takes more than [`MOST_WORK`] ends with an error. `LIKE` takes
//! time linear in the text, whatever the pattern. Nothing is copied but what functions change.
//!
//! # Where others differ
//! This follows the text of the specification, with one exception: `AND`, `OR` and `XOR` are of one precedence, and group
//! from the right. `a AND b OR c` is `a AND (b OR c)`, where section 3.6 reads as `(a AND b) OR c` and says no more than
//! that operators are evaluated from left to right. The grammar of `sdk-go`, the library that Knative uses, is so, and who
//! gets which events must not change for a Trigger that moves here. Parentheses mean the same to everybody, and
//! [`Expression::warnings`] asks for them.
//!
//! Elsewhere sdk-go does otherwise:
//! - Text is counted in characters, by `LENGTH`, `LEFT`, `RIGHT`, `SUBSTRING` and `_`; sdk-go counts bytes of UTF-8.
//! - `%` in a pattern stands for any text and `\%` for that character, whatever the text holds. With sdk-go a `%` in the
//!   text uses up the one in the pattern (`'a%xb' LIKE 'a%b'` is false), and `\%` matches a backslash and anything after it.
//! - Arithmetic that leaves the 32 bits is a *MathError*; sdk-go goes round. A text whose number does is 0 beside its
//!   *CastError*, as section 3.7 says; with sdk-go it is the number nearest to it.
//! - A negative length of `SUBSTRING` is a *FunctionEvaluationError*, over which sdk-go panics. A filter that comes to text
//!   or to a number lets nothing through; Knative's panics.
//! - `4 -1` is a subtraction; sdk-go refuses what it reads as two numbers.
//! - A character that nothing begins with is refused, like a quote that is doubled; sdk-go passes over the first and
//!   keeps both quotes of the second.
//!
//! One case of the specification's own test kit contradicts section 3.7, by which any number is a truth value: it wants
//! `NOT 10` to be a *CastError*. Here, and by sdk-go's copy of the kit, it is `false`.
//!
//! [spec]: https://github.com/cloudevents/spec/blob/main/cesql/spec.md

mod error;
mod evaluate;
mod functions;
mod needs;
mod parse;
mod pattern;
mod tokens;
mod tree;
mod value;
mod warnings;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::{limits::MOST_WORK, work::Work};
use error::Problem;
pub use error::{EvaluationError, ParseError};
pub use value::{Type, Value};

/// The longest expression, in bytes.
pub const LONGEST_EXPRESSION: usize = 64 * 1024;

/// How deep parentheses, arguments, `NOT` and `-` may nest. Chains of operators do not nest, however long.
pub const MOST_NESTED: usize = 128;

/// How many warnings an expression may give.
pub const MOST_WARNINGS: usize = 8;

/// An expression, ready to be evaluated. Printed, it is the text of an equal expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(tree::Node);

/// What an expression came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation<'a> {
    /// The value. Beside an error, mostly the zero value of the expression's type.
    pub value: Value<'a>,
    /// The first thing that went wrong.
    pub error: Option<EvaluationError<'a>>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// When the text is none, or passes a bound. A function that there is not is no such error: calling it is
    /// ([`EvaluationError::MissingFunction`]).
    pub fn parse(text: &str) -> Result<Expression, ParseError> {
        parse::parse(text).map(Expression)
    }

    /// What whoever writes the expression should know, for the admission of objects that hold it: calls of functions that
    /// there are not, and `AND`, `OR` and `XOR` without parentheses between them, which sdk-go groups otherwise. At most
    /// [`MOST_WARNINGS`], each once.
    pub fn warnings(&self) -> Vec<String> {
        warnings::of(&self.0)
    }

    /// Evaluates it for an event, whose attributes and extensions `attributes` gives by their names, all in lower case:
    /// numbers and truths as what they are, all else as text (section 3.2); `None` for those that the event has not. Those
    /// that every event has it must give.
    pub fn evaluate<'a, 'v: 'a>(&'a self, attributes: &dyn Fn(&str) -> Option<Value<'v>>) -> Evaluation<'a> {
        // Called through, a value that lives longer than the expression is one that lives as long.
        evaluate::evaluate(&self.0, &Work::of(MOST_WORK), &|name| attributes(name))
    }

    /// Whether an event passes the expression as a filter: it comes to `true`, without an error.
    pub fn matches<'v>(&self, attributes: &dyn Fn(&str) -> Option<Value<'v>>) -> bool {
        self.matches_within(&Work::of(MOST_WORK), attributes)
    }

    /// The same as a part of more that shares this work.
    pub(crate) fn matches_within<'v>(&self, work: &Work, attributes: &dyn Fn(&str) -> Option<Value<'v>>) -> bool {
        let evaluation = evaluate::evaluate(&self.0, work, &|name| attributes(name));
        matches!(evaluation, Evaluation { value: Value::Boolean(true), error: None })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
