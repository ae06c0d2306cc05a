//! An expression as it was understood, and how it is written.
//!
//! Operators of one precedence stand in one [`Chain`], in the order they are written: a condition of a thousand terms is long,
//! not deep, and whoever walks the tree recurses no deeper than the text nests.

use std::fmt;

use super::{functions::Function, pattern::Pattern};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Text(Box<str>),
    Integer(i32),
    Boolean(bool),
    /// The value of an attribute, by its name in lower case.
    Attribute(Box<str>),
    /// Whether there is such an attribute.
    Exists(Box<str>),
    Call(Callee, Box<[Node]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    /// A value, and what is asked of it; a further question is asked of the answer.
    Tests(Box<Node>, Vec<Test>),
    /// Of operators that are all [`Arithmetic::Multiply`] and its like, or all [`Arithmetic::Add`] and its like.
    Arithmetic(Chain<Arithmetic>),
    Comparison(Chain<Comparison>),
    Logic(Chain<Logic>),
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    Known(Function),
    /// By its name in capitals.
    Unknown(Box<str>),
}

/// Operators of one precedence, applied from left to right; those of logic group from the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain<O> {
    pub(super) first: Box<Node>,
    pub(super) rest: Vec<(O, Node)>,
}

/// `LIKE` and `IN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) negated: bool,
    pub(super) question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Like(Pattern),
    In(Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Multiply,
    Divide,
    Remainder,
    Add,
    Subtract,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
}

/// How strongly an operator binds (section 3.6), the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Logic,
    Comparison,
    Sum,
    Product,
    Test,
    Unary,
    Atom,
}

impl Node {
    fn level(&self) -> Level {
        match self {
            Node::Logic(_) => Level::Logic,
            Node::Comparison(_) => Level::Comparison,
            Node::Arithmetic(chain) => match chain.rest.first() {
                Some((Arithmetic::Add | Arithmetic::Subtract, _)) => Level::Sum,
                _ => Level::Product,
            },
            Node::Tests(..) => Level::Test,
            Node::Not(_) | Node::Negate(_) => Level::Unary,
            _ => Level::Atom,
        }
    }

    /// Writes it as an operand where only what binds at least as strongly needs no parentheses.
    fn write(&self, f: &mut fmt::Formatter<'_>, least: Level) -> fmt::Result {
        if self.level() < least { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Text(text) => quote(f, text),
            Node::Integer(number) => write!(f, "{number}"),
            Node::Boolean(truth) => f.write_str(if *truth { "TRUE" } else { "FALSE" }),
            Node::Attribute(name) => f.write_str(name),
            Node::Exists(name) => write!(f, "EXISTS {name}"),
            Node::Call(callee, arguments) => {
                write!(f, "{callee}(")?;
                list(f, arguments)?;
                f.write_str(")")
            }
            Node::Not(operand) => {
                f.write_str("NOT ")?;
                operand.write(f, Level::Unary)
            }
            // The space keeps `- 5`, the negation of a number, from being read as that negative number.
            Node::Negate(operand) => {
                f.write_str("- ")?;
                operand.write(f, Level::Unary)
            }
            Node::Tests(operand, tests) => {
                operand.write(f, Level::Unary)?;
                tests.iter().try_for_each(|test| write!(f, "{test}"))
            }
            Node::Arithmetic(chain) if self.level() == Level::Sum => chain.write(f, Level::Product),
            Node::Arithmetic(chain) => chain.write(f, Level::Test),
            Node::Comparison(chain) => chain.write(f, Level::Sum),
            Node::Logic(chain) => chain.write(f, Level::Comparison),
        }
    }
}

impl<O: fmt::Display> Chain<O> {
    fn write(&self, f: &mut fmt::Formatter<'_>, least: Level) -> fmt::Result {
        self.first.write(f, least)?;
        for (operator, operand) in &self.rest {
            write!(f, " {operator} ")?;
            operand.write(f, least)?;
        }
        Ok(())
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.negated { " NOT" } else { "" })?;
        match &self.question {
            Question::Like(pattern) => {
                f.write_str(" LIKE ")?;
                quote(f, pattern.text())
            }
            Question::In(set) => {
                f.write_str(" IN (")?;
                list(f, set)?;
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callee::Known(function) => function.name(),
            Callee::Unknown(name) => name,
        })
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        })
    }
}

impl fmt::Display for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Logic::And => "AND",
            Logic::Or => "OR",
            Logic::Xor => "XOR",
        })
    }
}

fn list(f: &mut fmt::Formatter<'_>, nodes: &[Node]) -> fmt::Result {
    for (index, node) in nodes.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write!(f, "{node}")?;
    }
    Ok(())
}

/// Writes text as a literal. A backslash goes in a pair with what follows it, as in the literal that the text was read
/// from; so the quote that must not be written is the one that some pair holds.
fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut characters = text.chars();
    let mut pairs = std::iter::from_fn(|| characters.find(|&c| c == '\\').and_then(|_| characters.next()));
    let quote = if pairs.any(|second| second == '\'') { '"' } else { '\'' };
    write!(f, "{quote}")?;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => write!(f, "\\{}", characters.next().map_or_else(String::new, String::from))?,
            character if character == quote => write!(f, "\\{quote}")?,
            character => write!(f, "{character}")?,
        }
    }
    write!(f, "{quote}")
}
