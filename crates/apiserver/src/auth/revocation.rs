//! Since when client certificates count: those given out before are void.
//!
//! A file of the authority's directory, `clients-valid-from`: a line with a time, and one with a checksum of the first,
//! which may be left out by who writes it by hand. It is read again each second, so that access ends for connections that
//! are open, too, without a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::subject;

/// How long what was read counts.
const FRESH: Duration = Duration::from_secs(1);

/// What the file said.
#[derive(Clone, Copy)]
struct Known {
    read: Instant,
    /// `None` for no bound; the end of time where the file cannot be understood.
    from: Option<Timestamp>,
}

/// Since when client certificates count.
pub struct ClientEpoch {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

/// The file's text.
pub(super) fn text(from: Timestamp) -> String {
    let time = crate::object::seconds(from);
    let check = crc32fast::hash(time.as_bytes());
    format!("{time}\ncrc32 {check:08x}\n")
}

fn parse(text: &str) -> Option<Timestamp> {
    let (time, check) = text.trim_end().split_once('\n').map_or((text.trim(), None), |(a, b)| (a, Some(b)));
    let whole = check.is_none_or(|check| check == format!("crc32 {:08x}", crc32fast::hash(time.as_bytes())));
    time.parse().ok().filter(|_| whole)
}

impl ClientEpoch {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The time before which certificates are void.
    pub(super) fn from(&self) -> Option<Timestamp> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *known
            && known.read.elapsed() < FRESH
        {
            return known.from;
        }
        let before = known.and_then(|known| known.from);
        let from = match fs::read_to_string(&self.path) {
            Ok(text) => Some(parse(&text).unwrap_or_else(|| {
                // Nobody is let in on a guess.
                tracing::error!(path = %self.path.display(), "damaged: client certificates are refused: write a time");
                Timestamp::MAX
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "what was known of client certificates stays");
                before
            }
        };
        *known = Some(Known { read: Instant::now(), from });
        from
    }

    /// Whether a certificate that was made at `made` counts.
    pub(super) fn accepts(&self, made: Timestamp) -> bool {
        self.from().is_none_or(|from| made >= from)
    }
}

/// When a certificate was made.
fn made(certificate: &[u8]) -> Option<Timestamp> {
    subject::validity(certificate).map(|validity| subject::made(&validity))
}

/// Refuses, besides what another verifier refuses, what is void.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    clients: Arc<ClientEpoch>,
}

impl std::fmt::Debug for ClientEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientEpoch").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, clients: Arc<ClientEpoch>) -> Self {
        Self { inner, clients }
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        let counts = made(end_entity).is_some_and(|made| self.clients.accepts(made));
        if counts { Ok(verified) } else { Err(Error::InvalidCertificate(CertificateError::Revoked)) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::auth::Pki;

    #[test]
    fn what_was_given_out_before_is_void_and_what_comes_after_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        let pki = Pki::open(directory.path(), now).expect("opens");
        let made_of = |pki: &Pki, at| {
            let (certificate, _) = pki.client("jane", "ops", at).expect("signs");
            made(&CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is PEM")).expect("says when")
        };
        let old = made_of(&pki, now);
        assert_eq!(old, now);
        assert!(pki.clients().accepts(old));
        pki.revoke_clients(now).expect("is written");
        // Another process, or the same after a second.
        let pki = Pki::open(directory.path(), now).expect("opens");
        assert!(!pki.clients().accepts(old));
        assert!(pki.clients().accepts(made_of(&pki, now)), "one made in the same second, or with the clock set back");
    }

    #[test]
    fn a_file_that_says_nothing_lets_nobody_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("clients-valid-from");
        fs::write(&path, "yesterday").expect("is written");
        assert!(!ClientEpoch::new(path).accepts(Timestamp::now()));
        // A changed byte is found, wherever it is; a line that somebody wrote by hand counts.
        let whole = text("2026-03-01T12:00:00Z".parse().expect("a time"));
        assert!(parse(&whole).is_some() && parse("2026-03-01T12:00:00Z\n").is_some());
        for at in 0..whole.trim_end().len() {
            let mut damaged = whole.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(parse(std::str::from_utf8(&damaged).expect("is text")), None, "byte {at}");
        }
        assert!(ClientEpoch::new(directory.path().join("none")).accepts(Timestamp::MIN));
    }
}
