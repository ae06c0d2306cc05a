//! The sources of events that run in this process.

use knoll_broker::Sender;
use knoll_drive::SourceLinks;
use knoll_sources::{Adapters, Clients, Config, Hooks};
use tokio::sync::watch;

use super::{events, system};
use crate::{admin::Sources, failure::Failure, supervise::Tasks};

/// Runs sources until the process ends; the other end of the links is the control loop's. `sender` sends their events, and
/// `clients` makes the clients that ApiServerSources watch with; without it none of them runs.
pub(crate) fn start(
    tasks: &mut Tasks,
    sender: Sender,
    clients: Option<Clients>,
) -> Result<(SourceLinks, Adapters), Failure> {
    let (snapshots, newest) = watch::channel(None);
    let hooks = Hooks { clients, ..Hooks::default() };
    let adapters = Adapters::new(newest, sender, within(events::max_attempts()), hooks).map_err(system)?;
    let (running, stop) = (adapters.clone(), tasks.stop());
    tasks.restartable("sources", move || {
        let (running, stop) = (running.clone(), stop.clone());
        async move {
            running.run(stop.wait()).await;
            Ok(())
        }
    });
    let links = SourceLinks { snapshots, applied: adapters.applied() };
    Ok((links, adapters))
}

/// Settings with which so many events are sent at a time, and no more than usual.
fn within(attempts: usize) -> Config {
    let default = Config::default();
    let most_at_once = default.most_at_once.min(attempts);
    Config { most_at_once, most_of_namespace: default.most_of_namespace.min(most_at_once.div_ceil(8)), ..default }
}

/// Shows them to an operator.
pub(crate) fn attend(adapters: Adapters, sources: &mut Sources) {
    sources.metrics(move || adapters.metrics());
}
