//! The authority of a standalone machine: its own certificates and tokens, RBAC from its own store.

use std::sync::Arc;

use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use knoll_store::Store;
use serde_json::Value;

use super::{ClientEpoch, TokenKey, impersonation::impersonate, node, rbac::Rbac, tokens::Bearer};
use crate::{
    attributes::{Attributes, Decision, UserInfo},
    authority::{Authority, Token, TokenOrder},
    object,
    policy_rule::PolicyRule,
    status::Status,
};

/// Authenticates by client certificate or ServiceAccount token, authorizes by RBAC.
pub struct LocalAuthority {
    store: Store,
    rbac: Rbac,
    tokens: TokenKey,
    clients: Option<Arc<ClientEpoch>>,
    now: fn() -> Timestamp,
}

/// Longest bearer token that is looked at: ours are a tenth of it.
const LONGEST_TOKEN: usize = 16 * 1024;

/// How long after the time of its deletion an object's tokens still count: what it began may end.
const AFTER_DELETION: SignedDuration = SignedDuration::from_secs(60);

impl LocalAuthority {
    /// Over the objects in `store`; `now` is the wall clock.
    pub fn new(store: Store, tokens: TokenKey, now: fn() -> Timestamp) -> Self {
        Self { rbac: Rbac::new(store.clone()), store, tokens, clients: None, now }
    }

    /// Asks at each request whether a client certificate still counts.
    #[must_use]
    pub fn with_clients(mut self, clients: Arc<ClientEpoch>) -> Self {
        self.clients = Some(clients);
        self
    }

    /// Whether a client certificate was made before those that count.
    fn is_void(&self, certificate: &UserInfo) -> bool {
        let counts = |issued| self.clients.as_ref().is_none_or(|clients| clients.accepts(issued));
        !certificate.issued.is_none_or(counts)
    }

    /// Reads a token and checks that what it is bound to still exists.
    fn bearer(&self, token: &str) -> Option<Bearer> {
        if token.len() > LONGEST_TOKEN {
            return None;
        }
        let bearer = self.tokens.read(token, (self.now)())?;
        self.alive("serviceaccounts", &bearer.namespace, &bearer.name, &bearer.uid)?;
        if let Some((resource, name, uid)) = &bearer.bound {
            let namespace = if *resource == "nodes" { "" } else { &bearer.namespace };
            let bound = self.alive(resource, namespace, name, uid)?;
            // A pod's token is that of the account it runs as.
            if *resource == "pods" && object::text(&bound, "/spec/serviceAccountName") != bearer.name {
                return None;
            }
        }
        Some(bearer)
    }

    /// An object that a token depends on, while it counts: one of the same uid, that is not long past its deletion.
    fn alive(&self, resource: &str, namespace: &str, name: &str, uid: &str) -> Option<Value> {
        let stored = self.store.get(&format!("/core/{resource}/{namespace}/{name}"))?;
        let object: Value = serde_json::from_slice(&stored.value).ok()?;
        if object::uid(&object) != uid {
            return None;
        }
        let deleted = object::text(&object, "/metadata/deletionTimestamp");
        let over = |at: Timestamp| (self.now)().duration_since(at) > AFTER_DELETION;
        let gone = !deleted.is_empty() && deleted.parse().map_or(true, over);
        (!gone).then_some(object)
    }
}

impl Authority for LocalAuthority {
    fn authorize(&self, identity: &UserInfo, attributes: &Attributes) -> Decision {
        let decision = self.rbac.authorize(identity, attributes);
        if !decision.is_allowed() {
            return decision;
        }
        match node::restrict(&self.store, identity, attributes) {
            Ok(()) => decision,
            Err(reason) => Decision::Deny { reason },
        }
    }

    fn rules(&self, identity: &UserInfo, namespace: &str) -> Value {
        self.rbac.rules(identity, namespace)
    }

    fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Vec<PolicyRule>>> {
        self.rbac.role(kind, namespace, name)
    }

    fn confirm_no_escalation(&self, identity: &UserInfo, namespace: &str, rules: &[PolicyRule]) -> Result<(), String> {
        self.rbac.confirm_no_escalation(identity, namespace, rules)
    }

    fn authenticate(&self, headers: &HeaderMap, certificate: Option<UserInfo>) -> Result<UserInfo, Status> {
        let identity = match (certificate, headers.get(http::header::AUTHORIZATION)) {
            (Some(identity), _) if self.is_void(&identity) => return Err(Status::unauthorized()),
            (Some(identity), _) => identity,
            (None, None) => UserInfo::anonymous(),
            (None, Some(value)) => {
                let token = value.to_str().ok().and_then(|text| text.split_once(' '));
                let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let bearer = token.and_then(|(_, token)| self.bearer(token.trim()));
                let bearer = bearer.filter(|b| b.audiences.iter().any(|a| a == self.tokens.issuer()));
                bearer.ok_or_else(Status::unauthorized)?.identity
            }
        };
        impersonate(&self.rbac, identity, headers)
    }

    fn issue(&self, order: &TokenOrder) -> Result<Token, Status> {
        let id = uuid::Uuid::new_v4().to_string();
        let token = self.tokens.issue(order, (self.now)(), &id);
        token.ok_or_else(|| Status::new(500, "InternalError", "Internal error occurred: the token could not be signed"))
    }

    fn review(&self, token: &str, audiences: &[String]) -> Option<(UserInfo, Vec<String>)> {
        let bearer = self.bearer(token)?;
        let own = [self.tokens.issuer().to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let accepted: Vec<String> = wanted.iter().filter(|a| bearer.audiences.contains(a)).cloned().collect();
        (!accepted.is_empty()).then_some((bearer.identity, accepted))
    }

    fn issuer_document(&self, path: &str) -> Option<Value> {
        self.tokens.document(path)
    }
}
