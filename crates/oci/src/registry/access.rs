//! Who may ask the registry for what.
//!
//! Reading is open to this machine and its pods: what is here was given to the machine for everybody on it, and says
//! nothing of images that were pulled. Whoever changes something shows the machine's own credential, or a token that
//! the authority behind [`Authorize`] knows and allows. Requests that a web page made, or that are for a name that is
//! not the registry's, are refused, so that no page can ask through a browser.
//!
//! Tokens are given out the way registries do it (`WWW-Authenticate: Bearer realm=…`). Ours say no more than the
//! credential itself, so nothing is kept and a restart forgets nothing.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::json;

use super::{Answer, Body, Refusal, Registry, json as json_response};
use crate::Digest;

/// A change that somebody wants to make to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Store blobs, manifests and tags.
    Push,
    /// Take tags away.
    Delete,
}

/// What an authority says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token's owner may.
    Allowed,
    /// The token's owner may not; why.
    Forbidden(String),
    /// Nobody owns such a token.
    Unknown,
}

/// Knows tokens of others than the machine itself.
pub trait Authorize: Send + Sync {
    /// Whether somebody owns the token.
    fn knows(&self, token: &str) -> bool;

    /// Whether the token's owner may change a repository.
    fn authorize(&self, token: &str, action: Action, repository: &str) -> Verdict;
}

/// Who may do what at a registry.
#[derive(Clone, Default)]
pub struct RegistryPolicy {
    /// Names under which clients reach it, beside its addresses and `localhost`.
    pub names: Vec<String>,
    /// The user and the password of the machine itself. Without a password nobody is the machine.
    pub machine: (String, String),
    /// Knows others.
    pub authority: Option<Arc<dyn Authorize>>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// This machine or one of its pods: it may read.
    Local,
    /// Another machine: it says who it is, even to read.
    Remote,
}

/// The token of whoever says nothing of themselves.
const ANONYMOUS: &str = "anonymous";
/// How long a client may take a token for good, in seconds.
const TOKEN_SECONDS: u32 = 300;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Nobody,
    Machine,
    Token(String),
}

/// Compares in a time that says nothing of where they differ.
fn same(one: &str, other: &str) -> bool {
    !one.is_empty() && Digest::of(one.as_bytes()) == Digest::of(other.as_bytes())
}

/// The user and the password, or the token, that a request shows.
enum Shown {
    Nothing,
    Basic(String, String),
    Bearer(String),
    Unreadable,
}

fn shown(headers: &HeaderMap) -> Shown {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Shown::Nothing };
    let Some((scheme, rest)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Shown::Unreadable;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return Shown::Bearer(rest.trim().to_owned());
    }
    let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) if scheme.eq_ignore_ascii_case("basic") => Shown::Basic(user.into(), password.into()),
        _ => Shown::Unreadable,
    }
}

/// A host without its port, without the brackets of an address.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

impl Registry {
    fn known(&self, token: &str) -> bool {
        self.policy.authority.as_ref().is_some_and(|authority| authority.knows(token))
    }

    /// Who asks; an error when they show something that is nobody's.
    pub(super) fn caller(&self, parts: &Parts) -> Result<Caller, Refusal> {
        let (user, password) = &self.policy.machine;
        let wrong = || self.challenged(parts, "the user name, password or token is wrong");
        match shown(&parts.headers) {
            Shown::Nothing => Ok(Caller::Nobody),
            // What clients without credentials send when they were asked for some.
            Shown::Basic(user, password) if user.is_empty() && password.is_empty() => Ok(Caller::Nobody),
            Shown::Basic(name, secret) if same(&name, user) && same(&secret, password) => Ok(Caller::Machine),
            Shown::Basic(_, secret) if self.known(&secret) => Ok(Caller::Token(secret)),
            Shown::Bearer(token) if token == ANONYMOUS => Ok(Caller::Nobody),
            Shown::Bearer(token) if same(&token, password) => Ok(Caller::Machine),
            Shown::Bearer(token) if self.known(&token) => Ok(Caller::Token(token)),
            _ => Err(wrong()),
        }
    }

    /// Gives out a token for the credentials shown.
    pub(super) fn token(&self, parts: &Parts) -> Answer {
        let token = match self.caller(parts)? {
            Caller::Nobody => ANONYMOUS.to_owned(),
            Caller::Machine => self.policy.machine.1.clone(),
            Caller::Token(token) => token,
        };
        let body = json!({"token": token, "access_token": token, "expires_in": TOKEN_SECONDS});
        let mut response = json_response(StatusCode::OK, body.to_string());
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Lets nobody through but who may make a change.
    pub(super) fn may(&self, parts: &Parts, action: Action, repository: &str) -> Result<(), Refusal> {
        match self.caller(parts)? {
            Caller::Machine => Ok(()),
            Caller::Nobody => Err(self.challenged(parts, "who pushes or deletes must log in")),
            Caller::Token(token) => {
                let authority = self.policy.authority.as_ref();
                match authority.map_or(Verdict::Unknown, |authority| authority.authorize(&token, action, repository)) {
                    Verdict::Allowed => Ok(()),
                    Verdict::Forbidden(why) => Err(Refusal::denied(why)),
                    Verdict::Unknown => Err(self.challenged(parts, "the token is nobody's")),
                }
            }
        }
    }

    /// Lets nobody through but who may read.
    pub(super) fn may_read(&self, parts: &Parts, side: Locality) -> Result<(), Refusal> {
        match (self.caller(parts)?, side) {
            (Caller::Nobody, Locality::Remote) => Err(self.challenged(parts, "who is not on this machine must log in")),
            _ => Ok(()),
        }
    }

    /// The API's root tells clients whether to log in. Those who show nothing are sent to get a token, so that all of
    /// them learn where; whoever needs none gets the one for nobody.
    pub(super) fn root(&self, parts: &Parts, side: Locality) -> Answer {
        if matches!(shown(&parts.headers), Shown::Nothing) {
            return Err(self.challenged(parts, "authentication required"));
        }
        self.may_read(parts, side)?;
        Ok(json_response(StatusCode::OK, "{}"))
    }

    fn challenged(&self, parts: &Parts, why: &str) -> Refusal {
        let host = host_of(parts).unwrap_or_else(|| self.host());
        Refusal::unauthorized(why, format!("Bearer realm=\"http://{host}/token\",service=\"knoll\""))
    }

    /// Refuses what a browser sent for a web page, and what is for another host.
    pub(super) fn check_sender(&self, parts: &Parts) -> Result<(), Refusal> {
        let of_page = ["origin", "sec-fetch-site", "sec-fetch-mode"];
        if of_page.iter().any(|name| parts.headers.contains_key(*name)) {
            return Err(Refusal::denied("web pages may not use the registry"));
        }
        let host = host_of(parts).ok_or_else(|| Refusal::denied("the request names no host"))?;
        let name = host_name(&host);
        let ours = self.store.inner.config.registry_hosts.iter().map(|host| host_name(host));
        let mut ours = ours.chain(self.policy.names.iter().map(String::as_str));
        // An address is never another's name; a name that leads here may be.
        if name == "localhost" || name.parse::<IpAddr>().is_ok() || ours.any(|our| our.eq_ignore_ascii_case(name)) {
            return Ok(());
        }
        Err(Refusal::denied(format!("{name:?} is not a name of this registry: use localhost or an address")))
    }
}

/// The host that a request is for, if it is one that may stand in a header of ours.
fn host_of(parts: &Parts) -> Option<String> {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))?;
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(sound)).then(|| host.to_owned())
}

pub(super) fn challenge(mut response: Response<Body>, value: &str) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::host_name;

    #[test]
    fn a_host_is_known_without_its_port() {
        for (host, name) in [
            ("localhost:5000", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:5000", "::1"),
            ("::1", "::1"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("evil.example:x", "evil.example:x"),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
