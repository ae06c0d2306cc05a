//! Which devices containers may use, as in every OCI runtime: nodes of any kind may be made, but only harmless ones be
//! opened. The nodes in `/dev` are all there is as it is; this holds for a container that may mount file systems, too.
//!
//! With the `devices` controller of version 1 all containers are in one group of its hierarchy, below another one with
//! the same rules: so even who may write to the group's rules gains nothing, since the group above forbids it. Without
//! the controller a program on each container's group in the unified tree decides.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::{Cgroups, write};
use crate::sys;

/// Character devices by number; all of a driver without a second one: null, zero, full, random, urandom, tty, ptmx,
/// and terminals.
const ALLOWED: [(u32, Option<u32>); 8] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// The groups of the version 1 hierarchy, below the root of all containers.
const OUTER: &str = "confined";
const INNER: &str = "confined/containers";

/// How devices are kept from containers on this machine.
#[derive(Debug)]
pub(crate) enum Devices {
    /// By membership in this group.
    Group(PathBuf),
    /// By a program on the container's group.
    Program(OwnedFd),
}

impl Devices {
    /// Makes rules for containers below `root`, whose group exists.
    pub(crate) fn prepare(cgroups: &Cgroups, root: &str) -> io::Result<Devices> {
        match &cgroups.devices {
            Some(mount) => make_groups(mount.join(root)).map(Devices::Group),
            None if cgroups.unified.is_some() => sys::device_program(&ALLOWED).map(Devices::Program),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "there is no devices controller")),
        }
    }

    /// Before a container's first process: prepares its group.
    pub(crate) fn confine_group(&self, cgroups: &Cgroups, group: &str) -> io::Result<()> {
        match (self, cgroups.unified(group)) {
            (Devices::Program(program), Some(directory)) => {
                sys::attach_device_program(File::open(directory)?.as_fd(), program.as_fd())
            }
            _ => Ok(()),
        }
    }

    /// In a process of a container: leaves what is forbidden behind for good.
    pub(crate) fn confine_self(&self) -> io::Result<()> {
        match self {
            Devices::Group(directory) => write(&directory.join("tasks"), "0"),
            Devices::Program(_) => Ok(()),
        }
    }
}

fn make_groups(root: PathBuf) -> io::Result<PathBuf> {
    let (outer, inner) = (root.join(OUTER), root.join(INNER));
    let make = |directory: &PathBuf| match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    make(&root)?;
    make(&outer)?;
    // Rules of a group with groups below cannot be replaced, and those of an earlier monitor are the same.
    if !inner.exists() {
        write(&outer.join("devices.deny"), "a")?;
        let nodes = ["c *:* m".to_owned(), "b *:* m".to_owned()];
        let devices = ALLOWED.map(|(major, minor)| {
            let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
            format!("c {major}:{minor} rwm")
        });
        nodes.iter().chain(&devices).try_for_each(|rule| write(&outer.join("devices.allow"), rule))?;
        make(&inner)?;
    }
    Ok(inner)
}

impl Cgroups {
    /// How devices can be kept from containers here, in words. Changes nothing.
    pub(crate) fn means_against_devices(&self) -> io::Result<&'static str> {
        match &self.devices {
            Some(_) => Ok("by the devices controller"),
            None if self.unified.is_some() => sys::device_program(&ALLOWED).map(|_| "by a program on control groups"),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "there is no devices controller")),
        }
    }

    /// Removes what [`Devices::prepare`] has made. Nothing may run in it any more.
    pub(crate) fn remove_devices(&self, root: &str) -> io::Result<()> {
        let Some(mount) = &self.devices else { return Ok(()) };
        for group in [format!("{root}/{INNER}"), format!("{root}/{OUTER}"), root.to_owned()] {
            match fs::remove_dir(mount.join(group)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_program_on_a_group_keeps_devices_from_it() {
        let cgroups = Cgroups::discover().unwrap();
        let Some(directory) = cgroups.unified(&format!("knolltest-devices-{}", std::process::id())) else { return };
        fs::create_dir(&directory).unwrap();
        let program = sys::device_program(&ALLOWED).unwrap();
        sys::attach_device_program(File::open(&directory).unwrap().as_fd(), program.as_fd()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs; cd {}; head -c 1 /dev/zero | wc -c; echo x > /dev/null && echo null; \
             mknod kmsg c 1 11 && echo made; head -c 0 kmsg 2>/dev/null || echo refused",
            directory.display(),
            place.path().display()
        );
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        fs::remove_dir(&directory).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\nnull\nmade\nrefused\n");
    }
}
