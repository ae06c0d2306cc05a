//! The authority of a standalone machine: its own certificates and tokens, RBAC from its own store.

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use knoll_store::Store;
use serde_json::Value;

use super::{
    TokenKey,
    impersonation::impersonate,
    node,
    rbac::{Rbac, Rule},
    tokens::Bearer,
};
use crate::{
    attributes::{Attributes, Decision, Identity},
    authority::{Authority, Token, TokenOrder},
    status::Status,
};

/// Authenticates by client certificate or ServiceAccount token, authorizes by RBAC.
pub struct LocalAuthority {
    store: Store,
    rbac: Rbac,
    tokens: TokenKey,
    now: fn() -> Timestamp,
}

impl LocalAuthority {
    /// Over the objects in `store`; `now` is the wall clock.
    pub fn new(store: Store, tokens: TokenKey, now: fn() -> Timestamp) -> Self {
        Self { rbac: Rbac::new(store.clone()), store, tokens, now }
    }

    /// Reads a token and checks that what it is bound to still exists.
    fn bearer(&self, token: &str) -> Option<Bearer> {
        let bearer = self.tokens.read(token, (self.now)())?;
        let alive = |resource: &str, namespace: &str, name: &str, uid: &str| {
            let stored = self.store.get(&format!("/core/{resource}/{namespace}/{name}"));
            let object: Option<Value> = stored.and_then(|entry| serde_json::from_slice(&entry.value).ok());
            object.is_some_and(|object| object["metadata"]["uid"] == uid)
        };
        if !alive("serviceaccounts", &bearer.namespace, &bearer.name, &bearer.uid) {
            return None;
        }
        if let Some((resource, name, uid)) = &bearer.bound {
            let namespace = if *resource == "nodes" { "" } else { &bearer.namespace };
            if !alive(resource, namespace, name, uid) {
                return None;
            }
        }
        Some(bearer)
    }
}

impl Authority for LocalAuthority {
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let decision = self.rbac.authorize(identity, attributes);
        if !decision.is_allowed() {
            return decision;
        }
        match node::restrict(&self.store, identity, attributes) {
            Ok(()) => decision,
            Err(reason) => Decision::Deny { reason },
        }
    }

    fn rules(&self, identity: &Identity, namespace: &str) -> Value {
        self.rbac.rules(identity, namespace)
    }

    fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Vec<Rule>>> {
        self.rbac.role(kind, namespace, name)
    }

    fn confirm_no_escalation(&self, identity: &Identity, namespace: &str, rules: &[Rule]) -> Result<(), String> {
        self.rbac.confirm_no_escalation(identity, namespace, rules)
    }

    fn authenticate(&self, headers: &HeaderMap, certificate: Option<Identity>) -> Result<Identity, Status> {
        let identity = match (certificate, headers.get(http::header::AUTHORIZATION)) {
            (Some(identity), _) => identity,
            (None, None) => Identity::anonymous(),
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

    fn review(&self, token: &str, audiences: &[String]) -> Option<(Identity, Vec<String>)> {
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
