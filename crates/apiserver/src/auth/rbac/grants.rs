//! The stored roles and bindings, resolved: who holds which rules where.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

use super::PREFIX;
use crate::{attributes::Identity, label_selector::Selector, rule::Rule};

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
struct Stored {
    metadata: Metadata,
    rules: Option<Vec<Rule>>,
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

/// The rules of one binding.
pub(super) struct Grant {
    /// Name of the binding.
    pub(super) name: String,
    /// Where they hold; empty for everywhere.
    pub(super) namespace: String,
    /// Kind and name of the role.
    pub(super) role: String,
    pub(super) rules: Arc<Vec<Rule>>,
}

/// A ClusterRole as it is stored.
struct ClusterRole {
    labels: Value,
    own: Vec<Rule>,
    selectors: Vec<Selector>,
    aggregates: bool,
}

/// All roles, resolved, and all grants by whom they are for.
#[derive(Default)]
pub(super) struct Grants {
    roles: HashMap<(String, String), Arc<Vec<Rule>>>,
    cluster_roles: HashMap<String, Arc<Vec<Rule>>>,
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

impl Grants {
    /// What `identity` was granted in `namespace` and everywhere.
    pub(super) fn of<'a>(&'a self, identity: &'a Identity, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Grant>> {
        let by_group = identity.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        let all = self.users.get(&identity.user).into_iter().flatten().chain(by_group);
        all.filter(move |grant| grant.namespace.is_empty() || grant.namespace == namespace)
    }

    /// The rules of a role, with what is aggregated into it.
    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name).cloned(),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())).cloned(),
        }
    }

    /// Resolves every role and binding of a snapshot.
    pub(super) fn load(snapshot: &knoll_store::Snapshot) -> Self {
        let read = |plural: &str| -> Vec<Stored> {
            let prefix = format!("{PREFIX}{plural}/");
            let decode = |entry: knoll_store::Entry| match serde_json::from_slice(&entry.value) {
                Ok(stored) => Some(stored),
                Err(error) => {
                    tracing::warn!(key = %entry.key, %error, "a role or binding that cannot be read grants nothing");
                    None
                }
            };
            snapshot.range(&prefix, None).filter_map(decode).collect()
        };
        let mut grants = Self { cluster_roles: resolve(read("clusterroles")), ..Self::default() };
        for role in read("roles") {
            let key = (role.metadata.namespace, role.metadata.name);
            grants.roles.insert(key, Arc::new(role.rules.unwrap_or_default()));
        }
        for binding in read("clusterrolebindings").into_iter().chain(read("rolebindings")) {
            grants.bind(binding);
        }
        grants
    }

    fn bind(&mut self, binding: Stored) {
        let Stored { metadata, role_ref, subjects, .. } = binding;
        let Some(rules) = self.role(&role_ref.kind, &metadata.namespace, &role_ref.name) else { return };
        let grant = Arc::new(Grant {
            name: metadata.name,
            namespace: metadata.namespace,
            role: format!("{} {:?}", role_ref.kind, role_ref.name),
            rules,
        });
        for subject in subjects.into_iter().flatten() {
            let (index, name) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name),
                "Group" => (&mut self.groups, subject.name),
                "ServiceAccount" => {
                    let own = if subject.namespace.is_empty() { &grant.namespace } else { &subject.namespace };
                    let user = format!("system:serviceaccount:{own}:{}", subject.name);
                    (&mut self.users, user)
                }
                _ => continue,
            };
            index.entry(name).or_default().push(grant.clone());
        }
    }
}

/// The rules of every ClusterRole, with those that it gathers from others, and those that they gather.
fn resolve(stored: Vec<Stored>) -> HashMap<String, Arc<Vec<Rule>>> {
    let roles: BTreeMap<String, ClusterRole> = stored
        .into_iter()
        .map(|role| {
            let selectors = role.aggregation_rule.as_ref().and_then(|a| a.cluster_role_selectors.as_ref());
            let role_body = ClusterRole {
                // A selector that cannot be read selects nothing.
                selectors: selectors.into_iter().flatten().filter_map(selector).collect(),
                aggregates: role.aggregation_rule.is_some(),
                labels: role.metadata.labels,
                own: role.rules.unwrap_or_default(),
            };
            (role.metadata.name, role_body)
        })
        .collect();
    roles.keys().map(|name| (name.clone(), Arc::new(gathered(&roles, name)))).collect()
}

/// A selector; one that is empty selects nothing here, not everything.
fn selector(value: &Value) -> Option<Selector> {
    let empty = |field: &str| crate::object::is_empty(value.get(field));
    if empty("matchLabels") && empty("matchExpressions") { None } else { Selector::from_object(value) }
}

/// What a role gathers. Each role is visited once, so that roles that select each other come to an end.
fn gathered(roles: &BTreeMap<String, ClusterRole>, name: &str) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut seen = HashSet::new();
    let mut visited = vec![name];
    let mut next = 0;
    while let Some(role) = visited.get(next).and_then(|name| roles.get(*name)) {
        next += 1;
        if !role.aggregates {
            rules.extend(role.own.iter().filter(|rule| seen.insert(*rule)).cloned());
            continue;
        }
        for (other, candidate) in roles {
            if !visited.contains(&other.as_str()) && role.selectors.iter().any(|s| s.matches(&candidate.labels)) {
                visited.push(other);
            }
        }
    }
    rules
}
