//! `knoll reset`: no trace is left, and nothing that is not ours is touched.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use knoll_cli::{Exit, arguments::ResetArguments, instance::RunningInstance};
use knoll_container::{network, reset};
use knoll_store::Ownership;

use crate::{
    components::{monitor, node},
    failure::Failure,
    machine,
    paths::{OURS, Paths, RUNTIME},
};

/// Removes everything, after asking.
pub(crate) fn run(arguments: &ResetArguments) -> Result<(), Failure> {
    let paths = Paths::new(&arguments.data.data_dir);
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::text(Exit::NoPermission, "removing containers and rules needs root: run as root"));
    }
    if let Ok(instance) = RunningInstance::find(&paths.data) {
        let text = format!("knoll runs (process {}): stop it first with `knoll down`", instance.pid);
        return Err(Failure::text(Exit::Unavailable, text));
    }
    check_ours(&paths)?;
    if !arguments.yes && !confirmed(&paths)? {
        return Err(Failure::text(Exit::Failure, "nothing was removed"));
    }
    let _alone = machine::claim()?;
    reset::reset(&paths.monitor(), Some(&node::network_config())).map_err(|e| Failure::new(Exit::System, &e))?;
    network::remove_veths(monitor::VETHS).map_err(|e| Failure::new(Exit::System, &e))?;
    remove_data(&paths.data)?;
    check_mounts(RUNTIME.as_ref())?;
    remove(RUNTIME.as_ref())
}

/// Whether the directory has the mark of ours, or nothing that would be removed.
fn check_ours(paths: &Paths) -> Result<(), Failure> {
    let data = paths.data.display();
    let ownership = knoll_store::ownership(&paths.store());
    let ownership = ownership.map_err(|e| Failure::io(format!("look into {}", paths.store().display()), &e))?;
    let there = |name: &&str| fs::symlink_metadata(paths.data.join(name)).is_ok();
    match ownership {
        Ownership::Ours | Ownership::Newer => Ok(()),
        Ownership::Empty if !OURS.iter().any(there) => Ok(()),
        Ownership::Empty | Ownership::Foreign => {
            let text = format!(
                "{data} is not a data directory of knoll: store/FORMAT does not say so; nothing was removed. Give the \
                 right one with --data-dir, or remove this one by hand"
            );
            Err(Failure::text(Exit::Config, text))
        }
    }
}

fn confirmed(paths: &Paths) -> Result<bool, Failure> {
    println!("This removes all services, images and keys in {}. Type yes to go on.", paths.data.display());
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::io("read the answer", &e))?;
    Ok(answer.trim() == "yes")
}

/// Removes what is ours in a data directory.
fn remove_data(data: &Path) -> Result<(), Failure> {
    check_mounts(data)?;
    for name in OURS {
        remove(&data.join(name))?;
    }
    match fs::remove_dir(data) {
        Ok(()) => Ok(()),
        // What others put something into stays, and so does what others mounted.
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy => Ok(()),
            _ => Err(Failure::io(format!("remove {}", data.display()), &error)),
        },
    }
}

/// Refuses a directory below which something is mounted: what is in that is not in the directory.
fn check_mounts(directory: &Path) -> Result<(), Failure> {
    let failed = |what: String| move |e: io::Error| Failure::io(what, &e);
    let directory = match fs::canonicalize(directory) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::io(format!("find {}", directory.display()), &error)),
    };
    let table = fs::read("/proc/self/mountinfo").map_err(failed("read /proc/self/mountinfo".to_owned()))?;
    match mounted_below(&table, &directory) {
        None => Ok(()),
        Some(place) => {
            let text = format!("{} is mounted there: nothing was removed below it; unmount it first", place.display());
            Err(Failure::text(Exit::Unavailable, text))
        }
    }
}

/// A place below `directory`, other than itself, where something is mounted (`proc_pid_mountinfo(5)`).
fn mounted_below(table: &[u8], directory: &Path) -> Option<PathBuf> {
    let places = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    places.map(unescape).find(|place| place != directory && place.starts_with(directory))
}

/// Spaces and the like stand there as a backslash and three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                out.push(escaped);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// Removes a file, a link itself, or a directory with all in it; links in it are not followed.
fn remove(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        // Not by the standard library: a layer may be deeper than its recursion.
        Ok(meta) if meta.is_dir() => knoll_tree::remove(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|e| Failure::io(format!("remove {}", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn scratch() -> (tempfile::TempDir, Paths) {
        let scratch = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(&scratch.path().join("data"));
        fs::create_dir(&paths.data).expect("makes it");
        (scratch, paths)
    }

    #[test]
    fn a_directory_without_our_mark_is_left_as_it_is() {
        let (_scratch, paths) = scratch();
        assert!(check_ours(&paths).is_ok(), "there is nothing to lose");
        fs::create_dir(paths.images()).expect("makes it");
        fs::write(paths.images().join("holiday.jpg"), "mine").expect("writes");
        let refused = check_ours(&paths).expect_err("these images are somebody's");
        assert!(refused.to_string().contains("not a data directory of knoll"), "{refused}");
        knoll_store::prepare(&paths.store()).expect("marks it");
        assert!(check_ours(&paths).is_ok());
    }

    #[test]
    fn links_are_removed_and_not_followed_and_what_is_not_ours_stays() {
        let (scratch, paths) = scratch();
        let victim = scratch.path().join("victim");
        fs::create_dir(&victim).expect("makes it");
        fs::write(victim.join("precious"), "x").expect("writes");
        knoll_store::prepare(&paths.store()).expect("marks it");
        symlink(&victim, paths.images()).expect("links");
        fs::create_dir_all(paths.node().join("pods")).expect("makes it");
        symlink(&victim, paths.node().join("pods/volume")).expect("links");
        fs::write(paths.data.join("notes.txt"), "mine").expect("writes");
        remove_data(&paths.data).expect("removes");
        assert!(victim.join("precious").exists());
        let left: Vec<_> = fs::read_dir(&paths.data).expect("stays").map(|e| e.expect("reads").file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }

    #[test]
    fn mounts_below_are_found_whatever_their_name() {
        let table =
            b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /data rw - tmpfs t rw\n3 1 0:3 / /data\\040b/x rw - tmpfs t rw\n";
        assert_eq!(mounted_below(table, "/data".as_ref()), None, "mounted itself, and a neighbour");
        assert_eq!(mounted_below(table, "/data b".as_ref()), Some("/data b/x".into()));
        assert_eq!(mounted_below(table, "/data b/x".as_ref()), None);
    }
}
