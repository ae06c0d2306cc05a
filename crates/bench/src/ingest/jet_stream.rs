//! NATS JetStream: one stream with file storage, published to by its own client, which is a program of `tools/nats`.

use std::error::Error;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cpu::Whose;
use crate::figures::Spread;
use crate::senders::SIZE;

/// When the server syncs what it has acknowledged.
#[derive(Clone, Copy)]
pub(super) enum Synced {
    /// Before it acknowledges it.
    Always,
    /// Two minutes later, as it is set up when nothing is said.
    AsItComes,
}

/// A running server; stops when dropped.
pub(super) struct JetStream {
    address: SocketAddr,
    child: Child,
}

impl JetStream {
    /// Starts one that keeps what it has in `folder`, and waits until it listens.
    pub(super) fn start(folder: &Path, sync: Synced) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(folder)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let (path, log) = (folder.join("nats.conf"), folder.join("log"));
        fs::write(&path, config(address, &folder.join("store"), sync))?;
        let mut child = Command::new(tool("nats-server")?)
            .arg("--config")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .process_group(0)
            .spawn()?;
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("nats-server ended with {status}: {}", fs::read_to_string(log)?.trim()).into());
            }
            if Instant::now() > patience {
                child.kill()?;
                return Err("nats-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { address, child })
    }

    /// Its process.
    pub(super) fn process(&self) -> Whose {
        Whose::Process(self.child.id())
    }

    /// Has so many senders publish `batch` events at a time for so long, each over a connection of its own, into a stream
    /// that begins empty. Microseconds until all of a batch were acknowledged, and how long it took.
    pub(super) fn flood(
        &self,
        senders: usize,
        batch: usize,
        length: Duration,
    ) -> Result<(Spread, Duration), Box<dyn Error>> {
        let number = |number: usize| number.to_string();
        let mut command = Command::new(tool("nats-flood")?);
        command.arg(format!("--server=nats://{}", self.address)).args(["--senders", &number(senders)]);
        command.args(["--batch", &number(batch), "--size", &number(SIZE)]);
        let output = command.args(["--milliseconds", &length.as_millis().to_string()]).output()?;
        if !output.status.success() {
            return Err(format!("nats-flood: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let waits = said["micros"].as_array().map(Vec::as_slice).unwrap_or_default();
        let waits: Vec<f64> = waits.iter().filter_map(Value::as_f64).collect();
        let took = said["seconds"].as_f64().ok_or("nats-flood does not say how long it took")?;
        Ok((Spread::of(&waits), Duration::from_secs_f64(took)))
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("nats-server (process {}) could not be stopped", self.child.id());
        }
    }
}

/// A program of the folder that `KNOLL_BENCH_NATS` names.
fn tool(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let folder = std::env::var_os("KNOLL_BENCH_NATS");
    Ok(PathBuf::from(folder.ok_or("KNOLL_BENCH_NATS does not name where NATS is; scripts/bench builds it")?).join(name))
}

fn config(address: SocketAddr, store: &Path, sync: Synced) -> String {
    let sync = match sync {
        Synced::Always => "  sync_interval: always\n",
        Synced::AsItComes => "",
    };
    format!("listen: \"{address}\"\njetstream {{\n  store_dir: {:?}\n{sync}}}\n", store.display().to_string())
}
