//! The program: its file, arguments, environment and working directory.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::user::Identity;
use super::{Failure, Step, describe};

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment: the last of equal names wins; `PATH` and `HOME` are always there.
pub(super) fn environment(given: &[String], user: &Identity) -> Result<Vec<CString>, Failure> {
    let mut merged: BTreeMap<&str, &str> = BTreeMap::new();
    for entry in given {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        merged.insert(name, value);
    }
    merged.entry("PATH").or_insert(DEFAULT_PATH);
    merged.entry("HOME").or_insert(&user.home);
    let line = |(name, value)| text(&format!("{name}={value}"));
    merged.into_iter().map(line).collect()
}

/// The arguments as the kernel wants them.
pub(super) fn arguments(args: &[String]) -> Result<Vec<CString>, Failure> {
    args.iter().map(|arg| text(arg)).collect()
}

fn text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::start(format!("{text:?} contains a zero byte")))
}

/// Makes the working directory when it is missing and enters it. `false`: this user may not, but the one the program
/// runs as might.
pub(super) fn enter_directory(cwd: &Path) -> Result<bool, Failure> {
    let cwd = if cwd.as_os_str().is_empty() { Path::new("/") } else { cwd };
    if !cwd.is_absolute() {
        return Err(Failure::start(format!("cannot use {cwd:?} as working directory: it is not absolute")));
    }
    match std::env::set_current_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o755)
                .create(cwd)
                .blame_spec(|| format!("cannot make working directory {cwd:?}"))?;
            std::env::set_current_dir(cwd).blame_spec(|| format!("cannot use {cwd:?} as working directory"))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        outcome => outcome.blame_spec(|| format!("cannot use {cwd:?} as working directory")).map(|()| true),
    }
}

/// Enters the working directory as the program's own user.
pub(super) fn enter_directory_as_user(cwd: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(cwd).blame_spec(|| format!("cannot use {cwd:?} as working directory"))
}

/// The program's file. The texts are those of other runtimes, since people search for them.
pub(super) fn find(args: &[String], env: &[CString]) -> Result<CString, Failure> {
    let name = args.first().map_or("", String::as_str);
    if name.contains('/') {
        return match check(name) {
            Ok(()) => text(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::start(format!("exec: {name:?}: stat {name}: no such file or directory")))
            }
            Err(error) => Err(Failure::start(format!("exec: {name:?}: {}", describe(&error)))),
        };
    }
    let path = env.iter().find_map(|line| line.to_str().ok()?.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for directory in path.split(':').filter(|_| !name.is_empty()) {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match check(&candidate) {
            Ok(()) => return text(&candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(Failure::start(format!("exec: {name:?}: {why}")))
}

fn check(path: &str) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(given: &[&str]) -> Vec<String> {
        let user = Identity { uid: 7, gid: 7, groups: vec![], home: "/home/x".into() };
        let given: Vec<String> = given.iter().map(|s| (*s).to_owned()).collect();
        environment(&given, &user).unwrap().into_iter().map(|line| line.into_string().unwrap()).collect()
    }

    #[test]
    fn the_environment_has_a_path_and_a_home() {
        assert_eq!(lines(&["A=1", "A=2"]), ["A=2", "HOME=/home/x", &format!("PATH={DEFAULT_PATH}")]);
        assert_eq!(lines(&["PATH=/p", "HOME=/h"]), ["HOME=/h", "PATH=/p"]);
    }

    #[test]
    fn a_missing_program_reads_as_everywhere_else() {
        let message = |name: &str| find(&[name.to_owned()], &[]).unwrap_err().message;
        assert_eq!(message("/nope"), "exec: \"/nope\": stat /nope: no such file or directory");
        assert_eq!(message("nope-at-all"), "exec: \"nope-at-all\": executable file not found in $PATH");
        assert_eq!(message("/etc"), "exec: \"/etc\": is a directory");
        assert_eq!(message("/etc/passwd"), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(message(""), "exec: \"\": executable file not found in $PATH");
    }
}
