//! Who gets an event: the filters of Triggers and EventPolicies, compiled once and asked for every event.
//!
//! A file a dialect. The algebra has three values, as upstream's: what filters nothing ([`Verdict::Unfiltered`]) lets
//! events through, also from within `not`. Where it differs is an empty name or value in `exact`, `prefix` or `suffix`,
//! which must not be written: it matches nothing here, where upstream drops the element and delivers everything.
//!
//! [`Matcher`] asks many filters at once. What one filter may do for one event is bounded by [`limits::MOST_WORK`]: where it
//! takes more, that is an error of the filter and the event is not delivered by it, as upstream does with errors of
//! expressions.

mod all;
mod any;
mod attributes;
mod cesql;
mod exact;
mod matcher;
mod not;
mod prefix;
mod suffix;

use std::{borrow::Cow, sync::Arc};

pub use self::matcher::{Matched, Matcher, Matching};
use crate::{Event, cesql::Expression, limits, media_type, work::Work};

/// What a filter says about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is wanted.
    Pass,
    /// It is not.
    Fail,
    /// There is nothing that filters.
    Unfiltered,
}

impl Verdict {
    /// Whether the event is delivered.
    pub fn delivers(self) -> bool {
        self != Self::Fail
    }

    const fn of(passes: bool) -> Self {
        if passes { Self::Pass } else { Self::Fail }
    }
}

/// A filter that holds more than one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooComplex {
    /// Beyond [`limits::DEEPEST_FILTER`].
    #[error("filters nest deeper than {} levels: flatten all, any and not", limits::DEEPEST_FILTER)]
    Depth,
    /// Beyond [`limits::MOST_FILTERS`].
    #[error(
        "there are more than {} filters within a filter: say it by fewer, like prefix or one cesql with IN",
        limits::MOST_FILTERS
    )]
    Count,
}

/// A compiled filter. Copies share what it is made of.
#[derive(Clone, Debug)]
pub struct Filter {
    dialect: Dialect,
    /// Filters within filters.
    depth: usize,
    /// Filters in all, with each comparison as one.
    size: usize,
}

#[derive(Clone, Debug)]
enum Dialect {
    /// An element that names no dialect: lists skip it.
    Nothing,
    /// An element that cannot be met.
    Never,
    Attributes(Pairs),
    Exact(Pairs),
    Prefix(Pairs),
    Suffix(Pairs),
    All(Arc<[Filter]>),
    Any(Arc<[Filter]>),
    Not(Arc<Filter>),
    Cesql(Arc<cesql::Condition>),
}

/// Names of attributes, with what each is compared to.
type Pairs = Arc<[Pair]>;
type Pair = (Arc<str>, Arc<str>);

fn pairs<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs {
    of.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

impl Filter {
    /// What a Trigger filters by: its `filters` unless that list is empty, else the attributes of its `filter`.
    ///
    /// # Errors
    /// When they nest too deep or are too many.
    pub fn of_trigger<'a>(
        filters: Vec<Self>,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, TooComplex> {
        if filters.is_empty() { Ok(Self::attributes(attributes)) } else { Self::all(filters) }
    }

    /// The older `filter.attributes`: all of them are equal, an empty text stands for any that is not empty.
    pub fn attributes<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs(of);
        Self::leaf(if pairs.is_empty() { Dialect::Nothing } else { Dialect::Attributes(pairs) })
    }

    /// `exact`: all of these attributes are equal.
    pub fn exact<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::comparison(pairs(of), Dialect::Exact)
    }

    /// `prefix`: all of these attributes begin so.
    pub fn prefix<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::comparison(pairs(of), Dialect::Prefix)
    }

    /// `suffix`: all of these attributes end so.
    pub fn suffix<'a>(of: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::comparison(pairs(of), Dialect::Suffix)
    }

    /// `all`: none of them fails. Elements that say nothing are left out.
    ///
    /// # Errors
    /// When they nest too deep or are too many.
    pub fn all(filters: Vec<Self>) -> Result<Self, TooComplex> {
        Self::list(filters, Dialect::All)
    }

    /// `any`: one of them passes. Elements that say nothing are left out.
    ///
    /// # Errors
    /// When they nest too deep or are too many.
    pub fn any(filters: Vec<Self>) -> Result<Self, TooComplex> {
        Self::list(filters, Dialect::Any)
    }

    /// `not`: it does not pass.
    ///
    /// # Errors
    /// When it nests too deep or holds too many.
    #[expect(clippy::should_implement_trait, reason = "the dialect's name, and it can fail")]
    pub fn not(filter: Self) -> Result<Self, TooComplex> {
        let (depth, size) = (filter.depth, filter.size);
        Self::nested(Dialect::Not(Arc::new(filter)), depth, size)
    }

    /// `cesql`: the expression is true.
    pub fn cesql(expression: Expression) -> Self {
        Self::leaf(Dialect::Cesql(Arc::new(cesql::Condition::new(expression))))
    }

    fn leaf(dialect: Dialect) -> Self {
        let size = match &dialect {
            Dialect::Attributes(pairs) | Dialect::Exact(pairs) | Dialect::Prefix(pairs) | Dialect::Suffix(pairs) => {
                pairs.len()
            }
            _ => 1,
        };
        Self { dialect, depth: 0, size }
    }

    /// Filters in all, with each comparison as one.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    fn comparison(pairs: Pairs, dialect: impl FnOnce(Pairs) -> Dialect) -> Self {
        if pairs.is_empty() {
            Self::leaf(Dialect::Nothing)
        } else if pairs.iter().any(|(name, value)| name.is_empty() || value.is_empty()) {
            Self::leaf(Dialect::Never)
        } else {
            Self::leaf(dialect(pairs))
        }
    }

    fn list(filters: Vec<Self>, dialect: impl FnOnce(Arc<[Self]>) -> Dialect) -> Result<Self, TooComplex> {
        if filters.is_empty() {
            return Ok(Self::leaf(Dialect::Nothing));
        }
        let filters: Arc<[Self]> =
            filters.into_iter().filter(|filter| !matches!(filter.dialect, Dialect::Nothing)).collect();
        let depth = filters.iter().map(|filter| filter.depth).max().unwrap_or(0);
        let size = filters.iter().map(|filter| filter.size).sum();
        Self::nested(dialect(filters), depth, size)
    }

    fn nested(dialect: Dialect, depth: usize, size: usize) -> Result<Self, TooComplex> {
        if depth >= limits::DEEPEST_FILTER {
            Err(TooComplex::Depth)
        } else if size >= limits::MOST_FILTERS {
            Err(TooComplex::Count)
        } else {
            Ok(Self { dialect, depth: depth + 1, size: size + 1 })
        }
    }

    /// What it says about an event; [`Verdict::Fail`] when that takes more than [`limits::MOST_WORK`].
    pub fn verdict(&self, event: &Event) -> Verdict {
        self.worked_out(event).0
    }

    /// The same, and how much it did for that, counted as [`limits::MOST_WORK`] counts it.
    pub fn verdict_and_work(&self, event: &Event) -> (Verdict, usize) {
        let (verdict, work) = self.worked_out(event);
        (verdict, work.unwrap_or(limits::MOST_WORK))
    }

    /// What it says about an event, and how much it did for that; `None` when it would have had to do more than it may.
    fn worked_out(&self, event: &Event) -> (Verdict, Option<usize>) {
        let work = Work::of(limits::MOST_WORK);
        let verdict = self.within(&work, event);
        match work.done_of(limits::MOST_WORK) {
            Some(done) => (verdict, Some(done)),
            None => (Verdict::Fail, None),
        }
    }

    /// What it says about an event. Once there is no more work to be done, that means nothing.
    fn within(&self, work: &Work, event: &Event) -> Verdict {
        match &self.dialect {
            Dialect::Nothing => Verdict::Unfiltered,
            Dialect::Never => Verdict::Fail,
            Dialect::Attributes(pairs) => attributes::verdict(pairs, work, event),
            Dialect::Exact(pairs) => exact::verdict(pairs, work, event),
            Dialect::Prefix(pairs) => prefix::verdict(pairs, work, event),
            Dialect::Suffix(pairs) => suffix::verdict(pairs, work, event),
            Dialect::All(filters) => all::verdict(filters, work, event),
            Dialect::Any(filters) => any::verdict(filters, work, event),
            Dialect::Not(filter) => not::verdict(filter, work, event),
            Dialect::Cesql(condition) => cesql::verdict(condition, work, event),
        }
    }
}

/// Whether every attribute of these is there and compares so.
fn every(pairs: &[Pair], work: &Work, event: &Event, compares: impl Fn(&str, &str) -> bool) -> Verdict {
    Verdict::of(pairs.iter().all(|(name, value)| {
        let text = lookup(event, name);
        let made = if let Some(Cow::Owned(text)) = &text { text.len() } else { 0 };
        let read = text.as_ref().map_or(0, |text| text.len().min(value.len()));
        work.spend(made + read) && text.is_some_and(|text| compares(&text, value))
    }))
}

/// Names by which filters know an attribute, whether the event's version has them or not.
const NAMES: [&str; 11] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "dataschema",
    "schemaurl",
    "datacontenttype",
    "datamediatype",
    "datacontentencoding",
];

/// An attribute as filters see it: as text, integers and booleans too, since that is what becomes of them on the way.
/// Both versions' names for the schema go in both versions, and `datamediatype` is the content type without parameters.
fn lookup<'a>(event: &'a Event, name: &str) -> Option<Cow<'a, str>> {
    if let Some(value) = event.attribute(name) {
        return Some(value.into_text());
    }
    match name {
        "dataschema" | "schemaurl" => event.data_schema().map(Cow::Borrowed),
        "datamediatype" => event.data_content_type().map(|text| Cow::Borrowed(media_type::essence(text))),
        _ => None,
    }
}

/// What the first filter says that says `decisive`, else the last one.
fn up_to(decisive: Verdict, filters: &[Filter], work: &Work, event: &Event) -> Verdict {
    let mut last = Verdict::Unfiltered;
    for filter in filters {
        if !work.spend(0) {
            return Verdict::Fail;
        }
        last = filter.within(work, event);
        if last == decisive {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn event(members: &str) -> Event {
        let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/es","type":"es.t"{members}}}"#);
        json::read(&body.into()).expect("an event")
    }

    fn exact(name: &str, value: &str) -> Filter {
        Filter::exact([(name, value)])
    }

    fn verdicts(cases: impl IntoIterator<Item = (Filter, Verdict)>, event: &Event) {
        for (filter, verdict) in cases {
            assert_eq!(filter.verdict(event), verdict, "{filter:?}");
        }
    }

    #[test]
    fn comparisons_want_every_attribute_and_compare_text() {
        let event = event(r#","priority":5,"flag":true,"subject":"a/b.c","datacontenttype":"text/plain; a=b""#);
        let cases = [
            (exact("type", "es.t"), true),
            (exact("type", "es"), false),
            (exact("nope", "x"), false),
            (exact("priority", "5"), true),
            (exact("priority", "05"), false),
            (exact("flag", "true"), true),
            (exact("specversion", "1.0"), true),
            (exact("datamediatype", "text/plain"), true),
            (Filter::exact([("type", "es.t"), ("source", "/es")]), true),
            (Filter::exact([("type", "es.t"), ("source", "/x")]), false),
            (Filter::prefix([("type", "es."), ("subject", "a/")]), true),
            (Filter::prefix([("type", "t")]), false),
            (Filter::suffix([("type", ".t"), ("source", "es")]), true),
            (Filter::suffix([("subject", "a/b.c.d")]), false),
            (Filter::prefix([("priority", "5")]), true),
        ];
        verdicts(cases.map(|(filter, passes)| (filter, Verdict::of(passes))), &event);
    }

    #[test]
    fn the_older_filter_takes_an_empty_text_for_any_value() {
        let event = event(r#","ext":"","n":5,"dataschema":"https://a/b","time":"2023-06-30T09:45:22.50+02:00""#);
        let cases = [
            (&[("type", "es.t"), ("source", "")][..], Verdict::Pass),
            (&[("type", "other"), ("source", "")], Verdict::Fail),
            (&[("ext", "")], Verdict::Fail),
            (&[("subject", "")], Verdict::Fail),
            (&[("nope", "")], Verdict::Fail),
            (&[("n", "5")], Verdict::Pass),
            (&[("schemaurl", "https://a/b")], Verdict::Pass),
            (&[("time", "2023-06-30T07:45:22.5Z")], Verdict::Pass),
            (&[], Verdict::Unfiltered),
        ];
        verdicts(cases.map(|(pairs, verdict)| (Filter::attributes(pairs.iter().copied()), verdict)), &event);
    }

    #[test]
    fn filters_win_over_the_older_filter_unless_their_list_is_empty() {
        let event = event("");
        let nope = [("type", "nope")];
        let cases = [
            (Filter::of_trigger(vec![exact("type", "es.t")], nope).unwrap(), Verdict::Pass),
            (Filter::of_trigger(vec![], nope).unwrap(), Verdict::Fail),
            (Filter::of_trigger(vec![], []).unwrap(), Verdict::Unfiltered),
            (Filter::of_trigger(vec![Filter::exact([])], nope).unwrap(), Verdict::Unfiltered),
        ];
        verdicts(cases, &event);
    }

    #[test]
    fn lists_skip_what_says_nothing_and_end_with_their_last_verdict() {
        let event = event("");
        let (pass, fail) = (|| exact("type", "es.t"), || exact("type", "x"));
        let nothing = || Filter::exact([]);
        let unfiltered = || Filter::not(nothing()).unwrap();
        let all = |filters| Filter::all(filters).unwrap();
        let any = |filters| Filter::any(filters).unwrap();
        let not = |filter| Filter::not(filter).unwrap();
        let cases = [
            (all(vec![pass(), pass()]), Verdict::Pass),
            (all(vec![pass(), fail(), pass()]), Verdict::Fail),
            (all(vec![pass(), unfiltered()]), Verdict::Unfiltered),
            (all(vec![unfiltered(), pass()]), Verdict::Pass),
            (all(vec![pass(), nothing()]), Verdict::Pass),
            (all(vec![nothing()]), Verdict::Unfiltered),
            (all(vec![]), Verdict::Unfiltered),
            (any(vec![fail(), pass()]), Verdict::Pass),
            (any(vec![fail(), fail()]), Verdict::Fail),
            (any(vec![fail(), unfiltered()]), Verdict::Unfiltered),
            (any(vec![unfiltered(), fail()]), Verdict::Fail),
            (any(vec![fail(), nothing()]), Verdict::Fail),
            (any(vec![nothing()]), Verdict::Unfiltered),
            (not(pass()), Verdict::Fail),
            (not(fail()), Verdict::Pass),
            (not(unfiltered()), Verdict::Unfiltered),
            (not(exact("subject", "x")), Verdict::Pass),
            (not(not(pass())), Verdict::Pass),
        ];
        verdicts(cases, &event);
    }

    #[test]
    fn an_empty_name_or_value_matches_nothing() {
        let event = event(r#","ext":"""#);
        let pairs = [("type", ""), ("ext", ""), ("", "x")];
        let cases =
            pairs.iter().flat_map(|pair| [Filter::exact([*pair]), Filter::prefix([*pair]), Filter::suffix([*pair])]);
        verdicts(cases.map(|filter| (filter, Verdict::Fail)), &event);
    }

    #[test]
    fn an_expression_sees_typed_attributes_and_its_errors_deliver_nothing() {
        let event = event(r#","n":5,"flag":true,"seq":"5""#);
        let says = |text: &str| Filter::cesql(Expression::parse(text).expect("an expression"));
        let cases = [
            ("n + 1 = 6 AND flag", true),
            ("seq + 1 = 6 AND type LIKE 'es%' AND EXISTS n", true),
            ("type = 'ES.T'", false),
            ("subject = 'x'", false),
            ("n", false),
        ];
        verdicts(cases.map(|(text, passes)| (says(text), Verdict::of(passes))), &event);
        verdicts([(Filter::not(says("subject = 'x'")).unwrap(), Verdict::Pass)], &event);
    }

    #[test]
    fn depth_is_bounded() {
        let mut filter = exact("type", "es.t");
        for _ in 0..limits::DEEPEST_FILTER {
            filter = Filter::not(filter).expect("not too deep");
        }
        assert_eq!(filter.verdict(&event("")), Verdict::Pass);
        assert!(Filter::not(filter.clone()).is_err() && Filter::all(vec![filter]).is_err());
    }

    #[test]
    fn the_number_of_filters_in_one_is_bounded_however_they_are_spread() {
        let exacts = |count: usize| (0..count).map(|at| exact("type", &at.to_string())).collect::<Vec<_>>();
        assert!(Filter::any(exacts(limits::MOST_FILTERS - 1)).is_ok());
        assert_eq!(Filter::any(exacts(limits::MOST_FILTERS)).unwrap_err(), TooComplex::Count);
        let half = || Filter::any(exacts(limits::MOST_FILTERS / 2)).expect("half of them");
        assert_eq!(Filter::all(vec![half(), half()]).unwrap_err(), TooComplex::Count);
        assert_eq!(Filter::of_trigger(exacts(limits::MOST_FILTERS), []).unwrap_err(), TooComplex::Count);
        let names: Vec<String> = (0..limits::MOST_FILTERS).map(|at| format!("ext{at}")).collect();
        let wide = Filter::exact(names.iter().map(|name| (&**name, "x")));
        assert_eq!(Filter::not(wide).unwrap_err(), TooComplex::Count);
    }

    #[test]
    fn a_filter_that_takes_more_work_than_it_may_delivers_nothing_whatever_is_around_it() {
        let event = event(&format!(r#","subject":"{}""#, "a".repeat(limits::LONGEST_VALUE)));
        let expression = |text: &str| Filter::cesql(Expression::parse(text).expect("an expression"));
        let like = || expression("subject LIKE '%b%'");
        let (three, four) = (|| vec![like(), like(), like()], || vec![like(), like(), like(), like()]);
        let not = |filter| Filter::not(filter).expect("not deep");
        let any = |filters| not(Filter::any(filters).expect("not deep"));
        let steps = || expression(&format!("LENGTH(id) IN ({}2)", "2,".repeat(30_000)));
        let prefix = || Filter::prefix([("subject", &*"a".repeat(limits::LONGEST_VALUE))]);
        let cases = [
            (any(three()), Verdict::Pass),
            (any(four()), Verdict::Fail),
            (not(any(four())), Verdict::Fail),
            (any(vec![steps()]), Verdict::Pass),
            (any(vec![steps(), steps()]), Verdict::Fail),
            (Filter::all(vec![prefix(), prefix(), prefix()]).unwrap(), Verdict::Pass),
            (Filter::all(vec![prefix(), prefix(), prefix(), prefix()]).unwrap(), Verdict::Fail),
        ];
        verdicts(cases, &event);
    }
}
