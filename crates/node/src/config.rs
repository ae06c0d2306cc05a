//! What a node must be told, and whom it tells.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use knoll_client::rush::Rush;
use knoll_container::client::{Client, ClientError};
use knoll_container::network::ServiceChanges;

use crate::pressure::Thresholds;

/// How a node is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name in the API. Pods bound to this name are its pods.
    pub name: String,
    /// The machine's address as others see it.
    pub address: Ipv4Addr,
    /// The address the machine answers its pods on; DNS listens there.
    pub gateway: Ipv4Addr,
    /// Port of the DNS server; `None` turns it off.
    pub dns_port: Option<u16>,
    /// The suffix of names inside the cluster.
    pub cluster_domain: String,
    /// The pods' addresses: first address and prefix length.
    pub pod_network: (Ipv4Addr, u8),
    /// What lasts: scratch volumes, logs, records of pods.
    pub data_dir: PathBuf,
    /// What lasts until the machine restarts: files from Secrets and ConfigMaps.
    pub runtime_dir: PathBuf,
    /// The host's resolver configuration, whose servers are asked for names outside the cluster.
    pub resolv_conf: PathBuf,
    /// Docker's credentials of the machine, tried for every pull after the pod's own.
    pub docker_config: Option<PathBuf>,
    /// Variables given to every container that does not set them, in whatever case: proxy settings.
    pub extra_env: Vec<(String, String)>,
    /// Most pods.
    pub max_pods: u32,
    /// Most processes and threads of a pod, as kubelet's `podPidsLimit`.
    pub max_pids: u64,
    /// Most pulls at a time; one namespace has two fewer.
    pub parallel_pulls: usize,
    /// Where the monitor keeps containers, by their identity: their writable layers count as disk that a pod uses.
    pub containers_dir: Option<PathBuf>,
    /// Below which remainders the machine is short of something.
    pub thresholds: Thresholds,
    /// Share of the disk, in percent, above which unused images are removed.
    pub image_gc_high_percent: u8,
    /// Between two renewals of the node's lease.
    pub heartbeat: Duration,
    /// What `kubectl get nodes` shows as its version.
    pub version: String,
}

impl Config {
    /// A node of this name with the defaults, below `data_dir` and `runtime_dir`.
    pub fn new(name: impl Into<String>, address: Ipv4Addr, data_dir: PathBuf, runtime_dir: PathBuf) -> Config {
        Config {
            name: name.into(),
            address,
            gateway: knoll_container::protocol::GATEWAY,
            dns_port: Some(53),
            cluster_domain: "cluster.local".into(),
            pod_network: (Ipv4Addr::new(10, 244, 0, 0), 16),
            data_dir,
            runtime_dir,
            resolv_conf: "/etc/resolv.conf".into(),
            docker_config: None,
            extra_env: Vec::new(),
            max_pods: 10_000,
            max_pids: 4096,
            parallel_pulls: 8,
            containers_dir: None,
            thresholds: Thresholds::default(),
            image_gc_high_percent: 85,
            heartbeat: Duration::from_secs(10),
            version: "v1.35.0+knoll".into(),
        }
    }

    /// Where the files of one pod lie.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// Where a pod's volumes lie.
    pub(crate) fn places(&self, uid: &str) -> crate::volumes::Places {
        crate::volumes::Places {
            scratch: self.pod_dir(uid).join("volumes"),
            content: self.runtime_dir.join("pods").join(uid).join("volumes"),
        }
    }

    /// Where a container's output goes.
    pub(crate) fn log_path(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.log_dir(uid, container).join(format!("{attempt}.log"))
    }

    /// Where the output of all attempts of a container is.
    pub(crate) fn log_dir(&self, uid: &str, container: &str) -> PathBuf {
        self.pod_dir(uid).join("logs").join(container)
    }
}

/// An instance begins or ceases to take requests.
#[derive(Clone, Debug)]
pub struct InstanceEvent {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its address.
    pub address: IpAddr,
    /// Whether it takes requests now.
    pub up: bool,
}

/// Says of a host name and a namespace whether the one is served for the other.
pub type ServesHost = dyn Fn(&str, &str) -> bool + Send + Sync;

/// Whom a node tells, and what it asks for beside the API.
#[derive(Clone)]
pub struct Callbacks {
    /// Hears that an instance is ready as soon as its probes say so, before the API does; and that it is not any
    /// more, as soon as it begins to stop. Must not block.
    pub on_instance: Arc<dyn Fn(InstanceEvent) + Send + Sync>,
    /// For a pod that takes requests of others through us: ends once nobody waits for an answer of it. The node waits
    /// for that, within bounds, before it asks the instance to end.
    pub drained: Arc<dyn Fn(InstanceEvent) -> Option<BoxFuture<'static, ()>> + Send + Sync>,
    /// Puts changes of the addresses of Services into force. May block; it is called from a thread that may. The text
    /// of an error is logged and the call repeated later, with what has changed meanwhile: changes that it refused it
    /// must remember. Called without changes from time to time, to put back what somebody else took away.
    pub change_services: Arc<dyn Fn(ServiceChanges) -> Result<(), String> + Send + Sync>,
    /// Connects to the monitor again, starting it if need be, after its connection was lost.
    pub reconnect: Arc<dyn Fn() -> BoxFuture<'static, Result<Client, ClientError>> + Send + Sync>,
    /// What requests wait for: statuses and Events of pods let it pass first.
    pub rush: Rush,
    /// Whether the gateway answers for a host name inside the cluster (`svc.ns.svc.cluster.local`), and does so with
    /// Services of that namespace alone.
    pub gateway_serves: Arc<ServesHost>,
}
