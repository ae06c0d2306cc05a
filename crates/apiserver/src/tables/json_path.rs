//! The JSON paths of printer columns: fields, indices, `[*]` and one-comparison filters.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.field=='value')]`
    Where {
        field: Vec<String>,
        equals: bool,
        value: String,
    },
}

/// A parsed path. What cannot be parsed finds nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(Option<Vec<Step>>);

impl Path {
    /// Parses `.a.b[0]['c\.d'][?(@.type=='Ready')].e`.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        Self(steps(text.strip_prefix('$').unwrap_or(text)))
    }

    /// The first value it finds.
    pub(crate) fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = vec![object];
        for step in self.0.as_ref()? {
            found = found.into_iter().flat_map(|value| follow(value, step)).collect();
        }
        found.into_iter().next()
    }
}

fn follow<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Index(index) => {
            let Some(items) = value.as_array() else { return Vec::new() };
            let at = if *index < 0 { items.len() as i64 + index } else { *index };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        Step::Where { field, equals, value: wanted } => {
            let Some(items) = value.as_array() else { return Vec::new() };
            let matches = |item: &&Value| {
                let found = field.iter().try_fold(*item, |v, name| v.get(name));
                let text = found.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                (text.as_deref() == Some(wanted.as_str())) == *equals
            };
            items.iter().filter(matches).collect()
        }
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = close(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (name, after) = field(rest);
        match name.as_str() {
            "" if after.is_empty() => break,
            "" if after.starts_with('[') => {}
            "" => return None,
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
        rest = after;
    }
    Some(steps)
}

/// Reads a field name up to an unescaped `.` or `[`.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Position of the bracket that closes, outside quotes.
fn close(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        let (left, right, equals) = match (filter.split_once("=="), filter.split_once("!=")) {
            (Some((l, r)), _) => (l, r, true),
            (None, Some((l, r))) => (l, r, false),
            _ => return None,
        };
        let path = left.trim().strip_prefix("@.")?;
        return Some(Step::Where {
            field: path.split('.').map(str::to_owned).collect(),
            equals,
            value: unquote(right.trim()).to_owned(),
        });
    }
    let name = unquote(inner);
    if name.len() != inner.len() {
        return Some(Step::Field(name.replace("\\.", ".")));
    }
    inner.parse().ok().map(Step::Index)
}

fn unquote(text: &str) -> &str {
    ['\'', '"'].iter().find_map(|&q| text.strip_prefix(q)?.strip_suffix(q)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_reach_fields_filters_and_quoted_names() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "label"}},
            "status": {"conditions": [{"type": "X", "status": "1"}, {"type": "Ready", "status": "True"}], "n": 3},
        });
        let find = |path: &str| Path::parse(path).first(&object).cloned();
        assert_eq!(find(".status.n"), Some(json!(3)));
        assert_eq!(find(".status.conditions[?(@.type=='Ready')].status"), Some(json!("True")));
        assert_eq!(find(r#".status.conditions[?(@.type=="Ready")].status"#), Some(json!("True")));
        assert_eq!(find(r".metadata.labels['a\.b/c']"), Some(json!("label")));
        assert_eq!(find(r".metadata.labels.a\.b/c"), Some(json!("label")));
        assert_eq!(find(".status.conditions[*].type"), Some(json!("X")));
        assert_eq!(find(".status.missing"), None);
    }
}
