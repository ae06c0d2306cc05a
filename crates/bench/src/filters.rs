//! Matching one event against the filters of ten thousand Triggers of one broker: by the index, and by the naive loop, which
//! asks one filter after the other and which the index must agree with. Both take turns on the same events.
//!
//! Beside them what a change costs: one filter more and one less on a copy that shares the rest with the one before, as a
//! broker's snapshot does, against the index made anew; and what a filter costs at worst that takes all the work it may.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use knoll_event::cesql::{self, Expression};
use knoll_event::filter::{Filter, Matcher};
use knoll_event::{Event, limits};

use crate::figures::{Spread, figure};

/// Rounds in which both take turns.
const ROUNDS: usize = 7;
/// How long a round is.
const LENGTH: Duration = Duration::from_millis(150);
/// What an event should cost at most, in microseconds.
const MOST: f64 = 10.0;

/// The filter of one Trigger of many.
type Make = fn(u64) -> Result<Filter, Box<dyn Error>>;

/// Filters that people write, one for each tenant.
const SHAPES: [(&str, Make); 6] = [
    ("attributes: type, and a source that all have", |at| {
        Ok(Filter::attributes([("source", "/orders"), ("type", &*kind(at))]))
    }),
    ("exact type", |at| Ok(Filter::exact([("type", &*kind(at))]))),
    ("prefix of subject", |at| Ok(Filter::prefix([("subject", &*format!("/tenants/{at}/"))]))),
    ("suffix of type", |at| Ok(Filter::suffix([("type", &*format!(".t{at}"))]))),
    ("any of two types, and not a team", |at| {
        let any = Filter::any(vec![Filter::exact([("type", &*kind(at))]), Filter::exact([("type", &*kind(at + 1))])])?;
        Ok(Filter::all(vec![any, Filter::not(Filter::exact([("team", "blue")]))?])?)
    }),
    ("cesql: type and a number", |at| {
        Ok(Filter::cesql(Expression::parse(&format!("type = '{}' AND EXISTS n AND n >= {at}", kind(at)))?))
    }),
];

fn in_turn(at: u64) -> Result<Filter, Box<dyn Error>> {
    let shape = SHAPES[usize::try_from(at)? % SHAPES.len()];
    shape.1(at)
}

fn kind(at: u64) -> String {
    format!("com.example.orders.t{at}")
}

/// Measures with so many Triggers.
pub(crate) fn run(triggers: u64) -> Result<String, Box<dyn Error>> {
    let mut text = format!(
        "{triggers} triggers, one event (medians)                 gets it  evaluated   index us    loop us   x loop   change us   made anew ms\n",
    );
    let mut slow = Vec::new();
    for (name, make) in SHAPES.into_iter().chain([("all of these in turn", in_turn as Make)]) {
        let filters = (0..triggers).map(|at| Ok((at, make(at)?))).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let figures = measure(&filters)?;
        text.push_str(&figures.line(name));
        if figures.index > MOST {
            slow.push(format!("{name}: {:.1} us", figures.index));
        }
    }
    if !slow.is_empty() {
        text.push_str(&format!("more than {MOST} us an event, or the machine is busy: {}\n", slow.join("; ")));
    }
    text.push_str(&worst()?);
    Ok(text)
}

/// Expressions that do much with little text, over an event as large as one may be.
const HARD: [&str; 6] = [
    "UPPER(subject) = ''",
    "subject LIKE '%_b%'",
    "IS_INT(subject) OR TRIM(subject) = 'x'",
    "CONCAT(subject, subject) = ''",
    "LENGTH(subject) = 1",
    "EXISTS ext128 = FALSE",
];

/// What one filter takes for one event at worst.
fn worst() -> Result<String, Box<dyn Error>> {
    let mut event = event(1)?;
    for at in 0..limits::MOST_EXTENSIONS - 2 {
        event.set(&format!("ext{at}"), 1)?;
    }
    event.set("subject", &*"\u{e9}".repeat(limits::LONGEST_VALUE / 2))?;
    let mut text = format!("{:<50} {:>10}\n", "a filter that takes all the work it may", "us");
    for hard in HARD {
        let count = (cesql::LONGEST_EXPRESSION - 8) / (hard.len() + 4);
        let filter = Filter::cesql(Expression::parse(&vec![hard; count].join(" OR "))?);
        let ask = |event: &Event| {
            black_box(filter.verdict(event));
        };
        let rounds: Vec<f64> = (0..ROUNDS).map(|_| timed(std::slice::from_ref(&event), ask)).collect();
        text.push_str(&format!("{hard:<50} {:>10.0}\n", Spread::of(&rounds).at(50.0)));
    }
    Ok(text)
}

/// Medians.
struct Figures {
    matched: f64,
    evaluated: f64,
    index: f64,
    naive: f64,
    change: f64,
    made: f64,
}

impl Figures {
    fn line(&self, name: &str) -> String {
        let Self { matched, evaluated, index, naive, change, made } = self;
        let ratio = figure(naive / index);
        format!(
            "{name:<50} {matched:>7.1} {evaluated:>10.1} {index:>10.2} {naive:>10.0} {ratio:>8} {change:>11.1} {made:>14.1}\n"
        )
    }
}

fn measure(filters: &[(u64, Filter)]) -> Result<Figures, Box<dyn Error>> {
    let count = filters.len() as u64;
    let events = (0..64).map(|at| event(at * 151 % count)).collect::<Result<Vec<_>, _>>()?;
    let begun = Instant::now();
    let matcher = Matcher::new(filters.iter().cloned());
    let made = begun.elapsed().as_secs_f64() * 1e3;
    let (mut matched, mut evaluated) = (0, 0);
    for event in &events {
        let found = matcher.matching(event);
        if found.filters != matcher.naive(event) {
            return Err("the index and the loop say different things".into());
        }
        matched += found.filters.len();
        evaluated += found.evaluated;
    }
    let (mut index, mut naive, mut change) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        index.push(timed(&events, |event| drop(black_box(matcher.matching(event)))));
        naive.push(timed(&events, |event| drop(black_box(matcher.naive(event)))));
        change.push(timed(filters, |(key, filter)| {
            let mut changed = matcher.clone();
            changed.remove(*key);
            changed.insert(*key, filter.clone());
            drop(black_box(changed));
        }));
    }
    let middle = |of: &[f64]| Spread::of(of).at(50.0);
    let each = |sum: usize| sum as f64 / events.len() as f64;
    Ok(Figures {
        matched: each(matched),
        evaluated: each(evaluated),
        index: middle(&index),
        naive: middle(&naive),
        change: middle(&change),
        made,
    })
}

/// Microseconds that something takes for one of these, asked about one after the other.
fn timed<T>(of: &[T], mut ask: impl FnMut(&T)) -> f64 {
    let (begun, mut count) = (Instant::now(), 0_u64);
    for one in of.iter().cycle() {
        ask(one);
        count += 1;
        if begun.elapsed() >= LENGTH {
            break;
        }
    }
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}

/// An event of one tenant.
fn event(at: u64) -> Result<Event, Box<dyn Error>> {
    let mut event = Event::new("4f8c2c1e-7a8b-4c8e-9c55-2c27d1b1a7d5", "/orders", &kind(at))?;
    event.set("subject", &*format!("/tenants/{at}/orders/1"))?;
    event.set("time", "2026-11-30T06:42:14.25Z")?;
    event.set("team", "red")?;
    event.set("n", i32::try_from(at)?)?;
    event.set_data("application/json", &b"{}"[..])?;
    Ok(event)
}
