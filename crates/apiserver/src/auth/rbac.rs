//! Role-based access control over the stored roles and bindings.

use std::sync::{Arc, Mutex, PoisonError};

use knoll_store::{Store, Watch};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::attributes::{Attributes, Decision, Identity};

const PREFIX: &str = "/rbac.authorization.k8s.io/";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

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
    cluster_role_selectors: Vec<Selector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    match_labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: std::collections::BTreeMap<String, String>,
}

/// A binding with the rules it grants.
struct Grant {
    name: String,
    /// Empty for cluster-wide grants.
    namespace: String,
    role: String,
    subjects: Vec<Subject>,
    rules: Vec<Arc<Vec<Rule>>>,
}

#[derive(Default)]
struct Grants {
    grants: Vec<Grant>,
}

struct Cached {
    watch: Option<Watch>,
    grants: Arc<Grants>,
}

/// Decides by the roles and bindings in the store; follows their changes.
pub(super) struct Rbac {
    store: Store,
    cached: Mutex<Cached>,
}

impl Rbac {
    pub(super) fn new(store: Store) -> Self {
        Self { store, cached: Mutex::new(Cached { watch: None, grants: Arc::default() }) }
    }

    /// The grants as of now.
    fn grants(&self) -> Arc<Grants> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stale = cached.watch.is_none();
        if let Some(watch) = &mut cached.watch {
            loop {
                match watch.try_next() {
                    Ok(Some(_)) => stale = true,
                    Ok(None) => break,
                    Err(_) => {
                        stale = true;
                        cached.watch = None;
                        break;
                    }
                }
            }
        }
        if stale {
            let snapshot = self.store.snapshot();
            if cached.watch.is_none() {
                cached.watch = self.store.watch(PREFIX, snapshot.revision).ok();
            }
            cached.grants = Arc::new(load(&snapshot));
        }
        cached.grants.clone()
    }

    pub(super) fn authorize(&self, identity: &Identity, wanted: &Attributes) -> Decision {
        if identity.groups.iter().any(|group| group == "system:masters") {
            return Decision::Allow { reason: String::new() };
        }
        let grants = self.grants();
        for grant in &grants.grants {
            let in_reach = grant.namespace.is_empty() || grant.namespace == wanted.namespace;
            if !in_reach || !grant.subjects.iter().any(|subject| subject.is(identity, &grant.namespace)) {
                continue;
            }
            if grant.rules.iter().flat_map(|rules| rules.iter()).any(|rule| rule.allows(wanted)) {
                let kind = if grant.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
                let reason =
                    format!("RBAC: allowed by {kind} {:?} of {} to {:?}", grant.name, grant.role, identity.user);
                return Decision::Allow { reason };
            }
        }
        Decision::Deny { reason: String::new() }
    }

    /// The `status` of a SelfSubjectRulesReview.
    pub(super) fn rules(&self, identity: &Identity, namespace: &str) -> Value {
        let mut resources = Vec::new();
        let mut paths = Vec::new();
        let mut add = |rule: &Rule| {
            if rule.non_resource_urls.is_empty() {
                resources.push(json!({
                    "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
                    "resourceNames": rule.resource_names,
                }));
            } else {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            }
        };
        if identity.groups.iter().any(|group| group == "system:masters") {
            let all = || vec!["*".to_owned()];
            add(&Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
            add(&Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
        }
        for grant in &self.grants().grants {
            let in_reach = grant.namespace.is_empty() || grant.namespace == namespace;
            if in_reach && grant.subjects.iter().any(|subject| subject.is(identity, &grant.namespace)) {
                grant.rules.iter().flat_map(|rules| rules.iter()).for_each(&mut add);
            }
        }
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
    }
}

/// Resolves every binding to its rules.
fn load(snapshot: &knoll_store::Snapshot) -> Grants {
    let read = |plural: &str| -> Vec<Stored> {
        let prefix = format!("{PREFIX}{plural}/");
        snapshot.range(&prefix, None).filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
    };
    let mut roles = std::collections::BTreeMap::new();
    let mut cluster_roles = Vec::new();
    for role in read("roles") {
        let key = (role.metadata.namespace, role.metadata.name);
        roles.insert(key, Arc::new(role.rules.unwrap_or_default()));
    }
    for role in read("clusterroles") {
        let rules = Arc::new(role.rules.unwrap_or_default());
        cluster_roles.push((role.metadata, rules, role.aggregation_rule));
    }
    let of_cluster_role = |name: &str| -> Vec<Arc<Vec<Rule>>> {
        let Some((_, own, aggregation)) = cluster_roles.iter().find(|(meta, ..)| meta.name == name) else {
            return Vec::new();
        };
        let mut rules = vec![own.clone()];
        for selector in aggregation.iter().flat_map(|a| &a.cluster_role_selectors) {
            let selected = |meta: &Metadata| {
                let has = |(key, value): (&String, &String)| meta.labels.get(key) == Some(value);
                !selector.match_labels.is_empty() && selector.match_labels.iter().all(has)
            };
            rules.extend(cluster_roles.iter().filter(|(meta, ..)| selected(meta)).map(|(_, rules, _)| rules.clone()));
        }
        rules
    };
    let mut grants = Vec::new();
    for binding in read("clusterrolebindings").into_iter().chain(read("rolebindings")) {
        let Stored { metadata, role_ref, subjects, .. } = binding;
        let rules = match role_ref.kind.as_str() {
            "ClusterRole" => of_cluster_role(&role_ref.name),
            _ => roles.get(&(metadata.namespace.clone(), role_ref.name.clone())).cloned().into_iter().collect(),
        };
        grants.push(Grant {
            name: metadata.name,
            namespace: metadata.namespace,
            role: format!("{} {:?}", role_ref.kind, role_ref.name),
            subjects: subjects.unwrap_or_default(),
            rules,
        });
    }
    Grants { grants }
}

impl Subject {
    fn is(&self, identity: &Identity, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == identity.user,
            "Group" => identity.groups.contains(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                identity.user == format!("system:serviceaccount:{namespace}:{}", self.name)
            }
            _ => false,
        }
    }
}

fn contains(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn allows(&self, wanted: &Attributes) -> bool {
        if !contains(&self.verbs, &wanted.verb) {
            return false;
        }
        if wanted.resource.is_empty() {
            return self.non_resource_urls.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => wanted.path.starts_with(prefix),
                None => *pattern == wanted.path,
            });
        }
        contains(&self.api_groups, &wanted.group)
            && self.names_resource(wanted)
            && (self.resource_names.is_empty() || self.resource_names.contains(&wanted.name))
    }

    /// `*`, `pods`, `pods/log` and `*/scale` are the forms.
    fn names_resource(&self, wanted: &Attributes) -> bool {
        self.resources.iter().any(|resource| match resource.split_once('/') {
            _ if resource == "*" => true,
            None => wanted.subresource.is_empty() && *resource == wanted.resource,
            Some((plural, part)) => part == wanted.subresource && (plural == "*" || plural == wanted.resource),
        })
    }
}
