//! What many services without instances cost: to create, in memory, at rest, and when the instance starts again.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use crate::cpu::Whose;
use crate::figures::figure;
use crate::instance::{self, Instance};
use crate::{block_on, memory, rest, services};

/// Services are created in so many equal steps, each told, because none may cost more than the first.
const STEPS: usize = 5;
/// What the design allows a service, KB.
const BUDGET: f64 = 40.0;
/// Until what was created is at rest.
const REST: Duration = Duration::from_secs(15);
/// So many times it is counted until that is reached; then it is a failure.
const LOOKS: usize = 20;

/// Measures with `count` services.
pub(crate) fn run(count: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let data = folder.path().join("data");
    let mut text = String::from("services     created in s   ready after s   server CPU ms each   PSS MB\n");
    let instance = Instance::start(&data, &[])?;
    instance.load(&instance::sample()?)?;
    let process = Whose::Process(instance.process());
    std::thread::sleep(REST);
    let empty = memory::pss(instance.process())?;
    let step = count.div_ceil(STEPS);
    for number in 0..STEPS {
        let (before, begun) = (process.micros(), Instant::now());
        let created = block_on(async {
            let mut client = instance.credentials.connect().await?;
            let names = services::post(&mut client, &format!("idle-{number}"), step).await?;
            let created = begun.elapsed();
            services::settle(&mut client, &names).await?;
            Ok(created)
        })?;
        let (ready, each) = (begun.elapsed(), (process.micros() - before) / 1e3 / step as f64);
        let (total, held) = ((number + 1) * step, memory::pss(instance.process())?);
        let (created, ready) = (created.as_secs_f64(), ready.as_secs_f64());
        text.push_str(&format!("{total:>8} {created:>16.1} {ready:>15.1} {each:>20.1} {held:>8.1}\n"));
    }
    let total = (STEPS * step) as f64;
    std::thread::sleep(REST);
    text.push_str(&at_rest("after creation", &instance, empty, total)?);
    instance.stop()?;
    let log = fs::metadata(data.join("store"))?.is_dir().then(|| folder_size(&data.join("store"))).transpose()?;
    let again = Instance::start(&data, &[])?;
    text.push_str(&format!(
        "started again in {:.2} s, from {:.0} MB on disk\n",
        again.took.as_secs_f64(),
        log.unwrap_or(0.0)
    ));
    std::thread::sleep(REST);
    text.push_str(&at_rest("after the start", &again, empty, total)?);
    again.stop()?;
    Ok(text.trim_end().to_owned())
}

/// What the instance holds and does while nothing happens: counted until it is at rest, each count told.
fn at_rest(when: &str, instance: &Instance, empty: f64, services: f64) -> Result<String, Box<dyn Error>> {
    let shares = rest::shares(&Whose::Process(instance.process()), LOOKS);
    if !rest::is_reached(&shares) {
        return Err(format!("{when} the instance never came to rest: {shares:?} % of a processor").into());
    }
    let held = memory::pss(instance.process())?;
    let each = (held - empty) * 1024.0 / services;
    let share = figure(each / BUDGET);
    Ok(format!(
        "{when}: {held:.0} MB, {each:.1} KB a service ({share} x {BUDGET:.0} KB), processor {}\n",
        rest::told(&shares)
    ))
}

/// Megabytes of the files of a folder.
fn folder_size(folder: &std::path::Path) -> Result<f64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes as f64 / 1024.0 / 1024.0)
}
