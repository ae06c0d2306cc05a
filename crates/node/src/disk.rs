//! What pods use of the disk, and what happens when it fills up.
//!
//! When the disk is short, unused images go first, then pods, one at a look, until it is not ([`crate::eviction`]); when
//! memory is, pods. Whatever it is short of, the node says so and takes no new pods. A pod with limits of its own is measured from time
//! to time and evicted when it is above them. One tree is measured at a time: measuring must not be what fills the
//! machine's day.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_api::clock::JumpWatch;
use nix::sys::statvfs::statvfs;

use crate::agent::Node;
use crate::config::Config;
use crate::eviction::{self, Scarce};
use crate::pod::containers;
use crate::pressure::{Barometer, Pressure, Remainder};
use crate::resources;
use crate::shared::Shared;
use crate::worker::uid;
use crate::{clocks, images, volumes};

/// Between two looks at the machine.
const PERIOD: Duration = Duration::from_secs(10);
/// Resource of disk space.
pub(crate) const RESOURCE: &str = "ephemeral-storage";

/// What a pod uses of the disk, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Everything.
    pub(crate) total: u64,
    /// Writable layers and logs, by container.
    containers: BTreeMap<String, u64>,
    /// Scratch volumes on disk that have a limit.
    volumes: BTreeMap<String, u64>,
}

/// Looks at the machine from time to time, for ever.
pub(crate) async fn run(node: Node) {
    let mut barometer = Barometer::default();
    let mut jumps = JumpWatch::new(clocks());
    loop {
        let left = remainder(&node.shared.config).await;
        let mut judged = node.shared.config.thresholds.judge(&left);
        if judged.disk {
            images::collect(&node).await;
            judged = node.shared.config.thresholds.judge(&remainder(&node.shared.config).await);
        }
        for (short, of) in [(judged.disk, Scarce::Disk), (judged.memory, Scarce::Memory)] {
            if short {
                eviction::evict_one(&node, of).await;
            }
        }
        let told = barometer.take(judged, node.shared.clock.now());
        node.shared.pressure.send_if_modified(|before| {
            let differs = *before != told;
            if differs {
                tracing::warn!(?told, ?left, "what the machine is short of has changed");
            }
            *before = told;
            differs
        });
        tokio::time::sleep(PERIOD).await;
        if let Some(by) = jumps.look(clocks()) {
            tracing::warn!(?by, "the clock was set, or the machine slept: tokens of pods are renewed");
            node.shared.clock_set.send_replace(());
        }
    }
}

async fn remainder(config: &Config) -> Remainder {
    let dir = config.data_dir.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let disk = statvfs(&dir).ok();
        let bytes = |blocks: u64, size: u64| blocks.saturating_mul(size);
        Remainder {
            disk: disk.map_or((0, 0), |disk| {
                let size = disk.fragment_size();
                (bytes(disk.blocks(), size), bytes(disk.blocks_available(), size))
            }),
            files: disk.map_or((0, 0), |disk| (disk.files(), disk.files_available())),
            memory: available_memory(&text("/proc/meminfo")).unwrap_or(u64::MAX),
            pids: free_pids(&text("/proc/sys/kernel/pid_max"), &text("/proc/loadavg")).unwrap_or_default(),
        }
    });
    looked.await.unwrap_or(Remainder { memory: u64::MAX, ..Remainder::default() })
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Process numbers, all and free; each thread has one (the fourth field of proc_loadavg(5)).
fn free_pids(pid_max: &str, loadavg: &str) -> Option<(u64, u64)> {
    let all: u64 = pid_max.trim().parse().ok()?;
    let (_, used) = loadavg.split_whitespace().nth(3)?.split_once('/')?;
    Some((all, all.saturating_sub(used.parse().ok()?)))
}

/// What a pod uses now; `None` when it cannot be measured.
pub(crate) async fn measure(shared: &Shared, pod: &Arc<Pod>) -> Option<Usage> {
    let turn = Arc::clone(&shared.measuring).acquire_owned().await.ok()?;
    let (config, pod) = (shared.config.clone(), Arc::clone(pod));
    let measured = tokio::task::spawn_blocking(move || {
        // Held until the thread is done, whether anybody still waits for it or not.
        let _turn = turn;
        usage(&config, &pod)
    });
    let measured = measured.await;
    match measured {
        Ok(Ok(usage)) => Some(usage),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a pod's disk usage cannot be measured");
            None
        }
        Err(_) => None,
    }
}

fn usage(config: &Config, pod: &Pod) -> std::io::Result<Usage> {
    let uid = uid(pod);
    let absent_is_none = |measured: std::io::Result<u64>| match measured {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        measured => measured,
    };
    let mut out = Usage { total: absent_is_none(knoll_tree::usage(&config.pod_dir(uid)))?, ..Usage::default() };
    for (_, container) in pod.spec.iter().flat_map(containers) {
        let logs = absent_is_none(knoll_tree::usage(&config.log_dir(uid, &container.name)))?;
        let mut layers = 0u64;
        for dir in layers_of(config, uid, &container.name) {
            layers = layers.saturating_add(absent_is_none(knoll_tree::usage(&dir))?);
        }
        out.total = out.total.saturating_add(layers);
        out.containers.insert(container.name.clone(), logs.saturating_add(layers));
    }
    for (name, dir, _) in volumes::limited_scratch(pod, &config.places(uid)) {
        out.volumes.insert(name, absent_is_none(knoll_tree::usage(&dir))?);
    }
    Ok(out)
}

/// The writable layers of a container's attempts.
fn layers_of(config: &Config, uid: &str, container: &str) -> Vec<PathBuf> {
    let Some(top) = &config.containers_dir else { return Vec::new() };
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let prefix = format!("{uid}_{container}_");
    let entries = std::fs::read_dir(top).into_iter().flatten().flatten();
    let of = entries.filter_map(name).filter(|id| id.strip_prefix(&prefix).is_some_and(|n| n.parse::<u32>().is_ok()));
    of.map(|id| Path::new(top).join(id).join("upper")).collect()
}

/// Whether a pod has limits that [`overuse`] looks at.
pub(crate) fn is_limited(pod: &Pod, config: &Config) -> bool {
    let has_limit = |(_, c): (_, &Container)| limit(c).is_some();
    !volumes::limited_scratch(pod, &config.places(uid(pod))).is_empty()
        || pod.spec.iter().flat_map(containers).any(has_limit)
}

/// What of its limits a pod is above, as its status tells it.
pub(crate) fn overuse(pod: &Pod, config: &Config, used: &Usage) -> Option<String> {
    let of_volume = volumes::limited_scratch(pod, &config.places(uid(pod))).into_iter().find_map(|(name, _, limit)| {
        let above = used.volumes.get(&name).is_some_and(|used| *used > limit);
        above.then(|| format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{limit}\". "))
    });
    let of_container = || {
        pod.spec.iter().flat_map(containers).find_map(|(_, c)| {
            let limit = limit(c)?;
            let above = used.containers.get(&c.name).is_some_and(|used| *used > limit);
            above.then(|| format!("Container {} exceeded its local ephemeral storage limit \"{limit}\". ", c.name))
        })
    };
    let of_pod = || {
        // Only when each of those that run side by side has one.
        let mut limits = pod.spec.as_ref()?.containers.iter().map(limit);
        let limit = limits.try_fold(0u64, |sum, limit| Some(sum.saturating_add(limit?)))?;
        let above = used.total > limit;
        above.then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
    };
    of_volume.or_else(of_container).or_else(of_pod)
}

fn limit(container: &Container) -> Option<u64> {
    let limits = container.resources.as_ref()?.limits.as_ref();
    let limit = resources::read(limits, RESOURCE).ok().flatten()?;
    u64::try_from(limit.units()).ok().filter(|bytes| *bytes > 0)
}

/// The taints that keep new pods away, by key.
pub(crate) fn taints(pressure: Pressure) -> [(&'static str, bool); 3] {
    [
        ("node.kubernetes.io/disk-pressure", pressure.disk),
        ("node.kubernetes.io/memory-pressure", pressure.memory),
        ("node.kubernetes.io/pid-pressure", pressure.pids),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "2Mi"}}}]}}))
        .expect("a pod")
    }

    #[test]
    fn whoever_is_above_a_limit_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().join("data"), dir.path().join("run"));
        config.containers_dir = Some(dir.path().join("containers"));
        let pod = pod();
        assert!(is_limited(&pod, &config));
        assert_eq!(usage(&config, &pod).expect("measures").total, 0);
        let write = |path: PathBuf, kib: usize| {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            std::fs::write(path, vec![1; kib << 10]).expect("writes");
        };
        let told = || overuse(&pod, &config, &usage(&config, &pod).expect("measures"));
        assert_eq!(told(), None);
        write(config.places("u").scratch.join("w/f"), 1900);
        assert_eq!(told(), None, "a volume without a limit counts for the pod alone");
        write(dir.path().join("containers/u_c_3/upper/f"), 300);
        assert_eq!(
            told().as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2097152. ")
        );
        write(config.log_path("u", "c", 3), 2000);
        assert_eq!(told().as_deref(), Some("Container c exceeded its local ephemeral storage limit \"2097152\". "));
        write(config.places("u").scratch.join("v/f"), 1100);
        assert_eq!(told().as_deref(), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1048576\". "));
        write(dir.path().join("containers/u_cc_0/upper/f"), 5000);
        assert!(usage(&config, &pod).expect("measures").total < 6 << 20, "another container's layer is its own");
    }

    #[test]
    fn a_pod_of_many_empty_files_is_above_its_limit() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().join("data"), dir.path().join("run"));
        let volume = config.places("u").scratch.join("v");
        std::fs::create_dir_all(&volume).expect("makes");
        for n in 0..300 {
            std::fs::write(volume.join(n.to_string()), b"").expect("writes");
        }
        let told = overuse(&pod(), &config, &usage(&config, &pod()).expect("measures"));
        assert_eq!(told.as_deref(), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1048576\". "));
    }

    #[test]
    fn the_machine_is_read_from_its_files() {
        assert_eq!(available_memory("MemFree: 1 kB\nMemAvailable:  2048 kB\n"), Some(2 << 20));
        assert_eq!(free_pids("32768\n", "0.1 0.2 0.3 2/768 999\n"), Some((32_768, 32_000)));
        assert_eq!(free_pids("", ""), None);
    }
}
