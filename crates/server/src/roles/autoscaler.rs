//! `knoll autoscaler`: how many instances there are, over `knoll api`. The gateway of this machine says what revisions
//! carry and who waits. Of several such processes the holder of a lease decides.

use knoll_cli::RoleArguments;
use knoll_drive::{Links, Role};
use tokio::sync::mpsc;

use super::{LEAVE, admin, block_on, machine, remote, standalone, until_called};
use crate::{
    components::gateway,
    failure::{Failure, chain},
    links,
    logging::{self, LogLevel},
    machine::claim_role,
    supervise::Tasks,
};

/// Reports of gateways that may wait.
const STATS: usize = 16;
/// Wake-ups that may wait.
const WAKES: usize = 1024;

/// Runs until told to stop.
pub(crate) fn run(arguments: &RoleArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    let _alone = claim_role("autoscaler")?;
    block_on(live(arguments, level))
}

async fn live(arguments: &RoleArguments, level: LogLevel) -> Result<(), Failure> {
    let admin = admin("autoscaler", level)?;
    let remote = remote(&arguments.access).await?;
    let path = links::socket("autoscaler");
    let listener = links::listen(&path).map_err(|e| Failure::io(format!("listen on {}", path.display()), &e))?;
    let ((stats_in, stats), (wakes_in, wakes)) = (mpsc::channel(STATS), mpsc::channel(WAKES));
    let mut tasks = Tasks::new();
    tasks.restartable("reports of gateways", {
        let listener = std::sync::Arc::new(listener);
        let stop = tasks.stop();
        move || {
            let (listener, stats, wakes) = (listener.clone(), stats_in.clone(), wakes_in.clone());
            let stop = stop.clone();
            async move {
                tokio::select! {
                    () = links::stats::receive(&listener, stats, wakes) => {}
                    () = stop.wait() => {}
                }
                Ok(())
            }
        }
    });
    // One a machine: the next of this machine is the same holder, and need not wait for the lease's end.
    let role = Role::autoscaler(standalone(), &machine());
    let (client, links, stop) = (remote.client(), Links { stats, wakes, ..Links::default() }, tasks.stop());
    admin.attend(gateway::loop_sources(links.counters.clone(), links.inspect.clone(), tasks.restarts()));
    tasks.critical("autoscaler", async move {
        knoll_drive::run(client, role, links, stop.wait()).await.map_err(|e| chain(&e))
    });
    let (_, outcome) = until_called("autoscaler", &mut tasks).await?;
    tasks.leave(LEAVE).await;
    outcome
}
