//! What is wrong with an expression, and what went wrong while it was evaluated (section 3.3).

use std::borrow::Cow;

use super::{LONGEST_EXPRESSION, MOST_NESTED, MOST_WORK, Type, pattern::LONGEST_GAPPED};

/// Why a text is no expression: a *ParseError* of the specification. Says the place and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct ParseError {
    /// Characters up to there, and one.
    position: usize,
    problem: Problem,
}

impl ParseError {
    /// A problem that shows at this byte of the text.
    pub(super) fn new(text: &str, at: usize, problem: Problem) -> ParseError {
        let position = text.char_indices().take_while(|&(index, _)| index < at).count() + 1;
        ParseError { position, problem }
    }
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("an expression has at most {} bytes", LONGEST_EXPRESSION)]
    Length,
    #[error("parentheses, arguments, NOT and - nest at most {} deep", MOST_NESTED)]
    Depth,
    #[error("expected {expected}, found {found}")]
    Unexpected { expected: &'static str, found: String },
    #[error("nothing begins with {character:?}{hint}")]
    Character { character: char, hint: &'static str },
    #[error("the text that begins here does not end with {quote}")]
    Unterminated { quote: char },
    #[error("within text a {quote} is written \\{quote}")]
    DoubledQuote { quote: char },
    #[error("numbers are from -2147483648 to 2147483647")]
    Number,
    #[error("{} is no name of an attribute: those have letters and digits only", excerpt(.name))]
    AttributeName { name: String },
    #[error("{} is no name of a function: those have letters and underscores only, a letter first", excerpt(.name))]
    FunctionName { name: String },
    #[error("with _ among them, at most {} characters may be between two % of a pattern", LONGEST_GAPPED)]
    PatternPart,
}

/// What went wrong while an expression was evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError<'a> {
    /// A result is no number of 32 bits, or there is none.
    #[error("{operation} has no result of 32 bits")]
    Math {
        /// The operator and its operands, or the function and its argument.
        operation: String,
    },
    /// A text is nothing of the type that it is needed as.
    #[error("{:?} is no {to}", excerpt(.text))]
    Cast {
        /// The text.
        text: Cow<'a, str>,
        /// The type.
        to: Type,
    },
    /// The event has no such attribute.
    #[error("the event has no attribute {name}")]
    MissingAttribute {
        /// Its name.
        name: &'a str,
    },
    /// There is no such function with so many arguments.
    #[error("there is no function {} of {arguments} arguments", excerpt(.name))]
    MissingFunction {
        /// Its name, in capitals.
        name: &'a str,
        /// How many it was called with.
        arguments: usize,
    },
    /// A function cannot do what it was asked.
    #[error("{function} {problem}: {argument}")]
    FunctionEvaluation {
        /// Its name.
        function: &'static str,
        /// What it cannot.
        problem: &'static str,
        /// The argument that it cannot do it with.
        argument: i32,
    },
    /// Any other error: here, that the evaluation takes more than [`MOST_WORK`].
    #[error("the evaluation takes more work than {} bytes of text", MOST_WORK)]
    Generic,
}

/// The beginning of a text, as much as a message has room for.
pub(super) fn excerpt(text: &str) -> String {
    const ROOM: usize = 40;
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(ROOM).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
