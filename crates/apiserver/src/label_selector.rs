//! Label selectors, as text and as `LabelSelector` objects.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{object, status::Status};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Greater,
    Less,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    /// A set: each object that is looked at is compared with them.
    values: BTreeSet<String>,
}

/// Requirements that must all hold; none matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1`.
    ///
    /// # Errors
    /// 400 with what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, Status> {
        split(text).into_iter().map(|clause| requirement(clause.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// From a `LabelSelector`; an absent one matches nothing, so there is none.
    pub(crate) fn from_object(selector: &Value) -> Option<Self> {
        let map = selector.as_object()?;
        let mut all = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let values = BTreeSet::from([value.as_str().unwrap_or_default().to_owned()]);
            all.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
        for expression in object::list(selector, "/matchExpressions") {
            let operator = match object::text(expression, "/operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                _ => return None,
            };
            let values =
                object::list(expression, "/values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            all.push(Requirement { key: object::text(expression, "/key").into(), operator, values });
        }
        Some(Self(all))
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a map of labels (or null) matches.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.0.iter().all(|r| r.matches(labels.get(&r.key).and_then(Value::as_str)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.contains(value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::Greater => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            Operator::Less => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        }
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut clauses, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                clauses.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    clauses.push(&text[start..]);
    if text.trim().is_empty() { Vec::new() } else { clauses }
}

fn requirement(clause: &str) -> Result<Requirement, Status> {
    let bad = |why: &str| Status::bad_request(format!("unable to parse requirement: {why}"));
    if clause.is_empty() {
        return Err(bad("found '', expected: identifier after ','"));
    }
    let of = |key: &str, operator, values: BTreeSet<String>| {
        let key = key.trim();
        if !is_key(key) {
            return Err(bad(&format!(
                "<nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            )));
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    if let Some(key) = clause.strip_prefix('!') {
        return of(key, Operator::Absent, BTreeSet::new());
    }
    if clause.ends_with(')') {
        let (head, list) = clause.split_once('(').ok_or_else(|| bad("found ')', expected: ',' or 'end of string'"))?;
        let values = list.trim_end_matches(')').split(',').map(|v| v.trim().to_owned()).collect();
        let (key, word) = head.trim().rsplit_once(char::is_whitespace).unwrap_or((head, ""));
        return match word {
            "in" => of(key, Operator::In, values),
            "notin" => of(key, Operator::NotIn, values),
            _ => Err(bad(&format!("found '{word}', expected: in, notin, =, ==, !=, gt, lt"))),
        };
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ] {
        if let Some((key, value)) = clause.split_once(sign) {
            let value = value.trim();
            if value.contains(['=', ' ', '(', '!']) {
                return Err(bad(&format!("found '{value}', expected: ',' or 'end of string'")));
            }
            return of(key, operator, BTreeSet::from([value.to_owned()]));
        }
    }
    if clause.contains(char::is_whitespace) {
        return Err(bad(&format!("found '{clause}', expected: in, notin, =, ==, !=, gt, lt")));
    }
    of(clause, Operator::Exists, BTreeSet::new())
}

fn is_key(key: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    key.chars().all(inner) && outer(key.chars().next()) && outer(key.chars().last())
}

/// A `LabelSelector` as people write it.
pub(crate) fn format(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut all: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    for expression in object::list(selector, "/matchExpressions") {
        let key = object::text(expression, "/key");
        let values = object::list(expression, "/values").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        all.push(match object::text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_more_does_not_make_each_comparison_longer() {
        // A hundred thousand million comparisons of texts, were each value looked at for each object.
        let values: Vec<String> = (0..300_000).map(|n| format!("v{n}")).collect();
        let object = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": values}]});
        let selector = LabelSelector::from_object(&object).unwrap();
        let labels = json!({"a": "v299999"});
        assert!((0..300_000).all(|_| selector.matches(&labels)));
    }

    #[test]
    fn every_operator_selects() {
        let labels = json!({"a": "1", "tier": "web"});
        let matches = |text: &str| LabelSelector::parse(text).unwrap().matches(&labels);
        for yes in
            ["", "a", "a=1", "a==1", "b!=2", "tier in (web, db)", "tier notin (db)", "!b", "a>0,a<2", "a=1,tier=web"]
        {
            assert!(matches(yes), "{yes}");
        }
        for no in ["b", "a=2", "a!=1", "tier in (db)", "tier notin (web)", "!a", "a>1", "a=1,tier=db"] {
            assert!(!matches(no), "{no}");
        }
        assert_eq!(LabelSelector::parse("a b").unwrap_err().code, 400);
    }
}
