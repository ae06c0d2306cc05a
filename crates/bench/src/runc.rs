//! The peer: the image's files and program as an OCI bundle, started by `runc`.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::request::ask;

/// How often the program is asked whether it listens: as often as our own probe at its quickest.
const GLANCE: Duration = Duration::from_micros(250);
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An unpacked bundle, for one container at a time.
pub(crate) struct Bundle {
    folder: PathBuf,
    address: SocketAddr,
    runs: u32,
}

/// A container of it.
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Bundle {
    /// Unpacks an image archive below `folder`, and writes what `runc spec` says with the image's program in it.
    pub(crate) fn unpack(archive: &Path, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let (image, bundle) = (folder.join("image"), folder.join("bundle"));
        untar(archive, &image)?;
        let manifest: Value = serde_json::from_slice(&fs::read(image.join("manifest.json"))?)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("the image's manifest is not understood");
        for layer in manifest[0]["Layers"].as_array().into_iter().flatten() {
            untar(&image.join(text(layer)?), &bundle.join("rootfs"))?;
        }
        let config: Value = serde_json::from_slice(&fs::read(image.join(text(&manifest[0]["Config"])?))?)?;
        let address = free_address()?;
        finish(Command::new("runc").args(["spec", "--bundle"]).arg(&bundle))?;
        let path = bundle.join("config.json");
        let mut spec = adapt(serde_json::from_slice(&fs::read(&path)?)?, &config["config"], address.port());
        spec["root"]["path"] = json!(bundle.join("rootfs"));
        fs::write(path, spec.to_string())?;
        Ok(Self { folder: bundle, address, runs: 0 })
    }

    /// Another one in `folder`, of the same files, whose program listens elsewhere: both may run at the same time.
    pub(crate) fn beside(&self, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut spec: Value = serde_json::from_slice(&fs::read(self.folder.join("config.json"))?)?;
        let address = free_address()?;
        if let Some(env) = spec["process"]["env"].as_array_mut() {
            env.retain(|variable| variable.as_str().is_none_or(|text| !text.starts_with("PORT=")));
            env.push(json!(format!("PORT={}", address.port())));
        }
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.json"), spec.to_string())?;
        Ok(Self { folder: folder.to_owned(), address, runs: 0 })
    }

    /// Runs it once: from before `runc` is started to the first byte of the program's answer.
    pub(crate) fn run(&mut self) -> Result<Duration, Box<dyn Error>> {
        let (running, took) = self.start(|_| GLANCE)?;
        running.stop()?;
        Ok(took)
    }

    /// Starts it: from before `runc` is started to the first byte of the program's answer. `pause` says how long to
    /// wait before asking the program again, by how long it has been asked.
    pub(crate) fn start(
        &mut self,
        pause: impl Fn(Duration) -> Duration,
    ) -> Result<(Running, Duration), Box<dyn Error>> {
        self.runs += 1;
        let port = self.address.port();
        let name = format!("knoll-bench-{}-{port}-{}", std::process::id(), self.runs);
        let begun = Instant::now();
        let mut child = Command::new("runc")
            .args(["run", "--bundle"])
            .arg(&self.folder)
            .arg(&name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        loop {
            match ask(self.address, "bench") {
                Ok(_) => return Ok((Running { name, child }, begun.elapsed())),
                Err(_) if child.try_wait()?.is_some() => {
                    let output = child.wait_with_output()?;
                    return Err(format!("runc run: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
                }
                Err(error) if begun.elapsed() > PATIENCE => {
                    Running { name, child }.stop()?;
                    return Err(error);
                }
                Err(_) => std::thread::sleep(pause(begun.elapsed())),
            }
        }
    }
}

impl Running {
    /// Ends it.
    pub(crate) fn stop(mut self) -> Result<(), Box<dyn Error>> {
        finish(Command::new("runc").args(["kill", &self.name, "KILL"]))?;
        self.child.wait()?;
        // It is gone already where `run` cleaned up after it.
        Command::new("runc").args(["delete", "--force", &self.name]).stderr(Stdio::null()).status()?;
        Ok(())
    }
}

/// An address that nobody listens on and that no other bundle was given: of a hundred picked at random, two would be the
/// same one time in three.
fn free_address() -> Result<SocketAddr, Box<dyn Error>> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(address.port()) {
            return Ok(address);
        }
    }
}

/// The default specification, with the image's program, in the machine's own network.
fn adapt(mut spec: Value, image: &Value, port: u16) -> Value {
    let words = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let args = [words(&image["Entrypoint"]), words(&image["Cmd"])].concat();
    let user: u32 = image["User"].as_str().and_then(|user| user.parse().ok()).unwrap_or_default();
    let mut env = words(&spec["process"]["env"]);
    env.extend(words(&image["Env"]));
    env.push(json!(format!("PORT={port}")));
    spec["process"]["args"] = json!(args);
    spec["process"]["env"] = json!(env);
    spec["process"]["terminal"] = json!(false);
    spec["process"]["user"] = json!({"uid": user, "gid": user});
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "cgroup");
    }
    spec
}

fn untar(archive: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(into)?;
    finish(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into))
}

fn finish(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_runs_the_images_program_in_the_machines_network() {
        let spec = json!({
            "process": {"args": ["sh"], "env": ["A=1"], "terminal": true},
            "mounts": [{"type": "proc"}, {"type": "cgroup"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]},
        });
        let spec = adapt(spec, &json!({"Entrypoint": ["/server"], "Cmd": ["-v"], "User": "7"}), 80);
        assert_eq!(spec["process"]["args"], json!(["/server", "-v"]));
        assert_eq!(spec["process"]["env"], json!(["A=1", "PORT=80"]));
        assert_eq!(spec["process"]["user"], json!({"uid": 7, "gid": 7}));
        assert_eq!(spec["mounts"], json!([{"type": "proc"}]));
        assert_eq!(spec["linux"]["namespaces"], json!([{"type": "pid"}]));
    }
}
