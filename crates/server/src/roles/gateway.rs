//! `knoll gateway`: the gateway of this machine over `knoll api`. It makes the table it routes by of its own watches.

use std::{sync::Arc, time::Duration};

use knoll_cli::GatewayArguments;
use knoll_drive::{Links, Role};
use knoll_proxy::Gateway;
use tokio::sync::watch;

use super::{LEAVE, admin, block_on, remote, standalone, until_called};
use crate::{
    components::{gateway, system},
    failure::{Failure, chain},
    kept::Kept,
    links,
    logging::{self, LogLevel},
    machine::claim_role,
    ports::{self, PodAddress, PodGatewayPorts},
    supervise::Tasks,
    up::{open_files, raise_open_files},
};

/// How long requests under way may go on once the gateway is told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Runs until told to stop.
pub(crate) fn run(arguments: &GatewayArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    raise_open_files();
    let _alone = claim_role("gateway")?;
    block_on(live(arguments, level))
}

async fn live(arguments: &GatewayArguments, level: LogLevel) -> Result<(), Failure> {
    let admin = admin("gateway", level)?;
    let client = remote(&arguments.access).await?.client();
    let path = links::socket("gateway");
    let listener = links::listen(&path).map_err(|e| Failure::io(format!("listen on {}", path.display()), &e))?;
    let mut kept = Kept::default();
    let http = ports::bind_gateway(&arguments.gateway, &mut kept)?;
    let pods = PodGatewayPorts::bind(PodAddress::ToCome, &mut kept)?;
    drop(kept);
    let outside = ports::addresses(&http);

    let (table_in, table) = watch::channel(None);
    let trusted_hops = arguments.gateway.trusted_hops;
    let config = knoll_proxy::Config { trusted_hops, ..knoll_proxy::Config::within(open_files()) };
    let (gateway, mut feeds) = Gateway::new(config, table).map_err(system)?;
    let mut tasks = Tasks::new();
    let public = gateway::places(&outside, &pods)?;
    tasks.restartable("the gateway's Services", {
        let client = client.clone();
        move || {
            let (client, public) = (client.clone(), public);
            async move { gateway::publish(&client, &public).await.map_err(|e| chain(&e)) }
        }
    });
    let links = Links { table: table_in, applied: gateway.applied(), ..Links::default() };
    let (counters, inspect) = (links.counters.clone(), links.inspect.clone());
    let (role, stop) = (Role::gateway(standalone()), tasks.stop());
    tasks.critical(
        "routes",
        async move { knoll_drive::run(client, role, links, stop.wait()).await.map_err(|e| chain(&e)) },
    );
    tasks.critical("reports to the autoscaler", async move {
        let to = links::socket("autoscaler");
        links::stats::send(&to, &mut feeds.stats, &mut feeds.wakes).await;
        Ok(())
    });
    tasks.restartable("word of instances", {
        let (listener, hints, stop) = (Arc::new(listener), gateway.hints(), tasks.stop());
        move || {
            let (listener, hints, stop) = (listener.clone(), hints.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = links::instances::serve(&listener, hints) => {}
                    () = stop.wait() => {}
                }
                Ok(())
            }
        }
    });
    gateway::serve(&gateway, http, pods)?;
    admin.attend(gateway::sources(counters, inspect, &gateway, tasks.restarts()));
    let (_, outcome) = until_called("gateway", &mut tasks).await?;
    let drained = gateway.shutdown(DRAIN).await;
    tracing::info!(?drained, "the gateway has stopped");
    tasks.leave(LEAVE).await;
    outcome
}
