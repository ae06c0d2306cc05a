//! The functions a template may call.

use std::cmp::Ordering;

use super::Data;
use crate::number::show_float;

/// Their names.
pub(super) const NAMES: [&str; 18] = [
    "and", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print", "printf", "println",
    "slice", "urlquery",
];

pub(super) fn call(name: &str, arguments: &[Data]) -> Result<Data, String> {
    let truth = |value: bool| Ok(Data::Bool(value));
    match (name, arguments) {
        ("not", [value]) => truth(!is_true(value)),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => truth(rest.iter().any(|other| compare(first, other).is_eq())),
        ("ne", [a, b]) => truth(!compare(a, b).is_eq()),
        ("lt", [a, b]) => truth(order(a, b)?.is_lt()),
        ("le", [a, b]) => truth(order(a, b)?.is_le()),
        ("gt", [a, b]) => truth(order(a, b)?.is_gt()),
        ("ge", [a, b]) => truth(order(a, b)?.is_ge()),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("print", values) => Ok(Data::Text(print(values))),
        ("println", values) => Ok(Data::Text(values.iter().map(show).collect::<Vec<_>>().join(" ") + "\n")),
        ("printf", [Data::Text(format), values @ ..]) => Ok(Data::Text(printf(format, values))),
        ("js", values) => Ok(Data::Text(escape_js(&print(values)))),
        ("html", values) => Ok(Data::Text(escape_html(&print(values)))),
        ("urlquery", values) => Ok(Data::Text(escape_query(&print(values)))),
        _ => Err(format!("wrong arguments for {name}")),
    }
}

/// Whether a value counts as true: anything but nothing, zero and empty.
pub(super) fn is_true(value: &Data) -> bool {
    match value {
        Data::Nil => false,
        Data::Bool(value) => *value,
        Data::Int(value) => *value != 0,
        Data::Float(value) => *value != 0.0,
        Data::Text(text) => !text.is_empty(),
        Data::List(items) => !items.is_empty(),
        Data::Map(map) => !map.is_empty(),
        Data::Fields(_) => true,
    }
}

/// A value as it goes out.
pub(super) fn show(value: &Data) -> String {
    match value {
        Data::Nil => "<no value>".to_owned(),
        Data::Bool(value) => value.to_string(),
        Data::Int(value) => value.to_string(),
        Data::Float(value) => show_float(*value),
        Data::Text(text) => text.clone(),
        Data::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Data::Map(map) => {
            format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{v}")).collect::<Vec<_>>().join(" "))
        }
        Data::Fields(fields) => format!("{{{}}}", fields.values().map(show).collect::<Vec<_>>().join(" ")),
    }
}

fn compare(a: &Data, b: &Data) -> Ordering {
    if a == b { Ordering::Equal } else { order(a, b).unwrap_or(Ordering::Less) }
}

fn order(a: &Data, b: &Data) -> Result<Ordering, String> {
    match (a, b) {
        (Data::Int(a), Data::Int(b)) => Ok(a.cmp(b)),
        (Data::Text(a), Data::Text(b)) => Ok(a.cmp(b)),
        (Data::Float(a), Data::Float(b)) => a.partial_cmp(b).ok_or_else(|| "NaN cannot be compared".to_owned()),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn length(value: &Data) -> Result<Data, String> {
    let count = match value {
        Data::Text(text) => text.len(),
        Data::List(items) => items.len(),
        Data::Map(map) => map.len(),
        _ => return Err("len of what has no length".to_owned()),
    };
    Ok(Data::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn index(value: &Data, key: &Data) -> Result<Data, String> {
    match (value, key) {
        (Data::Map(map), Data::Text(key)) => Ok(Data::Text(map.get(key).cloned().unwrap_or_default())),
        (Data::List(items), Data::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| items.get(at).cloned())
            .ok_or_else(|| format!("error calling index: index out of range: {at}")),
        (Data::Text(text), Data::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| text.as_bytes().get(at).map(|byte| Data::Int(i64::from(*byte))))
            .ok_or_else(|| format!("error calling index: index out of range: {at}")),
        (Data::Nil, _) => Err("error calling index: index of untyped nil".to_owned()),
        _ => Err(format!("error calling index: can't index item of {}", show(value))),
    }
}

fn slice(value: &Data, bounds: &[Data]) -> Result<Data, String> {
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Data::Int(n)) => usize::try_from(*n).map_err(|_| format!("error calling slice: index out of range: {n}")),
        Some(_) => Err("error calling slice: cannot index with that type".to_owned()),
    };
    let out_of_range = || "error calling slice: index out of range".to_owned();
    match value {
        Data::Text(text) => {
            let part = text.get(bound(0, 0)?..bound(1, text.len())?).ok_or_else(out_of_range)?;
            Ok(Data::Text(part.to_owned()))
        }
        Data::List(items) => {
            let part = items.get(bound(0, 0)?..bound(1, items.len())?).ok_or_else(out_of_range)?;
            Ok(Data::List(part.to_vec()))
        }
        _ => Err("error calling slice: can't slice item".to_owned()),
    }
}

/// Values one after the other, with a space between two that are not texts.
fn print(values: &[Data]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Data| matches!(value, Data::Text(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out += &show(value);
    }
    out
}

/// Formats with the verbs `%s %v %d %q %t %f %x %%`, flags `-` and `0`, width and precision.
fn printf(format: &str, values: &[Data]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let flags_end = rest.find(|c| !matches!(c, '-' | '0' | '+' | ' ' | '#')).unwrap_or(rest.len());
        let (flags, after) = rest.split_at(flags_end);
        let width_end = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
        let (size, after) = after.split_at(width_end);
        let Some(verb) = after.chars().next() else {
            out += "%!(NOVERB)";
            return out;
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out += &format!("%!{verb}(MISSING)");
            continue;
        };
        let (width, precision) = size.split_once('.').unwrap_or((size, ""));
        let text = format_verb(verb, value, precision.parse().ok());
        let width = width.parse::<usize>().unwrap_or(0).min(1000);
        let fill = width.saturating_sub(text.chars().count());
        match (flags.contains('-'), flags.contains('0') && verb != 's') {
            (true, _) => out += &(text + &" ".repeat(fill)),
            (false, true) => out += &("0".repeat(fill) + &text),
            (false, false) => out += &(" ".repeat(fill) + &text),
        }
    }
    out += rest;
    out
}

fn format_verb(verb: char, value: &Data, precision: Option<usize>) -> String {
    match (verb, value) {
        ('q', Data::Text(text)) => format!("{text:?}"),
        ('f', Data::Float(value)) => format!("{value:.*}", precision.unwrap_or(6)),
        ('x', Data::Int(value)) => format!("{value:x}"),
        ('x', Data::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('s', Data::Text(text)) => text.chars().take(precision.unwrap_or(usize::MAX)).collect(),
        ('s' | 'v', _) | ('d', Data::Int(_)) | ('t', Data::Bool(_)) => show(value),
        _ => format!("%!{verb}({}={})", type_name(value), show(value)),
    }
}

fn type_name(value: &Data) -> &'static str {
    match value {
        Data::Nil => "<nil>",
        Data::Bool(_) => "bool",
        Data::Int(_) => "int",
        Data::Float(_) => "float64",
        Data::Text(_) => "string",
        Data::List(_) => "list",
        Data::Map(_) => "map[string]string",
        Data::Fields(_) => "struct",
    }
}

fn escape_js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\\\",
            '\'' => out += "\\'",
            '"' => out += "\\\"",
            '<' | '>' | '&' | '=' => {
                out += &format!("\\u{:04X}", u32::from(c));
            }
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                out += &format!("\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\'' => out += "&#39;",
            '"' => out += "&#34;",
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => {
                out += &format!("%{byte:02X}");
            }
        }
    }
    out
}
