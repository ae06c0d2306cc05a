//! Who may use what came from registries.
//!
//! An image that one namespace got with its credentials is not another's to run because it happens to lie on this
//! disk. What proved access to an image, or that it is open to everybody, is remembered by repository and digest;
//! whoever has not proved it is sent to the registry with credentials of their own. Credentials are remembered as a
//! keyed hash only.
//!
//! The same holds below images: a blob that is here is only taken for another image's if that image's registry was
//! seen to have it, or if everybody may have it. Otherwise it is downloaded again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use knoll_journal::{with_checksum, without_checksum};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{
    Digest,
    durable::replace,
    keychain::{Candidate, Login},
    remote::Proof,
};

/// Credentials, repositories or registries remembered for one digest; the record begins anew when it is full.
const REMEMBERED: usize = 256;

/// Who may use an image of one repository.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Grant {
    #[serde(default)]
    everybody: bool,
    /// Hashes of credentials that the registry accepted.
    #[serde(default)]
    logins: BTreeSet<String>,
}

/// Where a blob was seen.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Source {
    #[serde(default)]
    everybody: bool,
    #[serde(default)]
    registries: BTreeSet<String>,
}

/// What is remembered of access.
pub(crate) struct Access {
    root: PathBuf,
    scratch: PathBuf,
    key: [u8; 32],
    writing: Mutex<()>,
}

/// What cannot be read grants nothing.
fn read<T: Default + DeserializeOwned>(path: &Path) -> T {
    let kept = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(without_checksum(&bytes)?)?));
    kept.unwrap_or_else(|error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(path = %path.display(), %error, "a record of access is damaged: the registry is asked again");
        }
        T::default()
    })
}

fn key(path: &Path, scratch: &Path) -> io::Result<[u8; 32]> {
    match fs::read(path).map(|bytes| <[u8; 32]>::try_from(bytes.as_slice())) {
        Ok(Ok(key)) => return Ok(key),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut key = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
    replace(path, &key, scratch)?;
    Ok(key)
}

impl Access {
    /// Of the store in `root`, whose directories are there.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let (root, scratch) = (root.join("access"), root.join("unpacking"));
        let key = key(&root.join("key"), &scratch)?;
        Ok(Self { root, scratch, key, writing: Mutex::default() })
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(digest.hex())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    fn hash(&self, repository: &str, login: &Login) -> String {
        let registry = repository.split('/').next().unwrap_or_default();
        let mut hasher = Sha256::new_with_prefix(self.key);
        for part in [registry, &login.user, &login.secret] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Digest::finish(hasher).hex().to_owned()
    }

    /// Whether an image of a repository is known to be open to everybody, or to one of these logins.
    pub(crate) fn allows(&self, digest: &Digest, repository: &str, candidates: &[Candidate<'_>]) -> bool {
        let grants: BTreeMap<String, Grant> = read(&self.image_path(digest));
        grants.get(repository).is_some_and(|grant| {
            let knows = |candidate: &Candidate<'_>| grant.logins.contains(&self.hash(repository, candidate.login));
            grant.everybody || candidates.iter().any(knows)
        })
    }

    /// Remembers what proved access to an image.
    pub(crate) fn grant(&self, digest: &Digest, repository: &str, proof: &Proof) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut grants: BTreeMap<String, Grant> = read(&self.image_path(digest));
        if grants.len() >= REMEMBERED && !grants.contains_key(repository) {
            grants.clear();
        }
        let grant = grants.entry(repository.to_owned()).or_default();
        let news = match proof {
            Proof::Everybody => !std::mem::replace(&mut grant.everybody, true),
            Proof::Login(login) => {
                if grant.logins.len() >= REMEMBERED {
                    grant.logins.clear();
                }
                grant.logins.insert(self.hash(repository, login))
            }
        };
        if news { self.keep(&self.image_path(digest), &grants) } else { Ok(()) }
    }

    /// Whether a blob that is here may be taken for an image of a registry without asking it.
    pub(crate) fn may_reuse(&self, blob: &Digest, registry: &str) -> bool {
        let source: Source = read(&self.blob_path(blob));
        source.everybody || source.registries.contains(registry)
    }

    /// Whether everybody may have a blob.
    pub(crate) fn is_open(&self, blob: &Digest) -> bool {
        read::<Source>(&self.blob_path(blob)).everybody
    }

    /// Remembers that a registry gave a blob out.
    pub(crate) fn saw(&self, blob: &Digest, registry: &str, proof: &Proof) -> io::Result<()> {
        self.note_source(blob, |source| {
            if source.registries.len() >= REMEMBERED {
                source.registries.clear();
            }
            let open = *proof == Proof::Everybody && !std::mem::replace(&mut source.everybody, true);
            source.registries.insert(registry.to_owned()) || open
        })
    }

    /// Remembers that everybody may have a blob: it was given to this machine.
    pub(crate) fn open_up(&self, blob: &Digest) -> io::Result<()> {
        self.note_source(blob, |source| !std::mem::replace(&mut source.everybody, true))
    }

    fn note_source(&self, blob: &Digest, note: impl FnOnce(&mut Source) -> bool) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut source = read(&self.blob_path(blob));
        if note(&mut source) { self.keep(&self.blob_path(blob), &source) } else { Ok(()) }
    }

    fn keep(&self, path: &Path, record: &impl Serialize) -> io::Result<()> {
        replace(path, &with_checksum(serde_json::to_vec(record).map_err(io::Error::other)?), &self.scratch)
    }

    /// Forgets a blob that is gone, and the image whose manifest it was.
    pub(crate) fn forget(&self, digest: &Digest) -> io::Result<()> {
        for path in [self.image_path(digest), self.blob_path(digest)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(secret: &str) -> Login {
        Login { user: "u".into(), secret: secret.into(), is_identity_token: false }
    }

    #[test]
    fn access_is_remembered_by_repository_and_login_across_restarts_and_never_as_text() {
        let scratch = tempfile::tempdir().expect("a directory");
        for part in ["access/images", "access/blobs", "unpacking"] {
            fs::create_dir_all(scratch.path().join(part)).expect("makes");
        }
        let digest = Digest::of(b"image");
        let (good, bad) = (login("a secret"), login("another"));
        let candidate = |login| [Candidate { login, is_machines: false }];
        let access = Access::open(scratch.path()).expect("opens");
        access.grant(&digest, "reg.io/app", &Proof::Login(good.clone())).expect("remembers");
        let access = Access::open(scratch.path()).expect("opens");
        assert!(access.allows(&digest, "reg.io/app", &candidate(&good)));
        assert!(!access.allows(&digest, "reg.io/app", &candidate(&bad)));
        assert!(!access.allows(&digest, "reg.io/app", &[]));
        assert!(!access.allows(&digest, "reg.io/other", &candidate(&good)));
        let kept = fs::read_to_string(access.image_path(&digest)).expect("is there");
        assert!(!kept.contains("a secret"), "{kept}");
        access.grant(&digest, "reg.io/app", &Proof::Everybody).expect("remembers");
        assert!(access.allows(&digest, "reg.io/app", &[]));
        access.forget(&digest).expect("forgets");
        assert!(!access.allows(&digest, "reg.io/app", &candidate(&good)));
    }

    #[test]
    fn a_blob_is_reused_only_for_registries_that_were_seen_to_have_it() {
        let scratch = tempfile::tempdir().expect("a directory");
        for part in ["access/images", "access/blobs", "unpacking"] {
            fs::create_dir_all(scratch.path().join(part)).expect("makes");
        }
        let access = Access::open(scratch.path()).expect("opens");
        let blob = Digest::of(b"layer");
        access.saw(&blob, "reg.io", &Proof::Login(login("s"))).expect("remembers");
        assert_eq!((access.may_reuse(&blob, "reg.io"), access.may_reuse(&blob, "evil.io")), (true, false));
        assert!(!access.is_open(&blob));
        access.saw(&blob, "reg.io", &Proof::Everybody).expect("remembers");
        assert!(access.may_reuse(&blob, "evil.io") && access.is_open(&blob));
    }
}
