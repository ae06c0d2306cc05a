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

    pub(crate) fn to_remote(&self) -> oci_client::Reference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        match (&self.digest, &self.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".into());
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parsed: oci_client::Reference = text.parse().map_err(|_| ReferenceError(text.to_owned()))?;
        let digest = match parsed.digest() {
            Some(digest) => Some(digest.parse().map_err(|_| ReferenceError(text.to_owned()))?),
            None => None,
        };
        // The hub's index is the hub.
        let registry = if parsed.registry() == "index.docker.io" { "docker.io" } else { parsed.registry() };
        Ok(Self {
            registry: registry.to_owned(),
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().map(str::to_owned),
            digest,
        })
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
    fn nonsense_is_refused() {
        for text in ["", "UPPER/Case", "a b", "a@sha256:123"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
