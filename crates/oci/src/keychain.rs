//! Who we are to which registry: docker's `config.json` and Kubernetes pull secrets.

use std::{collections::BTreeMap, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::Reference;

/// Credentials by registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keychain {
    entries: BTreeMap<String, Login>,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Why credentials cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeychainError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a docker configuration.
    #[error("parse docker credentials")]
    Parse(#[source] serde_json::Error),
    /// An `auth` entry is not base64 of `user:password`.
    #[error("credentials for {registry}: auth is not base64 of user:password")]
    Auth {
        /// The registry.
        registry: String,
    },
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Keychain {
    /// Adds what a docker `config.json` (also the content of a `kubernetes.io/dockerconfigjson` Secret) holds.
    /// Entries that are already there stay.
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn add_docker_config(&mut self, json: &[u8]) -> Result<(), KeychainError> {
        let config: DockerConfig = serde_json::from_slice(json).map_err(KeychainError::Parse)?;
        self.add(config.auths)
    }

    /// Adds what a legacy `kubernetes.io/dockercfg` Secret holds.
    ///
    /// # Errors
    /// When it is not such a file.
    pub fn add_dockercfg(&mut self, json: &[u8]) -> Result<(), KeychainError> {
        self.add(serde_json::from_slice(json).map_err(KeychainError::Parse)?)
    }

    /// Adds the file at `path` where there is one.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn add_file(&mut self, path: &Path) -> Result<(), KeychainError> {
        match fs::read(path) {
            Ok(json) => self.add_docker_config(&json),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(KeychainError::Read { path: path.display().to_string(), source }),
        }
    }

    /// Adds the entries of `other` that are not there yet.
    pub fn add_all(&mut self, other: &Keychain) {
        for (registry, login) in &other.entries {
            self.entries.entry(registry.clone()).or_insert_with(|| login.clone());
        }
    }

    fn add(&mut self, auths: BTreeMap<String, AuthEntry>) -> Result<(), KeychainError> {
        for (registry, entry) in auths {
            if let Some(login) = login(&registry, entry)? {
                self.entries.entry(normalize(&registry)).or_insert(login);
            }
        }
        Ok(())
    }

    /// What to present for an image: the entry with the longest matching path wins.
    pub(crate) fn for_image(&self, reference: &Reference) -> RegistryAuth {
        let name = reference.name();
        let best = self.entries.iter().filter(|(key, _)| matches(key, &name)).max_by_key(|(key, _)| key.len());
        match best {
            Some((_, login)) => RegistryAuth::Basic(login.user.clone(), login.secret.clone()),
            None => RegistryAuth::Anonymous,
        }
    }
}

fn login(registry: &str, entry: AuthEntry) -> Result<Option<Login>, KeychainError> {
    if let Some(token) = entry.identitytoken.filter(|token| !token.is_empty()) {
        return Ok(Some(Login { user: "<token>".into(), secret: token }));
    }
    if let (Some(user), Some(secret)) = (entry.username, entry.password) {
        return Ok(Some(Login { user, secret }));
    }
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let bad = || KeychainError::Auth { registry: registry.to_owned() };
    let text = String::from_utf8(STANDARD.decode(auth.trim()).map_err(|_| bad())?).map_err(|_| bad())?;
    let (user, secret) = text.split_once(':').ok_or_else(bad)?;
    Ok(Some(Login { user: user.into(), secret: secret.trim_end_matches('\0').into() }))
}

/// Host and path of a key, without scheme and version.
fn normalize(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        other => other.into(),
    }
}

/// Whether the image `name` lies under `key`; `*.` at its start stands for one host label.
fn matches(key: &str, name: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    let host_matches = match key_host.strip_prefix("*.") {
        Some(tail) => host.split_once('.').is_some_and(|(_, rest)| rest == tail),
        None => key_host == host,
    };
    let path_matches =
        path.strip_prefix(key_path).is_some_and(|rest| rest.is_empty() || key_path.is_empty() || rest.starts_with('/'));
    host_matches && path_matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(json: &str, image: &str) -> RegistryAuth {
        let mut keychain = Keychain::default();
        keychain.add_docker_config(json.as_bytes()).expect("parses");
        keychain.for_image(&image.parse().expect("parses"))
    }

    #[test]
    fn the_longest_path_wins() {
        let json = r#"{"auths":{"reg.io":{"username":"a","password":"1"},"reg.io/team":{"auth":"YjoyOjM="}}}"#;
        assert_eq!(auth(json, "reg.io/team/app"), RegistryAuth::Basic("b".into(), "2:3".into()));
        assert_eq!(auth(json, "reg.io/teams/app"), RegistryAuth::Basic("a".into(), "1".into()));
        assert_eq!(auth(json, "other.io/app"), RegistryAuth::Anonymous);
    }

    #[test]
    fn docker_hub_is_known_by_its_old_name() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTox"}}}"#;
        assert_eq!(auth(json, "busybox"), RegistryAuth::Basic("a".into(), "1".into()));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let json = r#"{"auths":{"*.reg.io":{"username":"a","password":"1"}}}"#;
        assert_ne!(auth(json, "eu.reg.io/app"), RegistryAuth::Anonymous);
        assert_eq!(auth(json, "a.eu.reg.io/app"), RegistryAuth::Anonymous);
    }
}
