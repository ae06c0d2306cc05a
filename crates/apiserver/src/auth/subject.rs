//! What a certificate says: user and groups, and how long it is valid.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::attributes::UserInfo;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Most groups of a certificate: each is asked about at every request.
const GROUPS: usize = 64;
/// How long before it is made a certificate is valid already: clocks differ, and are set back.
pub(super) const BACKDATED: SignedDuration = SignedDuration::from_hours(48);
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

/// The fields of the signed part from the serial number on.
///
/// X.509 (RFC 5280 §4.1): serial number, signature algorithm, issuer, validity, subject.
fn fields(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = inside(der, SEQUENCE)?;
    let (signed, _) = inside(certificate, SEQUENCE)?;
    if signed.first() != Some(&VERSION) {
        return Some(signed);
    }
    element(signed).map(|(_, _, rest)| rest)
}

/// The part of a certificate that is signed, and the signature (RFC 5280 §4.1).
pub(super) fn signed(der: &[u8]) -> Option<(&[u8], &[u8])> {
    /// DER's tag of a bit string.
    const BITS: u8 = 0x03;
    let (certificate, after) = inside(der, SEQUENCE)?;
    let (_, _, rest) = element(certificate)?;
    let (signed, _) = certificate.split_at_checked(certificate.len() - rest.len())?;
    // The algorithm stands inside, too, and is the same.
    let (outer, rest) = element(rest).map(|(_, outer, rest)| (outer, rest))?;
    let (_, inner, _) = element(skip(fields(der)?, 1)?)?;
    let (bits, end) = inside(rest, BITS)?;
    let signature = bits.strip_prefix(&[0])?;
    (after.is_empty() && end.is_empty() && outer == inner).then_some((signed, signature))
}

fn skip(mut der: &[u8], count: usize) -> Option<&[u8]> {
    for _ in 0..count {
        (_, _, der) = element(der)?;
    }
    Some(der)
}

/// How long a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// From when to when a certificate is valid.
pub(super) fn validity(der: &[u8]) -> Option<Validity> {
    let (times, _) = inside(skip(fields(der)?, 3)?, SEQUENCE)?;
    let (from_tag, from, rest) = element(times)?;
    let (to_tag, to, _) = element(rest)?;
    Some(Validity { from: time(from_tag, from)?, to: time(to_tag, to)? })
}

/// When one of ours was made: it was valid a while before.
pub(super) fn made(validity: &Validity) -> Timestamp {
    validity.from.saturating_add(BACKDATED).unwrap_or(Timestamp::MAX)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 §4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = |range: std::ops::Range<usize>| text.get(range)?.parse::<i16>().ok();
    let (year, rest) = match tag {
        UTC_TIME => {
            let year = digits(0..2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        GENERALIZED_TIME => (digits(0..4)?, 4),
        _ => return None,
    };
    let part = |at: usize| digits(rest + 2 * at..rest + 2 * at + 2).and_then(|n| i8::try_from(n).ok());
    let date = civil::DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
    TimeZone::UTC.to_timestamp(date).ok()
}

/// The subject's user (common name) and groups (organizations). The certificate must have been verified.
pub fn user_of_certificate(der: &[u8]) -> Option<UserInfo> {
    let validity = validity(der)?;
    let (mut names, _) = inside(skip(fields(der)?, 4)?, SEQUENCE)?;
    let mut identity = UserInfo { issued: Some(made(&validity)), ..UserInfo::default() };
    while !names.is_empty() {
        let (set, rest) = inside(names, SET)?;
        names = rest;
        let (pair, _) = inside(set, SEQUENCE)?;
        let (kind, value) = inside(pair, OBJECT_IDENTIFIER)?;
        let (_, text, _) = element(value)?;
        let text = String::from_utf8(text.to_vec()).ok()?;
        match kind {
            COMMON_NAME => identity.user = text,
            ORGANIZATION if identity.groups.len() == GROUPS => return None,
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

    use super::*;
    use crate::auth::Pki;

    #[test]
    fn a_client_certificate_names_its_user_and_group() {
        let directory = tempfile::tempdir().expect("a directory");
        let now = "2026-03-01T12:00:00Z".parse().expect("a time");
        let pki = Pki::open(directory.path(), now).expect("opens");
        let (certificate, _) = pki.client("jane", "ops", now).expect("signs");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("is PEM");
        let identity = user_of_certificate(&der).expect("has a subject");
        assert_eq!(identity.user, "jane");
        assert_eq!(identity.groups, ["ops", "system:authenticated"]);
        assert_eq!(identity.issued, Some(now));
        for end in 0..der.len().min(400) {
            assert!(user_of_certificate(&der[..end]).is_none(), "cut off at {end}");
        }
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag, text: &str| time(tag, text.as_bytes()).map(|at| at.to_string());
        assert_eq!(read(UTC_TIME, "260301123059Z").as_deref(), Some("2026-03-01T12:30:59Z"));
        assert_eq!(read(UTC_TIME, "990301000000Z").as_deref(), Some("1999-03-01T00:00:00Z"));
        assert_eq!(read(GENERALIZED_TIME, "20510301000000Z").as_deref(), Some("2051-03-01T00:00:00Z"));
        for bad in ["", "Z", "260301Z", "261301000000Z", "260301123059", "2603é1123059Z"] {
            assert_eq!(read(UTC_TIME, bad), None, "{bad}");
        }
    }
}
