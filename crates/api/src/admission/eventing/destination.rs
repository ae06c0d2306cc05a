//! Where events are sent.

use base64::Engine as _;
use serde_json::Value;

use super::{
    super::json,
    reference::{self, Scope},
};
use crate::field_error::{FieldError, FieldErrors};

/// What the reference of a destination lacks is taken from where it stands.
pub(super) fn default(holder: &mut Value, key: &str, namespace: &str) {
    if let Some(destination) = holder.get_mut(key) {
        reference::default(destination, "ref", namespace);
    }
}

/// Checks a destination that may be left out.
pub(super) fn validate_optional(destination: &Value, scope: Scope<'_>) -> FieldErrors {
    if destination.is_null() { FieldErrors::none() } else { validate(destination, scope) }
}

/// Checks a destination.
pub(super) fn validate(destination: &Value, scope: Scope<'_>) -> FieldErrors {
    let reference = json::member(destination, "ref");
    let uri = json::member(destination, "uri").as_str();
    let mut errors = match (reference.is_null(), uri) {
        (true, None) => FieldError::new("expected at least one, got none", &["ref", "uri"]).into(),
        (_, Some(uri)) => validate_uri(uri, !reference.is_null()).into(),
        (false, None) => reference::validate(reference, scope).via_field("ref"),
    };
    if let Some(bundle) = json::member(destination, "CACerts").as_str() {
        errors.also(validate_ca_certs(bundle));
    }
    errors
}

fn validate_uri(uri: &str, is_relative: bool) -> Option<FieldError> {
    if uri.chars().any(|c| c.is_control() || c == ' ') {
        return Some(FieldError::invalid(format!("{uri:?} is no URI"), "uri"));
    }
    let parts = Parts::of(uri);
    if is_relative {
        return parts.has_scheme.then(|| {
            FieldError::new(
                "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present",
                &["[apiVersion, kind, name]", "ref", "uri"],
            )
        });
    }
    let is_whole = parts.has_scheme && !parts.host.is_empty();
    (!is_whole).then(|| {
        FieldError::invalid("Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent", "uri")
    })
}

/// What of a URI counts here.
struct Parts<'a> {
    has_scheme: bool,
    host: &'a str,
}

impl<'a> Parts<'a> {
    fn of(uri: &'a str) -> Parts<'a> {
        let is_scheme = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        };
        let scheme = uri.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
        let rest = scheme.map_or(uri, |(_, rest)| rest);
        let authority = rest.strip_prefix("//").unwrap_or_default();
        let authority = &authority[..authority.find(['/', '?', '#']).unwrap_or(authority.len())];
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Parts { has_scheme: scheme.is_some(), host }
    }
}

/// Checks that a bundle begins with a certificate, as far as its form goes.
fn validate_ca_certs(bundle: &str) -> Option<FieldError> {
    const END: &str = "-----END CERTIFICATE-----";
    let invalid = || Some(FieldError::invalid("CA Cert provided is invalid", "caCert"));
    let Some((label, rest)) = bundle.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")) else {
        return invalid();
    };
    if label != "CERTIFICATE" {
        return Some(FieldError::invalid("CA Cert provided is not a certificate", "caCert"));
    }
    let Some((body, _)) = rest.split_once(END) else { return invalid() };
    let body: String = body.split_ascii_whitespace().collect();
    match base64::engine::general_purpose::STANDARD.decode(body) {
        Ok(der) if is_sequence(&der) => None,
        _ => invalid(),
    }
}

/// Whether this is one DER sequence of more than nothing, and nothing after it.
fn is_sequence(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else { return false };
    let (length, rest) = match usize::from(*first) {
        short @ 1..=0x7f => (short, rest),
        long @ 0x81..=0x84 if rest.len() >= long - 0x80 => {
            let (bytes, rest) = rest.split_at(long - 0x80);
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return false,
    };
    length == rest.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::eventing::EventingFeatures;

    fn told(destination: Value) -> String {
        validate(&destination, Scope::anywhere(&EventingFeatures::default())).to_string()
    }

    #[test]
    fn a_destination_is_an_object_or_a_whole_uri() {
        let object = json!({"apiVersion": "v1", "kind": "Service", "name": "s", "namespace": "other"});
        assert_eq!(told(json!({"ref": object})), "");
        assert_eq!(told(json!({"ref": object, "uri": "/path?a=b"})), "");
        assert_eq!(told(json!({"uri": "https://user@example.com:80/path"})), "");
        assert_eq!(told(json!({})), "expected at least one, got none: ref, uri");
        assert_eq!(
            told(json!({"ref": object, "uri": "http://example.com"})),
            "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present: [apiVersion, kind, name], \
             ref, uri"
        );
        let relative =
            "invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: uri";
        for uri in ["/path", "example.com", "http:", "http:///path", "", "1http://example.com"] {
            assert_eq!(told(json!({"uri": uri})), relative, "{uri}");
        }
        assert_eq!(told(json!({"uri": "http://a b"})), "invalid value: \"http://a b\" is no URI: uri");
        assert_eq!(told(json!({"ref": {}})), "missing field(s): ref.apiVersion, ref.kind, ref.name");
    }

    #[test]
    fn trust_is_in_certificates() {
        let bundle = |label: &str, body: &str| {
            let text = format!("\n-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
            told(json!({"uri": "https://example.com", "CACerts": text}))
        };
        assert_eq!(bundle("CERTIFICATE", "MAMC\nAQA="), "");
        assert_eq!(bundle("PRIVATE KEY", "MAMCAQA="), "invalid value: CA Cert provided is not a certificate: caCert");
        for body in ["", "!", "AAAA", "MAMC", "MIQ="] {
            assert_eq!(bundle("CERTIFICATE", body), "invalid value: CA Cert provided is invalid: caCert", "{body}");
        }
    }

    #[test]
    fn a_group_may_stand_for_a_version_where_that_is_switched_on() {
        let features = |text: &str| {
            let data = [("kreference-group".to_owned(), text.to_owned())].into();
            EventingFeatures::parse(&data).expect("features")
        };
        let told = |text: &str, reference: Value| {
            reference::validate(&reference, Scope::anywhere(&features(text))).to_string()
        };
        let group = json!({"group": "g", "kind": "K", "name": "n"});
        assert_eq!(told("enabled", group.clone()), "");
        assert_eq!(told("disabled", group), "missing field(s): apiVersion\nmust not set the field(s): group");
        let both = json!({"group": "g", "apiVersion": "other/v1", "kind": "K", "name": "n"});
        assert_eq!(
            told("enabled", both),
            "both apiVersion and group are specified and they refer to different API groups: apiVersion, group\nOnly \
             one of them must be specified"
        );
        let neither = json!({"kind": "K", "name": "n"});
        assert_eq!(told("enabled", neither), "missing field(s): apiVersion, group");
    }
}
