//! What an idle instance holds in memory: the proportional set size of the program and of the monitor, summed.

use std::error::Error;
use std::fs;
use std::time::Duration;

use crate::figures::figure;
use crate::instance::{self, Instance};
use crate::{block_on, services};

/// Services of the second and the third figure; the difference between these is the weight of a service, without what
/// the instance keeps once for all.
const SERVICES: [usize; 2] = [50, 250];
/// What the design allows an idle instance, MB.
const BUDGET: f64 = 60.0;
/// Until an instance is idle.
const REST: Duration = Duration::from_secs(5);

/// Measures with and without services.
pub(crate) fn run() -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    instance.load(&instance::sample()?)?;
    let mut text = String::from("idle memory (PSS, MB)             knoll  monitor      sum  x 60 MB budget\n");
    let mut tell = |name: &str| {
        std::thread::sleep(REST);
        let (server, monitor) = (pss(instance.process())?, pss(instance::monitor()?)?);
        let sum = server + monitor;
        let ratio = figure(sum / BUDGET);
        text.push_str(&format!("{name:<30} {server:>8.1} {monitor:>8.1} {sum:>8.1} {ratio:>15}\n"));
        Ok::<_, Box<dyn Error>>(sum)
    };
    tell("no services")?;
    let mut sums = Vec::new();
    let mut before = 0;
    for count in SERVICES {
        block_on(async {
            let mut client = instance.credentials.connect().await?;
            services::create(&mut client, &format!("of-{count}"), count - before).await
        })?;
        before = count;
        sums.push(tell(&format!("{count} services without instances"))?);
    }
    instance.stop()?;
    let each = (sums[1] - sums[0]) * 1024.0 / (SERVICES[1] - SERVICES[0]) as f64;
    text.push_str(&format!("each service from {} to {}: {each:.0} KB", SERVICES[0], SERVICES[1]));
    Ok(text)
}

/// Megabytes of a process, with its part of what it shares.
pub(crate) fn pss(process: u32) -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("smaps_rollup has no Pss")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
