//! What is known beside the objects: results of I/O, kept so that plans can read them. All of it can be
//! found out again after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use knoll_api::{Key, Kind};

use crate::{AccessAnswer, Changed, DuckKind, DuckSeen, World, serving::revision};

/// Longest wait between two attempts to resolve a digest.
const LONGEST_DIGEST_WAIT: Duration = Duration::from_secs(1000);

/// Most refusals that are kept; the oldest goes first.
const MOST_REFUSALS: usize = 10_000;

/// An image, and whose credentials may be used to ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DigestRequest {
    /// Image reference as the user wrote it.
    pub image: String,
    /// Namespace of the secrets.
    pub namespace: String,
    /// ServiceAccount whose pull secrets count; empty is `default`.
    pub service_account: String,
    /// Further pull secrets, by name.
    pub pull_secrets: Vec<String>,
}

/// Why a digest could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestFailure {
    /// What went wrong, for the user.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Attempts that failed in a row.
    pub failures: u32,
}

impl DigestFailure {
    /// How long after `at` the next attempt is due: 1 s, doubled each time, up to 1000 s.
    pub fn wait(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(10);
        Duration::from_secs(1 << doublings).min(LONGEST_DIGEST_WAIT)
    }
}

/// What came of asking for a digest.
pub type DigestOutcome = Result<String, DigestFailure>;

/// The autoscaler's newest decision for a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleDecision {
    /// Wanted instances; -1 while unknown.
    pub desired: i32,
    /// Spare capacity in requests; negative means the gateway must stay in the path.
    pub excess_burst_capacity: i64,
    /// When it was made.
    pub at: Timestamp,
}

/// The API server's newest refusal to create an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the API's answer (`Forbidden`, `Invalid`, ...).
    pub reason: String,
    /// Message of the API's answer.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// An object that the data plane of events carries out: events that come from now on are taken by a Broker or channel,
/// reach a Trigger's subscriber, are made by a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// uid of the object: another of its name begins anew.
    pub uid: String,
    /// The newest generation that is carried out.
    pub generation: i64,
}

/// What is known beside the objects.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Digests by the Revision that asked, for as long as it waits for any: a tag may mean something else to the
    /// next Revision.
    pub digests: BTreeMap<(Key, DigestRequest), DigestOutcome>,
    /// Decisions by Revision.
    pub decisions: BTreeMap<Key, ScaleDecision>,
    /// Generation of each Ingress that the gateway's table holds.
    pub published: BTreeMap<Key, i64>,
    /// Whether the gateway has taken a table since this process started; before that, `published` says nothing.
    pub routes: bool,
    /// What the data plane of events carries out, by kind and key.
    pub carried: BTreeMap<(Kind, Key), Carried>,
    /// Why objects are not carried out, by their kind, key and uid.
    pub hindrances: BTreeMap<(Kind, Key), (String, String)>,
    /// Objects whose creation was refused last time it was tried, by the controlled object's kind and key.
    pub refusals: BTreeMap<(Kind, Key), Refusal>,
    /// What the ServiceAccounts of objects may do, by the object that asked.
    pub access: BTreeMap<(Kind, Key), AccessAnswer>,
    /// How often a Role or a binding came, changed or went.
    pub rules: u64,
    /// Kinds that are not served now: nothing is known of their objects.
    pub absent: BTreeSet<Kind>,
}

/// A result of I/O, told to the World.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A digest was resolved or not.
    Digest {
        /// What was asked.
        request: DigestRequest,
        /// The Revision that asked.
        asker: Key,
        /// `repository@digest`, or what went wrong.
        result: Result<String, String>,
        /// When.
        at: Timestamp,
    },
    /// The autoscaler decided.
    ScaleDecision {
        /// The Revision.
        revision: Key,
        /// The decision; `None` when the autoscaler forgot the revision.
        decision: Option<ScaleDecision>,
    },
    /// The gateway took a table that now holds these generations of these Ingresses, or holds them no more. Says
    /// nothing of other Ingresses.
    Published(BTreeMap<Key, Option<i64>>),
    /// The data plane of events carries these objects out from now on, or no more. Says nothing of others.
    Carries(BTreeMap<(Kind, Key), Option<Carried>>),
    /// Why these objects are not carried out, with their uids; nothing keeps others from it, or it is not known yet. Says
    /// nothing of objects that are not named.
    Hindered(BTreeMap<(Kind, Key), Option<(String, String)>>),
    /// The API server told what a ServiceAccount may do.
    Access {
        /// The object that asked.
        asker: (Kind, Key),
        /// What it said.
        answer: AccessAnswer,
    },
    /// Something is seen of a kind that no controller knows and objects of Eventing refer to.
    Duck {
        /// The kind.
        kind: DuckKind,
        /// What.
        seen: DuckSeen,
    },
    /// A [`crate::Want::Create`] was refused.
    Refused {
        /// Row's kind and key that wanted it.
        asker: (Kind, Key),
        /// What was to be created.
        object: (Kind, Key),
        /// Why not.
        refusal: Refusal,
    },
    /// A [`crate::Want::Create`] succeeded.
    Accepted {
        /// What was created.
        object: (Kind, Key),
    },
}

impl World {
    /// Takes note of a result, and says whose plans may differ now.
    pub fn observe(&mut self, observation: Observation) -> Vec<Changed> {
        match observation {
            Observation::Digest { request, asker, result, at } => {
                let about = (asker.clone(), request);
                let outcome = result.map_err(|message| {
                    let failures = match self.observed.digests.get(&about) {
                        Some(Err(last)) => last.failures.saturating_add(1),
                        _ => 1,
                    };
                    DigestFailure { message, at, failures }
                });
                self.observed.digests.insert(about, outcome);
                vec![Changed::Observed(Kind::Revision, asker)]
            }
            Observation::ScaleDecision { revision, decision } => {
                let before = match decision {
                    Some(decision) => self.observed.decisions.insert(revision.clone(), decision),
                    None => self.observed.decisions.remove(&revision),
                };
                if before == decision { Vec::new() } else { vec![Changed::Observed(Kind::PodAutoscaler, revision)] }
            }
            Observation::Published(generations) => {
                let mut changed = Vec::new();
                let first = !std::mem::replace(&mut self.observed.routes, true);
                for (key, generation) in generations {
                    let before = match generation {
                        Some(generation) => self.observed.published.insert(key.clone(), generation),
                        None => self.observed.published.remove(&key),
                    };
                    if first || before != generation {
                        changed.push(Changed::Observed(Kind::Ingress, key));
                    }
                }
                changed
            }
            Observation::Carries(objects) => differing(&mut self.observed.carried, objects),
            Observation::Hindered(objects) => differing(&mut self.observed.hindrances, objects),
            Observation::Access { asker, answer } => {
                // Of an object that went meanwhile nothing is kept.
                if !self.contains(asker.0, &asker.1) {
                    return Vec::new();
                }
                self.observed.access.insert(asker.clone(), answer);
                vec![Changed::Observed(asker.0, asker.1)]
            }
            Observation::Duck { kind, seen } => self.see_duck(kind, seen),
            Observation::Refused { asker, object, refusal } => {
                self.note_refusal(object, refusal);
                vec![Changed::Observed(asker.0, asker.1)]
            }
            Observation::Accepted { object } => {
                self.observed.refusals.remove(&object);
                Vec::new()
            }
        }
    }

    /// Keeps the newest refusals.
    fn note_refusal(&mut self, object: (Kind, Key), refusal: Refusal) {
        let refusals = &mut self.observed.refusals;
        refusals.insert(object, refusal);
        if refusals.len() > MOST_REFUSALS {
            let oldest = refusals.iter().min_by_key(|(_, refusal)| refusal.at).map(|(object, _)| object.clone());
            oldest.map(|oldest| refusals.remove(&oldest));
        }
    }

    /// Forgets what is of no use once the object is there, or gone.
    pub(crate) fn forget(&mut self, kind: Kind, key: &Key) {
        self.observed.refusals.remove(&(kind, key.clone()));
        if !self.observed.access.is_empty() && !self.contains(kind, key) {
            self.observed.access.remove(&(kind, key.clone()));
        }
        match (kind, self.revisions.get(key)) {
            (Kind::Revision, Some(revision)) if !revision::is_resolved(&revision) => {}
            (Kind::Revision, _) => {
                let first = (key.clone(), DigestRequest::default());
                let asked = self.observed.digests.range(first..).map(|(about, _)| about.clone());
                for about in asked.take_while(|(asker, _)| asker == key).collect::<Vec<_>>() {
                    self.observed.digests.remove(&about);
                }
            }
            (Kind::PodAutoscaler, _) if self.pod_autoscalers.get(key).is_none() => {
                self.observed.decisions.remove(key);
            }
            _ => {}
        }
    }
}

/// Takes over what is said of objects, nothing where that is no more; the objects of which it is another than before.
fn differing<T: Clone + PartialEq>(
    known: &mut BTreeMap<(Kind, Key), T>,
    said: BTreeMap<(Kind, Key), Option<T>>,
) -> Vec<Changed> {
    let mut changed = Vec::new();
    for (object, now) in said {
        let before = match now.clone() {
            Some(now) => known.insert(object.clone(), now),
            None => known.remove(&object),
        };
        if before != now {
            changed.push(Changed::Observed(object.0, object.1));
        }
    }
    changed
}
