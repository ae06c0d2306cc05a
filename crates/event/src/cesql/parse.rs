//! From tokens to the tree (section 2).
//!
//! By hand rather than with a parser library: precedence is six short functions over one token of look-ahead, and two
//! things stay in sight that combinators hide, the depth that a stranger's text may reach and what was expected where.

use super::{
    LONGEST_EXPRESSION, MOST_NESTED, ParseError, Problem,
    error::excerpt,
    functions::Function,
    pattern::Pattern,
    tokens::{Kind, Token, Tokens},
    tree::{Arithmetic, Callee, Chain, Comparison, Level, Logic, Node, Question, Test},
};

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Node, ParseError> {
    if text.len() > LONGEST_EXPRESSION {
        return Err(ParseError::new(text, LONGEST_EXPRESSION, Problem::Length));
    }
    let mut tokens = Tokens::of(text);
    let token = tokens.next()?;
    let mut parser = Parser { tokens, token, depth: 0 };
    let node = parser.expression()?;
    match parser.token.kind {
        Kind::End => Ok(node),
        Kind::Close => parser.refuse("an operator or the end, as no parenthesis is open"),
        _ => parser.refuse("an operator or the end"),
    }
}

struct Parser<'t> {
    tokens: Tokens<'t>,
    /// The one looked at.
    token: Token<'t>,
    /// How many expressions are open around it.
    depth: usize,
}

impl<'t> Parser<'t> {
    fn expression(&mut self) -> Result<Node, ParseError> {
        self.nested(|parser| parser.binary(Level::Logic))
    }

    /// Reads something that stands within something else.
    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Node, ParseError>) -> Result<Node, ParseError> {
        if self.depth == MOST_NESTED {
            return Err(ParseError::new(self.tokens.text(), self.token.start, Problem::Depth));
        }
        self.depth += 1;
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    /// Reads operands and the operators between them that bind at least as strongly as `weakest`.
    fn binary(&mut self, weakest: Level) -> Result<Node, ParseError> {
        let mut node = self.tests()?;
        if weakest <= Level::Product && product(&self.token.kind).is_some() {
            node = Node::Arithmetic(self.chain(node, product, Level::Test)?);
        }
        if weakest <= Level::Sum && sum(&self.token.kind).is_some() {
            node = Node::Arithmetic(self.chain(node, sum, Level::Product)?);
        }
        if weakest <= Level::Comparison && comparison(&self.token.kind).is_some() {
            node = Node::Comparison(self.chain(node, comparison, Level::Sum)?);
        }
        if weakest <= Level::Logic && logic(&self.token.kind).is_some() {
            node = Node::Logic(self.chain(node, logic, Level::Comparison)?);
        }
        Ok(node)
    }

    /// Reads all of the operators that `operator` knows, and after each an operand of operators from `level` on.
    fn chain<O>(
        &mut self,
        first: Node,
        operator: fn(&Kind<'_>) -> Option<O>,
        level: Level,
    ) -> Result<Chain<O>, ParseError> {
        let mut rest = Vec::new();
        while let Some(operator) = operator(&self.token.kind) {
            self.advance()?;
            rest.push((operator, self.binary(level)?));
        }
        Ok(Chain { first: Box::new(first), rest })
    }

    /// Reads an operand and the `LIKE`s and `IN`s after it.
    fn tests(&mut self) -> Result<Node, ParseError> {
        let operand = self.unary()?;
        let mut tests = Vec::new();
        loop {
            let negated = self.take(&Kind::Not)?;
            let question = match self.token.kind {
                Kind::Like => self.pattern()?,
                Kind::In => self.set()?,
                _ if negated => return self.refuse("LIKE or IN after NOT"),
                _ => break,
            };
            tests.push(Test { negated, question });
        }
        Ok(if tests.is_empty() { operand } else { Node::Tests(Box::new(operand), tests) })
    }

    fn pattern(&mut self) -> Result<Question, ParseError> {
        self.advance()?;
        let Kind::Text(text) = &self.token.kind else {
            return self.refuse("a pattern between quotes after LIKE");
        };
        let pattern = Pattern::parse(text);
        let pattern = pattern.map_err(|problem| ParseError::new(self.tokens.text(), self.token.start, problem))?;
        self.advance()?;
        Ok(Question::Like(pattern))
    }

    fn set(&mut self) -> Result<Question, ParseError> {
        self.advance()?;
        if !self.take(&Kind::Open)? {
            return self.refuse("( and the values of a set after IN");
        }
        Ok(Question::In(self.list()?))
    }

    /// Reads expressions up to the parenthesis that closes them, of which there must be one at least.
    fn list(&mut self) -> Result<Vec<Node>, ParseError> {
        let mut nodes = vec![self.expression()?];
        while self.take(&Kind::Comma)? {
            nodes.push(self.expression()?);
        }
        self.close("an operator, a comma or )")?;
        Ok(nodes)
    }

    fn unary(&mut self) -> Result<Node, ParseError> {
        let sign = self.token.clone();
        match sign.kind {
            Kind::Not => {
                self.advance()?;
                Ok(Node::Not(Box::new(self.nested(Self::unary)?)))
            }
            Kind::Minus | Kind::Plus => {
                self.advance()?;
                // A sign belongs to the digits right after it: the least number has no positive counterpart.
                if matches!(self.token.kind, Kind::Digits(_)) && self.token.start == sign.end {
                    return self.number(sign.start);
                }
                if sign.kind == Kind::Plus {
                    return self.refuse("digits right after a sign +");
                }
                Ok(Node::Negate(Box::new(self.nested(Self::unary)?)))
            }
            _ => self.atom(),
        }
    }

    /// Reads the digits of a number that begins at `start`.
    fn number(&mut self, start: usize) -> Result<Node, ParseError> {
        let text = self.tokens.text();
        let number = text[start..self.token.end].parse();
        let number = number.map_err(|_| ParseError::new(text, start, Problem::Number))?;
        self.advance()?;
        Ok(Node::Integer(number))
    }

    fn atom(&mut self) -> Result<Node, ParseError> {
        let token = self.token.clone();
        let node = match token.kind {
            Kind::Digits(_) => return self.number(token.start),
            Kind::Exists => return self.exists(),
            Kind::Word(word) => {
                self.advance()?;
                return self.named(word, token.start);
            }
            Kind::Open => {
                self.advance()?;
                let node = self.expression()?;
                self.close("an operator or )")?;
                return Ok(node);
            }
            Kind::Text(text) => Node::Text(text.into()),
            Kind::True => Node::Boolean(true),
            Kind::False => Node::Boolean(false),
            Kind::Equal if self.tokens.text()[..token.start].ends_with('=') => {
                return self.refuse("a value, as equality is written with one =");
            }
            _ => return self.refuse("a value, an attribute, a function or ("),
        };
        self.advance()?;
        Ok(node)
    }

    fn exists(&mut self) -> Result<Node, ParseError> {
        self.advance()?;
        let Kind::Word(word) = self.token.kind else {
            return self.refuse("the name of an attribute after EXISTS");
        };
        let name = self.attribute(word, self.token.start)?;
        self.advance()?;
        Ok(Node::Exists(name))
    }

    /// A word that was read: an attribute, or a function whose arguments follow.
    fn named(&mut self, word: &str, start: usize) -> Result<Node, ParseError> {
        if !self.take(&Kind::Open)? {
            return self.attribute(word, start).map(Node::Attribute);
        }
        let letters = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        if !word.bytes().all(letters) || word.starts_with('_') {
            return Err(ParseError::new(self.tokens.text(), start, Problem::FunctionName { name: word.to_owned() }));
        }
        let name = word.to_ascii_uppercase();
        let callee = Function::named(&name).map_or(Callee::Unknown(name.into()), Callee::Known);
        let arguments = if self.take(&Kind::Close)? { Vec::new() } else { self.list()? };
        Ok(Node::Call(callee, arguments.into()))
    }

    /// The name of an attribute, in lower case as all of them are.
    fn attribute(&self, word: &str, start: usize) -> Result<Box<str>, ParseError> {
        if word.contains('_') {
            return Err(ParseError::new(self.tokens.text(), start, Problem::AttributeName { name: word.to_owned() }));
        }
        Ok(word.to_ascii_lowercase().into())
    }

    fn close(&mut self, expected: &'static str) -> Result<(), ParseError> {
        if self.take(&Kind::Close)? { Ok(()) } else { self.refuse(expected) }
    }

    /// Goes past a token if it is this one.
    fn take(&mut self, kind: &Kind<'_>) -> Result<bool, ParseError> {
        let is_it = self.token.kind == *kind;
        if is_it {
            self.advance()?;
        }
        Ok(is_it)
    }

    fn advance(&mut self) -> Result<(), ParseError> {
        self.token = self.tokens.next()?;
        Ok(())
    }

    /// Says that something else was expected than the token looked at.
    fn refuse<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        let found = &self.tokens.text()[self.token.start..self.token.end];
        let found = if found.is_empty() { "the end".to_owned() } else { excerpt(found) };
        Err(ParseError::new(self.tokens.text(), self.token.start, Problem::Unexpected { expected, found }))
    }
}

fn product(kind: &Kind<'_>) -> Option<Arithmetic> {
    match kind {
        Kind::Star => Some(Arithmetic::Multiply),
        Kind::Slash => Some(Arithmetic::Divide),
        Kind::Percent => Some(Arithmetic::Remainder),
        _ => None,
    }
}

fn sum(kind: &Kind<'_>) -> Option<Arithmetic> {
    match kind {
        Kind::Plus => Some(Arithmetic::Add),
        Kind::Minus => Some(Arithmetic::Subtract),
        _ => None,
    }
}

fn comparison(kind: &Kind<'_>) -> Option<Comparison> {
    match kind {
        Kind::Equal => Some(Comparison::Equal),
        Kind::NotEqual => Some(Comparison::NotEqual),
        Kind::Less => Some(Comparison::Less),
        Kind::LessOrEqual => Some(Comparison::LessOrEqual),
        Kind::Greater => Some(Comparison::Greater),
        Kind::GreaterOrEqual => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

fn logic(kind: &Kind<'_>) -> Option<Logic> {
    match kind {
        Kind::And => Some(Logic::And),
        Kind::Or => Some(Logic::Or),
        Kind::Xor => Some(Logic::Xor),
        _ => None,
    }
}
