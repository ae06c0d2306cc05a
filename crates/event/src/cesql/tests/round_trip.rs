//! Printed, an expression is the text of an equal one; evaluated, none panics.

use proptest::{collection::vec, prelude::*};

use super::{CALLED, Expression, Value, attribute, parse};
use crate::cesql::{
    functions::Function,
    pattern::Pattern,
    tree::{Arithmetic, Callee, Chain, Comparison, Logic, Node, Question, Test},
};

/// Text as a literal between single quotes may stand for it: a backslash is before a character other than that quote.
fn text() -> impl Strategy<Value = String> {
    r#"([a-c%_ "'é\n]|\\[a%_"\\]){0,6}"#
}

fn name() -> impl Strategy<Value = Box<str>> {
    let known = prop::sample::select(vec!["id", "type", "num", "neg", "flag", "txt", "uni", "seq", "1st", "a1"]);
    known.prop_map(Box::from)
}

fn callee() -> impl Strategy<Value = Callee> {
    prop::sample::select(CALLED.to_vec())
        .prop_map(|name| Function::named(name).map_or_else(|| Callee::Unknown(name.into()), Callee::Known))
}

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![-12..12, any::<i32>(), Just(i32::MIN), Just(i32::MAX)]
}

fn leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        text().prop_map(|text| Node::Text(text.into())),
        number().prop_map(Node::Integer),
        any::<bool>().prop_map(Node::Boolean),
        name().prop_map(Node::Attribute),
        name().prop_map(Node::Exists),
    ]
}

fn test(node: impl Strategy<Value = Node>) -> impl Strategy<Value = Test> {
    let question = prop_oneof![
        text().prop_map(|text| Question::Like(Pattern::parse(&text).expect("it is short"))),
        vec(node, 1..4).prop_map(Question::In),
    ];
    (any::<bool>(), question).prop_map(|(negated, question)| Test { negated, question })
}

fn chain<O: Copy + std::fmt::Debug + 'static>(
    node: impl Strategy<Value = Node> + Clone,
    operators: &[O],
) -> impl Strategy<Value = Chain<O>> {
    let operator = prop::sample::select(operators.to_vec());
    (node.clone(), vec((operator, node), 1..4)).prop_map(|(first, rest)| Chain { first: Box::new(first), rest })
}

fn node() -> impl Strategy<Value = Node> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    leaf().prop_recursive(5, 40, 4, |node| {
        prop_oneof![
            (callee(), vec(node.clone(), 0..4)).prop_map(|(callee, nodes)| Node::Call(callee, nodes.into())),
            node.clone().prop_map(|node| Node::Not(Box::new(node))),
            node.clone().prop_map(|node| Node::Negate(Box::new(node))),
            (node.clone(), vec(test(node.clone()), 1..3)).prop_map(|(node, tests)| Node::Tests(Box::new(node), tests)),
            chain(node.clone(), &[Arithmetic::Multiply, Arithmetic::Divide, Arithmetic::Remainder])
                .prop_map(Node::Arithmetic),
            chain(node.clone(), &[Arithmetic::Add, Arithmetic::Subtract]).prop_map(Node::Arithmetic),
            chain(node.clone(), &[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual])
                .prop_map(Node::Comparison),
            chain(node, &[Logic::And, Logic::Or, Logic::Xor]).prop_map(Node::Logic),
        ]
    })
}

proptest! {
    #[test]
    fn printing_and_parsing_give_back_the_same(node in node()) {
        let expression = Expression(node);
        let printed = expression.to_string();
        prop_assert_eq!(Expression::parse(&printed), Ok(expression), "{}", printed);
    }

    #[test]
    fn evaluation_ends_with_a_value_whatever_the_expression(node in node()) {
        let expression = Expression(node);
        let evaluation = expression.evaluate(&attribute);
        let passes = evaluation.error.is_none() && evaluation.value == Value::from(true);
        prop_assert_eq!(expression.matches(&attribute), passes);
    }

    #[test]
    fn whatever_text_is_no_expression_is_refused_in_words(text in r#"([a-z0-9 ()'"+\-*/%=<>!,_\\é]|AND |NOT |IN |LIKE ){0,20}"#) {
        match Expression::parse(&text) {
            Ok(expression) => prop_assert_eq!(&parse(&expression.to_string()), &expression),
            Err(error) => prop_assert!(error.to_string().starts_with("at character ")),
        }
    }
}

#[test]
fn what_is_printed_has_no_more_parentheses_than_it_needs() {
    for (text, printed) in [
        ("((a))and(b)", "a AND b"),
        ("(a and b) or c", "(a AND b) OR c"),
        ("a or (b and c)", "a OR (b AND c)"),
        ("a<>1+2*-3", "a != 1 + 2 * -3"),
        ("(a+1)*2", "(a + 1) * 2"),
        ("not(a)", "NOT a"),
        ("not(a=b)", "NOT (a = b)"),
        ("- 5 - -5", "- 5 - -5"),
        ("A not like \"x'\" and b in(1,'2')", r"a NOT LIKE 'x\'' AND b IN (1, '2')"),
        ("left(a,1)", "LEFT(a, 1)"),
        (r#""\'""#, r#""\'""#),
    ] {
        assert_eq!(parse(text).to_string(), printed);
        assert_eq!(parse(printed), parse(text));
    }
}
