//! What the server asks about identities. Implemented by `auth`.

use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use crate::{
    attributes::{Attributes, Decision, UserInfo},
    policy_rule::PolicyRule,
    status::Status,
};

/// A token that is asked for.
#[derive(Clone, Debug, Default)]
pub struct TokenOrder {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub name: String,
    /// uid of the ServiceAccount.
    pub uid: String,
    /// Who shall accept it; empty for the server itself.
    pub audiences: Vec<String>,
    /// Seconds it shall live.
    pub expiration_seconds: i64,
    /// Kind, name and uid of the object it dies with.
    pub bound_to: Option<(String, String, String)>,
    /// Name and uid of the node that runs the pod it dies with, where that is known.
    pub node: Option<(String, String)>,
}

/// A token that was made.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: jiff::Timestamp,
    /// Who accepts it.
    pub audiences: Vec<String>,
}

/// Who somebody is and what they may do.
pub trait Authority: Send + Sync + 'static {
    /// Whether `identity` may do that.
    fn authorize(&self, identity: &UserInfo, attributes: &Attributes) -> Decision;

    /// Everything `identity` may do in a namespace: the `status` of a SelfSubjectRulesReview.
    fn rules(&self, identity: &UserInfo, namespace: &str) -> Value;

    /// The rules of a role, with what is aggregated into it; `namespace` counts for a `Role`.
    fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Vec<PolicyRule>>>;

    /// Whether `identity` holds `rules` in `namespace` (everywhere, for an empty one), so that it may grant them.
    ///
    /// # Errors
    /// What it lacks, in the words of the refusal.
    fn confirm_no_escalation(&self, identity: &UserInfo, namespace: &str, rules: &[PolicyRule]) -> Result<(), String>;

    /// Who sent these headers, given whom the client certificate names.
    ///
    /// # Errors
    /// 401 for credentials that are wrong; none at all are anonymous.
    fn authenticate(&self, headers: &HeaderMap, certificate: Option<UserInfo>) -> Result<UserInfo, Status>;

    /// Makes a ServiceAccount token.
    ///
    /// # Errors
    /// When the order cannot be filled.
    fn issue(&self, order: &TokenOrder) -> Result<Token, Status>;

    /// Whose token it is and which of `audiences` accept it (of the server's own, when empty); `None` for a bad one.
    fn review(&self, token: &str, audiences: &[String]) -> Option<(UserInfo, Vec<String>)>;

    /// The documents of `/.well-known/openid-configuration` and `/openid/v1/jwks`.
    fn issuer_document(&self, path: &str) -> Option<Value>;
}
