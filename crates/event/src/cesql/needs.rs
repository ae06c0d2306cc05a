//! What an expression cannot pass without, as a filter: by it an index over many filters finds expressions, too.
//!
//! Known are equality with a text, `IN` of texts and the beginning of `LIKE`, joined by `AND` and `OR`. They are asked of
//! attributes that are text whenever they are there, for which no cast makes unequal texts equal.
//!
//! Each comparison takes many times its text in the index. Past [`MOST_KEYS`] nothing is known of an expression: it is
//! evaluated for every event instead.

use super::{
    Expression,
    tree::{Chain, Comparison, Logic, Node, Question, Test},
};
use crate::filter::Filter;

/// Comparisons that are known of one expression.
const MOST_KEYS: usize = 64;

/// Attributes of the specification, in every version of it.
const TEXTS: [&str; 7] = ["specversion", "id", "source", "type", "subject", "datacontenttype", "time"];

impl Expression {
    /// A filter that delivers every event which passes the expression; `None` when none is known.
    pub(crate) fn needs(&self) -> Option<Filter> {
        needs(&self.0)
    }
}

/// Recurses no deeper than the expression nests, which is bounded; so is the filter's depth.
fn needs(node: &Node) -> Option<Filter> {
    match node {
        Node::Logic(chain) => logic(chain),
        Node::Comparison(Chain { first, rest }) => match (&**first, &rest[..]) {
            (Node::Attribute(name), [(Comparison::Equal, Node::Text(text))])
            | (Node::Text(text), [(Comparison::Equal, Node::Attribute(name))]) => equal(name, text),
            _ => None,
        },
        Node::Tests(value, tests) => match (&**value, &tests[..]) {
            (Node::Attribute(name), [Test { negated: false, question }]) => answered(name, question),
            _ => None,
        },
        _ => None,
    }
}

fn equal(name: &str, text: &str) -> Option<Filter> {
    TEXTS.contains(&name).then(|| Filter::exact([(name, text)]))
}

fn answered(name: &str, question: &Question) -> Option<Filter> {
    match question {
        Question::In(set) if set.len() >= MOST_KEYS => None,
        Question::In(set) => {
            let one = |node: &Node| if let Node::Text(text) = node { equal(name, text) } else { None };
            Filter::any(set.iter().map(one).collect::<Option<_>>()?).ok()
        }
        Question::Like(pattern) => {
            let beginning = pattern.beginning();
            let is_known = TEXTS.contains(&name) && !beginning.is_empty();
            is_known.then(|| Filter::prefix([(name, &*beginning)]))
        }
    }
}

/// Operators group from the right. What stands between two of a kind stays in one list, so that depth grows only where
/// they change.
fn logic(chain: &Chain<Logic>) -> Option<Filter> {
    let nodes = std::iter::once(&*chain.first).chain(chain.rest.iter().map(|(_, node)| node));
    let following = chain.rest.iter().map(|(operator, _)| Some(*operator)).chain([None]);
    let operands: Vec<(&Node, Option<Logic>)> = nodes.zip(following).collect();
    let mut last = None;
    let mut joined: Vec<Option<Filter>> = Vec::new();
    for (node, operator) in operands.into_iter().rev() {
        if last.is_some() && operator != last {
            joined = vec![join(last, joined)];
        }
        last = operator;
        joined.push(needs(node));
    }
    join(last, joined)
}

/// Those that one filter has room for, beside itself.
fn within_room(filters: impl Iterator<Item = Filter>) -> Vec<Filter> {
    let mut room = MOST_KEYS - 1;
    let fits = |filter: &Filter| {
        let left = room.checked_sub(filter.size());
        room = left.unwrap_or(room);
        left.is_some()
    };
    filters.filter(fits).collect()
}

/// What operands of one operator need together. Of `AND` what is known of any of them is needed, of `OR` all must be known.
fn join(operator: Option<Logic>, operands: Vec<Option<Filter>>) -> Option<Filter> {
    match operator {
        Some(Logic::And) => {
            let known = within_room(operands.into_iter().flatten());
            if known.is_empty() { None } else { Filter::all(known).ok() }
        }
        Some(Logic::Or) => {
            let operands: Vec<Filter> = operands.into_iter().collect::<Option<_>>()?;
            let count = operands.len();
            let known = within_room(operands.into_iter());
            if known.len() == count { Filter::any(known).ok() } else { None }
        }
        Some(Logic::Xor) => None,
        None => operands.into_iter().next().flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, filter::Matcher};

    fn needs_of(text: &str) -> Option<Filter> {
        Expression::parse(text).expect("an expression").needs()
    }

    #[test]
    fn what_an_expression_needs_is_found_through_and_and_or() {
        let event = |kind: &str, source: &str| Event::new("1", source, kind).expect("an event");
        let cases = [
            ("type = 'a'", true, false),
            ("'a' = type AND n > 5", true, false),
            ("type IN ('a', 'c')", true, false),
            ("type LIKE 'a%'", true, false),
            ("type LIKE 'a_'", true, false),
            ("type = 'a' OR source LIKE '/y%'", true, false),
            ("n = 5 AND (type = 'a' OR type = 'c') AND EXISTS x", true, false),
            ("(type = 'b' AND source = '/s') OR type = 'a'", true, true),
            ("source = '/s' AND type = 'b' OR type = 'a'", true, true),
            ("type = 'a' AND source = '/s' OR type = 'b'", true, false),
            ("type = 'a' OR source = '/x' AND type = 'b'", true, false),
        ];
        for (text, of_a, of_b) in cases {
            let filter = needs_of(text).unwrap_or_else(|| panic!("{text} needs something"));
            let delivers = |kind| filter.verdict(&event(kind, "/s")).delivers();
            assert_eq!((delivers("a"), delivers("b")), (of_a, of_b), "{text}");
        }
    }

    #[test]
    fn nothing_is_needed_where_a_cast_or_an_operator_could_let_others_pass() {
        for text in [
            "TRUE",
            "n = '5'",
            "type != 'a'",
            "NOT type = 'a'",
            "type NOT IN ('a')",
            "type IN ('a', source)",
            "type LIKE '%a'",
            "type LIKE '_a'",
            "type = 'a' OR n = 5",
            "type = 'a' XOR type = 'b'",
            "type = 'a' = TRUE",
            "type = source",
            "LOWER(type) = 'a'",
        ] {
            assert!(needs_of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_expression_of_many_comparisons_takes_no_more_than_a_few_in_the_index() {
        let texts: Vec<String> = (0..4000).map(|at| format!("'{at}'")).collect();
        let with = |count: usize, operator: &str| {
            let terms: Vec<String> = texts[..count].iter().map(|text| format!("type = {text}")).collect();
            terms.join(operator)
        };
        assert!(needs_of(&format!("type IN ({})", texts.join(","))).is_none());
        assert!(needs_of(&with(2000, " OR ")).is_none());
        assert!(needs_of(&format!("type IN ({})", texts[..MOST_KEYS - 1].join(","))).is_some());
        for text in [with(2000, " AND "), "source = '/s' AND ".to_owned() + &with(2000, " OR "), with(60, " OR ")] {
            let needs = needs_of(&text).expect("something is known");
            assert!(needs.size() <= MOST_KEYS, "{}", needs.size());
        }
        let expression = Expression::parse(&format!("type IN ({})", texts.join(","))).expect("an expression");
        let matcher = Matcher::new([(0, Filter::cesql(expression))]);
        let matching = |kind| matcher.matching(&Event::new("1", "/s", kind).expect("an event")).filters;
        assert_eq!((matching("3999"), matching("4000")), (vec![0], vec![]));
    }

    #[test]
    fn a_long_chain_that_changes_its_operator_costs_no_stack() {
        let text = format!("type = 'a'{}", " AND type = 'a' OR type = 'a'".repeat(2000));
        let event = Event::new("1", "/s", "a").expect("an event");
        assert!(needs_of(&text).is_none_or(|filter| filter.verdict(&event).delivers()));
    }
}
