//! The registry's place in an instance: its names, who may change it, and the sockets it listens on.

use std::sync::Arc;

use knoll_api::metrics::MetricFamily;
use knoll_apiserver::{UserInfo, attributes::Attributes, authority::Authority};
use knoll_cli::{Exit, ImageRules};
use knoll_container::protocol::GATEWAY;
use knoll_oci::{
    Action, Authorize, ImageStore, Limits, Registry, RegistryCounts, RegistryPolicy, Verdict, machine_login,
};
use tokio::net::TcpListener;

use crate::{failure::Failure, links, paths::Paths, supervise::Tasks};

/// API group of what RBAC grants at the registry.
const GROUP: &str = "registry.knoll.dev";

/// Where the registry listens.
pub(crate) struct Sockets {
    /// For this machine, and others where it was told to.
    pub(crate) machine: TcpListener,
    /// For pods.
    pub(crate) pods: TcpListener,
}

/// Hosts under which the registry is known, the canonical one first.
fn hosts(port: u16) -> Vec<String> {
    let hosts =
        ["localhost".to_owned(), "127.0.0.1".to_owned(), GATEWAY.to_string(), "registry.knoll.local".to_owned()];
    hosts.iter().map(|host| format!("{host}:{port}")).collect()
}

/// Opens the images on this machine.
pub(crate) fn open_images(rules: &ImageRules, paths: &Paths, port: u16) -> Result<ImageStore, Failure> {
    open_with(rules, paths, hosts(port))
}

/// Opens the images of a machine whose registry another process is.
pub(crate) fn open_remote_images(rules: &ImageRules, paths: &Paths) -> Result<ImageStore, Failure> {
    open_with(rules, paths, Vec::new())
}

fn open_with(rules: &ImageRules, paths: &Paths, registry_hosts: Vec<String>) -> Result<ImageStore, Failure> {
    let image_bytes = rules.max_image_gib << 30;
    let defaults = Limits::default();
    let limits = Limits { image_bytes, layer_bytes: defaults.layer_bytes.min(image_bytes), ..defaults };
    let insecure_registries = rules.insecure_registry.clone();
    let config = knoll_oci::Config { registry_hosts, insecure_registries, limits };
    ImageStore::open(&paths.images(), config).map_err(|e| Failure::new(Exit::System, &e))
}

/// ServiceAccounts by their tokens, and what RBAC lets them do: the verbs `push` and `delete` on `repositories` of the
/// group `registry.knoll.dev`, named like the repository, in the namespace that its first part names.
struct ServiceAccounts(Arc<dyn Authority>);

impl ServiceAccounts {
    fn identity(&self, token: &str) -> Option<UserInfo> {
        self.0.review(token, &[]).map(|(identity, _)| identity)
    }
}

fn attributes(action: Action, repository: &str) -> Attributes {
    let verb = match action {
        Action::Push => "push",
        Action::Delete => "delete",
    };
    Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "v1".into(),
        resource: "repositories".into(),
        namespace: repository.split_once('/').map(|(namespace, _)| namespace.to_owned()).unwrap_or_default(),
        name: repository.into(),
        ..Attributes::default()
    }
}

impl Authorize for ServiceAccounts {
    fn knows(&self, token: &str) -> bool {
        self.identity(token).is_some()
    }

    fn authorize(&self, token: &str, action: Action, repository: &str) -> Verdict {
        let Some(identity) = self.identity(token) else { return Verdict::Unknown };
        let wanted = attributes(action, repository);
        if self.0.authorize(&identity, &wanted).is_allowed() {
            return Verdict::Allowed;
        }
        let (user, verb) = (&identity.user, &wanted.verb);
        Verdict::Forbidden(format!(
            "{user} may not {verb} repositories.{GROUP} {repository:?}: bind a role that allows it"
        ))
    }
}

/// What the registry did, with what the numbers mean.
pub(crate) fn metrics(counts: RegistryCounts) -> Vec<MetricFamily> {
    let RegistryCounts { pushes, pulls, deletions, denied, failed, received_bytes, sent_bytes } = counts;
    vec![
        MetricFamily::counter("registry_pushes", "Manifests that were pushed", pushes),
        MetricFamily::counter("registry_pulls", "Manifests that were pulled", pulls),
        MetricFamily::counter("registry_deletions", "Manifests whose names were taken away", deletions),
        MetricFamily::counter("registry_denied", "Requests to the registry refused because of who asked", denied),
        MetricFamily::counter(
            "registry_failed",
            "Requests to the registry that failed for want of the machine",
            failed,
        ),
        MetricFamily::counter("registry_received_bytes", "Bytes of blobs that were pushed", received_bytes),
        MetricFamily::counter("registry_sent_bytes", "Bytes of blobs that were pulled", sent_bytes),
    ]
}

/// Serves images to this machine, its pods and its command line. The registry, to be asked what it did.
pub(crate) fn serve(
    tasks: &mut Tasks,
    names: &[String],
    paths: &Paths,
    images: &ImageStore,
    authority: Arc<dyn Authority>,
    sockets: Sockets,
) -> Result<Registry, Failure> {
    let port = sockets.machine.local_addr().map_err(|e| Failure::io("find the address of a socket", &e))?.port();
    let directory = paths.registry();
    let machine = machine_login(&directory, &hosts(port))
        .map_err(|e| Failure::io(format!("keep the registry's login in {}", directory.display()), &e))?;
    let authority: Arc<dyn Authorize> = Arc::new(ServiceAccounts(authority));
    let policy = RegistryPolicy { names: names.to_vec(), machine, authority: Some(authority) };
    let registry = Registry::new(images.clone(), policy);
    for (listener, inside) in [(sockets.machine, false), (sockets.pods, true)] {
        let (registry, stop) = (registry.clone(), tasks.stop());
        // A task that is started again needs its socket again; the listener is shared by all its lives.
        let listener = Arc::new(listener);
        tasks.restartable("image registry", move || {
            let (registry, stop, listener) = (registry.clone(), stop.clone(), listener.clone());
            async move { registry.serve(&listener, inside, stop.wait()).await.map_err(|e| e.to_string()) }
        });
    }
    let (path, stop) = (Paths::images_socket(), tasks.stop());
    let commands = links::listen(&path).map_err(|e| Failure::io(format!("listen on {}", path.display()), &e))?;
    let (commands, commanded) = (Arc::new(commands), registry.clone());
    tasks.restartable("image commands", move || {
        let (registry, stop, commands) = (commanded.clone(), stop.clone(), commands.clone());
        async move { registry.serve_commands(&commands, stop.wait()).await.map_err(|e| e.to_string()) }
    });
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_belongs_to_the_namespace_that_its_first_part_names() {
        let told = |repository: &str| {
            let wanted = attributes(Action::Push, repository);
            (wanted.verb, wanted.namespace, wanted.name)
        };
        assert_eq!(told("team/app"), ("push".into(), "team".into(), "team/app".into()));
        assert_eq!(told("app"), ("push".into(), String::new(), "app".into()));
    }
}
