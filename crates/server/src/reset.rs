//! `knoll reset`: no trace is left.

use std::{fs, io};

use knoll_cli::{Exit, arguments::ResetArguments, instance::Instance};
use knoll_container::{network, reset};

use crate::{
    failure::Failure,
    paths::{Paths, RUNTIME},
    up,
};

/// What an instance keeps in its data directory; anything else there is not ours to remove.
const OURS: &[&str] = &[
    "store",
    "images",
    "registry",
    "pki",
    "node",
    "containers",
    "admin.kubeconfig",
    "admin.new",
    "knoll.log",
    "instance.json",
    "instance.new",
];

/// Removes everything, after asking.
pub(crate) fn run(arguments: &ResetArguments) -> Result<(), Failure> {
    let paths = Paths::new(&arguments.data.data_dir);
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::text(Exit::NoPermission, "removing containers and rules needs root: run as root"));
    }
    if let Ok(instance) = Instance::find(&paths.data) {
        let text = format!("knoll runs (process {}): stop it first with `knoll down`", instance.pid);
        return Err(Failure::text(Exit::Unavailable, text));
    }
    if !arguments.yes && !confirmed(&paths)? {
        return Err(Failure::text(Exit::Failure, "nothing was removed"));
    }
    let _alone = up::claim_machine()?;
    reset::reset(&paths.monitor(), Some(&up::network_config())).map_err(|e| Failure::new(Exit::System, &e))?;
    network::remove_cables(up::monitor::CABLES).map_err(|e| Failure::new(Exit::System, &e))?;
    for name in OURS {
        remove(&paths.data.join(name))?;
    }
    // A directory that others put something into stays.
    match fs::remove_dir(&paths.data) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            return Err(Failure::io(format!("remove {}", paths.data.display()), &error));
        }
        _ => {}
    }
    remove(RUNTIME.as_ref())
}

fn confirmed(paths: &Paths) -> Result<bool, Failure> {
    println!("This removes all services, images and keys in {}. Type yes to go on.", paths.data.display());
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Failure::io("read the answer", &e))?;
    Ok(answer.trim() == "yes")
}

fn remove(path: &std::path::Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        // Not by the standard library: a layer may be deeper than its recursion.
        Ok(meta) if meta.is_dir() => knoll_oci::remove_tree(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|e| Failure::io(format!("remove {}", path.display()), &e))
}
