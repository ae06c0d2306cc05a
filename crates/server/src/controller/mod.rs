//! `knoll controller`: Knative's controllers over somebody else's cluster, which brings its own API server, built-in
//! controllers, autoscaler and gateway. Of several such processes the holder of a lease plans.

mod kubeconfig;
mod remote;

use std::{fs, sync::Arc};

use knoll_cli::{ControllerArguments, Exit};
use knoll_drive::{Links, Role};
use knoll_oci::ImageStore;
use knoll_plan::{Gateway, QueuePlacement, Settings};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    failure::{Failure, chain},
    logging,
    paths::Paths,
    up::{docker_config, resolver::Resolver},
};
use kubeconfig::Access;
use remote::Remote;

/// Runs until told to stop.
pub(crate) fn run(arguments: &ControllerArguments) -> Result<(), Failure> {
    logging::start(&arguments.log)?;
    let access = match &arguments.kubeconfig {
        Some(path) => Access::read(path),
        None => Access::in_cluster(),
    };
    let access = access.map_err(|e| Failure::new(Exit::Usage, &e))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start the runtime", &e))?;
    runtime.block_on(live(arguments, access))
}

async fn live(arguments: &ControllerArguments, access: Access) -> Result<(), Failure> {
    let remote = Remote::new(access).map_err(|e| Failure::new(Exit::Usage, &e))?;
    let paths = Paths::new(&arguments.data.data_dir);
    let images = paths.images();
    fs::create_dir_all(&images).map_err(|e| Failure::io(format!("make {}", images.display()), &e))?;
    let config = knoll_oci::Config {
        registry_hosts: Vec::new(),
        insecure_registries: arguments.insecure_registry.clone(),
        limits: knoll_oci::Limits::default(),
    };
    let images = ImageStore::open(&images, config).map_err(|e| Failure::new(Exit::System, &e))?;
    let resolver = Resolver { images, client: remote.client(), docker_config: docker_config() };
    let role = Role::controller(settings(arguments), &holder());

    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::io("listen for signals", &e))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::io("listen for signals", &e))?;
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let links = Links::without_gateway(Arc::new(resolver));
    let ended = knoll_drive::run(remote.client(), role, links, stop).await;
    ended.map_err(|e| Failure::text(Exit::Software, chain(&e)))
}

fn settings(arguments: &ControllerArguments) -> Settings {
    let gateway = Gateway {
        address: arguments.activator.ip(),
        local_port: arguments.activator.port(),
        ..Settings::default().gateway
    };
    Settings {
        queue_placement: QueuePlacement::Sidecar,
        standalone: false,
        cluster_domain: arguments.cluster_domain.clone(),
        default_domain: format!("svc.{}", arguments.cluster_domain),
        system_namespace: arguments.namespace.clone(),
        gateway,
        ..Settings::default()
    }
}

/// This process among those that want to lead: the machine's name, which is the pod's in a pod, and the process.
fn holder() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", machine.trim(), std::process::id())
}

#[cfg(test)]
mod tests;
