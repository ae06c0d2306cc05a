//! What many may have so much of in a while: of everything there is a most, and each has at most a part of what the others
//! leave of it, so that whoever comes finds some. Who finds none is refused until the while is over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// See the module. Users are told apart by name, such as that of a namespace. Each step costs the same however many they are.
#[derive(Debug)]
pub struct Rates {
    /// Most for all together, in each while.
    all: u64,
    parts: u64,
    span: Duration,
    used: Mutex<Used>,
}

/// What is used of the while that began last.
#[derive(Debug, Default)]
struct Used {
    begun: Option<Instant>,
    all: u64,
    by: HashMap<Arc<str>, u64>,
}

/// Why somebody gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It is more than one may have, whatever the others leave: so much.
    TooMany(u64),
    /// It is more than is left, until so long from now.
    For(Duration),
}

impl Rates {
    /// So much for all together in each `span`, and for each one in `parts` of what the others leave.
    pub fn new(all: u64, parts: u64, span: Duration) -> Self {
        Self { all, parts: parts.max(1), span, used: Mutex::default() }
    }

    /// The most that one may have at a time.
    pub fn each(&self) -> u64 {
        self.all / self.parts
    }

    /// Takes so much for somebody, at this time.
    ///
    /// # Errors
    /// When it is more than there is for them.
    pub fn take(&self, who: &Arc<str>, units: u64, now: Instant) -> Result<(), Spent> {
        if units > self.each() {
            return Err(Spent::TooMany(self.each()));
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = match used.begun {
            Some(begun) if now.saturating_duration_since(begun) < self.span => begun,
            Some(_) | None => {
                *used = Used { begun: Some(now), ..Used::default() };
                now
            }
        };
        let own = used.by.get(who).copied().unwrap_or(0);
        let others = used.all - own;
        if own + units > self.all.saturating_sub(others) / self.parts {
            return Err(Spent::For((begun + self.span).saturating_duration_since(now)));
        }
        used.all += units;
        *used.by.entry(who.clone()).or_default() += units;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn take(rates: &Rates, who: &str, units: u64, now: Instant) -> Result<(), Spent> {
        rates.take(&who.into(), units, now)
    }

    #[test]
    fn one_has_its_part_in_each_while_and_no_more() {
        let (rates, begun) = (Rates::new(100, 4, SPAN), Instant::now());
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(take(&rates, "a", 20, begun), Ok(()));
        assert_eq!(take(&rates, "a", 6, later(4)), Err(Spent::For(Duration::from_secs(6))));
        assert_eq!(take(&rates, "a", 5, later(4)), Ok(()), "what was refused costs nothing");
        assert_eq!(take(&rates, "a", 1, later(9)), Err(Spent::For(Duration::from_secs(1))));
        assert_eq!(take(&rates, "a", 26, later(10)), Err(Spent::TooMany(25)));
        assert_eq!(take(&rates, "a", 25, later(10)), Ok(()));
    }

    #[test]
    fn whoever_comes_finds_some_and_all_have_no_more_than_there_is() {
        let (rates, now) = (Rates::new(1000, 4, SPAN), Instant::now());
        let got: Vec<u64> = (0..50)
            .map(|who| (0..1000).take_while(|_| take(&rates, &who.to_string(), 1, now).is_ok()).count() as u64)
            .collect();
        assert_eq!((got[0], got[1], got[2]), (250, 187, 140));
        assert!(got[10] > 0 && got.iter().sum::<u64>() <= 1000, "{got:?}");
        assert!(take(&rates, "0", 1, now).is_err());
    }
}
