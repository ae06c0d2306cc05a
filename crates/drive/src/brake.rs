//! Whose plans take the loop's time: it is everybody's, and what a plan costs may follow from what users made.
//!
//! A namespace may spend a tenth of the time on plans that take long, and a while beside. Beyond that it is planned for while
//! nothing else is to be done, until its debt is paid.

use std::{collections::HashMap, time::Duration};

use knoll_api::labels::{EVENTING_SYSTEM_NAMESPACE, SYSTEM_NAMESPACE};

/// From how long on a plan is one that takes long.
const SLOW: Duration = Duration::from_millis(10);
/// What a namespace may spend on those beside its part.
const ALLOWED: Duration = Duration::from_millis(500);
/// Of so much time one part is a namespace's.
const PARTS: u32 = 10;
/// Namespaces that are remembered before those without a debt are forgotten.
const REMEMBERED: usize = 1024;

/// What a namespace has spent beyond its part, and when that was reckoned.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    spent: Duration,
    at: Duration,
}

impl Debt {
    fn now(self, now: Duration) -> Duration {
        self.spent.saturating_sub(now.saturating_sub(self.at) / PARTS)
    }
}

/// See the module. Times are since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    debts: HashMap<String, Debt>,
}

impl Brake {
    /// A plan for an object of a namespace took so long.
    pub(crate) fn spent(&mut self, namespace: &str, took: Duration, now: Duration) {
        // What is nobody's alone, and what all depend on, is not held up.
        if took < SLOW || ["", SYSTEM_NAMESPACE, EVENTING_SYSTEM_NAMESPACE].contains(&namespace) {
            return;
        }
        if self.debts.len() >= REMEMBERED && !self.debts.contains_key(namespace) {
            self.debts.retain(|_, debt| !debt.now(now).is_zero());
        }
        let debt = self.debts.entry(namespace.to_owned()).or_default();
        *debt = Debt { spent: debt.now(now).saturating_add(took), at: now };
    }

    /// Whether a namespace has spent more than it may.
    pub(crate) fn holds(&self, namespace: &str, now: Duration) -> bool {
        self.debts.get(namespace).is_some_and(|debt| debt.now(now) > ALLOWED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_spends_more_than_a_part_is_held_until_that_is_paid() {
        let mut brake = Brake::default();
        for _ in 0..1000 {
            brake.spent("many", SLOW / 2, SECOND);
        }
        assert!(!brake.holds("many", SECOND), "quick plans cost nobody anything");
        brake.spent("slow", ALLOWED, SECOND);
        assert!(!brake.holds("slow", SECOND), "a while beside");
        brake.spent("slow", SECOND, SECOND);
        assert!(brake.holds("slow", SECOND) && !brake.holds("other", SECOND));
        assert!(brake.holds("slow", 10 * SECOND) && !brake.holds("slow", 11 * SECOND), "a tenth of the time pays");
        for namespace in ["", SYSTEM_NAMESPACE] {
            brake.spent(namespace, 10 * SECOND, SECOND);
            assert!(!brake.holds(namespace, SECOND), "all depend on it");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut brake = Brake::default();
        for at in 0..10_000_u32 {
            brake.spent(&format!("n{at}"), SLOW, SECOND * at);
        }
        assert!(brake.debts.len() <= REMEMBERED);
    }
}
