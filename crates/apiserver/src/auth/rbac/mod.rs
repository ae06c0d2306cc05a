//! Role-based access control over the stored roles and bindings.

mod grants;

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use knoll_store::Store;
use serde_json::{Value, json};

use self::grants::{Grant, Grants, Rules, decode};
use crate::{
    attributes::{Attributes, Decision, UserInfo},
    follow::{Follower, Seen},
    policy_rule::{PolicyRule, Uncovered, cover, quoted},
};

const PREFIX: &str = "/rbac.authorization.k8s.io/";
/// Most bytes of rules in the answer of a SelfSubjectRulesReview.
const MOST_TOLD: usize = 1 << 20;

/// Decides by the roles and bindings in the store; follows their changes, each at the cost of what it brings.
pub(super) struct Rbac {
    store: Store,
    grants: RwLock<Grants>,
    /// Everything before this revision is in.
    before: AtomicU64,
    changes: Mutex<Changes>,
}

struct Changes {
    follower: Follower,
    /// Whether the last round came to its end: a panic in it leaves a change half taken in.
    whole: bool,
}

impl Rbac {
    pub(super) fn new(store: Store) -> Self {
        let follower = Follower::new(store.clone(), PREFIX);
        Self {
            store,
            grants: RwLock::default(),
            before: AtomicU64::new(0),
            changes: Mutex::new(Changes { follower, whole: true }),
        }
    }

    /// Takes in what was written up to now.
    fn catch_up(&self) {
        // Read first: every change up to it is with the follower by now.
        let revision = self.store.revision();
        if self.before.load(Ordering::Acquire) > revision {
            return;
        }
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut changes.whole, false) {
            changes.follower.restart();
        }
        while let Some(seen) = changes.follower.try_next() {
            // Decoded before anybody who decides has to wait.
            match seen {
                Seen::All(snapshot) => {
                    let grants = Grants::load(&snapshot);
                    *self.grants.write().unwrap_or_else(PoisonError::into_inner) = grants;
                }
                Seen::Change(change) => {
                    let stored = change.value.as_ref().and_then(|value| decode(&change.key, value));
                    self.grants.write().unwrap_or_else(PoisonError::into_inner).change(&change.key, stored);
                }
            }
        }
        changes.whole = true;
        drop(changes);
        self.before.fetch_max(revision + 1, Ordering::AcqRel);
    }

    /// What `identity` holds in `namespace` as of now, each role once.
    fn held(&self, identity: &UserInfo, namespace: &str) -> Vec<(Arc<Grant>, Rules)> {
        self.catch_up();
        self.grants.read().unwrap_or_else(PoisonError::into_inner).of(identity, namespace)
    }

    pub(super) fn authorize(&self, identity: &UserInfo, wanted: &Attributes) -> Decision {
        if identity.is_master() {
            return Decision::Allow { reason: String::new() };
        }
        let held = self.held(identity, &wanted.namespace);
        let allows = |rules: &[PolicyRule]| rules.iter().any(|rule| rule.allows(wanted));
        let Some((grant, _)) = held.into_iter().find(|(_, rules)| allows(rules)) else {
            return Decision::Deny { reason: String::new() };
        };
        let kind = if grant.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let Grant { name, kind: role_kind, role, .. } = &*grant;
        let reason = format!("RBAC: allowed by {kind} {name:?} of {role_kind} {role:?} to {:?}", identity.user);
        Decision::Allow { reason }
    }

    /// The `status` of a SelfSubjectRulesReview. What is beyond [`MOST_TOLD`] is left out, and said to be.
    pub(super) fn rules(&self, identity: &UserInfo, namespace: &str) -> Value {
        let own = if identity.is_master() { PolicyRule::everything() } else { Vec::new() };
        let held = self.held(identity, namespace);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        let (mut told, mut left_out) = (0_usize, 0_usize);
        for rule in own.iter().chain(held.iter().flat_map(|(_, rules)| rules.iter())) {
            told = told.saturating_add(rule.bytes());
            if told > MOST_TOLD {
                left_out += 1;
            } else if rule.non_resource_urls.is_empty() {
                resources.push(json!({
                    "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
                    "resourceNames": rule.resource_names,
                }));
            } else {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            }
        }
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": left_out > 0});
        if left_out > 0 {
            status["evaluationError"] = format!("{left_out} rules beyond {MOST_TOLD} bytes are left out").into();
        }
        status
    }

    /// The rules of a role, with what is aggregated into it.
    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Rules> {
        self.catch_up();
        self.grants.read().unwrap_or_else(PoisonError::into_inner).role(kind, namespace, name)
    }

    /// Why `identity` may not grant `rules` in `namespace`: nobody gives what they do not hold.
    pub(super) fn confirm_no_escalation(
        &self,
        identity: &UserInfo,
        namespace: &str,
        rules: &[PolicyRule],
    ) -> Result<(), String> {
        let held = self.held(identity, namespace);
        let held: Vec<&PolicyRule> = held.iter().flat_map(|(_, rules)| rules.iter()).collect();
        cover(&held, rules).map_err(|uncovered| match uncovered {
            Uncovered::Missing(rights) => format!(
                "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
                identity.user,
                quoted(identity.groups.iter().map(String::as_str)),
                rights.join("\n")
            ),
            Uncovered::TooMany => "the rules name too many combinations of verbs, groups, resources and names to be \
                                   compared with what you hold: split them into several roles"
                .into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use knoll_store::{Durability, Expect, Options};

    use super::*;

    async fn put(store: &Store, key: &str, object: Value) {
        let key = format!("{PREFIX}{key}");
        store.put(key, object.to_string().into(), Expect::Any, Durability::Relaxed).await.expect("it is stored");
    }

    fn role(name: &str, labels: Value, names: usize) -> Value {
        let names: Vec<String> = (0..names).map(|n| format!("n{n}")).collect();
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": names});
        json!({"metadata": {"name": name, "namespace": "a", "labels": labels}, "rules": [rule]})
    }

    fn binding(name: &str, namespace: &str, kind: &str, role: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "sa", "namespace": "a"}, {"kind": "Group", "name": "g"}]})
    }

    fn get(namespace: &str, name: &str) -> Attributes {
        let text = str::to_owned;
        Attributes {
            verb: text("get"),
            version: text("v1"),
            resource: text("secrets"),
            namespace: text(namespace),
            name: text(name),
            ..Attributes::default()
        }
    }

    #[tokio::test]
    async fn a_write_of_one_role_leaves_the_others_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        let rbac = Rbac::new(store.clone());
        put(&store, "roles/a/one", role("one", json!({}), 2)).await;
        put(&store, "roles/a/two", role("two", json!({}), 2)).await;
        let one = rbac.role("Role", "a", "one").unwrap();
        put(&store, "roles/a/two", role("two", json!({}), 5)).await;
        put(&store, "rolebindings/a/b", binding("b", "a", "Role", "two")).await;
        assert!(Arc::ptr_eq(&one, &rbac.role("Role", "a", "one").unwrap()), "it was not read again");
        let who = UserInfo::new("system:serviceaccount:a:sa", &[]);
        assert!(rbac.authorize(&who, &get("a", "n4")).is_allowed());
        assert!(!rbac.authorize(&who, &get("b", "n4")).is_allowed());
        // A role that changes changes for those who hold it; a binding that goes takes everything with it.
        put(&store, "roles/a/two", role("two", json!({}), 1)).await;
        assert!(!rbac.authorize(&who, &get("a", "n4")).is_allowed());
        assert!(rbac.authorize(&UserInfo::new("x", &["g"]), &get("a", "n0")).is_allowed());
        store.delete(&format!("{PREFIX}rolebindings/a/b"), Expect::Any, Durability::Relaxed).await.unwrap();
        assert!(!rbac.authorize(&who, &get("a", "n0")).is_allowed());
        assert!(rbac.held(&who, "a").is_empty());
    }

    #[tokio::test]
    async fn what_is_gathered_follows_what_it_is_gathered_from() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        let rbac = Rbac::new(store.clone());
        let selectors = json!([{"matchLabels": {"to": "all"}}]);
        let all = json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": selectors}});
        put(&store, "clusterroles//all", all).await;
        put(&store, "clusterrolebindings//b", binding("b", "", "ClusterRole", "all")).await;
        let who = UserInfo::new("system:serviceaccount:a:sa", &[]);
        assert!(!rbac.authorize(&who, &get("b", "n0")).is_allowed());
        put(&store, "clusterroles//part", role("part", json!({"to": "all"}), 1)).await;
        assert!(rbac.authorize(&who, &get("b", "n0")).is_allowed());
        put(&store, "clusterroles//part", role("part", json!({}), 1)).await;
        assert!(!rbac.authorize(&who, &get("b", "n0")).is_allowed());
    }

    #[tokio::test]
    async fn a_role_bound_often_is_told_once_and_the_answer_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        let rbac = Rbac::new(store.clone());
        for at in 0..50 {
            put(&store, &format!("rolebindings/a/b{at}"), binding(&format!("b{at}"), "a", "Role", "r0")).await;
        }
        put(&store, "roles/a/r0", role("r0", json!({}), 100)).await;
        let who = UserInfo::new("system:serviceaccount:a:sa", &["g"]);
        let told = rbac.rules(&who, "a");
        assert_eq!((told["resourceRules"].as_array().unwrap().len(), &told["incomplete"]), (1, &json!(false)));
        for at in 1..20 {
            put(&store, &format!("roles/a/r{at}"), role(&format!("r{at}"), json!({}), 20_000)).await;
            put(&store, &format!("rolebindings/a/c{at}"), binding(&format!("c{at}"), "a", "Role", &format!("r{at}")))
                .await;
        }
        let told = rbac.rules(&who, "a");
        assert_eq!(told["incomplete"], json!(true));
        assert!(told.to_string().len() < 3 * MOST_TOLD, "{} bytes", told.to_string().len());
    }
}
