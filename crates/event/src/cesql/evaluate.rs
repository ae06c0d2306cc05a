//! What a tree comes to for an event (section 3).
//!
//! In the *fail fast mode* of section 4.1: the first error ends the evaluation.

use std::{borrow::Cow, cmp::Ordering};

use super::{
    Evaluation, EvaluationError, Type, Value,
    functions::{self, Function},
    tree::{Arithmetic, Callee, Chain, Comparison, Logic, Node, Question, Test},
};
use crate::work::Work;

/// The value of an attribute of an event, by its name; `None` where the event has no such attribute.
pub(super) type Attributes<'a, 'l> = &'l dyn Fn(&str) -> Option<Value<'a>>;

/// Evaluates a whole expression.
pub(super) fn evaluate<'a>(root: &'a Node, work: &Work, attributes: Attributes<'a, '_>) -> Evaluation<'a> {
    let evaluator = Evaluator { attributes, work };
    match evaluator.evaluate(root) {
        Ok(value) => Evaluation { value, error: None },
        Err(failure) => {
            let value = failure.returned.unwrap_or_else(|| returns(root).zero());
            Evaluation { value, error: Some(failure.error) }
        }
    }
}

/// An error, and what to return beside it where that is not zero.
struct Failure<'a> {
    error: EvaluationError<'a>,
    returned: Option<Value<'a>>,
}

impl<'a> From<EvaluationError<'a>> for Failure<'a> {
    fn from(error: EvaluationError<'a>) -> Failure<'a> {
        Failure { error, returned: None }
    }
}

impl<'a> EvaluationError<'a> {
    fn returning(self, value: Value<'a>) -> Failure<'a> {
        Failure { error: self, returned: Some(value) }
    }
}

/// The type that an expression has whatever the event. Where only the event would tell, it is Boolean (section 3.2).
fn returns(node: &Node) -> Type {
    match node {
        Node::Text(_) => Type::String,
        Node::Integer(_) | Node::Negate(_) | Node::Arithmetic(_) => Type::Integer,
        Node::Call(Callee::Known(function), _) => function.returns(),
        _ => Type::Boolean,
    }
}

struct Evaluator<'a, 'l> {
    attributes: Attributes<'a, 'l>,
    /// What may still be done.
    work: &'l Work,
}

impl<'a> Evaluator<'a, '_> {
    fn evaluate(&self, node: &'a Node) -> Result<Value<'a>, Failure<'a>> {
        self.go_through(0)?;
        Ok(match node {
            Node::Text(text) => Value::from(&**text),
            Node::Integer(number) => Value::Integer(*number),
            Node::Boolean(truth) => Value::Boolean(*truth),
            Node::Attribute(name) => (self.attributes)(name).ok_or(EvaluationError::MissingAttribute { name })?,
            Node::Exists(name) => Value::Boolean((self.attributes)(name).is_some()),
            Node::Call(Callee::Known(function), arguments) => self.call(*function, arguments)?,
            Node::Call(Callee::Unknown(name), arguments) => return Err(missing(name, arguments)),
            Node::Not(operand) => Value::Boolean(!self.boolean(operand)?),
            Node::Negate(operand) => Value::Integer(negate(self.integer(operand)?)?),
            Node::Tests(operand, tests) => {
                let operand = self.value(operand)?;
                tests.iter().try_fold(operand, |value, test| self.test(value, test).map(Value::Boolean))?
            }
            Node::Arithmetic(chain) => {
                self.chain(chain, |operator, left, right| self.calculate(operator, left, right))?
            }
            Node::Comparison(chain) => {
                self.chain(chain, |operator, left, right| self.compare(operator, left, right))?
            }
            Node::Logic(chain) => Value::Boolean(self.logic(chain)?),
        })
    }

    /// An operand. What it would return beside an error is nothing to what it is an operand of.
    fn value(&self, node: &'a Node) -> Result<Value<'a>, EvaluationError<'a>> {
        self.evaluate(node).map_err(|failure| failure.error)
    }

    fn integer(&self, node: &'a Node) -> Result<i32, EvaluationError<'a>> {
        self.number(self.value(node)?)
    }

    fn boolean(&self, node: &'a Node) -> Result<bool, EvaluationError<'a>> {
        self.value(node)?.into_boolean()
    }

    /// An operand as text that is about to be gone through.
    fn text(&self, node: &'a Node) -> Result<Cow<'a, str>, EvaluationError<'a>> {
        let text = self.value(node)?.into_text();
        self.go_through(text.len())?;
        Ok(text)
    }

    /// A value as a number. Text is gone through: it may be zeros without end.
    fn number(&self, value: Value<'a>) -> Result<i32, EvaluationError<'a>> {
        if let Value::String(text) = &value {
            self.go_through(text.len())?;
        }
        value.into_integer()
    }

    fn cast(&self, value: Value<'a>, to: Type) -> Result<Value<'a>, EvaluationError<'a>> {
        if to == Type::Integer { self.number(value).map(Value::Integer) } else { value.cast(to) }
    }

    /// Counts a step, and the bytes of text that it reads or writes, so that no expression takes long.
    fn go_through(&self, bytes: usize) -> Result<(), EvaluationError<'a>> {
        if self.work.spend(bytes) { Ok(()) } else { Err(EvaluationError::Generic) }
    }

    fn test(&self, value: Value<'a>, test: &'a Test) -> Result<bool, EvaluationError<'a>> {
        let answer = match &test.question {
            Question::Like(pattern) => {
                let text = value.into_text();
                self.go_through(text.len())?;
                pattern.matches(&text)
            }
            Question::In(set) => self.is_in(&value, set)?,
        };
        Ok(answer != test.negated)
    }

    /// Whether a value is in a set, whose values are cast to its type. Nothing is evaluated after the one that it is.
    fn is_in(&self, value: &Value<'a>, set: &'a [Node]) -> Result<bool, EvaluationError<'a>> {
        for node in set {
            let other = self.cast(self.value(node)?, value.kind())?;
            if self.are_equal(value, &other)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn are_equal(&self, left: &Value<'a>, right: &Value<'a>) -> Result<bool, EvaluationError<'a>> {
        if let (Value::String(left), Value::String(right)) = (left, right)
            && left.len() == right.len()
        {
            self.go_through(left.len())?;
        }
        Ok(left == right)
    }

    /// Applies operators from left to right.
    fn chain<O: Copy>(
        &self,
        chain: &'a Chain<O>,
        apply: impl Fn(O, Value<'a>, Value<'a>) -> Result<Value<'a>, EvaluationError<'a>>,
    ) -> Result<Value<'a>, EvaluationError<'a>> {
        let first = self.value(&chain.first)?;
        chain.rest.iter().try_fold(first, |left, (operator, right)| apply(*operator, left, self.value(right)?))
    }

    /// Compares. Of an equality the left side is cast to the type of the right one (section 3.7).
    fn compare(
        &self,
        operator: Comparison,
        left: Value<'a>,
        right: Value<'a>,
    ) -> Result<Value<'a>, EvaluationError<'a>> {
        let equal = |left: Value<'a>| self.are_equal(&self.cast(left, right.kind())?, &right);
        let answer = match operator {
            Comparison::Equal => equal(left)?,
            Comparison::NotEqual => !equal(left)?,
            Comparison::Less => self.order(left, right)?.is_lt(),
            Comparison::LessOrEqual => self.order(left, right)?.is_le(),
            Comparison::Greater => self.order(left, right)?.is_gt(),
            Comparison::GreaterOrEqual => self.order(left, right)?.is_ge(),
        };
        Ok(Value::Boolean(answer))
    }

    fn order(&self, left: Value<'a>, right: Value<'a>) -> Result<Ordering, EvaluationError<'a>> {
        Ok(self.number(left)?.cmp(&self.number(right)?))
    }

    fn is_integer(&self, value: Value<'a>) -> Result<bool, EvaluationError<'a>> {
        match self.number(value) {
            Ok(_) => Ok(true),
            Err(EvaluationError::Cast { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn calculate(
        &self,
        operator: Arithmetic,
        left: Value<'a>,
        right: Value<'a>,
    ) -> Result<Value<'a>, EvaluationError<'a>> {
        let (left, right) = (self.number(left)?, self.number(right)?);
        let result = match operator {
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Divide => left.checked_div(right),
            // The one remainder whose division overflows is nothing all the same.
            Arithmetic::Remainder => (right != 0).then(|| left.wrapping_rem(right)),
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
        };
        let result = result.ok_or_else(|| EvaluationError::Math { operation: format!("{left} {operator} {right}") });
        result.map(Value::Integer)
    }

    /// Applies `AND`, `OR` and `XOR`, each to what is before it and all that is after it; what cannot change the answer is
    /// not evaluated.
    fn logic(&self, chain: &'a Chain<Logic>) -> Result<bool, EvaluationError<'a>> {
        let (mut left, mut is_turned) = (self.boolean(&chain.first)?, false);
        for (operator, right) in &chain.rest {
            match operator {
                Logic::And if !left => break,
                Logic::Or if left => break,
                // One side is known: the answer is that of the other, turned round or not.
                Logic::Xor => is_turned ^= left,
                Logic::And | Logic::Or => {}
            }
            left = self.boolean(right)?;
        }
        Ok(left ^ is_turned)
    }

    /// Calls a function. One with another number of arguments is another function, which there is not.
    fn call(&self, function: Function, arguments: &'a [Node]) -> Result<Value<'a>, Failure<'a>> {
        Ok(match (function, arguments) {
            (Function::Length, [text]) => Value::Integer(functions::length(&self.text(text)?)),
            (Function::Concat, parts) => Value::String(self.concat("", parts)?),
            (Function::ConcatWs, [separator, parts @ ..]) => Value::String(self.concat(&self.text(separator)?, parts)?),
            (Function::Lower, [text]) => Value::String(self.change(functions::lower, text)?),
            (Function::Upper, [text]) => Value::String(self.change(functions::upper, text)?),
            (Function::Trim, [text]) => Value::String(functions::trim(self.text(text)?)),
            (Function::Left, [text, count]) => return self.end(function, functions::left, text, count),
            (Function::Right, [text, count]) => return self.end(function, functions::right, text, count),
            (Function::Substring, [text, position]) => {
                Value::String(functions::substring(self.text(text)?, self.integer(position)?, None)?)
            }
            (Function::Substring, [text, position, length]) => {
                let (text, position, length) = (self.text(text)?, self.integer(position)?, self.integer(length)?);
                Value::String(functions::substring(text, position, Some(length))?)
            }
            (Function::Abs, [number]) => {
                let abs = functions::abs(self.integer(number)?);
                Value::Integer(abs.map_err(|error| error.returning(Value::Integer(i32::MAX)))?)
            }
            (Function::Int, [value]) => Value::Integer(self.integer(value)?),
            (Function::Bool, [value]) => Value::Boolean(self.boolean(value)?),
            (Function::String, [value]) => Value::String(self.value(value)?.into_text()),
            (Function::IsInt, [value]) => Value::Boolean(self.is_integer(self.value(value)?)?),
            (Function::IsBool, [value]) => Value::Boolean(self.value(value)?.into_boolean().is_ok()),
            _ => return Err(missing(function.name(), arguments)),
        })
    }

    /// `LOWER` and `UPPER`, whose text may be longer than what it was made of.
    fn change(
        &self,
        change: fn(Cow<'a, str>) -> Cow<'a, str>,
        text: &'a Node,
    ) -> Result<Cow<'a, str>, EvaluationError<'a>> {
        let text = self.text(text)?;
        let length = text.len();
        let changed = change(text);
        self.go_through(changed.len().saturating_sub(length))?;
        Ok(changed)
    }

    /// `LEFT` and `RIGHT`, which return the text itself beside their error.
    fn end(
        &self,
        function: Function,
        cut: fn(Cow<'a, str>, i32) -> Option<Cow<'a, str>>,
        text: &'a Node,
        count: &'a Node,
    ) -> Result<Value<'a>, Failure<'a>> {
        let (text, count) = (self.text(text)?, self.integer(count)?);
        cut(text.clone(), count).map(Value::String).ok_or_else(|| {
            let problem = "takes no negative number of characters";
            let error = EvaluationError::FunctionEvaluation { function: function.name(), problem, argument: count };
            error.returning(Value::String(text))
        })
    }

    /// Texts one after the other with a separator between them. One alone is returned as it is.
    fn concat(&self, separator: &str, parts: &'a [Node]) -> Result<Cow<'a, str>, EvaluationError<'a>> {
        let Some((first, rest)) = parts.split_first() else { return Ok(Cow::Borrowed("")) };
        let mut whole = self.text(first)?;
        for part in rest {
            let part = self.text(part)?;
            self.go_through(separator.len())?;
            whole.to_mut().push_str(separator);
            whole.to_mut().push_str(&part);
        }
        Ok(whole)
    }
}

/// The error of a function that there is not; false is returned beside it (section 3.5).
fn missing<'a>(name: &'a str, arguments: &[Node]) -> Failure<'a> {
    EvaluationError::MissingFunction { name, arguments: arguments.len() }.returning(Value::Boolean(false))
}

fn negate<'a>(number: i32) -> Result<i32, EvaluationError<'a>> {
    number.checked_neg().ok_or_else(|| EvaluationError::Math { operation: format!("-({number})") })
}
