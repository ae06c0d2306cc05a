//! Which of the monitor's descriptors a child keeps. All others are closed before it does anything that the author of
//! a container has a say in: what is open can be reached by names below `/proc` (CVE-2024-21626).

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

use super::{Birth, Container, Exec, Failure, Mapping, Step, become_root_inside};
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
    /// The user namespace to enter when everything is in place.
    user: Option<OwnedFd>,
    /// To be joined, in this order.
    namespaces: Vec<(OwnedFd, CloneFlags)>,
}

impl Kept {
    /// For a container's first process.
    pub(super) fn of_container(c: &Container<'_>) -> Result<Kept, Failure> {
        let mut namespaces = c.namespaces.clone();
        namespaces.extend(c.birth.as_ref().map(|birth| (birth.namespace, CloneFlags::CLONE_NEWPID)));
        Kept::new(&c.stdio, c.status, c.birth.as_ref(), c.ids.map(|mapping| mapping.namespace), &namespaces)
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
        Kept::new(&stdio, e.status, Some(&e.birth), None, &[(e.birth.namespace, all)])
    }

    fn new(
        stdio: &[BorrowedFd<'_>; STDIO],
        status: BorrowedFd<'_>,
        birth: Option<&Birth<'_>>,
        user: Option<BorrowedFd<'_>>,
        namespaces: &[(BorrowedFd<'_>, CloneFlags)],
    ) -> Result<Kept, Failure> {
        let mut all = stdio.to_vec();
        all.push(status);
        all.extend(birth.map(|birth| birth.program));
        all.extend(user);
        all.extend(namespaces.iter().map(|(fd, _)| *fd));
        let what = || "cannot close the monitor's files".to_owned();
        let mut kept = sys::keep_only(&all, STDIO).step(what)?.into_iter();
        let stdio = kept.by_ref().take(STDIO).collect();
        let status = kept.next().ok_or(std::io::ErrorKind::NotFound).step(what)?;
        let birth = birth.and_then(|_| kept.next());
        let user = user.and_then(|_| kept.next());
        let namespaces = kept.zip(namespaces.iter().map(|(_, kind)| *kind)).collect();
        Ok(Kept { _stdio: stdio, status, birth, user, namespaces })
    }

    /// Joins the namespaces and lets go of them.
    pub(super) fn join(&mut self) -> Result<(), Failure> {
        for (fd, kind) in std::mem::take(&mut self.namespaces) {
            setns(fd, kind).step(|| format!("cannot join namespaces ({kind:?})"))?;
        }
        Ok(())
    }

    /// The container's user namespace, by the descriptor that is open here.
    pub(super) fn mapping<'a>(&'a self, c: &Container<'_>) -> Option<Mapping<'a>> {
        Some(Mapping { namespace: self.user.as_ref()?.as_fd(), ids: c.ids?.ids })
    }

    /// Enters the user namespace, as its root, and a mount namespace that belongs to it: a copy of the one in which
    /// everything has been put in place, whose mounts cannot be taken apart or loosened any more.
    pub(super) fn enter_user_namespace(&mut self) -> Result<(), Failure> {
        let Some(user) = self.user.take() else { return Ok(()) };
        setns(user, CloneFlags::CLONE_NEWUSER).step(|| "cannot join the user namespace".into())?;
        become_root_inside()?;
        unshare(CloneFlags::CLONE_NEWNS).step(|| "cannot make a mount namespace in the user namespace".into())
    }

    /// Closes whatever has been opened since: what follows is up to the author of the container. Nothing opened since
    /// may be used, or dropped, any more.
    pub(super) fn close_others(&self) -> Result<(), Failure> {
        let first = STDIO + 1 + usize::from(self.birth.is_some()) + usize::from(self.user.is_some());
        let first = i32::try_from(first).unwrap_or(i32::MAX);
        sys::close_from(first).step(|| "cannot close what was opened".into())
    }
}
