//! Scratch volumes on a file system with project quotas: a small ext4 of the test's own.
//!
//! It is mounted in a mount namespace of the test's thread, and gone with it. A machine without loop devices, or without
//! project quotas (`CONFIG_QUOTA`, `CONFIG_QFMT_V2`), does not mount it: then the tests say that they were skipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::*;

const MIB: u64 = 1 << 20;
/// A user without `CAP_SYS_RESOURCE`, to whom limits apply.
const NOBODY: u32 = 65_534;

/// Runs `act` with places on the file system, or says that it does not.
fn with_quotas(act: impl FnOnce(&dyn Fn(&str) -> Places) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: mounting a file system needs root");
    }
    if !std::thread::scope(|scope| scope.spawn(|| mounted(act)).join()).expect("the test does not panic") {
        eprintln!(
            "SKIPPED: this machine has no loop devices, or its kernel no project quotas on ext4 (CONFIG_QUOTA, CONFIG_QFMT_V2)"
        );
    }
}

/// `false` when this kernel cannot.
fn mounted(act: impl FnOnce(&dyn Fn(&str) -> Places)) -> bool {
    let top = tempfile::tempdir().expect("a directory");
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("lets others through");
    let (image, disk) = (top.path().join("image"), top.path().join("disk"));
    fs::create_dir(&disk).expect("makes it");
    fs::File::create(&image).and_then(|file| file.set_len(64 * MIB)).expect("makes the image");
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: the test runs as root");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let (image, at) = (image.to_str().expect("text"), disk.to_str().expect("text"));
    assert!(run("mount", &["--make-rprivate", "/"]), "keeps its mounts to itself");
    assert!(run("mkfs.ext4", &["-q", "-O", "quota,project", image]), "mkfs.ext4 makes a file system with quotas");
    if !run("mount", &["-o", "loop,prjquota", image, at]) {
        return false;
    }
    act(&|pod| Places {
        scratch: disk.join("pods").join(pod).join("volumes"),
        content: disk.join("content").join(pod),
    });
    assert!(run("umount", &[at]), "unmounts it");
    true
}

fn scratch(name: &str, size: Option<u64>) -> Work {
    Work { name: name.to_owned(), step: WorkStep::Scratch { memory: false, size } }
}

/// Writes a file as an app does, and says how much of it there was room for.
fn write(volume: &Path, name: &str, mib: u64) -> u64 {
    let path = volume.join(name);
    let mut command = Command::new("dd");
    command.arg("if=/dev/zero").arg(format!("of={}", path.display())).arg("bs=64k").arg(format!("count={}", mib * 16));
    let run = command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stderr(Stdio::piped()).output().expect("runs dd");
    let written = fs::metadata(&path).map_or(0, |file| file.len());
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.success(), written == mib * MIB, "a write that does not fit is told: {told}");
    assert!(run.status.success() || told.contains("quota"), "by the quota: {told}");
    written
}

#[test]
fn a_volume_on_disk_takes_no_more_than_its_limit() {
    with_quotas(|places| {
        let (one, other) = (places("one"), places("other"));
        let volumes = [scratch("small", Some(2 * MIB)), scratch("large", Some(8 * MIB)), scratch("open", None)];
        let prepare = |places: &Places| prepare(&volumes, places, None, "1").expect("prepares");
        prepare(&one);
        prepare(&other);

        let small = one.scratch.join("small");
        let written = write(&small, "a", 4);
        assert!((MIB..=2 * MIB).contains(&written), "stopped at the limit: {written}");
        fs::create_dir(small.join("below")).expect("root makes a directory");
        fs::set_permissions(small.join("below"), fs::Permissions::from_mode(0o777)).expect("opens it");
        assert_eq!(write(&small.join("below"), "b", 1), 0, "nor does a directory in it have room");
        assert_eq!(write(&one.scratch.join("large"), "a", 4), 4 * MIB, "another volume of the pod has");
        assert_eq!(write(&one.scratch.join("open"), "a", 12), 12 * MIB, "one without a limit too");
        assert_eq!(write(&other.scratch.join("small"), "a", 1), MIB, "another pod's does as well");

        // The node starts anew, and prepares what it finds: the directories know their limits.
        prepare(&one);
        assert_eq!(write(&small, "c", 1), 0, "what was full still is");
        fs::remove_file(small.join("a")).expect("removes it");
        assert_eq!(write(&small, "c", 1), MIB, "what is removed makes room");
        assert!(write(&other.scratch.join("small"), "b", 2) < MIB + 1, "each has its own limit");
    });
}

#[test]
fn a_removed_volume_gives_its_limit_back() {
    with_quotas(|places| {
        let limited = |places: &Places| {
            let work = [scratch("v", Some(2 * MIB))];
            prepare(&work, places, None, "1").expect("prepares");
            let quota = knoll_container::quota::limit(&places.scratch.join("v"), 2 * MIB).expect("asks");
            match quota {
                knoll_container::quota::Limited::By(project) => project,
                other => panic!("the volume is limited, but {other:?}"),
            }
        };
        let (first, second) = (places("first"), places("second"));
        let project = limited(&first);
        assert_eq!(limited(&first), project, "the same again, after a restart");
        assert_ne!(limited(&second), project, "another volume's is another");
        // The second pod's volume keeps its own while the first's comes and goes.
        write(&first.scratch.join("v"), "a", 1);
        release(&first).expect("removes it");
        release(&first).expect("removes it again");
        assert!(!first.scratch.exists());
        assert_eq!(limited(&first), project, "the next with this inode finds it free");
        assert!(write(&second.scratch.join("v"), "a", 4) <= 2 * MIB);
        assert!(write(&first.scratch.join("v"), "a", 4) >= MIB, "nothing of before counts");

        // A crash may come between giving the limit back and removing the files.
        empty_dir::release(&first.scratch.join("v")).expect("gives it back");
        assert_eq!(write(&first.scratch.join("v"), "b", 3), 3 * MIB, "no limit holds");
        assert_ne!(limited(&places("third")), project, "what has files is in use");
        release(&first).expect("goes on with it");
    });
}

#[test]
fn a_volume_in_a_project_of_somebody_elses_stays_there() {
    use knoll_container::quota::{Limited, limit, release};
    with_quotas(|places| {
        // What Knoll's own data directory is for a Knoll inside a limited volume.
        let outer = places("outer").scratch;
        fs::create_dir_all(&outer).expect("makes it");
        let Limited::By(project) = limit(&outer, 4 * MIB).expect("limits it") else { panic!("is limited") };
        let inner = outer.join("inner");
        fs::create_dir(&inner).expect("makes it");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o777)).expect("opens it");
        assert_eq!(limit(&inner, 64 * MIB).expect("asks"), Limited::Foreign(project));
        assert!(!release(&inner).expect("asks"));
        assert!(write(&inner, "a", 8) <= 4 * MIB, "the limit around it holds");
    });
}
