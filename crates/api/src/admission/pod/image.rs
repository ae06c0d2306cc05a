//! References to images.

use crate::field_error::FieldError;

/// Checks that an image is named, and by a name that a registry could know.
pub(super) fn validate(image: &str) -> Option<FieldError> {
    if image.is_empty() {
        return Some(FieldError::missing(&["image"]));
    }
    if is_tagged(image) || is_digested(image) {
        return None;
    }
    let details = format!("image: {image:?}, error: could not parse reference: {image}");
    Some(FieldError::new("Failed to parse image reference", &["image"]).with_details(details))
}

/// `repository` or `repository:tag`.
fn is_tagged(name: &str) -> bool {
    match name.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => {
            let is_tag = tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            is_tag && is_repository(repository)
        }
        _ => is_repository(name),
    }
}

/// `repository@sha256:…`, with or without a tag.
fn is_digested(name: &str) -> bool {
    let Some((base, digest)) = name.split_once('@') else { return false };
    let is_digest = digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    is_digest && is_tagged(base)
}

/// `registry/path` or `path`. The first part is a registry when it looks like a host.
fn is_repository(name: &str) -> bool {
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let path = match name.split_once('/') {
        Some((registry, path)) if is_host(registry) => {
            if !is_registry(registry) {
                return false;
            }
            path
        }
        _ => name,
    };
    let is_path_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b);
    (2..=255).contains(&path.len()) && path.bytes().all(is_path_byte)
}

/// A host, maybe with a port.
fn is_registry(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':').unwrap_or(rest)),
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let is_host_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~:%".contains(&b);
    !host.is_empty() && host.bytes().all(is_host_byte) && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::validate;

    #[test]
    fn names_that_a_registry_could_know_pass() {
        let digest = "a".repeat(64);
        for image in [
            "busybox",
            "busybox:1.36",
            "ghcr.io/knative/helloworld-go:latest",
            "localhost:5000/app",
            "localhost/app:v1",
            "[::1]:5000/app",
            &format!("gcr.io/app@sha256:{digest}"),
            &format!("gcr.io/app:tag@sha256:{digest}"),
        ] {
            assert_eq!(validate(image), None, "{image}");
        }
    }

    #[test]
    fn other_names_are_refused_with_the_name() {
        assert_eq!(validate("").expect("refused").to_string(), "missing field(s): image");
        let refused = validate("foo:bar:baz").expect("refused").to_string();
        let expected = "Failed to parse image reference: image\n\
                        image: \"foo:bar:baz\", error: could not parse reference: foo:bar:baz";
        assert_eq!(refused, expected);
        for image in ["UPPER", "a b", "app@sha256:abc", "app:bad tag", "a", "ex!mple.com/app"] {
            assert!(validate(image).is_some(), "{image}");
        }
    }
}
