//! What fails, so that the log tells when that changes and not each time it is tried.

use std::collections::HashMap;

use crate::queue::Id;

/// Keys that are remembered. Beyond them all are forgotten, and told once more when they fail again.
const MOST: usize = 4096;

/// Why keys failed last.
#[derive(Default)]
pub(crate) struct Failing(HashMap<Id, String>);

impl Failing {
    /// Takes in how the work of a key ended: with `why` if badly. Whether that is news to who reads the log: it has not
    /// failed the last time, or for another reason.
    pub(crate) fn is_news(&mut self, id: &Id, why: Option<&str>) -> bool {
        let Some(why) = why else {
            self.0.remove(id);
            return false;
        };
        if self.0.get(id).is_some_and(|before| before == why) {
            return false;
        }
        if self.0.len() >= MOST && !self.0.contains_key(id) {
            self.0.clear();
        }
        self.0.insert(id.clone(), why.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::Key;

    use super::*;

    #[test]
    fn a_failure_is_told_when_it_changes_and_not_each_time() {
        let (mut failing, id) = (Failing::default(), (0, Key::new("a", "b")));
        let outcomes = [Some("no"), Some("no"), Some("still no"), Some("still no"), None, Some("still no"), None, None];
        let told = outcomes.map(|why| failing.is_news(&id, why));
        assert_eq!(told, [true, false, true, false, false, true, false, false]);
        assert!(failing.0.is_empty());
        (0..2 * MOST).for_each(|number| assert!(failing.is_news(&(number, Key::new("a", "b")), Some("no"))));
        assert!(failing.0.len() <= MOST);
    }
}
