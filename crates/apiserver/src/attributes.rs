//! Who asks for what: the input of authorization.

use std::collections::BTreeMap;

/// Who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, e.g. `system:serviceaccount:ns:name`.
    pub user: String,
    /// uid, when the authenticator knows one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Anything else the authenticator vouches for.
    pub extra: BTreeMap<String, Vec<String>>,
    /// When a client certificate that says so was made; earlier ones may be void.
    pub(crate) issued: Option<jiff::Timestamp>,
}

impl UserInfo {
    /// A user in groups.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        Self { user: user.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Self::default() }
    }

    /// The administrator: may do anything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &["system:masters", "system:authenticated"])
    }

    /// Whether it is of the group that may do anything, whatever the stored roles say.
    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", &["system:unauthenticated"])
    }

    /// A ServiceAccount.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let own_group = format!("system:serviceaccounts:{namespace}");
        Self::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            &["system:serviceaccounts", &own_group, "system:authenticated"],
        )
    }
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the lower-case method.
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural of the resource; empty for a path that is none.
    pub resource: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Namespace; empty for cluster-scoped requests.
    pub namespace: String,
    /// Name; empty for collections.
    pub name: String,
    /// The path, where `resource` is empty.
    pub path: String,
}

/// The answer of authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow {
        /// Why, for reviews.
        reason: String,
    },
    /// It may not.
    Deny {
        /// Why, for reviews; may be empty.
        reason: String,
    },
}

impl Decision {
    /// Whether it may.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

impl Attributes {
    /// The words that complete `… is forbidden: `.
    pub fn refusal(&self, identity: &UserInfo, reason: &str) -> String {
        let mut text = if self.resource.is_empty() {
            format!("User {:?} cannot {} path {:?}", identity.user, self.verb, self.path)
        } else {
            let resource = if self.subresource.is_empty() {
                self.resource.clone()
            } else {
                format!("{}/{}", self.resource, self.subresource)
            };
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            format!(
                "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
                identity.user, self.verb, self.group
            )
        };
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }
}
