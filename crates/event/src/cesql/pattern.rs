//! The patterns of `LIKE` (section 3.4.3), matched in one pass over the text.
//!
//! `%` cuts a pattern into parts. The first must begin the text, the last end it, and those between are looked for one
//! after the other, each where the one before ended: the leftmost place is always good enough. So nothing is tried twice,
//! whatever the pattern.

use std::collections::BTreeMap;

use super::Problem;

/// Most characters between two `%` of a pattern where `_` is among them: the bits that a search keeps its places in.
pub(super) const LONGEST_GAPPED: usize = u128::BITS as usize;

/// A pattern, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: Box<str>,
    /// What the text begins with; without `%` in the pattern, what it is.
    first: Part,
    /// What is between two `%` each.
    middle: Box<[Search]>,
    /// What the text ends with, where the pattern has `%`.
    last: Option<Part>,
}

/// Characters one after the other; `None` is any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part(Vec<Option<char>>);

/// A part that may be anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Search {
    Plain(Box<str>),
    /// With characters that may be any.
    Gapped(Gapped),
}

/// Where in a part a character may stand, a bit for each place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gapped {
    /// The last place.
    last: u128,
    /// Where any character may.
    any: u128,
    /// Where, too, those that the part names may; in their order.
    named: Box<[(char, u128)]>,
}

impl Pattern {
    /// Reads a pattern. `\%` and `\_` are those characters; any other backslash is one.
    pub(super) fn parse(text: &str) -> Result<Pattern, Problem> {
        let mut parts = Vec::new();
        let mut part = Part::default();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let escaped = if character == '\\' { characters.next_if(|&c| c == '%' || c == '_') } else { None };
            match (escaped, character) {
                (None, '%') => parts.push(std::mem::take(&mut part)),
                (None, '_') => part.0.push(None),
                (escaped, character) => part.0.push(Some(escaped.unwrap_or(character))),
            }
        }
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else {
            return Ok(Pattern { text: text.into(), first: part, middle: Box::default(), last: None });
        };
        let middle = parts.filter(|part| !part.0.is_empty()).map(Search::of).collect::<Result<_, _>>()?;
        Ok(Pattern { text: text.into(), first, middle, last: Some(part) })
    }

    /// As it was written, without the escapes of its literal.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What every text begins with that is as the pattern says, up to the first `%` or `_`.
    pub(super) fn beginning(&self) -> String {
        self.first.0.iter().map_while(|wanted| *wanted).collect()
    }

    /// Whether the whole of a text is as the pattern says. Takes time linear in the text.
    pub(super) fn matches(&self, text: &str) -> bool {
        let Some(rest) = self.first.strip(text) else { return false };
        let Some(last) = &self.last else { return rest.is_empty() };
        let rest = self.middle.iter().try_fold(rest, |rest, part| part.skip_past(rest));
        rest.is_some_and(|rest| last.ends(rest))
    }
}

impl Part {
    /// What follows it in a text that begins with it.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut rest = text.chars();
        self.0.iter().all(|wanted| fits(*wanted, rest.next())).then_some(rest.as_str())
    }

    /// Whether a text ends with it.
    fn ends(&self, text: &str) -> bool {
        let mut rest = text.chars().rev();
        self.0.iter().rev().all(|wanted| fits(*wanted, rest.next()))
    }
}

fn fits(wanted: Option<char>, found: Option<char>) -> bool {
    found.is_some_and(|found| wanted.is_none_or(|wanted| wanted == found))
}

impl Search {
    fn of(part: Part) -> Result<Search, Problem> {
        if let Some(plain) = part.0.iter().copied().collect::<Option<String>>() {
            return Ok(Search::Plain(plain.into()));
        }
        if part.0.len() > LONGEST_GAPPED {
            return Err(Problem::PatternPart);
        }
        let mut any = 0;
        let mut named = BTreeMap::new();
        for (place, wanted) in part.0.iter().enumerate() {
            *wanted.map_or(&mut any, |wanted| named.entry(wanted).or_insert(0)) |= 1 << place;
        }
        Ok(Search::Gapped(Gapped { last: 1 << (part.0.len() - 1), any, named: named.into_iter().collect() }))
    }

    /// What follows the first place in a text that it is found at.
    fn skip_past<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Search::Plain(plain) => text.find(&**plain).map(|at| &text[at + plain.len()..]),
            Search::Gapped(part) => part.skip_past(text),
        }
    }
}

impl Gapped {
    /// Shift-And: a bit of `fitting` says that the part up to that place fits what just went by.
    fn skip_past<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut fitting = 0_u128;
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let named = self.named.binary_search_by_key(&character, |&(named, _)| named);
            let places = self.any | named.map_or(0, |index| self.named[index].1);
            fitting = ((fitting << 1) | 1) & places;
            if fitting & self.last != 0 {
                return Some(rest.as_str());
            }
        }
        None
    }
}
