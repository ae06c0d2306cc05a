//! `knoll doctor`, and what `knoll up` insists on.

use std::path::Path;

use knoll_cli::Exit;
use knoll_container::doctor::{Check, examine};

use crate::{failure::Failure, paths::Paths, private, store};

/// Ports that an instance listens on unless told otherwise.
const PORTS: &[u16] = &[6443, 8080, 5000];

/// Prints what was found. Fails when something keeps knoll from running.
pub(crate) fn run(data_dir: &Path) -> Result<(), Failure> {
    let state = Paths::new(data_dir).monitor().state_dir;
    // The ports of an instance that runs are in use by right.
    let ports = if knoll_cli::instance::RunningInstance::find(data_dir).is_ok() { &[] } else { PORTS };
    let paths = Paths::new(data_dir);
    let mut checks = examine(&state, ports);
    checks.push(closed(&paths));
    checks.extend(store::check(&paths));
    for check in &checks {
        let mark = if check.ok { "ok  " } else { "fail" };
        println!("{mark}  {}: {}", check.name, check.found);
        if !check.fix.is_empty() {
            println!("      {}", check.fix);
        }
    }
    match checks.iter().filter(|check| !check.ok).count() {
        0 => Ok(()),
        bad => Err(Failure::text(Exit::Unavailable, format!("{bad} of {} checks fail", checks.len()))),
    }
}

/// Whether others can look into what is root's.
fn closed(paths: &Paths) -> Check {
    let name = "secrets";
    let found = match private::too_open(paths) {
        Ok(found) => found,
        Err(error) => return Check { name, ok: false, found: error.to_string(), fix: "run as root".to_owned() },
    };
    let Some(first) = found.first() else {
        let found = format!("only root can look into {}", paths.data.display());
        return Check { name, ok: true, found, fix: String::new() };
    };
    let others = if found.len() > 1 { format!(" and {} more", found.len() - 1) } else { String::new() };
    let text =
        format!("{} has mode {:o}{others}: other users can read what is in it", first.path.display(), first.mode);
    let path = first.path.display();
    let fix = format!("knoll up closes them; or chmod {:o} {path}", first.wanted);
    Check { name, ok: false, found: text, fix }
}

/// Fails with the first thing that keeps knoll from running.
pub(crate) fn require(paths: &Paths) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        let text = "containers need namespaces, cgroups and mounts: run as root, for example with sudo";
        return Err(Failure::text(Exit::NoPermission, text));
    }
    match examine(&paths.monitor().state_dir, &[]).into_iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(Check { name, found, fix, .. }) => {
            Err(Failure::text(Exit::Unavailable, format!("{name}: {found}: {fix} (`knoll doctor` checks everything)")))
        }
    }
}
