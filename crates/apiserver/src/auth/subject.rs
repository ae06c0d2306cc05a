//! User and groups of a client certificate.

use crate::attributes::Identity;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.4.10.
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// Takes one DER element: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn inside(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

/// The subject's user (common name) and groups (organizations). The certificate must have been verified.
///
/// X.509 (RFC 5280 §4.1): the subject is the fifth element of the signed part after the optional version.
pub fn identity_of_certificate(der: &[u8]) -> Option<Identity> {
    let (certificate, _) = inside(der, SEQUENCE)?;
    let (mut signed, _) = inside(certificate, SEQUENCE)?;
    if signed.first() == Some(&VERSION) {
        (_, _, signed) = element(signed)?;
    }
    // Serial number, signature algorithm, issuer, validity.
    for _ in 0..4 {
        (_, _, signed) = element(signed)?;
    }
    let (mut names, _) = inside(signed, SEQUENCE)?;
    let mut identity = Identity::default();
    while !names.is_empty() {
        let (set, rest) = inside(names, SET)?;
        names = rest;
        let (pair, _) = inside(set, SEQUENCE)?;
        let (kind, value) = inside(pair, OBJECT_IDENTIFIER)?;
        let (_, text, _) = element(value)?;
        let text = String::from_utf8(text.to_vec()).ok()?;
        match kind {
            COMMON_NAME => identity.user = text,
            ORGANIZATION => identity.groups.push(text),
            _ => {}
        }
    }
    if identity.user.is_empty() {
        return None;
    }
    identity.groups.push("system:authenticated".into());
    Some(identity)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::identity_of_certificate;
    use crate::auth::Pki;

    #[test]
    fn a_client_certificate_names_its_user_and_group() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(directory.path(), 2026).expect("opens");
        let (certificate, _) = pki.client("jane", "ops", 2026).expect("signs");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is PEM");
        let identity = identity_of_certificate(&der).expect("has a subject");
        assert_eq!(identity.user, "jane");
        assert_eq!(identity.groups, ["ops", "system:authenticated"]);
        assert!(identity_of_certificate(&der[..40]).is_none());
    }

    #[test]
    fn an_authority_is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Pki::open(directory.path(), 2026).expect("opens");
        let again = Pki::open(directory.path(), 2027).expect("opens");
        assert_eq!(first.ca_pem(), again.ca_pem());
        again.server_tls(&["localhost".into(), "127.0.0.1".into()], 2027).expect("signs");
    }
}
