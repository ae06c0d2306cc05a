//! `knoll api`: the API server and the image registry; everything else is a process of its own.

use std::sync::Arc;

use jiff::Timestamp;
use knoll_api::labels::SYSTEM_NAMESPACE;
use knoll_apiserver::{
    UserInfo,
    auth::{CONTROLLER, Pki, ServingCertificate},
};
use knoll_cli::{ApiArguments, Exit, instance::RunningInstance};
use tokio::runtime::Handle;

use super::{LEAVE, block_on, standalone, until_called};
use crate::{
    admin::{Admin, Sources},
    components::{api::Api, events, gateway::restarted, port_of, registry},
    failure::Failure,
    kept::Kept,
    kubeconfig, links,
    logging::{self, LogLevel},
    machine,
    paths::Paths,
    ports::{ApiPorts, PodAddress, PodApiPorts},
    private, store,
    supervise::Tasks,
    up::{self, raise_open_files},
};

/// Runs until told to stop.
pub(crate) fn run(arguments: &ApiArguments) -> Result<(), Failure> {
    let level = logging::start(&arguments.logging.log)?;
    raise_open_files();
    let paths = Paths::new(&arguments.data.data_dir);
    private::by_default();
    let _alone = machine::claim_api()?;
    up::own(&paths)?;
    let outcome = block_on(live(arguments, &paths, level));
    RunningInstance::retract(&paths.data);
    outcome
}

async fn live(arguments: &ApiArguments, paths: &Paths, level: LogLevel) -> Result<(), Failure> {
    let mut kept = Kept::default();
    let mut ports = ApiPorts::bind(&arguments.api, &mut kept)?;
    let (api_port, registry_port) = (port_of(&ports.api)?, port_of(&ports.registry)?);
    let pods = PodApiPorts::bind(PodAddress::ToCome, &mut kept, api_port, registry_port)?;
    drop(kept);
    let pki = Arc::new(Pki::open(&paths.pki(), Timestamp::now()).map_err(|e| Failure::new(Exit::Config, &e))?);
    let instance = up::describe(&arguments.api, paths, &ports, Vec::new())?;
    kubeconfig::write(paths, &pki, &instance.api)?;
    kubeconfig::write_roles(paths, &pki, &instance.api, &arguments.node.node_name)?;
    let names = up::names_of(&arguments.api);
    let serving = ServingCertificate::new(&pki, &names(), Timestamp::now());
    let serving = serving.map_err(|e| Failure::new(Exit::Usage, &e))?;
    let certificate = Arc::new(serving.tls(&pki).map_err(|e| Failure::new(Exit::System, &e))?);
    let admin = Admin::new(level, Handle::current());
    let outside = ports.admin.take().map(|listener| (listener, certificate.clone()));
    admin.start(&Paths::admin(), outside).map_err(|e| Failure::io("start the admin endpoint", &e))?;

    let mut tasks = Tasks::new();
    up::certificates::keep(
        &mut tasks,
        paths.clone(),
        pki.clone(),
        serving,
        instance.api.clone(),
        names,
        Timestamp::now,
    );
    let node = links::streams::RemoteNode { path: links::socket("node") };
    let api = Api::start(paths, &pki, Arc::new(node), api_port, &mut tasks).await?;
    // The authority is here, whoever the data plane of events is.
    let controllers = api.server.client(UserInfo::service_account(SYSTEM_NAMESPACE, CONTROLLER));
    events::keep_certificates(&mut tasks, pki.clone(), controllers, &events::names(&standalone()));
    api.serve([ports.api, pods.api], &certificate, &mut tasks);
    let images = registry::open_images(&arguments.images, paths, registry_port)?;
    let sockets = registry::Sockets { machine: ports.registry, pods: pods.registry };
    let names = &arguments.api.api_names;
    let image_registry = registry::serve(&mut tasks, names, paths, &images, api.authority.clone(), sockets)?;
    let (mut sources, counters, restarts) = (Sources::default(), api.server.counters().clone(), tasks.restarts());
    store::tell(&api.store, &mut sources);
    sources.metrics(move || counters.metrics());
    sources.metrics(move || restarted(&restarts));
    sources.metrics(move || registry::metrics(image_registry.counts()));
    admin.attend(sources);
    admin.obey(api.authority);
    up::announce(&instance, paths)?;
    let (_, outcome) = until_called("api", &mut tasks).await?;
    tasks.leave(LEAVE).await;
    api.store.close().await;
    outcome
}
