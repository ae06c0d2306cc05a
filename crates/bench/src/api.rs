//! Creates a second: 32 clients that each create ConfigMaps of 1 KB over a connection of their own.
//!
//! Client and server share the machine, so the rate is a measure of what a create costs both; the server's own
//! processor time a create stands beside it. Every create is on disk before it is answered: the rate at which one
//! writer of the same bytes can wait for this disk is told for comparison, and the ratio is what group commit buys.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::block_on;
use crate::client::Credentials;
use crate::cpu::Whose;
use crate::figures::{Spread, figure};
use crate::instance::Instance;

/// Clients at a time.
const CLIENTS: usize = 32;
/// Bytes of a ConfigMap's data.
const SIZE: usize = 1024;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Measures for so long.
pub(crate) fn run(seconds: u32) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let length = Duration::from_secs(seconds.into());
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    create(&instance.credentials, "warm-up", Duration::from_secs(1))?;
    let server = Whose::Process(instance.process());
    let before = server.micros();
    let begun = Instant::now();
    let latencies = create(&instance.credentials, "measured", length)?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), server.micros() - before);
    instance.stop()?;
    let disk = synced_writes(folder.path(), length.min(Duration::from_secs(3)))?;
    let count = latencies.values().len() as f64;
    let rate = count / took;
    Ok(format!(
        "API, {CLIENTS} clients, 1 KB ConfigMaps    creates/s  x one synced writer  server CPU us/create   p50 us   p99 us
knoll                                {rate:>12.0} {:>20} {:>21.0} {:>8.0} {:>8.0}
one writer of 1 KB, synced           {disk:>12.0} {:>20}                     -        -        -",
        figure(rate / disk),
        cpu / count,
        latencies.at(50.0),
        latencies.at(99.0),
        figure(1.0),
    ))
}

/// Creates ConfigMaps named after `prefix` for so long; how many microseconds each took.
fn create(credentials: &Credentials, prefix: &str, length: Duration) -> Result<Spread, Box<dyn Error>> {
    block_on(async {
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let mut connection = credentials.connect().await?;
            let prefix = format!("{prefix}-{client}");
            clients.push(tokio::spawn(async move {
                let data = "x".repeat(SIZE);
                let (begun, mut latencies) = (Instant::now(), Vec::new());
                while begun.elapsed() < length {
                    let name = format!("{prefix}-{}", latencies.len());
                    let object = json!({
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "metadata": {"name": name},
                        "data": {"key": data},
                    });
                    let sent = Instant::now();
                    connection.create(CONFIG_MAPS, &object).await.map_err(|error| error.to_string())?;
                    latencies.push(sent.elapsed().as_secs_f64() * 1e6);
                }
                Ok::<_, String>(latencies)
            }));
        }
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await??);
        }
        Ok(Spread::of(&all))
    })
}

/// Writes of as many bytes a second that one writer gets to this disk, waiting for each.
fn synced_writes(folder: &Path, length: Duration) -> Result<f64, Box<dyn Error>> {
    let mut file = File::create(folder.join("synced"))?;
    let (begun, mut count) = (Instant::now(), 0.0);
    while begun.elapsed() < length {
        file.write_all(&[b'x'; SIZE])?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(count / begun.elapsed().as_secs_f64())
}
