//! `knoll controller`: Knative's controllers over somebody else's cluster, which brings its own API server, built-in
//! controllers, autoscaler and gateway; or, with `--standalone`, over `knoll api`, with the built-in ones. Of several such
//! processes the holder of a lease plans.

use std::{fs, sync::Arc};

use knoll_cli::ControllerArguments;
use knoll_drive::{Links, Role};
use knoll_plan::{GatewayAddresses, QueuePlacement, Settings};

use super::{LEAVE, admin, block_on, holder, remote, until_called};
use crate::{
    components::{docker_config, gateway, registry, resolver::Resolver},
    failure::{Failure, chain},
    logging::{self, LogLevel},
    paths::Paths,
    supervise::Tasks,
};

/// Runs until told to stop.
pub(crate) fn run(arguments: &ControllerArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    block_on(live(arguments, level))
}

async fn live(arguments: &ControllerArguments, level: LogLevel) -> Result<(), Failure> {
    let admin = admin("controller", level)?;
    let remote = remote(&arguments.access).await?;
    let paths = Paths::new(&arguments.data.data_dir);
    let images = paths.images();
    fs::create_dir_all(&images).map_err(|e| Failure::io(format!("make {}", images.display()), &e))?;
    let images = registry::open_remote_images(&arguments.images, &paths)?;
    let client = remote.client();
    let resolver = Resolver { images, client: client.clone(), docker_config: docker_config() };
    let settings = settings(arguments, remote.certificate_authority());
    let role = Role::controller(settings, &holder());
    let links = Links { resolver: Some(Arc::new(resolver)), ..Links::default() };

    let mut tasks = Tasks::new();
    admin.attend(gateway::loop_sources(links.counters.clone(), links.inspect.clone(), tasks.restarts()));
    let stop = tasks.stop();
    tasks.critical("controllers", async move {
        knoll_drive::run(client, role, links, stop.wait()).await.map_err(|e| chain(&e))
    });
    let (_, outcome) = until_called("controller", &mut tasks).await?;
    tasks.leave(LEAVE).await;
    outcome
}

fn settings(arguments: &ControllerArguments, cluster_ca: String) -> Settings {
    let settings = Settings {
        standalone: arguments.standalone,
        cluster_domain: arguments.cluster_domain.clone(),
        system_namespace: arguments.namespace.clone(),
        node_name: arguments.node.node_name.clone(),
        ..Settings::default()
    };
    match arguments.activator {
        Some(activator) => Settings {
            queue_placement: QueuePlacement::Sidecar,
            default_domain: domain(arguments, &format!("svc.{}", arguments.cluster_domain)),
            gateway: GatewayAddresses {
                address: activator.ip(),
                local_port: activator.port(),
                ..settings.gateway.clone()
            },
            ..settings
        },
        None => Settings {
            default_domain: domain(arguments, "localhost"),
            gateway: gateway::place(arguments.http_port),
            cluster_ca,
            ..settings
        },
    }
}

fn domain(arguments: &ControllerArguments, otherwise: &str) -> String {
    arguments.domain.clone().unwrap_or_else(|| otherwise.to_owned())
}
