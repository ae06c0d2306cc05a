//! The admin endpoint: health, readiness, numbers, the log level, and what the components are doing.
//!
//! It has a thread and a runtime of its own, so that it answers while the rest is busy, or stuck. It reads what the
//! components show, changes the log level, and hands over what an operator asks of a component. On its local socket, which only root opens, everything is
//! allowed; on `--admin-addr` health is open and the rest is asked of the API server's authorization, as a path.

mod answer;
mod metrics;
mod process;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    io,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use knoll_api::metrics::MetricFamily;
use knoll_apiserver::authority::Authority;
use serde_json::Value;
use tokio::{net::TcpListener, runtime::Handle};

use crate::logging::LogLevel;

/// How long the rest of the program may take to give a sign of life.
const PATIENCE: Duration = Duration::from_secs(2);

type Read<T> = Box<dyn Fn() -> T + Send + Sync>;
/// What a component answers to what is asked of it.
pub(crate) type Operated = BoxFuture<'static, Response<Full<Bytes>>>;
type Operate = Box<dyn Fn(Operation) -> Operated + Send + Sync>;

/// Something that is asked of a component.
pub(crate) struct Operation {
    pub(crate) method: Method,
    /// Below the component's own.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the endpoint reads. Each is called for one request, on the endpoint's thread, and must not wait.
#[derive(Default)]
pub(crate) struct Sources {
    metrics: Vec<Read<Vec<MetricFamily>>>,
    checks: Vec<(&'static str, Read<Result<(), String>>)>,
    dumps: Vec<(&'static str, Read<Value>)>,
    operations: Vec<(&'static str, Operate)>,
}

impl Sources {
    /// Adds numbers.
    pub(crate) fn metrics(&mut self, read: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static) {
        self.metrics.push(Box::new(read));
    }

    /// Adds something the instance is not ready without; the error says what is missing.
    pub(crate) fn check(&mut self, name: &'static str, read: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.push((name, Box::new(read)));
    }

    /// Adds what an operator may ask of a component, below a path of its name. On the endpoint's thread, which goes on with
    /// others while it waits.
    pub(crate) fn operate(
        &mut self,
        name: &'static str,
        operate: impl Fn(Operation) -> Operated + Send + Sync + 'static,
    ) {
        self.operations.push((name, Box::new(operate)));
    }

    /// Adds a picture of a component, below `/debug/`.
    pub(crate) fn dump(&mut self, name: &'static str, read: impl Fn() -> Value + Send + Sync + 'static) {
        self.dumps.push((name, Box::new(read)));
    }
}

/// What the answers are made of. Parts are filled in as they come up.
pub(crate) struct Admin {
    level: LogLevel,
    /// The runtime whose life is looked at.
    rest: Handle,
    authority: OnceLock<Arc<dyn Authority>>,
    sources: OnceLock<Sources>,
}

impl Admin {
    pub(crate) fn new(level: LogLevel, rest: Handle) -> Arc<Self> {
        Arc::new(Self { level, rest, authority: OnceLock::new(), sources: OnceLock::new() })
    }

    /// From now on reads these. The first call counts.
    pub(crate) fn attend(&self, sources: Sources) {
        if self.sources.set(sources).is_err() {
            tracing::error!("the admin endpoint reads something already");
        }
    }

    /// From now on answers those outside whom this authority lets. The first call counts.
    pub(crate) fn obey(&self, authority: Arc<dyn Authority>) {
        if self.authority.set(authority).is_err() {
            tracing::error!("the admin endpoint has an authority already");
        }
    }

    /// Listens on `socket` (mode 0600), and on `outside` with TLS, until the process ends.
    ///
    /// # Errors
    /// When the socket cannot be made or no thread be had.
    pub(crate) fn start(
        self: &Arc<Self>,
        socket: &Path,
        outside: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    ) -> io::Result<()> {
        let local = bind(socket)?;
        let outside = match outside {
            Some((listener, tls)) => Some((listener.into_std()?, tls)),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let admin = self.clone();
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(serve::run(admin, local, outside));
        })?;
        Ok(())
    }
}

/// A socket that only its owner opens, in place of one that an earlier process left.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
