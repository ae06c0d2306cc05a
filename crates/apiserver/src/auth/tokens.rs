//! ServiceAccount tokens.

use jiff::Timestamp;
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};

use super::{PkiError, jwt::Signer, subject::BACKDATED};
use crate::{
    attributes::UserInfo,
    authority::{Token, TokenOrder},
};

/// Shortest life of a token, seconds (as upstream).
const SHORTEST: i64 = 600;
/// Longest life of a token, seconds: the `2^32` upstream accepts.
const LONGEST: i64 = 1 << 32;

/// Makes and reads ServiceAccount tokens.
pub struct TokenKey {
    signer: Signer,
    issuer: String,
}

/// What a valid token says.
pub(crate) struct Bearer {
    pub(crate) identity: UserInfo,
    pub(super) audiences: Vec<String>,
    /// uid of the ServiceAccount.
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Plural, name and uid of the object it dies with.
    pub(super) bound: Option<(&'static str, String, String)>,
}

/// The bound objects a token may name, by claim and by resource.
const BINDABLE: &[(&str, &str)] = &[("pod", "pods"), ("secret", "secrets"), ("node", "nodes")];

impl TokenKey {
    /// From a PKCS #8 key in PEM; tokens are issued by `issuer`.
    ///
    /// # Errors
    /// When it is no such key.
    pub fn from_pem(pem: &str, issuer: impl Into<String>) -> Result<Self, PkiError> {
        let damaged = || PkiError::Damaged { path: "sa.key".into() };
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
        let signer = Signer::from_pkcs8(der.secret_pkcs8_der()).ok_or_else(damaged)?;
        Ok(Self { signer, issuer: issuer.into() })
    }

    /// Who issues the tokens; also the audience of those that name none.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn issue(&self, order: &TokenOrder, now: Timestamp, id: &str) -> Option<Token> {
        let seconds = order.expiration_seconds.clamp(SHORTEST, LONGEST);
        let (issued, expires) = (now.as_second(), now.as_second() + seconds);
        let audiences = if order.audiences.is_empty() { vec![self.issuer.clone()] } else { order.audiences.clone() };
        let mut private = json!({
            "namespace": order.namespace,
            "serviceaccount": {"name": order.name, "uid": order.uid},
        });
        if let Some((kind, name, uid)) = &order.bound_to {
            private[kind.to_lowercase()] = json!({"name": name, "uid": uid});
        }
        if let Some((name, uid)) = &order.node {
            private["node"] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "aud": audiences, "exp": expires, "iat": issued, "nbf": issued, "iss": self.issuer, "jti": id,
            "sub": format!("system:serviceaccount:{}:{}", order.namespace, order.name),
            "kubernetes.io": private,
        });
        let expires = Timestamp::from_second(expires).ok()?;
        Some(Token { token: self.signer.sign(&claims)?, expires, audiences })
    }

    pub(crate) fn read(&self, token: &str, now: Timestamp) -> Option<Bearer> {
        let claims = self.signer.verify(token)?;
        let now = now.as_second();
        // What it signed, this key signed before now, whatever a clock that was set back says.
        let begun = claims["nbf"].as_i64().unwrap_or(0) <= now + BACKDATED.as_secs();
        let current = claims["exp"].as_i64()? > now && begun;
        if !current || claims["iss"] != self.issuer.as_str() {
            return None;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let private = &claims["kubernetes.io"];
        let account = &private["serviceaccount"];
        let (namespace, name, uid) = (text(&private["namespace"])?, text(&account["name"])?, text(&account["uid"])?);
        let bound = BINDABLE.iter().find_map(|(claim, resource)| {
            let object = private.get(claim)?;
            Some((*resource, text(&object["name"])?, text(&object["uid"])?))
        });
        let mut identity = UserInfo::service_account(&namespace, &name);
        identity.uid.clone_from(&uid);
        identity.extra.insert(
            "authentication.kubernetes.io/credential-id".into(),
            vec![format!("JTI={}", claims["jti"].as_str().unwrap_or_default())],
        );
        for kind in ["pod", "node"] {
            for part in ["name", "uid"] {
                if let Some(value) = text(&private[kind][part]) {
                    identity.extra.insert(format!("authentication.kubernetes.io/{kind}-{part}"), vec![value]);
                }
            }
        }
        let audiences = claims["aud"].as_array()?.iter().filter_map(text).collect();
        Some(Bearer { identity, audiences, uid, namespace, name, bound })
    }

    /// The documents by which others verify the tokens (OpenID Connect Discovery 1.0).
    pub(super) fn document(&self, path: &str) -> Option<Value> {
        match path {
            "/.well-known/openid-configuration" => Some(json!({
                "issuer": self.issuer,
                "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            })),
            "/openid/v1/jwks" => Some(json!({"keys": [self.signer.public_key()]})),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Pki;

    fn key(directory: &std::path::Path) -> TokenKey {
        let pki = Pki::open(directory, Timestamp::UNIX_EPOCH).expect("opens");
        TokenKey::from_pem(&pki.token_key_pem().expect("a key"), "https://issuer").expect("is a key")
    }

    fn order() -> TokenOrder {
        TokenOrder {
            namespace: "default".into(),
            name: "robot".into(),
            uid: "u1".into(),
            expiration_seconds: 3607,
            bound_to: Some(("Pod".into(), "p".into(), "u2".into())),
            ..TokenOrder::default()
        }
    }

    #[test]
    fn a_token_says_whose_it_is_until_it_expires() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = key(directory.path());
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let token = key.issue(&order(), now, "id").expect("signs");
        assert_eq!(token.audiences, ["https://issuer"]);
        let bearer = key.read(&token.token, now).expect("is valid");
        assert_eq!(bearer.identity.user, "system:serviceaccount:default:robot");
        assert_eq!(bearer.bound, Some(("pods", "p".into(), "u2".into())));
        let later = Timestamp::from_second(1_800_003_608).expect("a time");
        assert!(key.read(&token.token, later).is_none());
        let set_back = Timestamp::from_second(1_800_000_000 - 86_400).expect("a time");
        assert!(key.read(&token.token, set_back).is_some());
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let token = key(one.path()).issue(&order(), now, "id").expect("signs").token;
        assert!(key(two.path()).read(&token, now).is_none());
        let changed = token.replacen('.', ".e", 1);
        assert!(key(one.path()).read(&changed, now).is_none());
    }
}
