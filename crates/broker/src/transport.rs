//! How events travel: whether http and https are answered, which certificates are presented, and whom deliveries trust.
//!
//! Controllers say it, and what they say counts from the next request, handshake or connection on: what is open goes on.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use knoll_api::config::eventing::TransportEncryption;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::topology::Names;

/// By what a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// http.
    Plain,
    /// https.
    Tls,
}

/// Why a certificate cannot be presented.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate is none.
    #[error("tls.crt is no certificate: {0}")]
    Certificate(String),
    /// The key is none.
    #[error("tls.key is no private key: {0}")]
    Key(String),
    /// They do not go together.
    #[error("tls.key cannot be used with tls.crt: {0}")]
    Mismatch(String),
}

/// Certificates that are trusted besides the machine's own. Told apart by identity: what is set anew is another.
pub(crate) type Trusted = Arc<[CertificateDer<'static>]>;

/// See the module. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    encryption: RwLock<TransportEncryption>,
    /// By the Service that presents it.
    certificates: RwLock<BTreeMap<&'static str, Arc<CertifiedKey>>>,
    trusted: RwLock<Trusted>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            names: Names::default(),
            encryption: RwLock::default(),
            certificates: RwLock::default(),
            trusted: RwLock::new(Arc::from([])),
        }
    }
}

impl Transport {
    /// Plain, without certificates, trusting whom the machine trusts. Certificates go by the hosts of these names.
    pub fn new(names: Names) -> Self {
        Self { inner: Arc::new(Inner { names, ..Inner::default() }) }
    }

    /// Says whether http and https are answered.
    pub fn encrypt(&self, encryption: TransportEncryption) {
        *self.inner.encryption.write().unwrap_or_else(PoisonError::into_inner) = encryption;
    }

    /// Presents this certificate, with what else its chain has, where a Service of Eventing is asked for; PEM.
    ///
    /// # Errors
    /// When they are none, or do not belong together; what was presented before still is.
    pub fn present(&self, service: &'static str, certificate: &[u8], key: &[u8]) -> Result<(), CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| CertificateError::Certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(CertificateError::Certificate("it holds no PEM block CERTIFICATE".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let certified = certified.map_err(|error| CertificateError::Mismatch(error.to_string()))?;
        let mut certificates = self.inner.certificates.write().unwrap_or_else(PoisonError::into_inner);
        certificates.insert(service, Arc::new(certified));
        Ok(())
    }

    /// Has deliveries trust the certificates of these bundles, PEM, besides the machine's own and those of the destination.
    /// What of them is no certificate is passed over, as upstream.
    pub fn trust<'b>(&self, bundles: impl IntoIterator<Item = &'b [u8]>) {
        let trusted: Trusted = bundles.into_iter().flat_map(certificates).collect();
        let mut before = self.inner.trusted.write().unwrap_or_else(PoisonError::into_inner);
        if *before != trusted {
            *before = trusted;
        }
    }

    pub(crate) fn trusted(&self) -> Trusted {
        self.inner.trusted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what comes by this is answered.
    pub(crate) fn answers(&self, wire: Wire) -> bool {
        let encryption = *self.inner.encryption.read().unwrap_or_else(PoisonError::into_inner);
        match wire {
            Wire::Plain => encryption != TransportEncryption::Strict,
            Wire::Tls => encryption != TransportEncryption::Disabled,
        }
    }

    /// What shakes hands with senders: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has their cipher suites");
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Presenting(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// The certificates of a bundle. One that is broken takes none of the others along.
fn certificates(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    let text = String::from_utf8_lossy(bundle);
    let blocks = text.split_inclusive("-----END CERTIFICATE-----");
    blocks.filter_map(|block| CertificateDer::from_pem_slice(block.as_bytes()).ok()).collect()
}

/// Chooses certificates by the host that a sender asks for.
#[derive(Debug)]
struct Presenting(Transport);

impl ResolvesServerCert for Presenting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let inner = &self.0.inner;
        let service = inner.names.presenter(hello.server_name().unwrap_or_default());
        inner.certificates.read().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_follows_the_feature() {
        let transport = Transport::default();
        let answered = |encryption| {
            transport.encrypt(encryption);
            (transport.answers(Wire::Plain), transport.answers(Wire::Tls))
        };
        assert_eq!(answered(TransportEncryption::Disabled), (true, false));
        assert_eq!(answered(TransportEncryption::Permissive), (true, true));
        assert_eq!(answered(TransportEncryption::Strict), (false, true));
    }

    #[test]
    fn what_cannot_be_presented_is_named() {
        let transport = Transport::default();
        let made = || rcgen::generate_simple_self_signed(vec!["a".to_owned()]).expect("a certificate");
        let (one, other) = (made(), made());
        let (pem, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let refused = |certificate: &str, key: &str| {
            let error = transport.present("broker-ingress", certificate.as_bytes(), key.as_bytes());
            error.expect_err("it cannot be used").to_string()
        };
        assert!(refused("", &key).starts_with("tls.crt is no certificate: "));
        assert!(refused(&pem, "").starts_with("tls.key is no private key: "));
        assert!(refused(&pem, &other.signing_key.serialize_pem()).starts_with("tls.key cannot be used with tls.crt: "));
        assert_eq!(transport.present("broker-ingress", pem.as_bytes(), key.as_bytes()), Ok(()));
    }

    #[test]
    fn bundles_are_read_as_far_as_they_are_certificates_and_are_new_when_they_differ() {
        let pem =
            |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate").cert.pem();
        let broken = "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n";
        let (one, two) = (pem("a"), format!("# a comment\n{broken}{}-----BEGIN CERTIFICATE-----\n%\n", pem("b")));
        let transport = Transport::default();
        transport.trust([one.as_bytes(), two.as_bytes()]);
        let first = transport.trusted();
        assert_eq!(first.len(), 2);
        transport.trust([one.as_bytes(), two.as_bytes()]);
        assert!(Arc::ptr_eq(&first, &transport.trusted()), "connections go on");
        transport.trust([one.as_bytes()]);
        assert_eq!(transport.trusted().len(), 1);
    }
}
