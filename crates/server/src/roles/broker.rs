//! `knoll broker`: takes and delivers events over `knoll api`, and is Eventing's controllers, which say what it carries out.

use knoll_cli::BrokerArguments;
use knoll_drive::{Links, Role};

use super::{LEAVE, admin, block_on, remote, standalone, until_called};
use crate::{
    components::{events, gateway, sources},
    failure::{Failure, chain},
    kept::Kept,
    logging::{self, LogLevel},
    machine::claim_role,
    paths::Paths,
    ports::{EventPorts, PodAddress},
    private,
    supervise::Tasks,
    up::{own, raise_open_files},
};

/// Runs until told to stop.
pub(crate) fn run(arguments: &BrokerArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    raise_open_files();
    let paths = Paths::new(&arguments.data.data_dir);
    private::by_default();
    let _alone = claim_role("broker")?;
    own(&paths)?;
    block_on(live(arguments, &paths, level))
}

async fn live(arguments: &BrokerArguments, paths: &Paths, level: LogLevel) -> Result<(), Failure> {
    let admin = admin("broker", level)?;
    let client = remote(&arguments.access).await?.client();
    let mut kept = Kept::default();
    let ports = EventPorts::bind(PodAddress::ToCome, &mut kept)?;
    drop(kept);
    let at = events::places(&ports)?;
    let mut tasks = Tasks::new();
    events::publish(&mut tasks, client.clone(), at);
    let settings = standalone();
    let names = events::names(&settings);
    // The gateway is another process's: it is reached by its Services.
    let (event_links, running, sender) =
        events::start(&mut tasks, paths.events(), &names, client.clone(), ports, Vec::new())?;
    let (source_links, adapters) = sources::start(&mut tasks, sender, None)?;
    let links = Links { events: Some(event_links), sources: Some(source_links), ..Links::default() };
    let mut sources = gateway::loop_sources(links.counters.clone(), links.inspect.clone(), tasks.restarts());
    running.attend(&mut sources, names);
    sources::attend(adapters, &mut sources);
    let (role, stop) = (Role::broker(settings), tasks.stop());
    tasks.critical("controllers of Eventing", async move {
        knoll_drive::run(client, role, links, stop.wait()).await.map_err(|e| chain(&e))
    });
    admin.attend(sources);
    let (_, outcome) = until_called("broker", &mut tasks).await?;
    tasks.leave(LEAVE).await;
    outcome
}
