//! What a worker has done for it: each function one act, returning what came of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Secret};
use knoll_container::client::ClientError;
use knoll_container::protocol::{ContainerId, Network, RefusalKind, SandboxId};
use knoll_faults::chain;
use knoll_oci::{Image, Keychain, Progress, PullError, PullPolicy};
use tokio::sync::watch;

use super::{etc, remains, uid};
use crate::env::{Inputs, Sources};
use crate::pod::SandboxInfo;
use crate::probes::http;
use crate::probes::tcp::Way;
use crate::runtime::{self, SpecError};
use crate::shared::{Shared, is_lost};
use crate::volumes::{self, Content};

/// Volumes that are filled.
pub(super) struct Prepared {
    /// What they were filled from, environments included.
    pub(super) sources: Arc<Sources>,
    /// When a token in them should be replaced.
    pub(super) refresh_at: Option<tokio::time::Instant>,
}

/// Why an image is not here.
pub(super) struct PullFailure {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why a container does not run.
pub(super) enum StartFailure {
    /// It cannot be made now; nothing ran.
    Config { reason: &'static str, message: String },
    /// It was made, but its program cannot be run.
    Run { id: String, message: String, code: i32 },
}

/// Names of all ConfigMaps and Secrets that a pod refers to, for volumes and environments.
pub(crate) fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = volumes::references(pod);
    let (more_maps, more_secrets) = crate::env::references(pod);
    maps.extend(more_maps);
    secrets.extend(more_secrets);
    for list in [&mut maps, &mut secrets] {
        list.sort();
        list.dedup();
    }
    (maps, secrets)
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// Fills the pod's volumes. An error names the volume.
pub(super) async fn fill_volumes(shared: &Shared, pod: &Arc<Pod>) -> Result<Prepared, (String, String)> {
    let first = || {
        let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
        volumes.and_then(|list| list.first()).map(|v| v.name.clone()).unwrap_or_default()
    };
    let api = |error: knoll_client::Error| (first(), error.to_string());
    let sources = Arc::new(shared.api.sources(namespace(pod), &references(pod)).await.map_err(api)?);
    let (tokens, refresh_at) =
        fetch_tokens(shared, pod).await.map_err(|error| (first(), format!("failed to fetch token: {error}")))?;
    let group = crate::security::fs_group(pod).map_err(|error| (first(), error.to_string()))?;
    let inputs = Inputs {
        pod,
        host_ip: &shared.config.address.to_string(),
        pod_ip: "",
        allocatable: shared.allocatable,
        sources: &sources,
        services: &[],
        node_name: &shared.config.name,
    };
    let content = Content { inputs: &inputs, tokens: &tokens, group };
    let work = volumes::work(pod, &content).map_err(|(name, error)| (name, error.to_string()))?;
    if !work.is_empty() {
        let places = shared.config.places(uid(pod));
        let stamp = stamp();
        let done = tokio::task::spawn_blocking(move || volumes::prepare(&work, &places, group, &stamp)).await;
        done.map_err(|error| (first(), error.to_string()))?.map_err(|(name, error)| (name, error.to_string()))?;
    }
    Ok(Prepared { sources, refresh_at })
}

/// A name for a generation of files, as kubelets name theirs.
fn stamp() -> String {
    jiff::fmt::strtime::format("%Y_%m_%d_%H_%M_%S.%9f", Timestamp::now())
        .unwrap_or_else(|_| Timestamp::now().as_nanosecond().to_string())
}

/// The tokens a pod needs, and when the first of them has lived four fifths of its life.
async fn fetch_tokens(
    shared: &Shared,
    pod: &Pod,
) -> knoll_client::Result<(BTreeMap<volumes::TokenRequest, String>, Option<tokio::time::Instant>)> {
    let mut tokens = BTreeMap::new();
    let mut refresh_at = None;
    for request in volumes::tokens(pod) {
        let asked = Timestamp::now();
        let token = shared.api.token(pod, &request.audience, request.expiration_seconds).await?;
        let life = Duration::try_from(token.expires.duration_since(asked)).unwrap_or_default();
        // Never sooner than every ten seconds, whatever the server says.
        let at =
            tokio::time::Instant::now() + (life / 5 * 4).clamp(Duration::from_secs(10), Duration::from_secs(24 * 3600));
        refresh_at = [refresh_at, Some(at)].into_iter().flatten().min();
        tokens.insert(request, token.text);
    }
    Ok((tokens, refresh_at))
}

/// Makes the pod's network, control group and files.
pub(super) async fn prepare_sandbox(shared: &Shared, pod: &Arc<Pod>) -> Result<SandboxInfo, String> {
    let spec = runtime::sandbox_spec(&shared.config, pod).map_err(|error| error.to_string())?;
    let host_network = spec.network == Network::Host;
    let id = spec.id.clone();
    let monitor = shared.monitor.get();
    let status = match monitor.prepare_sandbox(spec).await {
        // Made before the connection was lost or the server stopped.
        Err(error) if error.kind() == Some(RefusalKind::Exists) => {
            let listing = monitor.list().await.map_err(|error| error.to_string())?;
            listing.sandboxes.into_iter().find(|s| s.spec.id == id).ok_or_else(|| error.to_string())?
        }
        status => status.map_err(|error| error.to_string())?,
    };
    let address = status.address.unwrap_or(shared.config.address);
    let (config, pod) = (shared.config.clone(), Arc::clone(pod));
    let written = tokio::task::spawn_blocking(move || etc::write(&config, &pod, address));
    let written = written.await.map_err(|error| error.to_string())?;
    written.map_err(|error| format!("cannot write the pod's files: {error}"))?;
    Ok(SandboxInfo { address, host_network })
}

/// Gets a container's image. How much of it has come is told meanwhile.
pub(super) async fn pull(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    told: watch::Sender<Option<Progress>>,
) -> Result<Image, PullFailure> {
    let reference = container.image.as_deref().unwrap_or_default();
    let name = Some(container.name.as_str());
    let policy = policy(container.image_pull_policy.as_deref(), reference);
    let mut credentials = None;
    // What is here needs no turn among those that wait for registries.
    if policy != PullPolicy::Always || shared.is_settled(reference) {
        let remembered = shared.remembered(reference).filter(|image| image.is_for_everybody);
        let here = match remembered {
            Some(image) => Ok(image),
            None => here(shared, pod, reference, &mut credentials).await,
        };
        match here {
            Ok(image) => {
                shared.remember(reference, image.clone());
                shared.recorder.normal(pod, name, "Pulled", present(reference));
                return Ok(image);
            }
            Err(error @ PullError::Reference(_)) => {
                let message = format!(
                    "Failed to apply default image tag \"{reference}\": couldn't parse image name \"{reference}\": {error}"
                );
                shared.recorder.warning(pod, name, "InspectFailed", &message);
                return Err(PullFailure { reason: "InvalidImageName", message });
            }
            Err(error) if policy == PullPolicy::Never => {
                let why = match error {
                    PullError::NotAllowed(_) => " but does not have the proper credentials to access the image",
                    _ => "",
                };
                let state = if why.is_empty() { "is not present" } else { "is present" };
                let message = format!("Container image \"{reference}\" {state} with pull policy of Never{why}");
                shared.recorder.warning(pod, name, "ErrImageNeverPull", &message);
                return Err(PullFailure { reason: "ErrImageNeverPull", message });
            }
            // Not here, not whole, or not yet known to be for this pod: its registry is asked.
            Err(_) => {}
        }
    }
    let asked = Instant::now();
    let Some(_slot) = shared.pulls.take(namespace(pod)).await else {
        return Err(PullFailure { reason: "ErrImagePull", message: "the node is stopping".into() });
    };
    let begun = Instant::now();
    shared.recorder.normal(pod, name, "Pulling", format!("Pulling image \"{reference}\""));
    let keychain = match credentials {
        Some(keychain) => keychain,
        None => keychain(shared, pod).await,
    };
    let tell = move |progress| {
        told.send_replace(Some(progress));
    };
    match shared.pull(reference, policy, keychain, tell).await {
        Ok(image) => {
            let text = format!(
                "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
                took(begun.elapsed()),
                took(asked.elapsed()),
                image.size
            );
            shared.recorder.normal(pod, name, "Pulled", text);
            shared.remember(reference, image.clone());
            Ok(image)
        }
        Err(error) => {
            let invalid = matches!(error, PullError::Reference(_));
            let reason = if invalid { "InvalidImageName" } else { "ErrImagePull" };
            let message = chain(&error);
            shared.recorder.warning(pod, name, "Failed", format!("Failed to pull image \"{reference}\": {message}"));
            shared.recorder.warning(pod, name, "Failed", format!("Error: {reason}"));
            if !invalid {
                shared.recorder.normal(pod, name, "BackOff", format!("Back-off pulling image \"{reference}\""));
            }
            Err(PullFailure { reason, message })
        }
    }
}

/// An image that is here already and that this pod may run. Its credentials are only looked up, and kept in
/// `credentials`, for an image that is not for everybody.
async fn here(
    shared: &Shared,
    pod: &Pod,
    reference: &str,
    credentials: &mut Option<Keychain>,
) -> Result<Image, PullError> {
    match shared.pull(reference, PullPolicy::Never, Keychain::default(), |_| {}).await {
        Err(PullError::NotAllowed(_)) => {
            let keychain = credentials.insert(keychain(shared, pod).await).clone();
            shared.pull(reference, PullPolicy::Never, keychain, |_| {}).await
        }
        outcome => outcome,
    }
}

/// How an image that is here wants its containers to be stopped, without asking who may run it. Nothing of it is kept.
pub(super) async fn find_stop_signal(shared: &Shared, reference: &str) -> Option<String> {
    shared.find(reference).await.ok()?.config.stop_signal
}

fn present(reference: &str) -> String {
    format!("Container image \"{reference}\" already present on machine")
}

fn took(duration: Duration) -> String {
    if duration >= Duration::from_secs(1) {
        format!("{:.3}s", duration.as_secs_f64())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

fn policy(policy: Option<&str>, reference: &str) -> PullPolicy {
    match policy {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let tail = reference.rsplit('/').next().unwrap_or(reference);
            let latest = !reference.contains('@') && (tail.ends_with(":latest") || !tail.contains(':'));
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// The pod's credentials, then the machine's.
async fn keychain(shared: &Shared, pod: &Pod) -> Keychain {
    let mut keychain = Keychain::default();
    let names = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()).map(|r| r.name.as_str());
    for name in names {
        let path = format!("/api/v1/namespaces/{}/secrets/{name}", namespace(pod));
        match shared.api.get::<Secret>(&path).await {
            Ok(Some(secret)) => {
                let data = secret.data.unwrap_or_default();
                let added = match (data.get(".dockerconfigjson"), data.get(".dockercfg")) {
                    (Some(json), _) => keychain.add_docker_config(&json.0),
                    (None, Some(json)) => keychain.add_dockercfg(&json.0),
                    (None, None) => Ok(()),
                };
                if let Err(error) = added {
                    tracing::warn!(secret = name, %error, "a pull secret cannot be read");
                }
            }
            Ok(None) => {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({name}); attempting to pull the image may not succeed."
                );
                shared.recorder.warning(pod, None, "FailedToRetrieveImagePullSecret", text);
            }
            Err(error) => tracing::warn!(secret = name, %error, "a pull secret cannot be fetched"),
        }
    }
    if let Some(path) = shared.config.docker_config.clone() {
        let mut machine = Keychain::default();
        match machine.add_file(&path) {
            Ok(()) => keychain.add_machine(&machine),
            Err(error) => tracing::warn!(%error, "the machine's registry credentials cannot be read"),
        }
    }
    keychain
}

/// One attempt to start a container.
pub(super) struct Start {
    pub(super) pod: Arc<Pod>,
    pub(super) container: Arc<Container>,
    pub(super) image: Image,
    pub(super) attempt: u32,
    pub(super) address: Option<SandboxInfo>,
    pub(super) sources: Option<Arc<Sources>>,
    /// The attempt before, whose remains can go.
    pub(super) before: Option<String>,
}

/// A container that runs.
pub(super) struct Started {
    pub(super) id: String,
    pub(super) since: Timestamp,
    /// Its first process.
    pub(super) pid: u32,
}

/// Makes and starts a container.
pub(super) async fn start(shared: &Shared, start: Start) -> Result<Started, StartFailure> {
    let Start { pod, container, image, attempt, address, sources, before } = start;
    let name = Some(container.name.as_str());
    let config = |reason, message: String| StartFailure::Config { reason, message };
    let sources = match sources {
        Some(sources) => sources,
        None => {
            let found = shared.api.sources(namespace(&pod), &crate::env::references(&pod)).await;
            Arc::new(found.map_err(|error| config("CreateContainerConfigError", error.to_string()))?)
        }
    };
    let services = shared.services_for(&pod).await;
    let host_ip = shared.config.address.to_string();
    let pod_ip = match &address {
        Some(info) if !info.host_network => info.address.to_string(),
        _ => host_ip.clone(),
    };
    let inputs = Inputs {
        pod: &pod,
        host_ip: &host_ip,
        pod_ip: &pod_ip,
        allocatable: shared.allocatable,
        sources: &sources,
        services: &services,
        node_name: &shared.config.name,
    };
    let spec = runtime::container_spec(&shared.config, &inputs, &container, &image, attempt, shared.memory_capacity);
    let spec = spec.map_err(|error| match error {
        SpecError::NoCommand => config("CreateContainerError", error.to_string()),
        error => config("CreateContainerConfigError", error.to_string()),
    })?;
    let words = runtime::termination_log(&shared.config, uid(&pod), &container.name, attempt);
    make_writable(words).await.map_err(|error| config("CreateContainerError", error.to_string()))?;
    forget_remains(shared, &pod, &container.name, attempt).await;
    let monitor = shared.monitor.get();
    if let Some(before) = before.and_then(|id| ContainerId::new(id).ok()) {
        // Its log stays; that its file system is still there bothers nobody until the pod goes.
        drop(monitor.remove_container(before).await);
    }
    let id = spec.id.clone();
    let (since, pid) = match monitor.start_container(spec).await {
        Ok(status) => (status.started_at, status.pid),
        Err(error) => match error.kind() {
            Some(RefusalKind::Start) => {
                return Err(StartFailure::Run { id: id.into(), message: error.to_string(), code: 128 });
            }
            Some(RefusalKind::Exists) => {
                already_running(&monitor, &id).await.ok_or_else(|| config("CreateContainerError", error.to_string()))?
            }
            _ => return Err(config("CreateContainerError", lost(&error))),
        },
    };
    shared.recorder.normal(&pod, name, "Created", format!("Created container: {}", container.name));
    shared.recorder.normal(&pod, name, "Started", format!("Started container {}", container.name));
    Ok(Started { id: id.into(), since: shared.clock.translate(since), pid })
}

fn lost(error: &ClientError) -> String {
    if is_lost(error) { "the container monitor is being reached again".into() } else { error.to_string() }
}

/// When a container that exists already was started, and its first process.
async fn already_running(monitor: &knoll_container::client::Client, id: &ContainerId) -> Option<(Timestamp, u32)> {
    let listing = monitor.list().await.ok()?;
    listing.containers.into_iter().find(|c| c.spec.id == *id).map(|c| (c.started_at, c.pid))
}

/// Makes an empty file that any user may write to.
async fn make_writable(path: PathBuf) -> std::io::Result<()> {
    let made = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::PermissionsExt;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, b"")?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))
    });
    made.await.map_err(std::io::Error::other)?
}

/// Removes what attempts before the last left. That they stay is no reason not to start.
async fn forget_remains(shared: &Shared, pod: &Pod, container: &str, attempt: u32) {
    let (config, uid, name) = (shared.config.clone(), uid(pod).to_owned(), container.to_owned());
    let removed = tokio::task::spawn_blocking(move || remains::forget(&config, &uid, &name, attempt)).await;
    if let Err(error) = removed.map_err(std::io::Error::other).and_then(|removed| removed) {
        tracing::warn!(pod = crate::pod::describe(pod), container, %error, "what earlier attempts left stays");
    }
}

/// Runs a lifecycle hook, at most as long as `limit`.
pub(super) async fn run_hook(
    shared: &Shared,
    container: &Container,
    id: &ContainerId,
    address: Option<&SandboxInfo>,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match crate::exec::run(&shared.monitor.get(), id.clone(), command, limit, 1024).await {
            Err(error) => Err(error.to_string()),
            Ok(None) => Err("it took too long".into()),
            Ok(Some((exit, _))) if exit.code == 0 => Ok(()),
            Ok(Some((exit, output))) => Err(format!("it ended with exit code {}: {output}", exit.code)),
        };
    }
    if let Some(get) = &hook.http_get {
        let port = crate::probes::port(&get.port, container)?;
        let own = address.filter(|info| !info.host_network);
        let address = own.map_or(shared.config.address, |info| info.address).into();
        let way = Way { address, loopback: None, on_host: own.is_none() };
        let status = http::fetch(&http::Get::of(get, port), &way, limit).await?;
        return if status.as_u16() < 400 { Ok(()) } else { Err(format!("it was answered with {status}")) };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)).min(limit)).await;
    }
    Ok(())
}

/// Gives back sandbox and volumes.
pub(super) async fn tear_down(shared: &Shared, pod: &Arc<Pod>) -> Result<(), String> {
    let id = SandboxId::new(uid(pod)).map_err(|error| error.to_string())?;
    shared.monitor.get().remove_sandbox(id).await.map_err(|error| error.to_string())?;
    let places = shared.config.places(uid(pod));
    let released = tokio::task::spawn_blocking(move || volumes::release(&places)).await;
    released.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies_follow_the_tag() {
        for (given, reference, expected) in [
            (None, "app", PullPolicy::Always),
            (None, "reg:5000/app", PullPolicy::Always),
            (None, "app:latest", PullPolicy::Always),
            (None, "app:1", PullPolicy::IfNotPresent),
            (None, "app@sha256:abc", PullPolicy::IfNotPresent),
            (Some("Never"), "app", PullPolicy::Never),
            (Some("IfNotPresent"), "app", PullPolicy::IfNotPresent),
        ] {
            assert_eq!(policy(given, reference), expected, "{given:?} {reference}");
        }
    }
}
