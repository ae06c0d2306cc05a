//! The server's certificate, made anew while the server runs.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{
    certificates::{Pki, PkiError, is_due},
    revocation::Verifier,
};

/// The certificate at this moment.
struct Held {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    made: Timestamp,
}

/// Answers every handshake with the newest certificate.
#[derive(Clone)]
pub struct ServingCertificate(Arc<Resolver>);

struct Resolver(RwLock<Held>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls(error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Tls(error.to_string())
}

fn hold(pki: &Pki, names: &[String], now: Timestamp) -> Result<Held, PkiError> {
    let signed = pki.server(names, now)?;
    let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).map_err(|e| tls(&e))?;
    let leaf = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).map_err(|e| tls(&e))?;
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).map_err(|e| tls(&e))?;
    let key = CertifiedKey::from_der(vec![leaf, ca], key, &provider()).map_err(|e| tls(&e))?;
    Ok(Held { key: Arc::new(key), names: names.to_vec(), made: now })
}

impl ServingCertificate {
    /// A first certificate for `names`: host names and addresses.
    ///
    /// # Errors
    /// When a name is none, or the certificate cannot be made.
    pub fn new(pki: &Pki, names: &[String], now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self(Arc::new(Resolver(RwLock::new(hold(pki, names, now)?)))))
    }

    /// Makes a new one when the time for it has come, or the names have changed; whether it did. Connections that are
    /// open keep the one they began with.
    ///
    /// # Errors
    /// When it cannot be made; the old one stays.
    pub fn renew(&self, pki: &Pki, names: &[String], now: Timestamp) -> Result<bool, PkiError> {
        let due = {
            let held = self.0.0.read().unwrap_or_else(PoisonError::into_inner);
            is_due(held.made, now) || held.names != names
        };
        if due {
            let new = hold(pki, names, now)?;
            *self.0.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(due)
    }

    /// A TLS configuration with this certificate: client certificates of the same authority are accepted but not
    /// required, those that are void are refused, HTTP/2 and HTTP/1.1 are spoken.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn tls(&self, pki: &Pki) -> Result<ServerConfig, PkiError> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).map_err(|e| tls(&e))?;
        roots.add(ca).map_err(|e| tls(&e))?;
        let known = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(Arc::new(Verifier::new(known, pki.clients())))
            .with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::subject;

    #[test]
    fn a_certificate_is_renewed_before_it_ends_and_when_names_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
        let start = at("2026-03-01T00:00:00Z");
        let pki = Pki::open(directory.path(), start).expect("opens");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let serving = ServingCertificate::new(&pki, &names, start).expect("is made");
        let ends = || {
            let held = serving.0.0.read().expect("is free");
            subject::validity(held.key.cert.first().expect("a leaf")).expect("has one").to
        };
        let first = ends();
        assert!(!serving.renew(&pki, &names, at("2026-06-01T00:00:00Z")).expect("is asked"));
        assert!(serving.renew(&pki, &names, at("2026-12-01T00:00:00Z")).expect("is made"));
        assert!(ends() > first && first > at("2027-01-01T00:00:00Z"));
        assert!(serving.renew(&pki, &names[..1], at("2026-12-02T00:00:00Z")).expect("is made"));
        serving.tls(&pki).expect("TLS is set up");
    }
}
