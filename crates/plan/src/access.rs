//! What ServiceAccounts may do, for plans that depend on it: asked of the API server, kept, and asked again when it may
//! have changed.
//!
//! A plan asks by [`Want::ReviewAccess`]; the answer comes as [`Observation::Access`](crate::Observation::Access). An
//! answer counts for what was asked. It is asked again once a Role or a binding has changed since, and after
//! [`LIFETIME`], or [`DENIED_LIFETIME`], for a server may decide by more than those. Until the next answer the last one holds.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, Resource, k8s_openapi::api::rbac::v1::Subject};

use crate::{Plan, Term, Want, World, terms::leads_to};

/// How long an answer counts where no Role and no binding changes.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How long one that is no, or that nobody could give, counts: a server may hear of a Role or a binding later than we do.
const DENIED_LIFETIME: Duration = Duration::from_secs(30);
/// How the name of a ServiceAccount begins where it is a user's.
const ACCOUNT: &str = "system:serviceaccount:";
/// Group of every ServiceAccount; with `:` and a namespace, of those of the namespace.
const ACCOUNTS: &str = "system:serviceaccounts";
/// Group of everybody who has a name.
const AUTHENTICATED: &str = "system:authenticated";
/// Kinds that say who may do what.
const RULES: [Kind; 4] = [Kind::Role, Kind::RoleBinding, Kind::ClusterRole, Kind::ClusterRoleBinding];

/// Whether a ServiceAccount may do all of this: each verb with objects of each kind in each namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRequest {
    /// The ServiceAccount.
    pub account: Key,
    /// Verbs of the API.
    pub verbs: &'static [&'static str],
    /// API group and plural of kinds.
    pub resources: Vec<(String, String)>,
    /// The namespaces.
    pub namespaces: Vec<String>,
}

impl AccessRequest {
    /// The ServiceAccount's name as a user.
    pub fn user(&self) -> String {
        format!("{ACCOUNT}{}:{}", self.account.namespace, self.account.name)
    }

    /// The groups that the ServiceAccount is in.
    pub fn groups(&self) -> [String; 3] {
        [ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{}", self.account.namespace), AUTHENTICATED.to_owned()]
    }
}

/// What a ServiceAccount may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The verbs, as in the request.
    pub verbs: Vec<&'static str>,
    /// API group and plural.
    pub resource: (String, String),
    /// The namespace.
    pub namespace: String,
}

/// What came of asking: what may not be done, in the order of the request; nothing when all may be. Or why nobody can tell.
pub type AccessOutcome = Result<Vec<Denial>, String>;

/// The newest answer to an object's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessAnswer {
    /// What was asked.
    pub request: AccessRequest,
    /// How often rules had changed when it was asked ([`Observed::rules`](crate::Observed::rules)).
    pub rules: u64,
    /// What came of it.
    pub outcome: AccessOutcome,
    /// When.
    pub at: Timestamp,
}

/// The last answer to what an object asks; nothing when this was never answered. Sees to it that it is asked where need be.
pub(crate) fn ask<'a, R: Resource>(
    world: &'a World,
    object: &R,
    request: AccessRequest,
    plan: &mut Plan,
    now: Timestamp,
) -> Option<&'a AccessOutcome> {
    let asker = (R::KIND, object.key());
    let answer = world.observed.access.get(&asker).filter(|answer| answer.request == request);
    // A clock that was set back makes an answer old, not young.
    let left = answer
        .filter(|answer| answer.rules == world.observed.rules)
        .and_then(|answer| {
            let age = Duration::try_from(now.duration_since(answer.at)).ok()?;
            let is_yes = answer.outcome.as_ref().is_ok_and(Vec::is_empty);
            if is_yes { LIFETIME } else { DENIED_LIFETIME }.checked_sub(age)
        })
        .filter(|left| !left.is_zero());
    match left {
        Some(left) => plan.recheck_after(left),
        None => plan.wants.push(Want::ReviewAccess { request, asker, rules: world.observed.rules }),
    }
    answer.map(|answer| &answer.outcome)
}

/// Whether a change to an object of this kind may change what anybody may do.
pub(crate) fn is_rule(kind: Kind) -> bool {
    RULES.contains(&kind)
}

/// Objects of the row's kind whose ServiceAccount, by which they are found, may have more or less rights now.
pub(crate) fn by_rule(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let subjects: Vec<Subject> = match object {
        Object::RoleBinding(binding) => binding.subjects.clone().unwrap_or_default(),
        Object::ClusterRoleBinding(binding) => binding.subjects.clone().unwrap_or_default(),
        role => {
            let (kind, key) = (role.kind(), role.key());
            let bindings = world.role_bindings.find(leads_to(kind, &key)).into_iter();
            let bound = bindings.flat_map(|binding| binding.subjects.clone().unwrap_or_default());
            let everywhere = world.cluster_role_bindings.find(leads_to(kind, &key)).into_iter();
            bound.chain(everywhere.flat_map(|binding| binding.subjects.clone().unwrap_or_default())).collect()
        }
    };
    let keys: BTreeSet<Key> = subjects.iter().flat_map(|subject| by_subject(world, subject, of)).collect();
    keys.into_iter().collect()
}

fn by_subject(world: &World, subject: &Subject, of: Kind) -> Vec<Key> {
    let of_account =
        |namespace: &str, name: &str| world.leading_to(of, Kind::ServiceAccount, &Key::new(namespace, name.to_owned()));
    match subject.kind.as_str() {
        "ServiceAccount" => of_account(subject.namespace.as_deref().unwrap_or_default(), &subject.name),
        "User" => {
            let account = subject.name.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
            account.map_or(Vec::new(), |(namespace, name)| of_account(namespace, name))
        }
        _ if subject.name == ACCOUNTS || subject.name == AUTHENTICATED => world.keys(of),
        _ => {
            let namespace = subject.name.strip_prefix(ACCOUNTS).and_then(|rest| rest.strip_prefix(':'));
            namespace.map_or(Vec::new(), |namespace| world.keys_in(of, namespace))
        }
    }
}

/// What a binding is found by: the role that it binds.
pub(crate) fn bound_role(kind: &str, name: &str, namespace: &str, add: &mut dyn FnMut(Term<'_>)) {
    match kind {
        "Role" => add(Term::LeadsTo { kind: Kind::Role, namespace, name }),
        "ClusterRole" => add(Term::LeadsTo { kind: Kind::ClusterRole, namespace: "", name }),
        _ => {}
    }
}
