//! The first request to a service without instances, beside a bare `runc run` of the same program and files.
//!
//! Ours is measured from before the client's `connect` to the first byte of the answer, through the gateway, with
//! everything in between: the decision, the objects, the container, its probe. The peer is measured from before `runc`
//! is started to the first byte of the answer, asked directly. `runc` gets it easier: no network namespace of its
//! own, no cgroup mount, no overlay. They take turns, so that a disturbance hits both.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::figures::{Spread, figure};
use crate::instance::{self, Instance};
use crate::request::ask;
use crate::runc::Bundle;
use crate::{block_on, require, services};

/// Between two samples: the pool fills up, and what a start leaves to do gets done.
const REST: Duration = Duration::from_millis(500);

/// Measures with sandboxes in the pool and without, and tells the ratios; raw figures follow as JSON.
pub(crate) fn run(samples: usize) -> Result<String, Box<dyn Error>> {
    require(&["runc", "tar"])?;
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let image = instance::sample()?;
    let mut bundle = Bundle::unpack(&image, folder.path())?;
    let mut text = String::from("cold start             p50 ms   p90 ms   max ms   x runc (p50)\n");
    let mut raw = serde_json::Map::new();
    for (name, options) in [("pool full", &[][..]), ("pool empty", &["--sandbox-pool", "0"])] {
        let (ours, theirs) =
            compare(&folder.path().join(name.replace(' ', "-")), options, &image, &mut bundle, samples)?;
        for (name, spread) in [(format!("knoll, {name}"), &ours), (format!("runc, beside {name}"), &theirs)] {
            text.push_str(&format!(
                "{name:<22} {:>6.1}   {:>6.1}   {:>6.1}   {:>12}\n",
                spread.at(50.0),
                spread.at(90.0),
                spread.at(100.0),
                figure(spread.at(50.0) / theirs.at(50.0)),
            ));
            raw.insert(name, json!(spread.values()));
        }
    }
    text.push_str(&serde_json::Value::Object(raw).to_string());
    Ok(text)
}

fn compare(
    data: &Path,
    options: &[&str],
    image: &Path,
    bundle: &mut Bundle,
    samples: usize,
) -> Result<(Spread, Spread), Box<dyn Error>> {
    let instance = Instance::start(data, options)?;
    instance.load(image)?;
    let names = block_on(async {
        let mut client = instance.credentials.connect().await?;
        // The first is for warming up.
        services::create(&mut client, "cold", samples + 1).await
    })?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for name in &names {
        std::thread::sleep(REST);
        ours.push(ask(instance.gateway, &format!("{name}.default.localhost"))?.as_secs_f64() * 1e3);
        std::thread::sleep(REST);
        theirs.push(bundle.run()?.as_secs_f64() * 1e3);
    }
    instance.stop()?;
    Ok((Spread::of(&ours[1..]), Spread::of(&theirs[1..])))
}
