//! From starting `knoll up` to an instance that answers over TLS.

use std::error::Error;

use serde_json::json;

use crate::figures::{Spread, figure};
use crate::instance::Instance;
use crate::{block_on, instance, services};

/// Objects besides those every instance has: ConfigMaps of 1 KB, and Services without instances.
const CONFIG_MAPS: usize = 10_000;
const SERVICES: usize = 50;

/// Measures so often.
pub(crate) fn run(rounds: u32) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let mut first = Vec::new();
    for round in 0..rounds {
        let instance = Instance::start(&folder.path().join(format!("first-{round}")), &[])?;
        first.push(instance.took.as_secs_f64() * 1e3);
        instance.stop()?;
    }
    let empty = again(&folder.path().join("first-0"), rounds)?;
    let full = folder.path().join("full");
    fill(&full)?;
    let full = again(&full, rounds)?;
    let mut text = String::from("up to ready                         p50 ms   max ms   x empty (p50)\n");
    let rows = [
        ("first start, keys made", Spread::of(&first)),
        ("empty", Spread::of(&empty)),
        ("10,000 ConfigMaps, 50 Services", Spread::of(&full)),
    ];
    let base = Spread::of(&empty).at(50.0);
    for (name, spread) in rows {
        let (p50, max) = (spread.at(50.0), spread.at(100.0));
        text.push_str(&format!("{name:<33} {p50:>8.0} {max:>8.0} {:>15}\n", figure(p50 / base)));
    }
    Ok(text.trim_end().to_owned())
}

fn again(data: &std::path::Path, rounds: u32) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let instance = Instance::start(data, &[])?;
        took.push(instance.took.as_secs_f64() * 1e3);
        instance.stop()?;
    }
    Ok(took)
}

fn fill(data: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let instance = Instance::start(data, &[])?;
    instance.load(&instance::sample()?)?;
    block_on(async {
        let mut client = instance.credentials.connect().await?;
        let text = "x".repeat(1024);
        for number in 0..CONFIG_MAPS {
            let name = format!("object-{number}");
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": text},
            });
            client.create("/api/v1/namespaces/default/configmaps", &object).await?;
        }
        services::create(&mut client, "idle", SERVICES).await
    })?;
    instance.stop()
}
