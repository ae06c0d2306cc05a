//! From text to tokens.

use std::borrow::Cow;

use super::{ParseError, Problem};

/// A token and where it stands, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind<'t> {
    End,
    Open,
    Close,
    Comma,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
    Not,
    Like,
    In,
    Exists,
    True,
    False,
    /// Letters, digits and underscores that are neither a keyword nor only digits.
    Word(&'t str),
    /// Digits, without a sign: whether `-` belongs to a number, the parser knows.
    Digits(&'t str),
    /// What a literal between quotes stands for.
    Text(Cow<'t, str>),
}

/// The tokens of a text, one at a time.
pub(super) struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tokens<'t> {
    pub(super) fn of(text: &'t str) -> Tokens<'t> {
        Tokens { text, at: 0 }
    }

    /// The text that they are of.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The next one; at the end [`Kind::End`], again and again.
    pub(super) fn next(&mut self) -> Result<Token<'t>, ParseError> {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        let start = self.text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            self.at = start;
            return Ok(Token { kind: Kind::End, start, end: start });
        };
        let (kind, length) = match first {
            '\'' | '"' => self.literal(start, first)?,
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => word(rest),
            _ => symbol(rest).ok_or_else(|| ParseError::new(self.text, start, unknown(first)))?,
        };
        self.at = start + length;
        Ok(Token { kind, start, end: self.at })
    }

    /// A literal that begins with this quote. A backslash makes the quote part of the text; before anything else it
    /// stands for itself, and what follows it, too.
    fn literal(&self, start: usize, quote: char) -> Result<(Kind<'t>, usize), ParseError> {
        let body = &self.text[start + 1..];
        let mut characters = body.char_indices();
        let mut escaped = false;
        while let Some((index, character)) = characters.next() {
            if character == '\\' {
                escaped |= characters.next().is_some_and(|(_, second)| second == quote);
            } else if character == quote {
                if body[index + 1..].starts_with(quote) {
                    return Err(ParseError::new(self.text, start + 1 + index, Problem::DoubledQuote { quote }));
                }
                let text = &body[..index];
                let text = if escaped { Cow::Owned(unescape(text, quote)) } else { Cow::Borrowed(text) };
                return Ok((Kind::Text(text), index + 2));
            }
        }
        Err(ParseError::new(self.text, start, Problem::Unterminated { quote }))
    }
}

fn unescape(text: &str, quote: char) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let second = if character == '\\' { characters.next() } else { None };
        if second != Some(quote) {
            plain.push(character);
        }
        plain.extend(second);
    }
    plain
}

/// A word, a keyword or a number, and how long it is in bytes.
fn word(rest: &str) -> (Kind<'_>, usize) {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let word = &rest[..end];
    let kind = if word.bytes().all(|byte| byte.is_ascii_digit()) {
        Kind::Digits(word)
    } else {
        let keyword = KEYWORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        keyword.map_or(Kind::Word(word), |(_, kind)| kind.clone())
    };
    (kind, end)
}

const KEYWORDS: &[(&str, Kind<'static>)] = &[
    ("AND", Kind::And),
    ("OR", Kind::Or),
    ("XOR", Kind::Xor),
    ("NOT", Kind::Not),
    ("LIKE", Kind::Like),
    ("IN", Kind::In),
    ("EXISTS", Kind::Exists),
    ("TRUE", Kind::True),
    ("FALSE", Kind::False),
];

/// A symbol, and how long it is in bytes.
fn symbol(rest: &str) -> Option<(Kind<'static>, usize)> {
    const SYMBOLS: &[(&str, Kind<'static>)] = &[
        // Longer ones before those that they begin with.
        ("!=", Kind::NotEqual),
        ("<>", Kind::NotEqual),
        ("<=", Kind::LessOrEqual),
        (">=", Kind::GreaterOrEqual),
        ("=", Kind::Equal),
        ("<", Kind::Less),
        (">", Kind::Greater),
        ("(", Kind::Open),
        (")", Kind::Close),
        (",", Kind::Comma),
        ("+", Kind::Plus),
        ("-", Kind::Minus),
        ("*", Kind::Star),
        ("/", Kind::Slash),
        ("%", Kind::Percent),
    ];
    SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)).map(|(symbol, kind)| (kind.clone(), symbol.len()))
}

/// A character that begins no token, with what is meant where that can be told.
fn unknown(character: char) -> Problem {
    let hint = match character {
        '&' => "; conditions are joined by AND",
        '|' => "; conditions are joined by OR",
        '!' => "; a condition is turned round by NOT",
        '.' => "; numbers are whole, and attribute names have letters and digits only",
        '`' | '’' | '‘' | '“' | '”' => "; text stands between ' or \"",
        _ => "",
    };
    Problem::Character { character, hint }
}
