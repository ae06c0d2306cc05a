//! Role-based access control over the stored roles and bindings.

mod grants;

use std::sync::{Arc, Mutex, PoisonError};

use knoll_store::{Store, Watch};
use serde_json::{Value, json};

use self::grants::Grants;
use crate::{
    attributes::{Attributes, Decision, Identity},
    rule::{Rule, Uncovered, cover, quoted},
};

const PREFIX: &str = "/rbac.authorization.k8s.io/";

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
            cached.grants = Arc::new(Grants::load(&snapshot));
        }
        cached.grants.clone()
    }

    pub(super) fn authorize(&self, identity: &Identity, wanted: &Attributes) -> Decision {
        if identity.is_master() {
            return Decision::Allow { reason: String::new() };
        }
        let grants = self.grants();
        let allows = |rules: &[Rule]| rules.iter().any(|rule| rule.allows(wanted));
        let Some(grant) = grants.of(identity, &wanted.namespace).find(|grant| allows(&grant.rules)) else {
            return Decision::Deny { reason: String::new() };
        };
        let kind = if grant.namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
        let reason = format!("RBAC: allowed by {kind} {:?} of {} to {:?}", grant.name, grant.role, identity.user);
        Decision::Allow { reason }
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
        if identity.is_master() {
            Rule::everything().iter().for_each(&mut add);
        }
        for grant in self.grants().of(identity, namespace) {
            grant.rules.iter().for_each(&mut add);
        }
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
    }

    /// The rules of a role, with what is aggregated into it.
    pub(super) fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.grants().role(kind, namespace, name)
    }

    /// Why `identity` may not grant `rules` in `namespace`: nobody gives what they do not hold.
    pub(super) fn confirm_no_escalation(
        &self,
        identity: &Identity,
        namespace: &str,
        rules: &[Rule],
    ) -> Result<(), String> {
        let grants = self.grants();
        let held: Vec<&Rule> = grants.of(identity, namespace).flat_map(|grant| grant.rules.iter()).collect();
        cover(&held, rules).map_err(|uncovered| match uncovered {
            Uncovered::Missing(rights) => format!(
                "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
                identity.user,
                quoted(&identity.groups),
                rights.join("\n")
            ),
            Uncovered::TooMany => "the rules name too many combinations of verbs, groups, resources and names to be \
                                   compared with what you hold: split them into several roles"
                .into(),
        })
    }
}
