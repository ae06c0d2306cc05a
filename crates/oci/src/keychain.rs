//! Who we are to which registry: docker's `config.json` and Kubernetes pull secrets.

use std::{collections::BTreeMap, fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::Reference;

/// Credentials by registry: a pod's own, and the machine's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keychain {
    own: Vec<(String, Login)>,
    machine: Vec<(String, Login)>,
}

/// Who to be at a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) secret: String,
    /// The secret is a token to be exchanged for others.
    pub(crate) is_identity_token: bool,
}

/// A login that matches an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) login: &'a Login,
    /// It is the machine's: what it opens is open to every pod of the machine.
    pub(crate) is_machines: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Logins that are tried for one image.
const CANDIDATES: usize = 16;

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

    /// Adds the machine's own credentials, tried after the others.
    pub fn add_machine(&mut self, machine: &Keychain) {
        self.machine.extend(machine.own.iter().cloned());
    }

    fn add(&mut self, auths: BTreeMap<String, AuthEntry>) -> Result<(), KeychainError> {
        for (registry, entry) in auths {
            if let Some(login) = login(&registry, entry)? {
                self.own.push((normalize(&registry), login));
            }
        }
        Ok(())
    }

    /// What to present for an image, in this order: the longest matching path first, then what was added first; the
    /// machine's last. As kubelets do, each is tried until one is accepted.
    pub(crate) fn candidates(&self, reference: &Reference) -> Vec<Candidate<'_>> {
        let name = reference.name();
        let mut found: Vec<Candidate<'_>> = Vec::new();
        for (entries, is_machines) in [(&self.own, false), (&self.machine, true)] {
            let mut matching: Vec<&(String, Login)> = entries.iter().filter(|(key, _)| matches(key, &name)).collect();
            matching.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
            for (_, login) in matching {
                if found.len() < CANDIDATES && found.iter().all(|candidate| candidate.login != login) {
                    found.push(Candidate { login, is_machines });
                }
            }
        }
        found
    }
}

fn login(registry: &str, entry: AuthEntry) -> Result<Option<Login>, KeychainError> {
    if let Some(token) = entry.identitytoken.filter(|token| !token.is_empty()) {
        return Ok(Some(Login { user: String::new(), secret: token, is_identity_token: true }));
    }
    if let (Some(user), Some(secret)) = (entry.username, entry.password) {
        return Ok(Some(Login { user, secret, is_identity_token: false }));
    }
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let bad = || KeychainError::Auth { registry: registry.to_owned() };
    let text = String::from_utf8(STANDARD.decode(auth.trim()).map_err(|_| bad())?).map_err(|_| bad())?;
    let (user, secret) = text.split_once(':').ok_or_else(bad)?;
    let secret = secret.trim_end_matches('\0').into();
    Ok(Some(Login { user: user.into(), secret, is_identity_token: false }))
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

    fn logins(json: &str, image: &str) -> Vec<(String, String)> {
        let mut keychain = Keychain::default();
        keychain.add_docker_config(json.as_bytes()).expect("parses");
        let image = image.parse().expect("parses");
        keychain.candidates(&image).iter().map(|c| (c.login.user.clone(), c.login.secret.clone())).collect()
    }

    fn login(user: &str, secret: &str) -> (String, String) {
        (user.into(), secret.into())
    }

    #[test]
    fn the_longest_path_comes_first() {
        let json = r#"{"auths":{"reg.io":{"username":"a","password":"1"},"reg.io/team":{"auth":"YjoyOjM="}}}"#;
        assert_eq!(logins(json, "reg.io/team/app"), [login("b", "2:3"), login("a", "1")]);
        assert_eq!(logins(json, "reg.io/teams/app"), [login("a", "1")]);
        assert_eq!(logins(json, "other.io/app"), []);
    }

    #[test]
    fn every_secret_for_a_registry_counts_and_the_machine_comes_last() {
        let config = |user: &str| format!(r#"{{"auths":{{"reg.io":{{"username":"{user}","password":"p"}}}}}}"#);
        let (mut keychain, mut machine) = (Keychain::default(), Keychain::default());
        machine.add_docker_config(config("machine").as_bytes()).expect("parses");
        keychain.add_machine(&machine);
        for user in ["first", "second", "first"] {
            keychain.add_docker_config(config(user).as_bytes()).expect("parses");
        }
        let image = "reg.io/app".parse().expect("parses");
        let found: Vec<_> = keychain.candidates(&image).iter().map(|c| (c.login.user.clone(), c.is_machines)).collect();
        assert_eq!(found, [("first".into(), false), ("second".into(), false), ("machine".into(), true)]);
    }

    #[test]
    fn docker_hub_is_known_by_its_old_name() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTox"}}}"#;
        assert_eq!(logins(json, "busybox"), [login("a", "1")]);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let json = r#"{"auths":{"*.reg.io":{"username":"a","password":"1"}}}"#;
        assert_ne!(logins(json, "eu.reg.io/app"), []);
        assert_eq!(logins(json, "a.eu.reg.io/app"), []);
    }
}
