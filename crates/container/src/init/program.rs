//! The program: its file, arguments, environment and working directory.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::target::{self, FileKind, find_or_make};
use super::user::ExecUser;
use super::{Failure, Step, describe};
use crate::sys;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment: the last of equal names wins; `PATH` and `HOME` are always there.
pub(super) fn environment(given: &[String], user: &ExecUser) -> Result<Vec<CString>, Failure> {
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
    if !cwd.as_os_str().is_empty() && !cwd.is_absolute() {
        return Err(Failure::start(format!("cannot use {cwd:?} as working directory: it is not absolute")));
    }
    let make = |root: BorrowedFd<'_>, cwd: &Path| {
        find_or_make(root, cwd, FileKind::Directory, nix::sys::stat::Mode::from_bits_truncate(0o755), None)
    };
    match enter(cwd, make) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        outcome => outcome.blame_spec(|| format!("cannot use {cwd:?} as working directory")).map(|()| true),
    }
}

/// Enters the working directory as the program's own user.
pub(super) fn enter_directory_as_user(cwd: &Path) -> Result<(), Failure> {
    let open = |root: BorrowedFd<'_>, cwd: &Path| sys::open_in_root(root, cwd, libc::O_PATH);
    enter(cwd, open).blame_spec(|| format!("cannot use {cwd:?} as working directory"))
}

/// Enters what `open` finds, without following links of `/proc`, and sees that it lies below the root: a directory of
/// the host that were still open somewhere must be no way out (CVE-2024-21626).
fn enter(cwd: &Path, open: impl FnOnce(BorrowedFd<'_>, &Path) -> io::Result<OwnedFd>) -> io::Result<()> {
    let root = target::open(Path::new("/"))?;
    let directory = if cwd.as_os_str().is_empty() { root.try_clone()? } else { open(root.as_fd(), cwd)? };
    nix::unistd::fchdir(&directory)?;
    if !nix::unistd::getcwd()?.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it lies outside the container"));
    }
    Ok(())
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
        let user = ExecUser { uid: 7, gid: 7, groups: vec![], home: "/home/x".into() };
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
