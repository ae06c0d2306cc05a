//! The files that every pod finds in its `/etc`, as they lie on the machine. Blocking.

use std::fs::{self, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::uid;
use crate::config::Config;
use crate::network::files::{self, Resolv};
use crate::runtime;

/// Each file, and whether it always says something.
const FILES: [(&str, bool); 3] = [("hostname", true), ("hosts", true), ("resolv.conf", false)];

/// Writes them. Each is there as a whole or not at all, whatever happens meanwhile.
pub(super) fn write(config: &Config, pod: &Pod, address: Ipv4Addr) -> io::Result<()> {
    let etc = runtime::etc_dir(config, uid(pod));
    let host = Resolv::parse(&fs::read_to_string(&config.resolv_conf).unwrap_or_default());
    let dns = config.dns_port.map(|_| config.gateway);
    fs::create_dir_all(&etc)?;
    put(&etc, "hostname", &(files::hostname(pod) + "\n"))?;
    put(&etc, "hosts", &files::hosts(pod, Some(address), &config.cluster_domain))?;
    put(&etc, "resolv.conf", &files::resolv(pod, &host, dns, &config.cluster_domain).render())
}

fn put(etc: &Path, name: &str, text: &str) -> io::Result<()> {
    let next = etc.join(format!("{name}.next"));
    // Whatever the umask: every user of a container reads these.
    fs::write(&next, text)
        .and_then(|()| fs::set_permissions(&next, Permissions::from_mode(0o644)))
        .and_then(|()| fs::rename(&next, etc.join(name)))
        .inspect_err(|_| drop(fs::remove_file(&next)))
}

/// Whether they were written. What runs may have emptied its own; while nothing does, an empty one was left by a
/// server that was killed, or by a full disk.
pub(super) fn are_there(config: &Config, pod: &Pod, runs: bool) -> bool {
    let etc = runtime::etc_dir(config, uid(pod));
    FILES.iter().all(|(name, speaks)| {
        let meta = fs::metadata(etc.join(name));
        meta.is_ok_and(|meta| meta.is_file() && (runs || !speaks || meta.len() > 0))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().into(), "/r".into());
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": []}}))
                .expect("a pod");
        assert!(!are_there(&config, &pod, false));
        write(&config, &pod, Ipv4Addr::LOCALHOST).expect("is written");
        assert!(are_there(&config, &pod, false));
        let etc = runtime::etc_dir(&config, "u");
        let hosts = etc.join("hosts");
        fs::remove_file(&hosts).expect("it is there");
        fs::create_dir(&hosts).expect("makes");
        write(&config, &pod, Ipv4Addr::LOCALHOST).expect_err("a directory is in the way");
        assert!(!etc.join("hosts.next").exists(), "nothing half-written stays");
        fs::remove_dir(&hosts).expect("it is there");
        assert!(!are_there(&config, &pod, true));
        fs::write(&hosts, "").expect("writes");
        assert_eq!((are_there(&config, &pod, false), are_there(&config, &pod, true)), (false, true));
    }
}
