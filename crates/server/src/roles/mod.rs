//! Roles as processes of their own: each speaks to the API server over TLS, as whoever its kubeconfig says, and to the
//! others of its machine over [`crate::links`].
//!
//! | command | takes on | is, over `knoll api` |
//! |---|---|---|
//! | `knoll api` | the API server, the image registry | – |
//! | `knoll controller` | what users write, down to pods; where there is no cluster its built-in controllers, too | `controller` |
//! | `knoll autoscaler` | how many instances there are | `autoscaler` |
//! | `knoll gateway` | the table it routes by, made of its own watches, and the status of Ingresses | `activator` |
//! | `knoll broker` | events, and Eventing's controllers | `controller` |
//! | `knoll node` | pods of this machine, names, Service addresses | `system:node:…` |
//!
//! Where several may run (controllers) the holder of a lease plans. Of the autoscaler, the gateway, the broker and the node
//! there is one a machine; their sockets say so.

pub(crate) mod api;
pub(crate) mod autoscaler;
pub(crate) mod broker;
pub(crate) mod controller;
pub(crate) mod gateway;
mod kubeconfig;
pub(crate) mod node;
mod remote;

use std::{fs, sync::Arc, time::Duration};

use knoll_cli::{Exit, admin::role_socket, arguments::Access};
use knoll_plan::Settings;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use crate::{admin::Admin, failure::Failure, logging::LogLevel, notify, paths::RUNTIME, private, supervise::Tasks};
use kubeconfig::Source;
use remote::Remote;

/// How long a kubeconfig is waited for.
const KUBECONFIG: Duration = Duration::from_secs(60);
/// How long tasks may take to leave.
const LEAVE: Duration = Duration::from_secs(10);

/// Runs a process until its future ends.
fn block_on(process: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start the runtime", &e))?;
    let outcome = runtime.block_on(process);
    // What hangs in a blocking thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// The API server that the arguments name. Roles may start in any order: a kubeconfig that is not there yet is waited for.
async fn remote(access: &Access) -> Result<Arc<Remote>, Failure> {
    if let Some(path) = access.kubeconfig.as_deref().filter(|path| !path.exists()) {
        tracing::info!(path = %path.display(), "waiting for the kubeconfig, which `knoll api` writes");
        let there = async {
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // When it does not come, reading it says so.
        tokio::time::timeout(KUBECONFIG, there).await.ok();
    }
    let source = access.kubeconfig.clone().map_or(Source::Pod, Source::File);
    Remote::new(source).map_err(|e| Failure::new(Exit::Usage, &e))
}

/// The role's admin endpoint, for `knoll admin --role`.
fn admin(role: &str, level: LogLevel) -> Result<Arc<Admin>, Failure> {
    private::directory(RUNTIME.as_ref()).map_err(|e| Failure::io(format!("make {RUNTIME}"), &e))?;
    let admin = Admin::new(level, Handle::current());
    admin.start(&role_socket(role), None).map_err(|e| Failure::io("start the admin endpoint", &e))?;
    Ok(admin)
}

/// What plans are told where `knoll api` is the cluster.
fn standalone() -> Settings {
    Settings { gateway: crate::components::gateway::place(80), ..Settings::default() }
}

/// How a process was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// By Ctrl-C.
    Interrupt,
    /// By `SIGTERM`, or because a component failed.
    Terminate,
}

/// Says that the role is ready, and waits for the call to stop or the first task that ends.
async fn until_called(role: &str, tasks: &mut Tasks) -> Result<(Call, Result<(), Failure>), Failure> {
    let failed = |e: std::io::Error| Failure::io("listen for signals", &e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    println!("knoll {role} is ready");
    notify::ready();
    let ended = tokio::select! {
        _ = interrupt.recv() => (Call::Interrupt, Ok(())),
        _ = terminate.recv() => (Call::Terminate, Ok(())),
        (name, why) = tasks.first_end() => {
            tracing::error!(task = name, why, "a task ended that must not");
            (Call::Terminate, Err(Failure::text(Exit::Software, format!("{name}: {why}"))))
        }
    };
    tracing::info!("stopping");
    Ok(ended)
}

/// This machine among those that want to lead: its name, which is the pod's in a pod.
fn machine() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// This process among them. Two pods on the network of one machine have one name and, maybe, one process id.
fn holder() -> String {
    format!("{}_{}", machine(), uuid::Uuid::new_v4())
}

#[cfg(test)]
mod tests;
