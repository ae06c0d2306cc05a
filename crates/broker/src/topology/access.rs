//! Who may send events to a broker, channel or sink: upstream's EventPolicies and what counts where there are none.

use std::sync::Arc;

use knoll_event::{Event, filter::Filter};

/// What stands before something that takes events: who its senders have to be. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    namespace: Arc<str>,
    audience: Option<Arc<str>>,
    access: Arc<Access>,
}

impl Guard {
    /// One that lets everybody send to something of this namespace.
    pub fn new(namespace: Arc<str>) -> Self {
        Self { namespace, audience: None, access: Arc::default() }
    }

    /// The same, for whom senders need a token made out to this audience.
    #[must_use]
    pub fn for_audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// The same, which lets those send whom this lets.
    #[must_use]
    pub fn for_those_of(mut self, access: Access) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// Namespace of what it stands before.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Who a sender's token must be made out to, if it needs one.
    pub fn audience(&self) -> Option<&str> {
        self.audience.as_deref()
    }

    /// Who may send.
    pub fn access(&self) -> &Access {
        &self.access
    }
}

/// What decides.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Everybody may, whether they say who they are or not.
    #[default]
    Open,
    /// Senders say who they are, and these decide; in order, the first that speaks of a sender.
    Policies(Vec<Policy>),
    /// Senders say who they are, and no policy speaks of the broker or channel.
    Otherwise(Mode),
}

/// The default authorization mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whoever says who they are may.
    AllowAll,
    /// ServiceAccounts of its own namespace may.
    AllowSameNamespace,
    /// Nobody may.
    DenyAll,
}

/// An EventPolicy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whom it speaks of: subjects of tokens; with a `*` at the end all that begin so. Nobody when it is empty.
    pub from: Vec<Box<str>>,
    /// Which of their events it lets through.
    pub filter: Filter,
}

impl Policy {
    /// As upstream compares: whole subjects whatever their case, beginnings as they are.
    fn speaks_of(&self, subject: &str) -> bool {
        self.from.iter().any(|from| match from.strip_suffix('*') {
            Some(prefix) => subject.starts_with(prefix),
            None => subject.eq_ignore_ascii_case(from),
        })
    }
}

/// What one sender may send.
#[derive(Clone, Copy, Debug)]
pub enum Allowed<'a> {
    /// Every event.
    All,
    /// None.
    Nothing,
    /// Those that this lets through.
    Those(&'a Filter),
}

impl Access {
    /// What whoever has this subject may send to something of `namespace`.
    pub fn of(&self, subject: &str, namespace: &str) -> Allowed<'_> {
        let all_if = |holds: bool| if holds { Allowed::All } else { Allowed::Nothing };
        match self {
            Self::Open | Self::Otherwise(Mode::AllowAll) => Allowed::All,
            Self::Otherwise(Mode::DenyAll) => Allowed::Nothing,
            Self::Otherwise(Mode::AllowSameNamespace) => {
                let own = subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                all_if(own.is_some_and(|(of, _)| of == namespace))
            }
            Self::Policies(policies) => {
                let first = policies.iter().find(|policy| policy.speaks_of(subject));
                first.map_or(Allowed::Nothing, |policy| Allowed::Those(&policy.filter))
            }
        }
    }
}

impl Allowed<'_> {
    /// Whether an event is among it, and the work that took, counted as
    /// [`MOST_WORK`](knoll_event::limits::MOST_WORK) counts it.
    pub fn has(self, event: &Event) -> (bool, usize) {
        match self {
            Self::All => (true, 0),
            Self::Nothing => (false, 0),
            Self::Those(filter) => {
                let (verdict, work) = filter.verdict_and_work(event);
                (verdict.delivers(), work)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: &str = "system:serviceaccount:ns:me";

    fn allows(access: &Access, subject: &str) -> bool {
        access.of(subject, "ns").has(&Event::new("1", "/s", "t").expect("an event")).0
    }

    fn policy(from: &[&str], kind: &str) -> Policy {
        let filter = if kind.is_empty() { Filter::attributes([]) } else { Filter::exact([("type", kind)]) };
        Policy { from: from.iter().map(|one| (*one).into()).collect(), filter }
    }

    #[test]
    fn without_policies_the_mode_decides() {
        for (mode, me, other, person) in [
            (Mode::AllowAll, true, true, true),
            (Mode::AllowSameNamespace, true, false, false),
            (Mode::DenyAll, false, false, false),
        ] {
            let access = Access::Otherwise(mode);
            let subjects = [ME, "system:serviceaccount:ns2:me", "ns"];
            assert_eq!(subjects.map(|subject| allows(&access, subject)), [me, other, person], "{mode:?}");
        }
        assert!(allows(&Access::Open, ""));
    }

    #[test]
    fn the_first_policy_that_speaks_of_a_sender_decides() {
        for (policies, expected) in [
            (vec![policy(&[ME], "")], true),
            (vec![policy(&["System:ServiceAccount:NS:me"], "")], true),
            (vec![policy(&["system:serviceaccount:ns:*"], "")], true),
            (vec![policy(&["System:serviceaccount:ns:*"], "")], false),
            (vec![policy(&[ME], "other"), policy(&[ME], "")], false),
            (vec![policy(&["somebody"], "other"), policy(&[ME], "t")], true),
            (vec![policy(&[], "")], false),
            (vec![], false),
        ] {
            let shown = format!("{policies:?}");
            assert_eq!(allows(&Access::Policies(policies), ME), expected, "{shown}");
        }
    }

    #[test]
    fn who_may_send_something_is_somebody_whom_a_policy_speaks_of() {
        for (access, expected) in [
            (Access::Open, true),
            (Access::Otherwise(Mode::DenyAll), false),
            (Access::Otherwise(Mode::AllowSameNamespace), true),
            (Access::Policies(vec![policy(&["somebody"], ""), policy(&[ME], "other")]), true),
            (Access::Policies(vec![policy(&["somebody"], "")]), false),
        ] {
            let is_something = !matches!(access.of(ME, "ns"), Allowed::Nothing);
            assert_eq!(is_something, expected, "{access:?}");
        }
    }
}
