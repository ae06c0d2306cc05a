//! The public annotations under `networking.knative.dev/` and their alternate spellings.

use std::collections::BTreeMap;

use crate::{
    annotation::AnnotationKey,
    config::{HttpProtocol, NetworkConfig},
};

/// Which data plane an Ingress is for.
pub const INGRESS_CLASS: AnnotationKey =
    AnnotationKey(&["networking.knative.dev/ingress.class", "networking.knative.dev/ingress-class"]);
/// Who issues a Certificate.
pub const CERTIFICATE_CLASS: AnnotationKey =
    AnnotationKey(&["networking.knative.dev/certificate.class", "networking.knative.dev/certificate-class"]);
/// What plain http gets: `enabled` or `redirected`.
pub const HTTP_PROTOCOL: AnnotationKey =
    AnnotationKey(&["networking.knative.dev/httpOption", "networking.knative.dev/http-protocol"]);

/// The class of an object's Ingress.
pub fn ingress_class<'a>(annotations: &'a BTreeMap<String, String>, config: &'a NetworkConfig) -> &'a str {
    INGRESS_CLASS.get(annotations).filter(|class| !class.is_empty()).unwrap_or(&config.ingress_class)
}

/// The class of an object's Certificates.
pub fn certificate_class<'a>(annotations: &'a BTreeMap<String, String>, config: &'a NetworkConfig) -> &'a str {
    CERTIFICATE_CLASS.get(annotations).filter(|class| !class.is_empty()).unwrap_or(&config.certificate_class)
}

/// What plain http gets under an object: its own word, else the cluster's; nothing when its own word is unknown.
pub fn http_protocol(annotations: &BTreeMap<String, String>, config: &NetworkConfig) -> Option<HttpProtocol> {
    match HTTP_PROTOCOL.get(annotations).map(str::to_ascii_lowercase).as_deref() {
        None | Some("") => Some(config.http_protocol),
        Some("enabled") => Some(HttpProtocol::Enabled),
        Some("redirected") => Some(HttpProtocol::Redirected),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (format!("networking.knative.dev/{key}"), value.to_owned())).collect()
    }

    #[test]
    fn the_object_decides_before_the_cluster() {
        let config = NetworkConfig::default();
        assert_eq!(ingress_class(&map(&[("ingress-class", "ours")]), &config), "ours");
        assert_eq!(ingress_class(&map(&[]), &config), "istio.ingress.networking.knative.dev");
        assert_eq!(http_protocol(&map(&[("http-protocol", "Redirected")]), &config), Some(HttpProtocol::Redirected));
        assert_eq!(http_protocol(&map(&[("httpOption", "x")]), &config), None);
    }
}
