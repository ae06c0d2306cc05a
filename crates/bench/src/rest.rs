//! How much of a processor a process uses while nothing happens.

use std::time::Duration;

use crate::cpu::Whose;

/// How long the processor time is counted at a time.
const WATCHED: Duration = Duration::from_secs(30);
/// The share of a processor below which a process is at rest, percent.
const AT_REST: f64 = 1.0;

/// Its share of a processor in one look after the other, percent: until it is at rest, `looks` at most.
pub(crate) fn shares(whose: &Whose, looks: usize) -> Vec<f64> {
    let mut shares = Vec::new();
    while shares.len() < looks && !is_reached(&shares) {
        let before = whose.micros();
        std::thread::sleep(WATCHED);
        shares.push((whose.micros() - before) / 1e4 / WATCHED.as_secs_f64());
    }
    shares
}

/// Whether the last of these is one at rest.
pub(crate) fn is_reached(shares: &[f64]) -> bool {
    shares.last().is_some_and(|&share| share <= AT_REST)
}

/// The shares, as they are told.
pub(crate) fn told(shares: &[f64]) -> String {
    let each: Vec<String> = shares.iter().map(|share| format!("{share:.2}")).collect();
    format!("{} % in {} s each", each.join(", "), WATCHED.as_secs())
}
