//! The cluster's own certificate authority and what it signs.
//!
//! What it signs lives a year and is made anew before it ends: the server's certificate while the server runs, the
//! administrator's with its kubeconfig. The authority itself lives ten years, and signs itself again with the same key
//! when half of them are over, or the clock was set back to before them, so that who trusts it goes on doing so.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
};
use serde_json::json;

use super::{
    revocation::{self, ClientEpoch},
    subject,
};

/// Why the keys of the cluster cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate cannot be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// A stored key or certificate cannot be read.
    #[error("read {path}: it is damaged; remove it to have it made again")]
    Damaged {
        /// The file.
        path: String,
    },
    /// TLS cannot be set up with them.
    #[error("set up TLS: {0}")]
    Tls(String),
}

/// A certificate authority kept in a directory.
pub struct Pki {
    directory: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    clients: Arc<ClientEpoch>,
}

/// A certificate and its key, PEM.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// How long what the authority signs is valid.
const LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How long the authority is.
const AUTHORITY: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// When what is made now should be made anew: long before it ends, so that a machine that sleeps for months wakes with
/// a valid one.
fn renewal(made: Timestamp) -> Timestamp {
    made.saturating_add(LIFE * 2 / 3).unwrap_or(Timestamp::MAX)
}

/// Whether what was made then is to be made anew now: most of its life is over, or the clock was set back to before it.
pub fn is_due(made: Timestamp, now: Timestamp) -> bool {
    now >= renewal(made) || now < made.saturating_sub(subject::BACKDATED).unwrap_or(Timestamp::MIN)
}

fn validity(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    let from = now.saturating_sub(subject::BACKDATED).unwrap_or(now);
    let to = now.saturating_add(life).unwrap_or(now);
    let date = |at: Timestamp| {
        let at = TimeZone::UTC.to_datetime(at);
        let number = |part: i8| u8::try_from(part).unwrap_or(1);
        let seconds = i64::from(at.hour()) * 3600 + i64::from(at.minute()) * 60 + i64::from(at.second());
        let of_day = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        rcgen::date_time_ymd(i32::from(at.year()), number(at.month()), number(at.day())) + of_day
    };
    params.not_before = date(from);
    params.not_after = date(to);
}

impl Pki {
    /// Opens the authority in `directory`, making it where there is none and making its certificate anew when half of
    /// its time is over, or when it is damaged: the key alone is what others trust.
    ///
    /// # Errors
    /// When its files cannot be written, or are damaged.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, PkiError> {
        fs::create_dir_all(directory)
            .map_err(|source| PkiError::File { path: directory.display().to_string(), source })?;
        let (ca_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !key_path.exists() {
            write(&key_path, &KeyPair::generate()?.serialize_pem(), 0o600)?;
        }
        let damaged = |path: &Path| PkiError::Damaged { path: path.display().to_string() };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|_| damaged(&key_path))?;
        let kept = whole_certificate(&ca_path, &key);
        if kept.is_none() && ca_path.exists() {
            tracing::warn!(path = %ca_path.display(), "it was damaged and is made anew, with the same key");
        }
        let ca_pem = match kept {
            Some((pem, valid)) if valid.from <= now && valid.to.duration_since(now) >= AUTHORITY / 2 => pem,
            _ => {
                let pem = ca_params(now).self_signed(&key)?.pem();
                write(&ca_path, &pem, 0o644)?;
                pem
            }
        };
        let issuer = Issuer::new(ca_params(now), key);
        let clients = Arc::new(ClientEpoch::new(directory.join("clients-valid-from")));
        Ok(Self { directory: directory.to_owned(), ca_pem, issuer, clients })
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Since when client certificates count.
    pub fn clients(&self) -> Arc<ClientEpoch> {
        self.clients.clone()
    }

    /// Makes every client certificate that was given out until now void, also for who runs on this directory.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn revoke_clients(&self, now: Timestamp) -> Result<(), PkiError> {
        // Certificates count whole seconds: what was made in this one is void, too.
        let from = now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now);
        write(self.clients.path(), &revocation::text(from), 0o600)
    }

    /// The key that signs ServiceAccount tokens, PEM; made at first use.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn token_key_pem(&self) -> Result<String, PkiError> {
        let path = self.directory.join("sa.key");
        if !path.exists() {
            write(&path, &KeyPair::generate()?.serialize_pem(), 0o600)?;
        }
        read(&path)
    }

    fn sign(&self, mut params: CertificateParams, now: Timestamp) -> Result<Signed, PkiError> {
        validity(&mut params, now, LIFE);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A client certificate for `user` in `group`, PEM certificate and key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, group: &str, now: Timestamp) -> Result<(String, String), PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // A clock that was set back must not make the new one void.
        let signed = self.sign(params, now.max(self.clients.from().unwrap_or(now)))?;
        Ok((signed.certificate, signed.key))
    }

    /// A certificate of the server's own for `names`: host names and addresses.
    pub(super) fn server(&self, names: &[String], now: Timestamp) -> Result<Signed, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        self.sign(presented(params, names)?, now)
    }

    /// A certificate and its key, PEM, for a Service to present under `names`.
    ///
    /// # Errors
    /// When a name is none, or it cannot be made.
    pub fn service(&self, names: &[String], now: Timestamp) -> Result<(String, String), PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "local");
        let signed = self.sign(presented(params, names)?, now)?;
        Ok((signed.certificate, signed.key))
    }

    /// Whether a certificate, PEM, is one of this authority's for `names` that is not to be made anew yet.
    pub fn vouches(&self, certificate: &str, names: &[String], now: Timestamp) -> bool {
        let Some((der, validity)) = whole(certificate, self.issuer.key()) else { return false };
        let Ok(parsed) = ParsedCertificate::try_from(&der) else { return false };
        let is_for = |name: &String| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        !is_due(subject::made(&validity), now) && names.iter().all(is_for)
    }
}

/// Of a server with these names: host names and addresses.
fn presented(mut params: CertificateParams, names: &[String]) -> Result<CertificateParams, PkiError> {
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn ca_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "knoll-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, now, AUTHORITY);
    params
}

/// The authority's certificate as it is kept, and when it is valid, where each of its bytes is what the key signed.
fn whole_certificate(path: &Path, key: &KeyPair) -> Option<(String, subject::Validity)> {
    let pem = fs::read_to_string(path).ok()?;
    let (_, validity) = whole(&pem, key)?;
    Some((pem, validity))
}

/// A certificate and when it is valid, where each of its bytes is what the key signed.
fn whole(pem: &str, key: &KeyPair) -> Option<(CertificateDer<'static>, subject::Validity)> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (signed, signature) = subject::signed(&der)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key_raw());
    public.verify(signed, signature).ok()?;
    let validity = subject::validity(&der)?;
    Some((der, validity))
}

/// Writes a file whole or not at all, and so that it stays.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let fail = |source| PkiError::File { path: path.display().to_string(), source };
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(fail)?;
    io::Write::write_all(&mut file, content.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)?;
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|directory| directory.sync_all()).map_err(fail)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File { path: path.display().to_string(), source })
}

/// A kubeconfig, JSON (which is YAML), for `server` with a client certificate.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, certificate: &str, key: &str) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "knoll",
        "clusters": [{"name": "knoll", "cluster": {"server": server, "certificate-authority-data": encode(ca_pem)}}],
        "contexts": [{"name": "knoll", "context": {"cluster": "knoll", "user": user}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(certificate),
            "client-key-data": encode(key),
        }}],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_changed_byte_in_a_key_is_named_and_one_in_the_authoritys_certificate_is_mended() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = at("2026-03-01T00:00:00Z");
        let pki = Pki::open(directory.path(), now).expect("opens");
        pki.token_key_pem().expect("is made");
        let key = KeyPair::from_pem(&read(&directory.path().join("ca.key")).expect("reads")).expect("is one");
        let first = CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).expect("is PEM").to_vec();
        let open = || -> Result<Pki, PkiError> {
            let pki = Pki::open(directory.path(), now)?;
            crate::auth::TokenKey::from_pem(&pki.token_key_pem()?, "https://issuer")?;
            Ok(pki)
        };
        for name in ["ca.crt", "ca.key", "sa.key"] {
            let path = directory.path().join(name);
            let whole = fs::read(&path).expect("reads");
            for place in (0..whole.len()).step_by(5) {
                let mut damaged = whole.clone();
                damaged[place] ^= 1;
                fs::write(&path, &damaged).expect("writes");
                match open() {
                    Err(error) => assert!(error.to_string().contains(name) && name != "ca.crt", "{place}: {error}"),
                    Ok(pki) => {
                        let (_, valid) = whole_certificate(&directory.path().join("ca.crt"), &key).expect("is whole");
                        assert!(valid.to > now && pki.ca_pem().contains("CERTIFICATE"), "{name} {place}");
                    }
                }
                fs::write(&path, &whole).expect("writes");
            }
        }
        // What is lost is made again with the same key.
        fs::remove_file(directory.path().join("ca.crt")).expect("goes");
        open().expect("is made anew");
        let (again, _) = whole_certificate(&directory.path().join("ca.crt"), &key).expect("is whole");
        let again = CertificateDer::from_pem_slice(again.as_bytes()).expect("is PEM").to_vec();
        let name = |der: &[u8]| subject::user_of_certificate(der).map(|identity| identity.user);
        assert_eq!(name(&again), name(&first));
    }

    #[test]
    fn a_first_start_in_the_future_is_forgotten_once_the_clock_is_right() {
        let directory = tempfile::tempdir().expect("a directory");
        let (ahead, now) = (at("2028-01-01T00:00:00Z"), at("2026-11-29T00:00:00Z"));
        let key = Pki::open(directory.path(), ahead).expect("opens").issuer.key().serialize_pem();
        let pki = Pki::open(directory.path(), now).expect("opens");
        assert_eq!(pki.issuer.key().serialize_pem(), key, "who trusts it goes on");
        let from = |pem: &str| {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("is PEM");
            subject::validity(&der).expect("says so").from
        };
        assert!(from(pki.ca_pem()) <= now);
        assert!(is_due(ahead, now) && !is_due(now, now));
        let (certificate, _) = pki.client("someone", "group", now).expect("is made");
        assert!(from(&certificate) <= now);
    }

    #[test]
    fn what_a_client_holds_is_made_anew_months_before_it_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = at("2026-03-01T00:00:00Z");
        let pki = Pki::open(directory.path(), made).expect("opens");
        let (certificate, _) = pki.client("kubernetes-admin", "system:masters", made).expect("signs");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is PEM");
        let ends = subject::validity(&der).expect("has one").to;
        assert!(
            renewal(made) > at("2026-06-01T00:00:00Z") && renewal(made) < ends - SignedDuration::from_hours(90 * 24)
        );
    }

    #[test]
    fn a_services_certificate_is_vouched_for_until_it_is_due_and_for_its_names_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = at("2026-03-01T00:00:00Z");
        let pki = Pki::open(directory.path(), made).expect("opens");
        let names = ["a.ns.svc", "a.ns.svc.cluster.local"].map(str::to_owned);
        let (certificate, _) = pki.service(&names, made).expect("is made");
        assert!(pki.vouches(&certificate, &names, made));
        assert!(pki.vouches(&certificate, &names[..1], at("2026-10-01T00:00:00Z")));
        assert!(!pki.vouches(&certificate, &names, at("2026-12-01T00:00:00Z")), "it is to be made anew");
        assert!(!pki.vouches(&certificate, &names, at("2026-01-01T00:00:00Z")), "the clock was set back");
        assert!(!pki.vouches(&certificate, &["b.ns.svc".to_owned()], made));
        assert!(!pki.vouches("", &names, made));
        let other = tempfile::tempdir().expect("a directory");
        let other = Pki::open(other.path(), made).expect("opens");
        assert!(!other.vouches(&certificate, &names, made), "another authority");
    }

    #[test]
    fn an_authority_is_the_same_after_a_restart_and_new_before_it_ends() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Pki::open(directory.path(), at("2026-03-01T00:00:00Z")).expect("opens");
        let again = Pki::open(directory.path(), at("2027-03-01T00:00:00Z")).expect("opens");
        assert_eq!(first.ca_pem(), again.ca_pem());
        let later = Pki::open(directory.path(), at("2032-03-01T00:00:00Z")).expect("opens");
        assert_ne!(first.ca_pem(), later.ca_pem());
        let der = CertificateDer::from_pem_slice(later.ca_pem().as_bytes()).expect("is PEM");
        assert!(subject::validity(&der).expect("has one").to > at("2042-01-01T00:00:00Z"));
        // Who trusts the first trusts what the later one signs: name and key are the same.
        let (certificate, _) = later.client("jane", "ops", at("2032-03-01T00:00:00Z")).expect("signs");
        let leaf = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is PEM");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(first.ca_pem().as_bytes()).expect("is PEM")).expect("is one");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(
            u64::try_from(at("2032-03-02T00:00:00Z").as_second()).expect("after 1970"),
        ));
        verifier.build().expect("is set up").verify_client_cert(&leaf, &[], now).expect("is trusted");
    }
}
