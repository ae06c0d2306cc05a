//! The peer: the image's files and program as an OCI bundle, started by `runc`.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How often the program is asked whether it listens: as often as our own probe at its quickest.
const GLANCE: Duration = Duration::from_micros(250);
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// An unpacked bundle.
pub(crate) struct Bundle {
    folder: PathBuf,
    address: SocketAddr,
    runs: u32,
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
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        finish(Command::new("runc").args(["spec", "--bundle"]).arg(&bundle))?;
        let path = bundle.join("config.json");
        let spec = adapt(serde_json::from_slice(&fs::read(&path)?)?, &config["config"], address.port());
        fs::write(path, spec.to_string())?;
        Ok(Self { folder: bundle, address, runs: 0 })
    }

    /// Runs it once: from before `runc` is started to the first byte of the program's answer.
    pub(crate) fn run(&mut self) -> Result<Duration, Box<dyn Error>> {
        self.runs += 1;
        let name = format!("knoll-bench-{}-{}", std::process::id(), self.runs);
        let begun = Instant::now();
        let mut child = Command::new("runc")
            .args(["run", "--bundle"])
            .arg(&self.folder)
            .arg(&name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let took = loop {
            match super::ask(self.address, "bench") {
                Ok(_) => break begun.elapsed(),
                Err(_) if child.try_wait()?.is_some() => {
                    let output = child.wait_with_output()?;
                    return Err(format!("runc run: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
                }
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(GLANCE),
            }
        };
        finish(Command::new("runc").args(["kill", &name, "KILL"]))?;
        child.wait()?;
        // It is gone already where `run` cleaned up after it.
        Command::new("runc").args(["delete", "--force", &name]).stderr(Stdio::null()).status()?;
        Ok(took)
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
