//! Which of the monitor's descriptors a child keeps. All others are closed before it does anything that the author of
//! a container has a say in: what is open can be reached by names below `/proc` (CVE-2024-21626).

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

use super::{Birth, Container, Exec, Failure, Step};
use crate::sys;

/// stdin, stdout and stderr.
const STDIO: usize = 3;

/// What is open in a child.
pub(super) struct Kept {
    /// Not to be closed: they are what the program reads and writes.
    _stdio: Vec<OwnedFd>,
    /// Where the child reports. Number 3, as the program in `birth` expects.
    pub(super) status: OwnedFd,
    /// The program that is born into the process-id namespace of others.
    pub(super) birth: Option<OwnedFd>,
    /// To be joined, in this order.
    namespaces: Vec<(OwnedFd, CloneFlags)>,
}

impl Kept {
    /// For a container's first process.
    pub(super) fn of_container(c: &Container<'_>) -> Result<Kept, Failure> {
        let mut namespaces = c.namespaces.clone();
        namespaces.extend(c.birth.as_ref().map(|birth| (birth.namespace, CloneFlags::CLONE_NEWPID)));
        Kept::new(&c.stdio, c.status, c.birth.as_ref(), &namespaces)
    }

    /// For an exec. With a terminal, which is opened later, its streams lead nowhere for now.
    pub(super) fn of_exec(e: &Exec<'_>) -> Result<Kept, Failure> {
        let mut all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWPID;
        if e.in_user_namespace {
            all |= CloneFlags::CLONE_NEWUSER;
        }
        // Never dropped: its number means something else once the others are closed.
        let null;
        let stdio = match e.stdio {
            Some(stdio) => stdio,
            None => {
                let file = File::options().read(true).write(true).open("/dev/null");
                null = ManuallyDrop::new(file.step(|| "cannot open /dev/null".into())?);
                [null.as_fd(); STDIO]
            }
        };
        Kept::new(&stdio, e.status, Some(&e.birth), &[(e.birth.namespace, all)])
    }

    fn new(
        stdio: &[BorrowedFd<'_>; STDIO],
        status: BorrowedFd<'_>,
        birth: Option<&Birth<'_>>,
        namespaces: &[(BorrowedFd<'_>, CloneFlags)],
    ) -> Result<Kept, Failure> {
        let mut all = stdio.to_vec();
        all.push(status);
        all.extend(birth.map(|birth| birth.program));
        all.extend(namespaces.iter().map(|(fd, _)| *fd));
        let what = || "cannot close the monitor's files".to_owned();
        let mut kept = sys::keep_only(&all, STDIO).step(what)?.into_iter();
        let stdio = kept.by_ref().take(STDIO).collect();
        let status = kept.next().ok_or(std::io::ErrorKind::NotFound).step(what)?;
        let birth = birth.and_then(|_| kept.next());
        let namespaces = kept.zip(namespaces.iter().map(|(_, kind)| *kind)).collect();
        Ok(Kept { _stdio: stdio, status, birth, namespaces })
    }

    /// Joins the namespaces and lets go of them.
    pub(super) fn join(&mut self) -> Result<(), Failure> {
        for (fd, kind) in std::mem::take(&mut self.namespaces) {
            setns(fd, kind).step(|| format!("cannot join namespaces ({kind:?})"))?;
        }
        Ok(())
    }

    /// Closes whatever has been opened since: what follows is up to the author of the container. Nothing opened since
    /// may be used, or dropped, any more.
    pub(super) fn close_others(&self) -> Result<(), Failure> {
        let first = STDIO + 1 + usize::from(self.birth.is_some());
        let first = i32::try_from(first).unwrap_or(i32::MAX);
        sys::close_from(first).step(|| "cannot close what was opened".into())
    }
}
