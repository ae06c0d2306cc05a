//! Image references.

use std::{fmt, str::FromStr};

use crate::Digest;

/// `registry/repository[:tag][@digest]`, with Docker's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port of the registry; `docker.io` where none was written.
    pub registry: String,
    /// Repository; `library/` is put before a bare name on `docker.io`.
    pub repository: String,
    /// Tag; `latest` where neither tag nor digest was written.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: Option<Digest>,
}

/// A text that is no image reference.
#[derive(Debug, thiserror::Error)]
#[error("could not parse reference: {0}")]
pub struct ReferenceError(String);

impl Reference {
    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// The hub, and the names it goes by.
const HUB: &str = "docker.io";
/// Characters of `registry/repository`.
const NAME: usize = 255;
/// Characters of a tag.
const TAG: usize = 128;

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = text.bytes().next().is_some_and(word);
    starts && text.len() <= TAG && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// Lower-case letters and digits, in groups with one `.`, one or two `_`, or any number of `-` between them.
fn is_path_part(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut inner = separators.filter(|separator| !separator.is_empty());
    let ends = [text.bytes().next(), text.bytes().next_back()].iter().all(|end| end.is_some_and(plain));
    ends && inner.all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

/// A host name or an address, and a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inside)
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What stands before the first slash is a registry when it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, rest))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, rest)
        }
        _ => (HUB, name),
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let wrong = || ReferenceError(text.to_owned());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it belongs to a port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
            None => (rest, None),
        };
        let (registry, path) = split_registry(name);
        // The hub's index is the hub.
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let bare = registry == HUB && !path.contains('/');
        let repository = if bare { format!("library/{path}") } else { path.to_owned() };
        let named = is_registry(registry) && repository.split('/').all(is_path_part);
        if !named || registry.len() + 1 + repository.len() > NAME || !tag.is_none_or(is_tag) {
            return Err(wrong());
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn defaults_are_filled_in() {
        let parse = |text: &str| text.parse::<Reference>().expect("parses").to_string();
        assert_eq!(parse("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(parse("helloworld-go:160e4dc8"), "docker.io/library/helloworld-go:160e4dc8");
        assert_eq!(parse("index.docker.io/library/busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(parse("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        let digest = format!("gcr.io/a@sha256:{}", "0".repeat(64));
        assert_eq!(parse(&digest), digest);
    }

    #[test]
    fn hosts_ports_tags_and_digests_are_told_apart() {
        let parts = |text: &str| {
            let parsed: Reference = text.parse().expect("parses");
            (parsed.registry, parsed.repository, parsed.tag)
        };
        let told = |registry: &str, repository: &str, tag: Option<&str>| {
            (registry.to_owned(), repository.to_owned(), tag.map(str::to_owned))
        };
        assert_eq!(parts("localhost/a:v1"), told("localhost", "a", Some("v1")));
        assert_eq!(parts("a/b:V.1_x-2"), told("docker.io", "a/b", Some("V.1_x-2")));
        assert_eq!(parts("[::1]:5000/a__b/c-d.e"), told("[::1]:5000", "a__b/c-d.e", Some("latest")));
        assert_eq!(parts("Host/a"), told("Host", "a", Some("latest")));
        let digest = format!("reg.io:443/a:v1@sha256:{}", "0".repeat(64));
        assert_eq!(parts(&digest), told("reg.io:443", "a", Some("v1")));
    }

    #[test]
    fn nonsense_is_refused() {
        let long = format!("a/{}", "b".repeat(255));
        let tag = format!("a:{}", "t".repeat(129));
        let nonsense = [
            "",
            "UPPER/Case",
            "a b",
            "a@sha256:123",
            "a/",
            "/a",
            "a//b",
            "a:",
            "a@",
            "reg.io:port/a",
            "reg.io:70000/a",
            "reg..io/a",
            "-reg.io/a",
            "a/../b",
            "a/.b",
            "a/b-",
            "a___b",
            "a:-t",
            "a:t:t",
            "é",
            "[::1/a",
            "http://a/b",
            "reg.io/a?b=c",
            "reg.io/a#b",
            "user@reg.io/a",
            long.as_str(),
            tag.as_str(),
        ];
        for text in nonsense {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
