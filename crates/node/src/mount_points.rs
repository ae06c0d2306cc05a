//! Layers beneath those of images, with the places that nearly every container has something mounted on.
//!
//! Without them each container would make these places in its writable layer, a dozen files and directories of the disk,
//! and have them deleted with it: half of what a start costs, and more the more containers came and went lately. What an
//! image has itself lies above.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use knoll_container::protocol::{Mount, MountSource};

use crate::config::Config;
use crate::runtime;

/// Where the kernel's file systems lie in every container.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];
/// Files of the node's in every container, unless a volume is there.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// Where the token of a ServiceAccount lies.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn with_files(config: &Config) -> PathBuf {
    config.data_dir.join("mount-points").join("files")
}

fn with_token(config: &Config) -> PathBuf {
    config.data_dir.join("mount-points").join("token")
}

/// Makes the layers, or what is missing of them.
pub(crate) fn make(config: &Config) -> io::Result<()> {
    let (files, token) = (with_files(config), with_token(config));
    KERNEL.iter().try_for_each(|name| directories(&files, name))?;
    directories(&files, "etc")?;
    for path in FILES {
        let file = File::options().create(true).truncate(false).append(true).open(below(&files, path))?;
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    directories(&token, TOKEN)?;
    // The root of an image without layers.
    directories(&runtime::empty_layer(config), "")
}

/// A directory below a layer with all above it, which everybody in a container may enter, whatever the umask.
fn directories(layer: &Path, path: &str) -> io::Result<()> {
    let inside = Path::new(path.trim_start_matches('/'));
    let mut all: Vec<PathBuf> = inside.ancestors().map(|part| layer.join(part)).collect();
    all.reverse();
    for directory in all {
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn below(layer: &Path, path: &str) -> PathBuf {
    layer.join(path.trim_start_matches('/'))
}

/// The layers for a container with these mounts, of which the node's files come from `etc`.
pub(crate) fn layers(config: &Config, mounts: &[Mount], etc: &Path) -> Vec<PathBuf> {
    let at = |place: &str| mounts.iter().find(|mount| mount.destination == Path::new(place));
    let of_node = |mount: &Mount| match &mount.source {
        MountSource::Bind { path, .. } => path.parent() == Some(etc),
        _ => false,
    };
    let files = FILES.iter().all(|place| at(place).is_some_and(of_node)).then(|| with_files(config));
    let token = at(TOKEN).map(|_| with_token(config));
    files.into_iter().chain(token).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn layers_are_made_once_and_mended() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().into(), dir.path().into());
        make(&config).expect("made");
        let hosts = below(&with_files(&config), "/etc/hosts");
        fs::remove_file(&hosts).expect("it is there");
        fs::set_permissions(with_token(&config).join("var"), Permissions::from_mode(0o700)).expect("it is there");
        make(&config).expect("mended");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&hosts), fs::read(&hosts).expect("it is there").len()), (0o644, 0));
        assert_eq!(mode(&with_token(&config).join("var")), 0o755);
        assert_eq!(mode(&below(&with_token(&config), TOKEN)), 0o755);
        assert!(KERNEL.iter().all(|name| with_files(&config).join(name).is_dir()));
    }
}
