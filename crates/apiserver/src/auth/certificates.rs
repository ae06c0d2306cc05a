//! The cluster's own certificate authority and what it signs.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;

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
}

/// A certificate and its key, PEM.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Validity: ten years; a single machine has nobody who rotates for it, and the server certificate is made
/// anew at every start.
const YEARS: i32 = 10;

fn validity(params: &mut CertificateParams, year: i32) {
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
}

impl Pki {
    /// Opens the authority in `directory`, making it where there is none. `year` is the current one.
    ///
    /// # Errors
    /// When its files cannot be written, or are damaged.
    pub fn open(directory: &Path, year: i32) -> Result<Self, PkiError> {
        fs::create_dir_all(directory)
            .map_err(|source| PkiError::File { path: directory.display().to_string(), source })?;
        let (ca_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let directory = directory.to_owned();
        if !ca_path.exists() {
            let made = make_ca(year)?;
            write(&key_path, &made.key, 0o600)?;
            write(&ca_path, &made.certificate, 0o644)?;
        }
        let ca_pem = read(&ca_path)?;
        let damaged = |path: &Path| PkiError::Damaged { path: path.display().to_string() };
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|_| damaged(&key_path))?;
        CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| damaged(&ca_path))?;
        let issuer = Issuer::new(ca_params(year), key);
        Ok(Self { directory, ca_pem, issuer })
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
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

    fn sign(&self, mut params: CertificateParams, year: i32) -> Result<Signed, PkiError> {
        validity(&mut params, year);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// A client certificate for `user` in `group`, PEM certificate and key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, group: &str, year: i32) -> Result<(String, String), PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = self.sign(params, year)?;
        Ok((signed.certificate, signed.key))
    }

    /// The server's TLS configuration: a fresh certificate for `names` (host names and addresses), client
    /// certificates of this authority accepted but not required, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When a name is none, or TLS cannot be set up.
    pub fn server_tls(&self, names: &[String], year: i32) -> Result<ServerConfig, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = self.sign(params, year)?;
        let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|e| tls(&e))?;
        let leaf = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).map_err(|e| tls(&e))?;
        let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).map_err(|e| tls(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|e| tls(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![leaf, ca], key)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn ca_params(year: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "knoll-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, year);
    params
}

fn make_ca(year: i32) -> Result<Signed, PkiError> {
    let key = KeyPair::generate()?;
    let certificate = ca_params(year).self_signed(&key)?;
    Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Writes a file whole or not at all.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let fail = |source| PkiError::File { path: path.display().to_string(), source };
    let temporary = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary).map_err(fail)?;
    io::Write::write_all(&mut file, content.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)
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
