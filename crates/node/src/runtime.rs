//! A container of a pod as the monitor is asked to run it. Pure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_container::protocol::{
    ContainerId, ContainerSpec, InvalidId, Mount, MountPropagation, MountSource, Network, Resources, Rootfs, SandboxId,
    SandboxSpec, Stdin,
};
use knoll_oci::Image;

use crate::config::Config;
use crate::env::{self, EnvError, Inputs};
use crate::mount_points;
use crate::network::files;
use crate::resources::{self, Limits, QUOTA_PERIOD_MICROS, ResourceError};
use crate::security::{self, SecurityError};
use crate::volumes::{self, MountError};

/// As many layers as the kernel stacks.
const MOST_LAYERS: usize = 500;
/// Where a container leaves its last words when nothing says so.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Why a container cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Its environment cannot be resolved.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// It must not run like that.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Its volumes cannot be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Its limits cannot be read.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// Neither it nor its image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// Its name cannot be used.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// The identity of one attempt to run a container.
///
/// # Errors
/// When pod or container have names that no API server lets through.
pub fn container_id(uid: &str, container: &str, attempt: u32) -> Result<ContainerId, InvalidId> {
    ContainerId::new(format!("{uid}_{container}_{attempt}"))
}

/// Container and attempt of an identity made by [`container_id`] for the pod `uid`.
pub fn parse_container_id<'a>(id: &'a str, uid: &str) -> Option<(&'a str, u32)> {
    let (name, attempt) = id.strip_prefix(uid)?.strip_prefix('_')?.rsplit_once('_')?;
    Some((name, attempt.parse().ok()?))
}

/// Where the files of a pod that the node itself provides lie.
pub fn etc_dir(config: &Config, uid: &str) -> PathBuf {
    config.pod_dir(uid).join("etc")
}

/// Where a container's last words arrive.
pub fn termination_log(config: &Config, uid: &str, container: &str, attempt: u32) -> PathBuf {
    config.pod_dir(uid).join("termination").join(format!("{container}_{attempt}"))
}

/// The sandbox of a pod.
///
/// # Errors
/// When its limits or names cannot be read.
pub fn sandbox_spec(config: &Config, pod: &Pod) -> Result<SandboxSpec, SpecError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let yes = |value: Option<bool>| value.unwrap_or(false);
    let mut sandbox = SandboxSpec::new(SandboxId::new(uid)?, files::hostname(pod));
    if yes(spec.and_then(|s| s.host_network)) {
        sandbox.network = Network::Host;
    }
    sandbox.shared_pid = yes(spec.and_then(|s| s.share_process_namespace));
    sandbox.host_pid = yes(spec.and_then(|s| s.host_pid));
    sandbox.host_ipc = yes(spec.and_then(|s| s.host_ipc));
    sandbox.user_namespace = security::user_namespace(pod)?;
    sandbox.sysctls = security::sysctls(pod)?;
    sandbox.resources = Resources { pids: Some(config.max_pids), ..protocol_limits(&resources::pod_limits(pod)?) };
    let meta = &pod.metadata;
    sandbox.annotations = [("namespace", &meta.namespace), ("name", &meta.name)]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
        .collect();
    Ok(sandbox)
}

/// One attempt to run a container.
///
/// # Errors
/// When its configuration cannot be resolved; the texts are those that `CreateContainerConfigError` shows.
pub fn container_spec(
    config: &Config,
    inputs: &Inputs<'_>,
    container: &Container,
    image: &Image,
    attempt: u32,
    memory_capacity: u64,
) -> Result<ContainerSpec, SpecError> {
    let pod = inputs.pod;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let own = env::resolve(container, inputs)?;
    let args = command_line(container, image, &own)?;
    let id = container_id(uid, &container.name, attempt)?;
    let mounts = mounts(config, pod, container, &own, attempt)?;
    let below = mount_points::layers(config, &mounts, &etc_dir(config, uid));
    let mut spec = ContainerSpec::new(id, SandboxId::new(uid)?, rootfs(config, below, image), args);
    spec.mounts = mounts;
    spec.env = environment(config, pod, image, own);
    spec.cwd = match container.working_dir.as_deref().filter(|d| !d.is_empty()) {
        Some(own) => PathBuf::from(own),
        None => PathBuf::from(&image.config.working_dir),
    };
    spec.security = security::security(pod, container, &image.config.user)?;
    let limits = resources::container_limits(pod, container, memory_capacity)?;
    spec.resources = protocol_limits(&limits);
    spec.oom_score_adj = Some(limits.oom_score_adj);
    spec.stdin = if container.stdin.unwrap_or(false) { Stdin::Pipe } else { Stdin::Null };
    spec.log_path = Some(config.log_path(uid, &container.name, attempt));
    spec.shm_bytes = None;
    Ok(spec)
}

fn protocol_limits(limits: &Limits) -> Resources {
    Resources {
        cpu_shares: Some(limits.cpu_shares),
        cpu_quota_us: limits.cpu_quota_micros,
        cpu_period_us: limits.cpu_quota_micros.map(|_| QUOTA_PERIOD_MICROS),
        memory_bytes: limits.memory_bytes,
        pids: None,
    }
}

/// The layers of an image above those of the node, as far as there is room for those.
fn rootfs(config: &Config, below: Vec<PathBuf>, image: &Image) -> Rootfs {
    let room = below.len() + image.layers.len() <= MOST_LAYERS;
    let mut lowers: Vec<PathBuf> = below.into_iter().filter(|_| room).chain(image.layers.clone()).collect();
    if image.layers.is_empty() {
        lowers.push(empty_layer(config));
    }
    Rootfs::Overlay { lowers }
}

/// A directory that stands in for the layers of an image without any.
pub fn empty_layer(config: &Config) -> PathBuf {
    config.data_dir.join("empty")
}

/// A container's `command` replaces the image's entrypoint and its words; its `args` replace the words alone.
fn command_line(container: &Container, image: &Image, own: &[(String, String)]) -> Result<Vec<String>, SpecError> {
    let given = |words: &Option<Vec<String>>| {
        words.as_deref().filter(|w| !w.is_empty()).map(|w| env::command_line(w, own)).transpose()
    };
    let (command, args) = (given(&container.command)?, given(&container.args)?);
    let line: Vec<String> = match (command, args) {
        (Some(command), args) => command.into_iter().chain(args.into_iter().flatten()).collect(),
        (None, Some(args)) => image.config.entrypoint.iter().cloned().chain(args).collect(),
        (None, None) => image.config.entrypoint.iter().chain(&image.config.cmd).cloned().collect(),
    };
    if line.is_empty() { Err(SpecError::NoCommand) } else { Ok(line) }
}

/// The image's variables, overruled by the machine's, overruled by the container's own. Programs differ in the case
/// they read proxy settings in, so what the container sets in one stands for the other, too.
fn environment(config: &Config, pod: &Pod, image: &Image, own: Vec<(String, String)>) -> Vec<String> {
    let mut list: Vec<(String, String)> = Vec::new();
    // Where each stands: an object has room for tens of thousands of variables.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut set = |name: &str, value: &str| match places.get(name) {
        Some(known) => value.clone_into(&mut list[*known].1),
        None => {
            places.insert(name.to_owned(), list.len());
            list.push((name.to_owned(), value.to_owned()));
        }
    };
    set("HOSTNAME", &files::hostname(pod));
    for pair in &image.config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value);
    }
    let free = |name: &str| !own.iter().any(|(taken, _)| taken.eq_ignore_ascii_case(name));
    for (name, value) in config.extra_env.iter().filter(|(name, _)| free(name)) {
        set(name, value);
    }
    for (name, value) in &own {
        set(name, value);
    }
    list.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn mounts(
    config: &Config,
    pod: &Pod,
    container: &Container,
    own: &[(String, String)],
    attempt: u32,
) -> Result<Vec<Mount>, SpecError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let volumes = volumes::mounts(pod, container, &config.places(uid), own)?;
    let taken = |path: &Path| volumes.iter().any(|m| m.destination == path);
    let etc = etc_dir(config, uid);
    let words = container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(TERMINATION_LOG);
    let provided = [
        (PathBuf::from("/etc/hosts"), etc.join("hosts")),
        (PathBuf::from("/etc/hostname"), etc.join("hostname")),
        (PathBuf::from("/etc/resolv.conf"), etc.join("resolv.conf")),
        (PathBuf::from(words), termination_log(config, uid, &container.name, attempt)),
    ];
    let mut list: Vec<_> = provided
        .into_iter()
        .filter(|(destination, _)| !taken(destination))
        .map(|(destination, path)| Mount {
            destination,
            source: MountSource::Bind { path, sub_path: None },
            read_only: false,
            propagation: MountPropagation::Private,
        })
        .collect();
    list.extend(volumes);
    list.sort_by_key(|m| m.destination.components().count());
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Allocatable, Sources};
    use knoll_oci::{Digest, ImageConfig};
    use serde_json::{Value, json};
    use std::net::Ipv4Addr;

    fn spec(container: Value) -> Result<ContainerSpec, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "containers": [container]}}))
        .expect("a pod");
        let config = Config {
            extra_env: vec![("PROXY".into(), "x".into())],
            ..Config::new("n", Ipv4Addr::LOCALHOST, "/data".into(), "/run/k".into())
        };
        let image = Image {
            name: "reg/app".into(),
            digest: Digest::of(b"x"),
            config: ImageConfig {
                entrypoint: vec!["/app".into()],
                cmd: vec!["serve".into()],
                env: vec!["PATH=/bin".into(), "A=image".into(), "PROXY=image".into()],
                user: "7".into(),
                working_dir: "/srv".into(),
                ..ImageConfig::default()
            },
            layers: vec!["/layers/1".into()],
            size: 1,
            is_for_everybody: true,
            hold: knoll_oci::ImageHold::default(),
        };
        let sources = Sources::default();
        let inputs = Inputs {
            pod: &pod,
            host_ip: "192.0.2.1",
            pod_ip: "10.244.0.5",
            allocatable: Allocatable::default(),
            sources: &sources,
            services: &[],
            node_name: "n",
        };
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        container_spec(&config, &inputs, container, &image, 2, 1 << 30).map_err(|e| e.to_string())
    }

    #[test]
    fn command_and_args_replace_what_the_image_says() {
        let args = |container: Value| spec(container).expect("can be made").args;
        assert_eq!(args(json!({"name": "c"})), ["/app", "serve"]);
        assert_eq!(args(json!({"name": "c", "args": ["x"]})), ["/app", "x"]);
        assert_eq!(args(json!({"name": "c", "command": ["sh"]})), ["sh"]);
        assert_eq!(
            args(json!({"name": "c", "command": ["sh"], "args": ["-c", "$(A)"], "env": [{"name": "A", "value": "1"}]})),
            ["sh", "-c", "1"]
        );
    }

    #[test]
    fn the_nearest_variable_wins() {
        let env = spec(json!({"name": "c", "env": [{"name": "A", "value": "own"}]})).expect("can be made").env;
        assert_eq!(env, ["HOSTNAME=p", "PATH=/bin", "A=own", "PROXY=x"]);
        let env = spec(json!({"name": "c", "env": [{"name": "proxy", "value": "own"}]})).expect("can be made").env;
        assert_eq!(env, ["HOSTNAME=p", "PATH=/bin", "A=image", "PROXY=image", "proxy=own"]);
    }

    #[test]
    fn files_of_the_node_are_mounted_unless_a_volume_is_there() {
        let spec = spec(json!({"name": "c", "terminationMessagePath": "/tmp/last",
            "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]}))
        .expect("can be made");
        let seen: Vec<_> = spec.mounts.iter().map(|m| m.destination.to_str().expect("text")).collect();
        assert_eq!(seen, ["/etc/hostname", "/etc/resolv.conf", "/tmp/last", "/etc/hosts"]);
        assert_eq!(spec.log_path.as_deref(), Some(Path::new("/data/pods/u/logs/c/2.log")));
        assert_eq!((spec.cwd.as_path(), spec.security.user.name.as_str()), (Path::new("/srv"), "7"));
    }

    #[test]
    fn places_for_mounts_lie_beneath_the_image_unless_a_volume_is_there() {
        let lowers = |container: Value| match spec(container).expect("can be made").rootfs {
            Rootfs::Overlay { lowers } => lowers,
            Rootfs::Directory(path) => vec![path],
        };
        let (files, layer) = (PathBuf::from("/data/mount-points/files"), PathBuf::from("/layers/1"));
        assert_eq!(lowers(json!({"name": "c"})), [files.clone(), layer.clone()]);
        let at = |path: &str| lowers(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": path}]}));
        assert_eq!(at("/etc/hosts"), std::slice::from_ref(&layer), "a directory may be mounted there");
        let token = PathBuf::from("/data/mount-points/token");
        assert_eq!(at("/var/run/secrets/kubernetes.io/serviceaccount"), [files, token, layer]);
    }

    #[test]
    fn identities_are_read_back() {
        let id = container_id("u-1", "my_c", 3).expect("an id");
        assert_eq!(parse_container_id(id.as_str(), "u-1"), Some(("my_c", 3)));
        assert_eq!(parse_container_id(id.as_str(), "u"), None);
    }
}
