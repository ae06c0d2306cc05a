//! The stored roles and bindings: who holds which rules where.
//!
//! Everything is kept by its key, so that a write of one tenant's costs the others nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use knoll_store::Snapshot;
use serde::Deserialize;
use serde_json::Value;

use super::PREFIX;
use crate::{attributes::UserInfo, label_selector::LabelSelector, policy_rule::PolicyRule};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Stored {
    metadata: Metadata,
    rules: Option<Vec<PolicyRule>>,
    aggregation_rule: Option<Aggregation>,
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Aggregation {
    cluster_role_selectors: Option<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Value,
}

/// The rules of a role, shared by all who ask.
pub(super) type Rules = Arc<Vec<PolicyRule>>;

/// One binding. It names its role; what that allows is looked up.
pub(super) struct Grant {
    /// Name of the binding.
    pub(super) name: String,
    /// Where its rules hold; empty for everywhere.
    pub(super) namespace: String,
    /// The role's kind.
    pub(super) kind: String,
    /// The role's name.
    pub(super) role: String,
}

/// A ClusterRole as it is stored.
struct ClusterRole {
    labels: Value,
    own: Rules,
    selectors: Vec<LabelSelector>,
    aggregates: bool,
}

/// Whom a binding is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    User(String),
    Group(String),
}

/// The bindings of one holder in one namespace that name one role, by key: one is enough to hold it.
type Alike = BTreeMap<Arc<str>, Arc<Grant>>;

/// By kind and name of the role.
type ByRole = BTreeMap<(String, String), Alike>;

/// All roles and bindings. A change costs what it brings.
#[derive(Default)]
pub(super) struct Grants {
    /// Of Roles, by namespace and name.
    roles: HashMap<(String, String), Rules>,
    cluster_roles: BTreeMap<String, ClusterRole>,
    /// What ClusterRoles gather from others.
    gathered: HashMap<String, Rules>,
    /// By key, with whom each is for.
    bindings: HashMap<Arc<str>, (Arc<Grant>, HashSet<Holder>)>,
    /// By holder, namespace, and kind and name of the role.
    held: HashMap<Holder, HashMap<String, ByRole>>,
}

impl Grants {
    /// What `identity` was granted in `namespace` and everywhere: each role once, with the first of its bindings.
    pub(super) fn of(&self, identity: &UserInfo, namespace: &str) -> Vec<(Arc<Grant>, Rules)> {
        let user = std::iter::once(Holder::User(identity.user.clone()));
        let holders = user.chain(identity.groups.iter().cloned().map(Holder::Group));
        let places: &[&str] = if namespace.is_empty() { &[""] } else { &["", namespace] };
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for places_of_one in holders.filter_map(|holder| self.held.get(&holder)) {
            for alike in places.iter().filter_map(|place| places_of_one.get(*place)).flat_map(BTreeMap::values) {
                let Some(grant) = alike.values().next() else { continue };
                let Some(rules) = self.role(&grant.kind, &grant.namespace, &grant.role) else { continue };
                if seen.insert(Arc::as_ptr(&rules)) {
                    found.push((grant.clone(), rules));
                }
            }
        }
        found
    }

    /// The rules of a role, with what is aggregated into it.
    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Rules> {
        match kind {
            "ClusterRole" => {
                let gathered = || self.gathered.get(name).cloned();
                gathered().or_else(|| self.cluster_roles.get(name).map(|role| role.own.clone()))
            }
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned(),
        }
    }

    /// Takes in everything of a snapshot.
    pub(super) fn load(snapshot: &Snapshot) -> Self {
        let mut grants = Self::default();
        for entry in snapshot.range(PREFIX, None) {
            grants.put(&entry.key, decode(&entry.key, &entry.value));
        }
        grants.gather();
        grants
    }

    /// Takes in one change: what is stored under a key now, `None` when nothing is.
    pub(super) fn change(&mut self, key: &str, stored: Option<Stored>) {
        self.put(key, stored);
        if key.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with("clusterroles/")) {
            self.gather();
        }
    }

    fn put(&mut self, key: &str, stored: Option<Stored>) {
        let Some((plural, place)) = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else { return };
        // The namespace of what has none is empty.
        let Some((namespace, name)) = place.split_once('/') else { return };
        match plural {
            "roles" => {
                let place = (namespace.to_owned(), name.to_owned());
                match stored {
                    Some(role) => self.roles.insert(place, Arc::new(role.rules.unwrap_or_default())),
                    None => self.roles.remove(&place),
                };
            }
            "clusterroles" => {
                match stored {
                    Some(role) => self.cluster_roles.insert(name.to_owned(), cluster_role(role)),
                    None => self.cluster_roles.remove(name),
                };
            }
            "rolebindings" | "clusterrolebindings" => {
                self.unbind(key);
                if let Some(binding) = stored {
                    self.bind(key, binding);
                }
            }
            _ => {}
        }
    }

    fn bind(&mut self, key: &str, binding: Stored) {
        let Stored { metadata, role_ref, subjects, .. } = binding;
        let grant = Arc::new(Grant {
            name: metadata.name,
            namespace: metadata.namespace,
            kind: role_ref.kind,
            role: role_ref.name,
        });
        let key: Arc<str> = key.into();
        let holders: HashSet<Holder> =
            subjects.into_iter().flatten().filter_map(|subject| holder(subject, &grant.namespace)).collect();
        for holder in &holders {
            let places = self.held.entry(holder.clone()).or_default();
            let roles = places.entry(grant.namespace.clone()).or_default();
            let alike = roles.entry((grant.kind.clone(), grant.role.clone())).or_default();
            alike.insert(key.clone(), grant.clone());
        }
        self.bindings.insert(key, (grant, holders));
    }

    /// Forgets a binding, and what held nothing else.
    fn unbind(&mut self, key: &str) {
        let Some((grant, holders)) = self.bindings.remove(key) else { return };
        let role = (grant.kind.clone(), grant.role.clone());
        for holder in holders {
            let Some(places) = self.held.get_mut(&holder) else { continue };
            if let Some(roles) = places.get_mut(&grant.namespace) {
                if let Some(alike) = roles.get_mut(&role) {
                    alike.remove(key);
                    if alike.is_empty() {
                        roles.remove(&role);
                    }
                }
                if roles.is_empty() {
                    places.remove(&grant.namespace);
                }
            }
            if places.is_empty() {
                self.held.remove(&holder);
            }
        }
    }

    /// Gathers again what ClusterRoles gather: few do, and only who holds everything makes one.
    fn gather(&mut self) {
        let roles = &self.cluster_roles;
        let gathering = roles.iter().filter(|(_, role)| role.aggregates);
        self.gathered = gathering.map(|(name, _)| (name.clone(), Arc::new(gathered(roles, name)))).collect();
    }
}

/// Reads what is stored; what cannot be read grants nothing.
pub(super) fn decode(key: &str, value: &[u8]) -> Option<Stored> {
    let warn = |error: &serde_json::Error| {
        tracing::warn!(key, %error, "a role or binding that cannot be read grants nothing");
    };
    serde_json::from_slice(value).inspect_err(warn).ok()
}

fn holder(subject: Subject, namespace: &str) -> Option<Holder> {
    match subject.kind.as_str() {
        "User" => Some(Holder::User(subject.name)),
        "Group" => Some(Holder::Group(subject.name)),
        "ServiceAccount" => {
            let own = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            Some(Holder::User(format!("system:serviceaccount:{own}:{}", subject.name)))
        }
        _ => None,
    }
}

fn cluster_role(role: Stored) -> ClusterRole {
    let selectors = role.aggregation_rule.as_ref().and_then(|a| a.cluster_role_selectors.as_ref());
    ClusterRole {
        // A selector that cannot be read selects nothing.
        selectors: selectors.into_iter().flatten().filter_map(selector).collect(),
        aggregates: role.aggregation_rule.is_some(),
        labels: role.metadata.labels,
        own: Arc::new(role.rules.unwrap_or_default()),
    }
}

/// A selector; one that is empty selects nothing here, not everything.
fn selector(value: &Value) -> Option<LabelSelector> {
    let empty = |field: &str| crate::object::is_empty(value.get(field));
    if empty("matchLabels") && empty("matchExpressions") { None } else { LabelSelector::from_object(value) }
}

/// What a role gathers. Each role is visited once, so that roles that select each other come to an end.
fn gathered(roles: &BTreeMap<String, ClusterRole>, name: &str) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    let mut seen = HashSet::new();
    let mut visited = BTreeSet::from([name]);
    let mut left = VecDeque::from([name]);
    while let Some(role) = left.pop_front().and_then(|name| roles.get(name)) {
        if !role.aggregates {
            rules.extend(role.own.iter().filter(|rule| seen.insert(*rule)).cloned());
            continue;
        }
        for (other, candidate) in roles {
            let wanted = || role.selectors.iter().any(|s| s.matches(&candidate.labels));
            if !visited.contains(other.as_str()) && wanted() {
                visited.insert(other);
                left.push_back(other);
            }
        }
    }
    rules
}
