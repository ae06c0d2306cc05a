//! The machine's own login at its registry, in the form that docker, skopeo and ko read.

use std::{collections::BTreeMap, fs, io, io::Read as _, path::Path};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};

use crate::durable::{private_directory, replace};

/// The machine's user name.
const USER: &str = "knoll";

#[derive(Serialize, Deserialize)]
struct File {
    auths: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    auth: String,
}

/// The password in a file that was written earlier.
fn kept(json: &[u8]) -> Option<String> {
    let file: File = serde_json::from_slice(json).ok()?;
    let entry = file.auths.into_values().next()?;
    let text = String::from_utf8(STANDARD.decode(entry.auth).ok()?).ok()?;
    let password = text.strip_prefix(USER)?.strip_prefix(':')?;
    (password.len() >= 32).then(|| password.to_owned())
}

/// The user and the password by which this machine may change its registry. They are made at the first start and kept
/// in `config.json` below `directory`, for its owner only, under each of the registry's `hosts`: `DOCKER_CONFIG=directory`
/// and `skopeo --authfile directory/config.json` use them.
///
/// # Errors
/// When the file cannot be read or written.
pub fn machine_login(directory: &Path, hosts: &[String]) -> io::Result<(String, String)> {
    private_directory(directory)?;
    let path = directory.join("config.json");
    let old = match fs::read(&path) {
        Ok(json) => Some(json),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let password = match old.as_deref().and_then(kept) {
        Some(password) => password,
        None => {
            let mut random = [0; 32];
            fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
            URL_SAFE_NO_PAD.encode(random)
        }
    };
    let entry = || Entry { auth: STANDARD.encode(format!("{USER}:{password}")) };
    let file = File { auths: hosts.iter().map(|host| (host.clone(), entry())).collect() };
    let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
    // An instance that was killed comes back on a full disk, too.
    if old.as_deref() != Some(&text[..]) {
        replace(&path, &text, directory)?;
    }
    Ok((USER.into(), password))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Keychain;

    #[test]
    fn the_machines_login_stays_the_same_is_private_and_is_what_docker_reads() {
        let scratch = tempfile::tempdir().expect("a directory");
        let directory = scratch.path().join("registry");
        let hosts = ["localhost:5000".to_owned(), "127.0.0.1:5000".to_owned()];
        let first = machine_login(&directory, &hosts).expect("is made");
        assert_eq!(machine_login(&directory, &hosts).expect("is read"), first);
        let path = directory.join("config.json");
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&directory)), (0o600, 0o700));
        let mut keychain = Keychain::default();
        keychain.add_file(&path).expect("is a docker configuration");
        let image = "127.0.0.1:5000/team/app".parse().expect("a reference");
        let candidates = keychain.candidates(&image);
        assert_eq!((&candidates[0].login.user, &candidates[0].login.secret), (&first.0, &first.1));
        fs::write(&path, "{").expect("writes");
        assert_ne!(machine_login(&directory, &hosts).expect("is made anew"), first);
    }

    #[test]
    fn a_changed_byte_makes_at_worst_another_login_and_one_that_all_read() {
        let scratch = tempfile::tempdir().expect("a directory");
        let directory = scratch.path().join("registry");
        let hosts = ["localhost:5000".to_owned(), "127.0.0.1:5000".to_owned()];
        machine_login(&directory, &hosts).expect("is made");
        let path = directory.join("config.json");
        let whole = fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("writes");
            let (user, password) = machine_login(&directory, &hosts).expect("is made");
            assert!(password.len() >= 32, "byte {at}");
            let mut keychain = Keychain::default();
            keychain.add_file(&path).expect("is a docker configuration");
            for host in &hosts {
                let image = format!("{host}/team/app").parse().expect("a reference");
                let login = &keychain.candidates(&image)[0].login;
                assert_eq!((&login.user, &login.secret), (&user, &password), "byte {at}");
            }
        }
    }
}
