//! Files that change all at once.
//!
//! ```text
//! volume/..2026_01_02_03_04_05.123456789/app.yaml     the files
//! volume/..data -> ..2026_01_02_03_04_05.123456789    replaced by a rename
//! volume/app.yaml -> ..data/app.yaml                  what containers open
//! ```
//! A reader that opens `..data` once sees files of one moment. Blocking: call it where blocking is fine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Files of a volume, by path relative to it.
pub type Payload = BTreeMap<PathBuf, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it says.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Who owns it; root when absent.
    pub owner: Option<u32>,
}

/// Whether a path may stand in a volume: relative, without `..`, not beginning with two dots.
pub fn is_legal(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    let first_ok = parts.peek().is_some_and(|p| !p.as_os_str().as_encoded_bytes().starts_with(b".."));
    first_ok && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Makes `dir` hold exactly `payload`; `group` owns everything and may read it. Returns whether anything changed.
/// `stamp` names the new generation and must differ from call to call.
///
/// # Errors
/// When the file system refuses; the old files stay as they are then.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>, stamp: &str) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !is_legal(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {}", bad.display())));
    }
    fs::create_dir_all(dir)?;
    // Whatever the umask: the containers' users look in here.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    set_group(dir, group, 0o777)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && holds(&dir.join(old), payload)?
    {
        // Whoever published it may have got no further.
        link(dir, payload)?;
        remove_old(dir, old)?;
        return Ok(false);
    }
    let generation = format!("..{stamp}");
    let base = dir.join(&generation);
    if let Err(error) = fill(&base, payload, group).and_then(|()| publish(dir, &generation)) {
        // The half-written generation is of no use; the first error tells more than a failed clean-up.
        drop(knoll_tree::remove(&base));
        return Err(error);
    }
    link(dir, payload)?;
    remove_old(dir, Path::new(&generation))?;
    Ok(true)
}

/// Removes every generation but the one in force: the one before it, and what was interrupted.
fn remove_old(dir: &Path, in_force: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"..") && name != in_force.as_os_str() && entry.file_type()?.is_dir() {
            knoll_tree::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a generation already holds exactly these files.
fn holds(base: &Path, payload: &Payload) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let entries = match fs::read_dir(base.join(&at)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                present.insert(path);
            }
        }
    }
    if present.len() != payload.len() || !payload.keys().all(|path| present.contains(path)) {
        return Ok(false);
    }
    for (path, file) in payload {
        if fs::read(base.join(path))? != file.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn fill(base: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(base)?;
    fs::set_permissions(base, fs::Permissions::from_mode(0o755))?;
    set_group(base, group, 0o775)?;
    for (path, file) in payload {
        let target = base.join(path);
        for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect::<Vec<_>>().iter().rev() {
            let parent = base.join(parent);
            if !parent.is_dir() {
                fs::create_dir(&parent)?;
                fs::set_permissions(&parent, fs::Permissions::from_mode(0o755))?;
                set_group(&parent, group, 0o775)?;
            }
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        out.write_all(&file.bytes)?;
        if file.owner.is_some() || group.is_some() {
            chown(&target, file.owner, group)?;
        }
        // What the group owns it can read.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        out.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

fn publish(dir: &Path, generation: &str) -> io::Result<()> {
    let next = dir.join(DATA_NEXT);
    remove_if_there(&next)?;
    symlink(generation, &next)?;
    fs::rename(&next, dir.join(DATA))
}

/// Makes the names that containers open, and drops those that have no file any more.
fn link(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<OsString> =
        payload.keys().filter_map(|path| path.components().next()).map(|c| c.as_os_str().to_owned()).collect();
    for name in &names {
        let at = dir.join(name);
        if fs::symlink_metadata(&at).is_err() {
            symlink(Path::new(DATA).join(name), &at)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b"..") && !names.contains(&name) {
            remove_if_there(&dir.join(name))?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn set_group(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    chown(path, None, Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o2000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { bytes: text.into(), mode: 0o644, owner: None }
    }

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("lists")
            .map(|e| e.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_generation_replaces_the_old_one_as_a_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert!(write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None, "g1").expect("writes"));
        assert_eq!(fs::read_to_string(dir.join("a")).expect("reads"), "1");
        assert_eq!(fs::read_to_string(dir.join("sub/b")).expect("reads"), "2");
        assert!(!write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None, "g2").expect("writes"));
        assert_eq!(names(dir), ["..data", "..g1", "a", "sub"]);
        assert!(write(dir, &payload(&[("a", "3"), ("c", "4")]), None, "g3").expect("writes"));
        assert_eq!(names(dir), ["..data", "..g3", "a", "c"]);
        assert_eq!(fs::read_to_string(dir.join("a")).expect("reads"), "3");
    }

    #[test]
    fn what_was_interrupted_after_it_was_published_is_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let files = payload(&[("a", "1"), ("b", "2")]);
        write(dir, &payload(&[("old", "0")]), None, "g0").expect("writes");
        // Killed, or out of space, right after the rename: no new names yet, the old ones and their files still there.
        fill(&dir.join("..g1"), &files, None).expect("fills");
        publish(dir, "..g1").expect("publishes");
        assert!(!write(dir, &files, None, "g2").expect("writes"));
        assert_eq!(names(dir), ["..data", "..g1", "a", "b"]);
        assert_eq!(fs::read_to_string(dir.join("b")).expect("reads"), "2");
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let dir = tempfile::tempdir().expect("a directory");
        for bad in ["../x", "/x", "a/../../x", "..data", "..x/y", ""] {
            assert!(!is_legal(Path::new(bad)), "{bad}");
            assert!(write(dir.path(), &payload(&[(bad, "1")]), None, "g").is_err(), "{bad}");
        }
        assert!(is_legal(Path::new(".hidden/..b")));
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn modes_are_set_whatever_the_umask() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut payload = payload(&[("a", "1")]);
        payload.get_mut(Path::new("a")).expect("a").mode = 0o640;
        write(dir.path(), &payload, None, "g").expect("writes");
        let mode = fs::metadata(dir.path().join("a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
