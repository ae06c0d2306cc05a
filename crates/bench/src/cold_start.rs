//! The first request to a service without instances, beside a bare `runc run` of the same program and files.
//!
//! Ours is measured from before the client's `connect` to the first byte of the answer, through the gateway, with
//! everything in between: the decision, the objects, the container, its probe. The peer is measured from before `runc`
//! is started to the first byte of the answer, asked directly. `runc` gets it easier: no network namespace of its
//! own, no cgroup mount, no overlay. They take turns, so that a disturbance hits both.

mod runc;

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::figures::{Spread, figure};
use crate::instance::{self, Instance};
use crate::{block_on, require, services};

/// Between two samples: the pool fills up, and what a start leaves to do gets done.
const REST: Duration = Duration::from_millis(500);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures with sandboxes in the pool and without, and tells the ratios; raw figures follow as JSON.
pub(crate) fn run(samples: usize) -> Result<String, Box<dyn Error>> {
    require(&["runc", "tar"])?;
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let image = instance::sample()?;
    let mut bundle = runc::Bundle::unpack(&image, folder.path())?;
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
    bundle: &mut runc::Bundle,
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

/// Asks once over a new connection; from before it is made to the first byte of the answer, which must be a success.
fn ask(address: SocketAddr, host: &str) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = [0; 512];
    let mut length = stream.read(&mut answer[..1])?;
    let took = begun.elapsed();
    while let more @ 1.. = stream.read(&mut answer[length..])? {
        length += more;
    }
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(format!("{host} answered {}", String::from_utf8_lossy(&answer[..length])).into());
    }
    Ok(took)
}
