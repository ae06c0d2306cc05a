//! `knoll node`: the containers of this machine, their names and Service addresses, over `knoll api`.
//!
//! It keeps the monitor process, as `knoll up` does. Which names inside the cluster the gateway answers for it sees by a
//! table of its own.

use std::sync::Arc;

use knoll_cli::NodeArguments;
use knoll_client::rush::Rush;
use knoll_drive::{Links, Role};
use knoll_node::Node;
use tokio::sync::watch;

use super::{Call, LEAVE, admin, block_on, remote, standalone, until_called};
use crate::{
    components::{
        PODS, gateway,
        local_node::LocalNode,
        monitor::{self, Finder},
        node, registry, system,
    },
    doctor,
    failure::{Failure, chain},
    links::{
        self,
        instances::{Hints, Remote as RemoteGateway},
    },
    logging::{self, LogLevel},
    machine::claim_role,
    paths::Paths,
    private,
    supervise::Tasks,
    up::{own, raise_open_files},
};

/// Runs until told to stop.
pub(crate) fn run(arguments: &NodeArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    raise_open_files();
    let paths = Paths::new(&arguments.data.data_dir);
    doctor::require(&paths)?;
    private::by_default();
    let _alone = claim_role("node")?;
    own(&paths)?;
    block_on(live(arguments, &paths, level))
}

async fn live(arguments: &NodeArguments, paths: &Paths, level: LogLevel) -> Result<(), Failure> {
    let admin = admin("node", level)?;
    let client = remote(&arguments.access).await?.client();
    let path = links::socket("node");
    let listener = links::listen(&path).map_err(|e| Failure::io(format!("listen on {}", path.display()), &e))?;
    monitor::displace(paths).await?;
    let finder = Finder::new(paths, PODS, arguments.sandbox_pool)?;
    let network = node::set_network_up().await?;
    let client_of_monitor = finder.connect().await.map_err(system)?;
    let images = registry::open_remote_images(&arguments.images, paths)?;

    let mut tasks = Tasks::new();
    let (table_in, table) = watch::channel(None);
    let links = Links { table: table_in, applied: table.clone(), ..Links::default() };
    let (counters, inspect) = (links.counters.clone(), links.inspect.clone());
    let (role, routes, stop) = (Role::node(standalone()), client.clone(), tasks.stop());
    tasks.critical(
        "names",
        async move { knoll_drive::run(routes, role, links, stop.wait()).await.map_err(|e| chain(&e)) },
    );
    let (gateway, telling) = RemoteGateway::at(&links::socket("gateway"));
    tasks.critical("word to the gateway", async move {
        telling.await;
        Ok(())
    });
    let config = node::config(&arguments.node.node_name, arguments.address, paths);
    let callbacks = node::callbacks(Hints::There(gateway), table, finder.clone(), network, Rush::default());
    let node = Node::new(config, client, client_of_monitor, images, callbacks).map_err(system)?;
    let backend = LocalNode::default();
    backend.set(node.clone());
    let counted = node.clone();
    let stop = tasks.stop();
    tasks.critical("node", async move { node.run(stop.channel()).await.map_err(|e| chain(&e)) });
    tasks.restartable("calls of the API server", {
        let (listener, stop) = (Arc::new(listener), tasks.stop());
        move || {
            let (listener, backend, stop) = (listener.clone(), Arc::new(backend.clone()), stop.clone());
            async move {
                tokio::select! {
                    () = links::streams::serve(&listener, backend) => {}
                    () = stop.wait() => {}
                }
                Ok(())
            }
        }
    });
    let mut sources = gateway::loop_sources(counters, inspect, tasks.restarts());
    sources.metrics(move || counted.counts().metrics());
    admin.attend(sources);
    let (call, outcome) = until_called("node", &mut tasks).await?;
    tasks.leave(LEAVE).await;
    if call == Call::Interrupt {
        node::take_down(&finder).await;
    }
    outcome
}
