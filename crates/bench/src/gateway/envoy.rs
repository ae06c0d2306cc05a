//! Envoy as a plain reverse proxy with kept-alive upstream connections and no logs.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cpu::Whose;

/// A running Envoy; stops when dropped.
pub(crate) struct Envoy {
    pub(crate) address: SocketAddr,
    _folder: TempDir,
    child: Child,
}

impl Envoy {
    /// Starts Envoy in front of `upstream` and waits until it listens.
    pub(crate) fn start(upstream: SocketAddr, workers: usize) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (path, log) = (folder.path().join("envoy.json"), folder.path().join("log"));
        fs::write(&path, config(upstream, address).to_string())?;
        let mut child = Command::new(program()?)
            .args(["--concurrency", &workers.to_string(), "--disable-hot-restart", "--log-level", "error"])
            .arg("--config-path")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .process_group(0)
            .spawn()?;
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("envoy ended with {status}: {}", fs::read_to_string(log)?.trim()).into());
            }
            if Instant::now() > patience {
                child.kill()?;
                return Err("envoy does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { address, _folder: folder, child })
    }

    /// The process that does the work.
    pub(crate) fn process(&self) -> Whose {
        Whose::Process(self.child.id())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("envoy (process {}) could not be stopped", self.child.id());
        }
    }
}

/// The program itself: `KNOLL_BENCH_ENVOY`, or `envoy`.
fn program() -> Result<PathBuf, Box<dyn Error>> {
    match std::env::var_os("KNOLL_BENCH_ENVOY") {
        Some(program) => Ok(program.into()),
        None => Err("KNOLL_BENCH_ENVOY does not name Envoy; scripts/bench installs it".into()),
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn config(upstream: SocketAddr, address: SocketAddr) -> Value {
    let limits = json!({"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000});
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = json!({
        "@type":
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "use_remote_address": true,
        "generate_request_id": false,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
        "route_config": {"virtual_hosts": [{
            "name": "hello",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "hello"}}],
        }]},
    });
    json!({"static_resources": {
        "listeners": [{
            "address": socket(address),
            "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
            ]}],
        }],
        "clusters": [{
            "name": "hello",
            "type": "STATIC",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {"cluster_name": "hello", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(upstream)}}]},
            ]},
        }],
    }})
}
