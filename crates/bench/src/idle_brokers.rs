//! What many brokers cost to which nobody sends, with ten Triggers each: in memory, at rest, and when the instance starts
//! again.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::cpu::Whose;
use crate::figures::figure;
use crate::instance::Instance;
use crate::{block_on, brokers, memory, rest};

/// Triggers of a broker.
const TRIGGERS: usize = 10;
/// What a Trigger should weigh at most, with its part of its broker, KB.
const AIM: f64 = 10.0;
/// Until what was created is at rest.
const REST: Duration = Duration::from_secs(15);
/// So many times processor time is counted until the instance is at rest.
const LOOKS: usize = 4;
/// Where events would go.
const SUBSCRIBER: &str = "http://subscriber.default.svc.cluster.local/";

/// Measures with `count` brokers.
pub(crate) fn run(count: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let data = folder.path().join("data");
    let instance = Instance::start(&data, &[])?;
    let whose = Whose::Process(instance.process());
    std::thread::sleep(REST);
    let (empty, before, begun) = (memory::pss(instance.process())?, whose.micros(), Instant::now());
    block_on(async {
        let mut client = instance.credentials.connect().await?;
        let names: Vec<String> = (0..count).map(|number| format!("idle-{number}")).collect();
        brokers::create(&mut client, &names).await?;
        let (subscribers, mut triggers) = (vec![SUBSCRIBER.to_owned(); TRIGGERS], Vec::new());
        for name in &names {
            triggers.extend(brokers::post_triggers(&mut client, name, &subscribers, Some(name)).await?);
        }
        brokers::settle_triggers(&mut client, &triggers).await
    })?;
    let triggers = (count * TRIGGERS) as f64;
    let (took, each) = (begun.elapsed().as_secs_f64(), (whose.micros() - before) / 1e3 / triggers);
    std::thread::sleep(REST);
    let mut text = format!(
        "{count} brokers of {TRIGGERS} triggers each: created and ready in {took:.0} s, {each:.1} ms of a processor a \
         trigger\n",
    );
    text.push_str(&at_rest("after creation", &instance, empty, triggers)?);
    instance.stop()?;
    let again = Instance::start(&data, &[])?;
    text.push_str(&format!("started again in {:.2} s\n", again.took.as_secs_f64()));
    std::thread::sleep(REST);
    text.push_str(&at_rest("after the start", &again, empty, triggers)?);
    again.stop()?;
    Ok(text.trim_end().to_owned())
}

fn at_rest(when: &str, instance: &Instance, empty: f64, triggers: f64) -> Result<String, Box<dyn Error>> {
    let shares = rest::shares(&Whose::Process(instance.process()), LOOKS);
    let held = memory::pss(instance.process())?;
    let each = (held - empty) * 1024.0 / triggers;
    let (ratio, shares) = (figure(each / AIM), rest::told(&shares));
    Ok(format!(
        "{when}: {held:.0} MB, {empty:.0} MB when empty, {each:.1} KB a trigger ({ratio} x {AIM:.0} KB), processor {shares}\n"
    ))
}
