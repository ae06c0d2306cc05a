//! From text to nodes.

use super::TemplateError;

/// Deepest nesting of blocks and parentheses.
const DEEPEST: usize = 64;

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Goes out as it is.
    Text(String),
    /// Goes out as it evaluates.
    Output(Pipeline),
    /// Only sets a variable.
    Assign(Pipeline),
    /// `if`, `with` and `range`.
    Block { kind: BlockKind, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// What a block does with its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    If,
    With,
    Range,
}

/// Commands, each fed the value of the one before, and the variables that take the result.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// Declared here, rather than set.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// An operand, or a function and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) head: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// A value in the text.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Variable(String),
    Function(String),
    Group(Box<Pipeline>),
    /// Fields of another operand, left to right.
    Chain(Box<Operand>, Vec<String>),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Field(String),
    Variable(String),
    Text(String),
    Number(String),
    Dot,
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Set,
    Space,
}

/// A piece of the source: text, or an action's tokens with its line.
enum Piece {
    Text(String),
    Action(Vec<Token>, usize),
}

pub(super) fn parse(source: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { pieces: split(source)?.into_iter(), scope: vec!["$".to_owned()], line: 1, depth: 0 };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Source => Ok(nodes),
        End::Else(_) => Err(parser.problem("unexpected {{else}}")),
        End::Block => Err(parser.problem("unexpected {{end}}")),
    }
}

/// Cuts the source at its actions and trims the text beside `{{-` and `-}}`.
fn split(source: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut line, mut trim_next) = (source, 1, false);
    loop {
        let start = rest.find("{{");
        let mut text = &rest[..start.unwrap_or(rest.len())];
        let newlines = text.matches('\n').count();
        let trims_before = start.is_some_and(|at| opens_with_trim(&rest[at + 2..]));
        if trim_next {
            text = text.trim_start();
        }
        if trims_before {
            text = text.trim_end();
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let Some(start) = start else { return Ok(pieces) };
        line += newlines;
        let body = &rest[start + 2 + if trims_before { 2 } else { 0 }..];
        let end = action_end(body).ok_or_else(|| TemplateError::Parse { line, problem: "unclosed action".into() })?;
        let mut inner = &body[..end];
        trim_next = inner.ends_with('-') && inner[..inner.len() - 1].ends_with(char::is_whitespace);
        if trim_next {
            inner = &inner[..inner.len() - 1];
        }
        let trimmed = inner.trim();
        if !(trimmed.starts_with("/*") && trimmed.ends_with("*/")) {
            let tokens = tokenize(inner).map_err(|problem| TemplateError::Parse { line, problem })?;
            pieces.push(Piece::Action(tokens, line));
        }
        line += inner.matches('\n').count();
        rest = &body[end + 2..];
    }
}

fn opens_with_trim(after: &str) -> bool {
    after.strip_prefix('-').is_some_and(|rest| rest.starts_with(char::is_whitespace))
}

/// Where the `}}` of an action stands, outside quotes and comments.
fn action_end(body: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at += body[at..].find("*/")? + 2,
            quote @ (b'"' | b'`' | b'\'') => at = quote_end(bytes, at, quote)? + 1,
            _ => at += 1,
        }
    }
    None
}

/// Index of the quote that closes the one at `start`.
fn quote_end(bytes: &[u8], start: usize, quote: u8) -> Option<usize> {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != b'`' => at += 2,
            byte if byte == quote => return Some(at),
            _ => at += 1,
        }
    }
    None
}

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    let name_end = |from: usize| {
        text[from..].find(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(text.len(), |length| from + length)
    };
    while at < bytes.len() {
        let start = at;
        let token = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at = text[at..].find(|c: char| !c.is_whitespace()).map_or(text.len(), |length| at + length);
                Token::Space
            }
            b'|' => single(&mut at, Token::Pipe),
            b'(' => single(&mut at, Token::Open),
            b')' => single(&mut at, Token::Close),
            b',' => single(&mut at, Token::Comma),
            b'=' => single(&mut at, Token::Set),
            b':' if bytes.get(at + 1) == Some(&b'=') => {
                at += 2;
                Token::Declare
            }
            quote @ (b'"' | b'`') => {
                let end = quote_end(bytes, at, quote).ok_or("unterminated quoted string")?;
                at = end + 1;
                let inner = &text[start + 1..end];
                Token::Text(if quote == b'`' { inner.to_owned() } else { unescape(inner)? })
            }
            b'.' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                at = number_end(text, at);
                Token::Number(text[start..at].to_owned())
            }
            b'.' => {
                at = name_end(at + 1);
                if at == start + 1 { Token::Dot } else { Token::Field(text[start + 1..at].to_owned()) }
            }
            b'$' => {
                at = name_end(at + 1);
                Token::Variable(text[start..at].to_owned())
            }
            b'0'..=b'9' | b'-' | b'+' => {
                at = number_end(text, at + 1);
                Token::Number(text[start..at].to_owned())
            }
            _ => {
                at = name_end(at);
                if at == start {
                    let character = text[start..].chars().next().unwrap_or('?');
                    return Err(format!("unexpected {character:?} in command"));
                }
                Token::Word(text[start..at].to_owned())
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn single(at: &mut usize, token: Token) -> Token {
    *at += 1;
    token
}

fn number_end(text: &str, from: usize) -> usize {
    text[from..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).map_or(text.len(), |length| from + length)
}

/// Reads the escapes of a double-quoted text.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = |chars: &mut std::str::Chars<'_>, digits: usize| {
            let hex: String = chars.take(digits).collect();
            u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32)
        };
        let escaped = match chars.next() {
            Some('n') => Some('\n'),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some(c @ ('\\' | '"')) => Some(c),
            Some('x') => code(&mut chars, 2),
            Some('u') => code(&mut chars, 4),
            Some('U') => code(&mut chars, 8),
            _ => None,
        };
        out.push(escaped.ok_or("invalid syntax in quoted string")?);
    }
    Ok(out)
}

/// What ended a list of nodes.
enum End {
    Source,
    Block,
    /// With the words after `else`, if any.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Names of the variables in scope.
    scope: Vec<String>,
    line: usize,
    depth: usize,
}

impl Parser {
    fn problem(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError::Parse { line: self.line, problem: problem.into() }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, line) => (tokens, line),
            };
            self.line = line;
            let tokens: Vec<Token> = trim(&tokens).to_vec();
            match tokens.first() {
                Some(Token::Word(word)) if word == "end" => return Ok((nodes, End::Block)),
                Some(Token::Word(word)) if word == "else" => {
                    return Ok((nodes, End::Else(trim(&tokens[1..]).to_vec())));
                }
                Some(Token::Word(word)) if block_kind(word).is_some() => nodes.push(self.block(&tokens)?),
                None => return Err(self.problem("missing value for command")),
                _ => {
                    let pipeline = self.pipeline(&tokens)?;
                    nodes.push(if pipeline.variables.is_empty() {
                        Node::Output(pipeline)
                    } else {
                        Node::Assign(pipeline)
                    });
                }
            }
        }
        Ok((nodes, End::Source))
    }

    /// A block from its opening action on; `tokens` begins with its keyword.
    fn block(&mut self, tokens: &[Token]) -> Result<Node, TemplateError> {
        let Some(Token::Word(word)) = tokens.first() else { return Err(self.problem("missing keyword")) };
        let kind = block_kind(word).ok_or_else(|| self.problem(format!("unexpected {word}")))?;
        self.enter()?;
        let variables = self.scope.len();
        let pipeline = self.pipeline(&tokens[1..])?;
        let inside = self.scope.len();
        let (body, end) = self.nodes()?;
        self.scope.truncate(inside);
        let otherwise = match end {
            End::Source => return Err(self.problem("unexpected EOF")),
            End::Block => Vec::new(),
            End::Else(rest) if rest.is_empty() => {
                let (nodes, end) = self.nodes()?;
                match end {
                    End::Block => nodes,
                    End::Source => return Err(self.problem("unexpected EOF")),
                    End::Else(_) => return Err(self.problem("unexpected {{else}}")),
                }
            }
            End::Else(rest) => vec![self.block(&rest)?],
        };
        self.scope.truncate(variables);
        self.depth -= 1;
        Ok(Node::Block { kind, pipeline, body, otherwise })
    }

    fn enter(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(self.problem("nested too deeply")) } else { Ok(()) }
    }

    fn pipeline(&mut self, tokens: &[Token]) -> Result<Pipeline, TemplateError> {
        let mut tokens = trim(tokens);
        let mut pipeline = Pipeline::default();
        if let Some(at) = top_level(tokens, |t| matches!(t, Token::Declare | Token::Set)) {
            pipeline.declares = tokens[at] == Token::Declare;
            for token in &tokens[..at] {
                match token {
                    Token::Variable(name) => pipeline.variables.push(name.clone()),
                    Token::Space | Token::Comma => {}
                    _ => return Err(self.problem("only variables can be assigned")),
                }
            }
            tokens = trim(&tokens[at + 1..]);
        }
        loop {
            let at = top_level(tokens, |t| *t == Token::Pipe);
            let command = self.command(trim(&tokens[..at.unwrap_or(tokens.len())]))?;
            let is_function = matches!(command.head, Operand::Function(_));
            if !pipeline.commands.is_empty() && !is_function {
                return Err(self.problem("non executable command in pipeline"));
            }
            pipeline.commands.push(command);
            let Some(at) = at else { break };
            tokens = &tokens[at + 1..];
        }
        for name in &pipeline.variables {
            if pipeline.declares {
                self.scope.push(name.clone());
            } else if !self.scope.contains(name) {
                return Err(self.problem(format!("undefined variable {name:?}")));
            }
        }
        Ok(pipeline)
    }

    fn command(&mut self, tokens: &[Token]) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        let mut rest = tokens;
        while !rest.is_empty() {
            let (operand, after) = self.operand(rest)?;
            operands.push(operand);
            let spaced = after.first() == Some(&Token::Space);
            if !after.is_empty() && !spaced {
                return Err(self.problem("unexpected token in operand"));
            }
            rest = trim(after);
        }
        if operands.is_empty() {
            return Err(self.problem("missing value for command"));
        }
        let head = operands.remove(0);
        if !operands.is_empty() && !matches!(head, Operand::Function(_)) {
            return Err(self.problem("can't give argument to non-function"));
        }
        Ok(Command { head, arguments: operands })
    }

    /// The operand at the front with its chained fields, and what follows.
    fn operand<'t>(&mut self, tokens: &'t [Token]) -> Result<(Operand, &'t [Token]), TemplateError> {
        let mut rest = &tokens[1..];
        let mut fields = Vec::new();
        let base = match &tokens[0] {
            Token::Dot => Operand::Dot,
            Token::Field(name) => {
                fields.push(name.clone());
                Operand::Dot
            }
            Token::Variable(name) if self.scope.contains(name) => Operand::Variable(name.clone()),
            Token::Variable(name) => return Err(self.problem(format!("undefined variable {name:?}"))),
            Token::Text(text) => Operand::Text(text.clone()),
            Token::Number(text) => self.number(text)?,
            Token::Word(word) => self.word(word)?,
            Token::Open => {
                let end = closing(tokens).ok_or_else(|| self.problem("unclosed left paren"))?;
                self.enter()?;
                let inner = self.pipeline(&tokens[1..end])?;
                self.depth -= 1;
                rest = &tokens[end + 1..];
                Operand::Group(Box::new(inner))
            }
            other => return Err(self.problem(format!("unexpected {other:?} in operand"))),
        };
        while let Some(Token::Field(name)) = rest.first() {
            fields.push(name.clone());
            rest = &rest[1..];
        }
        Ok((if fields.is_empty() { base } else { Operand::Chain(Box::new(base), fields) }, rest))
    }

    fn number(&self, text: &str) -> Result<Operand, TemplateError> {
        let integer = text.parse().ok().or_else(|| {
            let hex = text.strip_prefix("0x")?;
            i64::from_str_radix(hex, 16).ok()
        });
        integer
            .map(Operand::Int)
            .or_else(|| text.parse().ok().map(Operand::Float))
            .ok_or_else(|| self.problem(format!("bad number syntax: {text:?}")))
    }

    fn word(&self, word: &str) -> Result<Operand, TemplateError> {
        match word {
            "true" => Ok(Operand::Bool(true)),
            "false" => Ok(Operand::Bool(false)),
            "nil" => Ok(Operand::Nil),
            _ if super::functions::NAMES.contains(&word) => Ok(Operand::Function(word.to_owned())),
            _ => Err(self.problem(format!("function {word:?} not defined"))),
        }
    }
}

fn block_kind(word: &str) -> Option<BlockKind> {
    match word {
        "if" => Some(BlockKind::If),
        "with" => Some(BlockKind::With),
        "range" => Some(BlockKind::Range),
        _ => None,
    }
}

fn trim(mut tokens: &[Token]) -> &[Token] {
    while let [Token::Space, rest @ ..] = tokens {
        tokens = rest;
    }
    while let [rest @ .., Token::Space] = tokens {
        tokens = rest;
    }
    tokens
}

/// The first token outside parentheses that `wanted` takes.
fn top_level(tokens: &[Token], wanted: impl Fn(&Token) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            token if depth == 0 && wanted(token) => return Some(at),
            _ => {}
        }
    }
    None
}

/// Index of the parenthesis that closes the one at the front.
fn closing(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}
