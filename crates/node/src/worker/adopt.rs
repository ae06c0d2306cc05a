//! A pod known again after the server was away.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use knoll_container::protocol::{ContainerStatus, Listing, Network, Phase};

use super::scribe::PodRecord;
use super::{etc, uid};
use crate::config::Config;
use crate::pod::{Life, ObservedPod, SandboxInfo, Step, Terminated};
use crate::runtime::parse_container_id;

/// What is kept on disk of a pod; `None` when there is nothing or it cannot be read. Blocking.
pub(crate) fn load_record(config: &Config, uid: &str) -> Option<PodRecord> {
    let path = PodRecord::path(config, uid);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        bytes => bytes,
    };
    let told = |error: &std::io::Error| {
        tracing::warn!(path = %path.display(), %error, "a pod's record is of no use; the pod is taken up without it");
    };
    bytes.and_then(|bytes| PodRecord::decode(&bytes)).inspect_err(told).ok()
}

/// What is true of `pod` now: what was kept of it, corrected by what the monitor still has. Blocking, for a moment.
pub(crate) fn adopt(
    pod: &Pod,
    kept: Option<ObservedPod>,
    listing: &Listing,
    config: &Config,
    now: Timestamp,
) -> ObservedPod {
    let mut seen = kept.unwrap_or_default();
    seen.settle(now);
    let uid = uid(pod);
    let of_pod = || listing.containers.iter().filter(|c| c.spec.sandbox.as_str() == uid);
    let runs = of_pod().any(|c| matches!(c.phase, Phase::Running));
    match listing.sandboxes.iter().find(|s| s.spec.id.as_str() == uid) {
        // The server ended before the sandbox was whole.
        Some(_) if !etc::are_there(config, pod, runs) => seen.sandbox = Step::Todo,
        Some(sandbox) => {
            let host_network = sandbox.spec.network == Network::Host;
            let address = sandbox.address.unwrap_or(config.address);
            seen.sandbox = Step::Done(SandboxInfo { address, host_network });
        }
        None => {
            // The machine restarted, or the sandbox was removed: everything in it is gone.
            seen.sandbox = Step::Todo;
            if matches!(seen.teardown, Step::Todo) {
                seen.volumes = Step::Todo;
            }
        }
    }
    for status in of_pod() {
        take(&mut seen, status, uid, now);
    }
    let known = |id: &str| listing.containers.iter().any(|c| c.spec.id.as_str() == id);
    for container in seen.containers.values_mut() {
        if let Life::Running { id, since } | Life::Stopping { id, since, .. } = &container.life
            && !known(id)
        {
            let lost = Terminated {
                id: id.clone(),
                code: 255,
                signal: None,
                reason: "ContainerStatusUnknown".into(),
                message: "The container could not be located when the pod was taken up again".into(),
                started: *since,
                finished: now,
            };
            container.end(lost);
        }
    }
    seen
}

/// Takes one container of the monitor into the observation; an older attempt than the known one says nothing new.
fn take(seen: &mut ObservedPod, status: &ContainerStatus, uid: &str, now: Timestamp) {
    let id = status.spec.id.as_str();
    let Some((name, attempt)) = parse_container_id(id, uid) else { return };
    let container = seen.container_mut(name);
    let same = container.running_id() == Some(id);
    if attempt < container.restarts || container.exit().is_some_and(|e| e.id == id) {
        return;
    }
    if attempt > container.restarts {
        if let Life::Exited(exit) = &container.life {
            container.last = Some(exit.clone());
        }
        container.restarts = attempt;
    }
    let since = status.started_at.min(now);
    container.pid = Some(status.pid);
    match &status.phase {
        Phase::Running if same => {}
        Phase::Running => {
            container.life = Life::Running { id: id.to_owned(), since };
            container.ready = false;
            container.started = false;
        }
        // How it ended is asked for like any other end, last words included.
        Phase::Exited(_) if same => {}
        Phase::Exited(_) => container.life = Life::Running { id: id.to_owned(), since },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use knoll_container::protocol::{ContainerId, ContainerSpec, Rootfs, SandboxId, SandboxSpec, SandboxStatus};
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}}))
            .expect("a pod")
    }

    /// A node whose pod was prepared.
    fn config(dir: &tempfile::TempDir) -> Config {
        let config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().into(), "/r".into());
        etc::write(&config, &pod(), Ipv4Addr::LOCALHOST).expect("is written");
        config
    }

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn listing(attempts: &[u32]) -> Listing {
        let now = Timestamp::UNIX_EPOCH;
        let sandbox = SandboxId::new("u").expect("an id");
        let containers = attempts.iter().map(|attempt| {
            let id = ContainerId::new(format!("u_c_{attempt}")).expect("an id");
            ContainerStatus {
                spec: ContainerSpec::new(id, sandbox.clone(), Rootfs::Directory("/".into()), vec!["x".into()]),
                phase: Phase::Running,
                pid: 1,
                pid_start_ticks: 1,
                boot_id: String::new(),
                cgroup: String::new(),
                started_at: now,
                stdin: None,
            }
        });
        Listing {
            containers: containers.collect(),
            sandboxes: vec![SandboxStatus {
                spec: SandboxSpec::new(sandbox.clone(), "p"),
                address: Some(Ipv4Addr::new(10, 244, 0, 9)),
                network_namespace: None,
                interface: None,
                cgroup: String::new(),
                created_at: now,
                boot_id: String::new(),
                ids: None,
                frozen: false,
            }],
            pooled: 0,
            next: None,
        }
    }

    #[test]
    fn what_runs_is_taken_up_without_a_record() {
        let seen = adopt(&pod(), None, &listing(&[0, 2, 1]), &config(&dir()), Timestamp::UNIX_EPOCH);
        assert_eq!(seen.address(), Some(Ipv4Addr::new(10, 244, 0, 9)));
        assert_eq!((seen.containers["c"].restarts, seen.containers["c"].running_id()), (2, Some("u_c_2")));
    }

    #[test]
    fn a_sandbox_whose_files_were_not_written_is_prepared_again() {
        let dir = dir();
        let config = config(&dir);
        let seen = |attempts: &[u32]| adopt(&pod(), None, &listing(attempts), &config, Timestamp::UNIX_EPOCH).sandbox;
        assert!(seen(&[]).done().is_some());
        let hosts = crate::runtime::etc_dir(&config, "u").join("hosts");
        std::fs::write(&hosts, "").expect("writes");
        assert_eq!(seen(&[]), Step::Todo, "a full disk left it empty");
        assert!(seen(&[0]).done().is_some(), "a container may have emptied its own");
        std::fs::remove_file(&hosts).expect("it is there");
        assert_eq!((seen(&[]), seen(&[0])), (Step::Todo, Step::Todo), "the server was killed before it wrote it");
    }

    #[test]
    fn a_known_container_stays_ready() {
        let mut kept = ObservedPod::default();
        let container = kept.container_mut("c");
        container.life = Life::Running { id: "u_c_0".into(), since: Timestamp::UNIX_EPOCH };
        container.ready = true;
        assert!(
            adopt(&pod(), Some(kept), &listing(&[0]), &config(&dir()), Timestamp::UNIX_EPOCH).containers["c"].ready
        );
    }

    #[test]
    fn what_vanished_has_ended_and_is_prepared_again() {
        let mut kept = ObservedPod { volumes: Step::Done(()), ..ObservedPod::default() };
        kept.container_mut("c").life = Life::Running { id: "u_c_0".into(), since: Timestamp::UNIX_EPOCH };
        let seen = adopt(&pod(), Some(kept), &Listing::default(), &config(&dir()), Timestamp::UNIX_EPOCH);
        assert_eq!((&seen.sandbox, &seen.volumes), (&Step::Todo, &Step::Todo));
        assert_eq!(seen.containers["c"].exit().map(|e| e.code), Some(255));
    }
}
