//! An instance of Knoll on a data directory of its own.

use std::error::Error;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Credentials;

/// How long an instance may take to become ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a starting instance is looked at; the precision of what is said about starting.
const GLANCE: Duration = Duration::from_millis(1);

/// The program, which `KNOLL` names.
pub(crate) fn program() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::var_os("KNOLL").ok_or("KNOLL does not name the program; scripts/bench sets it")?;
    Ok(PathBuf::from(program))
}

/// The archive of the sample's image, which `KNOLL_BENCH_IMAGE` names.
pub(crate) fn sample() -> Result<PathBuf, Box<dyn Error>> {
    let image = std::env::var_os("KNOLL_BENCH_IMAGE");
    Ok(PathBuf::from(image.ok_or("KNOLL_BENCH_IMAGE does not name an image archive; scripts/bench sets it")?))
}

/// A running instance; stops when dropped.
pub(crate) struct Instance {
    /// How long it took from the start of the process until it was ready.
    pub(crate) took: Duration,
    pub(crate) gateway: SocketAddr,
    pub(crate) credentials: Credentials,
    program: PathBuf,
    data: PathBuf,
    child: Child,
}

impl Instance {
    /// Starts one on `data` and waits until it is ready: it says so, and answers over TLS.
    pub(crate) fn start(data: &Path, options: &[&str]) -> Result<Self, Box<dyn Error>> {
        let program = program()?;
        fs::create_dir_all(data)?;
        let log = File::create(data.join("bench.log"))?;
        let begun = Instant::now();
        let mut child = Command::new(&program)
            .args(["up", "--no-port-80", "--log", "warn", "--data-dir"])
            .arg(data)
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let said = loop {
            let said = fs::read(data.join("instance.json")).ok().and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(said) = said.filter(|said: &Value| said["pid"] == child.id()) {
                break said;
            }
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(data.join("bench.log"))?;
                return Err(format!("knoll up ended with {status}: {}", log.trim()).into());
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                return Err("knoll up does not become ready".into());
            }
            std::thread::sleep(GLANCE);
        };
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        let gateway = said["gateway"][0].as_str().unwrap_or_default().parse()?;
        let credentials = Credentials::read(Path::new(&text("kubeconfig")), &text("api"))?;
        let mut instance = Self { took: Duration::ZERO, gateway, credentials, program, data: data.to_owned(), child };
        let ready = async { instance.credentials.connect().await?.get("/readyz").await };
        crate::block_on(ready)?;
        instance.took = begun.elapsed();
        Ok(instance)
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Takes in an image archive.
    pub(crate) fn load(&self, archive: &Path) -> Result<(), Box<dyn Error>> {
        let mut load = Command::new(&self.program);
        let output = load.args(["image", "load", "--data-dir"]).arg(&self.data).arg(archive).output()?;
        if !output.status.success() {
            return Err(format!("knoll image load: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        Ok(())
    }

    /// Stops it, and its containers.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        self.down()
    }

    fn down(&mut self) -> Result<(), Box<dyn Error>> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let output = Command::new(&self.program).args(["down", "--data-dir"]).arg(&self.data).output()?;
        if !output.status.success() {
            return Err(format!("knoll down: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("an instance (process {}) could not be stopped: {error}", self.child.id());
        }
    }
}

/// The process of the one monitor of this machine.
pub(crate) fn monitor() -> Result<u32, Box<dyn Error>> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).skip(1);
        if words.next() == Some(b"monitor") && words.next() == Some(b"--options") {
            return Ok(process);
        }
    }
    Err("the monitor is not found".into())
}
