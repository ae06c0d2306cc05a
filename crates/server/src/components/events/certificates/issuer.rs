//! Decides what is in the Secret of a certificate. One that somebody else made or changed is used as it is.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use knoll_api::Key;
use knoll_apiserver::auth::{Pki, PkiError};
use knoll_broker::topology::Names;
use serde_json::{Value, json};

/// Annotation of a Secret that was made here: the end of its certificate, by which one that somebody put in its place is
/// told from it.
const MADE: &str = "knoll.dev/certificate";
/// Characters of it: more than a collision by chance has.
const MARK: usize = 64;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// See the module.
pub(super) struct Issuer {
    pub(super) pki: Arc<Pki>,
    pub(super) names: Names,
}

/// A Secret that is to hold a certificate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) secret: Key,
    /// The Service that presents the certificate, in the Secret's namespace.
    pub(super) service: String,
    /// Who the Secret goes with, if with anybody.
    pub(super) owner: Option<Value>,
}

impl Issuer {
    /// The Secret that is to take the place of the one there is; nothing where that is to stay.
    pub(super) fn wanted(
        &self,
        held: Option<&Secret>,
        place: &Wanted,
        now: Timestamp,
    ) -> Result<Option<Secret>, PkiError> {
        let Names { system_namespace, cluster_domain } = &self.names;
        let host = format!("{}.{}.svc", place.service, place.secret.namespace);
        let hosts = [format!("{host}.{cluster_domain}"), host];
        if held.is_some_and(|held| !is_made_here(held) || self.is_current(held, &hosts, now)) {
            return Ok(None);
        }
        let (certificate, key) = self.pki.service(&hosts, now)?;
        let metadata = json!({
            "name": place.secret.name,
            "namespace": place.secret.namespace,
            "resourceVersion": held.and_then(|held| held.metadata.resource_version.as_deref()),
            "labels": {"app.kubernetes.io/name": system_namespace, "app.kubernetes.io/component": place.service},
            "annotations": {MADE: mark(&certificate)},
            "ownerReferences": place.owner.iter().collect::<Vec<_>>(),
        });
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let entries = [(CERTIFICATE, &*certificate), (KEY, &*key), (AUTHORITY, self.pki.ca_pem())];
        Ok(Some(Secret {
            metadata: serde_json::from_value(metadata).expect("metadata by the book"),
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(entries.map(|(name, text)| (name.to_owned(), bytes(text))).into()),
            ..Secret::default()
        }))
    }

    /// Whether a Secret that was made here is as it is to be.
    fn is_current(&self, held: &Secret, hosts: &[String], now: Timestamp) -> bool {
        let certificate = entry(held, CERTIFICATE).unwrap_or_default();
        entry(held, KEY).is_some_and(|key| !key.is_empty())
            && entry(held, AUTHORITY) == Some(self.pki.ca_pem())
            && self.pki.vouches(certificate, hosts, now)
    }
}

fn entry<'s>(secret: &'s Secret, name: &str) -> Option<&'s str> {
    std::str::from_utf8(&secret.data.as_ref()?.get(name)?.0).ok()
}

fn is_made_here(secret: &Secret) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let made = annotations.and_then(|annotations| annotations.get(MADE));
    made.is_some_and(|made| entry(secret, CERTIFICATE).map(mark).as_ref() == Some(made))
}

/// By what a certificate's text is told from another: the end of it, which is of its signature.
fn mark(certificate: &str) -> String {
    let lines = certificate.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let text: Vec<char> = lines.flat_map(str::chars).collect();
    text[text.len().saturating_sub(MARK)..].iter().collect()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use knoll_api::eventing::services::{BROKER_INGRESS, BROKER_INGRESS_SECRET};

    use super::*;

    fn issuer(directory: &std::path::Path, now: Timestamp) -> Issuer {
        Issuer { pki: Arc::new(Pki::open(directory, now).expect("keys")), names: Names::default() }
    }

    fn wanted(issuer: &Issuer, held: Option<&Secret>, now: Timestamp) -> Option<Secret> {
        let secret = Key::new("knative-eventing", BROKER_INGRESS_SECRET);
        let place = Wanted { secret, service: BROKER_INGRESS.to_owned(), owner: None };
        issuer.wanted(held, &place, now).expect("a certificate")
    }

    #[test]
    fn a_secret_is_made_kept_and_made_anew_before_it_ends() {
        let (directory, now) = (tempfile::tempdir().expect("a directory"), Timestamp::now());
        let issuer = issuer(directory.path(), now);
        let made = wanted(&issuer, None, now).expect("there is none");
        let shown = serde_json::to_value(&made).expect("JSON");
        assert_eq!(shown["type"], "kubernetes.io/tls");
        assert_eq!(shown["metadata"]["name"], "mt-broker-ingress-server-tls");
        assert_eq!(shown["metadata"]["labels"]["app.kubernetes.io/component"], "broker-ingress");
        assert_eq!(entry(&made, AUTHORITY), Some(issuer.pki.ca_pem()));
        let hosts = ["broker-ingress.knative-eventing.svc", "broker-ingress.knative-eventing.svc.cluster.local"];
        let vouched = issuer.pki.vouches(entry(&made, CERTIFICATE).expect("one"), &hosts.map(str::to_owned), now);
        assert!(vouched);
        assert!(wanted(&issuer, Some(&made), now).is_none(), "nothing is due");
        let later = now + SignedDuration::from_hours(300 * 24);
        let renewed = wanted(&issuer, Some(&made), later).expect("it is due");
        assert_ne!(renewed.data, made.data);
        let mut moved = issuer;
        moved.names.cluster_domain = "other.org".into();
        assert!(wanted(&moved, Some(&made), now).is_some(), "its names are others");
    }

    #[test]
    fn a_users_own_is_used_as_it_is() {
        let (directory, now) = (tempfile::tempdir().expect("a directory"), Timestamp::now());
        let issuer = issuer(directory.path(), now);
        let own = |data: Value| -> Secret { serde_json::from_value(json!({"data": data})).expect("a Secret") };
        assert!(wanted(&issuer, Some(&own(json!({}))), now).is_none());
        let mut replaced = wanted(&issuer, None, now).expect("there is none");
        let other = wanted(&issuer, None, now).expect("there is none");
        // As `kubectl apply` leaves it, which keeps annotations.
        replaced.data = other.data;
        assert!(wanted(&issuer, Some(&replaced), now).is_none());
        // A part of one that was made here is lost: it is mended.
        let mut broken = wanted(&issuer, None, now).expect("there is none");
        broken.data.as_mut().expect("data").remove(KEY);
        assert!(wanted(&issuer, Some(&broken), now).is_some());
    }
}
