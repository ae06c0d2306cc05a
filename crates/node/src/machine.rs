//! The Node object and its Lease: what this machine is, and that it is alive.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::config::Config;
use crate::disk;
use crate::env::Allocatable;
use crate::pressure::Pressure;
use crate::shared::Shared;

/// Where leases of nodes live.
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// Heartbeats between two writes of an unchanged status: five minutes at the usual pace.
const BEATS_A_STATUS: u32 = 30;
/// Most images told in the status.
const TOLD_IMAGES: usize = 50;
const RETRY: Duration = Duration::from_millis(500);

/// What this machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    cores: u64,
    pub(crate) memory_bytes: u64,
    disk_bytes: u64,
    id: String,
    boot_id: String,
    kernel: String,
    os: String,
}

impl Machine {
    /// Looks at the machine; `dir` is where pods keep what they write. Blocking.
    pub(crate) fn look(dir: &Path) -> std::io::Result<Machine> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let disk = statvfs(dir)?;
        Ok(Machine {
            cores: std::thread::available_parallelism()?.get() as u64,
            memory_bytes: memory_total(&std::fs::read_to_string("/proc/meminfo")?),
            disk_bytes: disk.blocks() * disk.fragment_size(),
            id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel: text("/proc/sys/kernel/osrelease"),
            os: os_name(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
        })
    }

    /// What pods may use: everything.
    pub(crate) fn allocatable(&self) -> Allocatable {
        Allocatable {
            cpu_milli: i64::try_from(self.cores * 1000).unwrap_or(i64::MAX),
            memory_bytes: i64::try_from(self.memory_bytes).unwrap_or(i64::MAX),
            ephemeral_storage_bytes: i64::try_from(self.disk_bytes).unwrap_or(i64::MAX),
        }
    }

    /// The Node object.
    fn node(&self, config: &Config) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": config.name, "labels": {
                "kubernetes.io/hostname": config.name, "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(), "beta.kubernetes.io/os": "linux",
                "beta.kubernetes.io/arch": architecture(), "node-role.kubernetes.io/control-plane": "",
            }},
            "spec": {"podCIDR": pod_range(config), "podCIDRs": [pod_range(config)]},
        })
    }

    /// Its status. `previous` keeps transition times.
    fn status(&self, config: &Config, images: &[Value], previous: &Value, pressure: Pressure, now: Timestamp) -> Value {
        let capacity = json!({
            "cpu": self.cores.to_string(), "memory": format!("{}Ki", self.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", self.disk_bytes / 1024), "pods": config.max_pods.to_string(),
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        });
        json!({
            "capacity": capacity, "allocatable": capacity, "conditions": conditions(previous, pressure, now),
            "addresses": [{"type": "InternalIP", "address": config.address.to_string()},
                {"type": "Hostname", "address": config.name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": self.id, "systemUUID": self.id, "bootID": self.boot_id, "kernelVersion": self.kernel,
                "osImage": self.os, "containerRuntimeVersion": concat!("knoll://", env!("CARGO_PKG_VERSION")),
                "kubeletVersion": config.version, "kubeProxyVersion": "", "operatingSystem": "linux",
                "architecture": architecture(),
            },
            "images": images,
        })
    }
}

fn pod_range(config: &Config) -> String {
    format!("{}/{}", config.pod_network.0, config.pod_network.1)
}

/// Architecture as Kubernetes names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn os_name(release: &str) -> String {
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

fn conditions(previous: &Value, pressure: Pressure, now: Timestamp) -> Value {
    let stamp = stamp(now);
    let short = |kind, is, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if is { yes } else { no };
        (kind, if is { "True" } else { "False" }, reason, message)
    };
    let conditions = [
        short(
            "MemoryPressure",
            pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        short(
            "DiskPressure",
            pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        short(
            "PIDPressure",
            pressure.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let since = |kind: &str, status: &str| {
        let list = previous.pointer("/status/conditions").and_then(Value::as_array);
        let held = list.into_iter().flatten().find(|c| c["type"] == kind && c["status"] == status);
        held.and_then(|c| c["lastTransitionTime"].as_str()).unwrap_or(&stamp).to_owned()
    };
    let list = conditions.map(|(kind, status, reason, message)| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": stamp, "lastTransitionTime": since(kind, status)})
    });
    Value::Array(list.to_vec())
}

fn stamp(at: Timestamp) -> String {
    jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", at).unwrap_or_default()
}

/// The taints of a node that is short of this, those that others set kept; `None` when nothing changes.
fn taints(current: &Value, pressure: Pressure, now: Timestamp) -> Option<Value> {
    let before = current.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let ours = disk::taints(pressure);
    let mut list: Vec<Value> = before
        .iter()
        .filter(|taint| !ours.iter().any(|(key, wanted)| taint["key"] == *key && !wanted))
        .cloned()
        .collect();
    for (key, _) in ours.iter().filter(|(_, wanted)| *wanted) {
        if !list.iter().any(|taint| taint["key"] == *key) {
            list.push(json!({"key": key, "effect": "NoSchedule", "timeAdded": stamp(now)}));
        }
    }
    (list != before).then_some(if list.is_empty() { Value::Null } else { Value::Array(list) })
}

/// Keeps Node and Lease alive, for ever.
pub(crate) async fn run(shared: Arc<Shared>, machine: Machine) {
    let path = format!("/api/v1/nodes/{}", shared.config.name);
    let mut pressure = shared.pressure.subscribe();
    let mut beat = 0u32;
    loop {
        let outcome = async {
            if beat.is_multiple_of(BEATS_A_STATUS) || pressure.has_changed().unwrap_or(false) {
                let now = *pressure.borrow_and_update();
                if let Err(error) = write_status(&shared, &machine, &path, now).await {
                    pressure.mark_changed();
                    return Err(error);
                }
            }
            renew(&shared).await
        };
        match outcome.await {
            Ok(()) => {
                beat = beat.wrapping_add(1);
                // A shortage is told at once.
                drop(tokio::time::timeout(shared.config.heartbeat, changed(&pressure)).await);
            }
            Err(error) => {
                tracing::warn!(%error, "the node's heartbeat was not written");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Waits for a change without taking it in.
async fn changed(pressure: &watch::Receiver<Pressure>) {
    let mut looking = pressure.clone();
    if looking.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn write_status(shared: &Shared, machine: &Machine, path: &str, pressure: Pressure) -> knoll_client::Result<()> {
    let object = machine.node(&shared.config);
    let current: Value = match shared.api.get(path).await? {
        Some(current) => current,
        None => shared.api.create("/api/v1/nodes", &object).await?,
    };
    // Labels that others added stay; ours are put back.
    let (labels, range) = (&object["metadata"]["labels"], &object["spec"]);
    let missing =
        labels.as_object().into_iter().flatten().any(|(k, v)| current["metadata"]["labels"].get(k) != Some(v));
    if missing || current["spec"]["podCIDR"] != range["podCIDR"] {
        shared.api.merge(path, &json!({"metadata": {"labels": labels}, "spec": range})).await?;
    }
    let (images, now) = (images(shared), Timestamp::now());
    if let Some(taints) = taints(&current, pressure, now) {
        shared.api.merge(path, &json!({"spec": {"taints": taints}})).await?;
    }
    let status = machine.status(&shared.config, &images, &current, pressure, now);
    shared.api.merge(&format!("{path}/status"), &json!({"status": status})).await.map(drop)
}

/// The images that pods here run from.
fn images(shared: &Shared) -> Vec<Value> {
    let images = shared.images.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let tell = |(reference, image): (&String, &knoll_oci::Image)| json!({"names": [format!("{}@{}", image.name, image.digest), reference], "sizeBytes": image.size});
    images.iter().take(TOLD_IMAGES).map(tell).collect()
}

async fn renew(shared: &Shared) -> knoll_client::Result<()> {
    let name = &shared.config.name;
    let now = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%S%.6fZ", Timestamp::now()).unwrap_or_default();
    let seconds = shared.config.heartbeat.as_secs() * 4;
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": seconds, "renewTime": now});
    match shared.api.merge(&format!("{LEASES}/{name}"), &json!({"spec": spec})).await.map(drop) {
        Err(knoll_client::Error::Api(status)) if status.code == 404 => {
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
            shared.api.create(LEASES, &lease).await.map(drop)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_its_files() {
        assert_eq!(memory_total("MemTotal:       24576 kB\nMemFree: 1 kB\n"), 24576 * 1024);
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
        assert_eq!(os_name(""), "Linux");
    }

    #[test]
    fn transition_times_are_kept() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let none = Pressure::default();
        let first = json!({"status": {"conditions": conditions(&Value::Null, none, at(0))}});
        let second = conditions(&first, none, at(60));
        assert_eq!(second[3]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(second[3]["lastHeartbeatTime"], "1970-01-01T00:01:00Z");
    }
    #[test]
    fn a_shortage_is_told_and_keeps_new_pods_away() {
        let full = Pressure { disk: true, ..Pressure::default() };
        let told = conditions(&Value::Null, full, Timestamp::UNIX_EPOCH);
        assert_eq!((&told[1]["status"], &told[1]["reason"]), (&json!("True"), &json!("KubeletHasDiskPressure")));
        let others = json!({"key": "mine", "effect": "NoExecute"});
        let node = json!({"spec": {"taints": [others]}});
        let tainted = taints(&node, full, Timestamp::UNIX_EPOCH).expect("a change");
        assert_eq!((&tainted[0], &tainted[1]["key"]), (&others, &json!("node.kubernetes.io/disk-pressure")));
        let node = json!({"spec": {"taints": tainted}});
        assert_eq!(taints(&node, full, Timestamp::UNIX_EPOCH), None);
        assert_eq!(taints(&node, Pressure::default(), Timestamp::UNIX_EPOCH), Some(json!([others])));
    }
}
