//! A backlog behind a subscriber that is stuck: what it costs in memory, and what a start takes with it.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::figures::figure;
use crate::instance::Instance;
use crate::senders::{self, Post, Sender};
use crate::sink::{Sink, Takes};
use crate::{block_on, brokers, memory};

/// Events of a request while the backlog is made.
const BATCH: usize = 200;
/// Senders that make it.
const SENDERS: usize = 4;
/// What it should cost at most in memory, MB, with five million events.
const AIM: f64 = 150.0;
/// How long a start with it should take at most, seconds.
const START: f64 = 1.0;
/// Until what was sent is no more worked on.
const REST: Duration = Duration::from_secs(10);
/// The broker.
const BROKER: &str = "backlog";

/// Measures with so many thousand events.
pub(crate) fn run(thousands: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let data = folder.path().join("data");
    let instance = Instance::start(&data, &[])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (_sink, ingress) = runtime.block_on(async {
        let sink = Sink::start(stuck()).await?;
        let mut client = instance.credentials.connect().await?;
        brokers::create(&mut client, &[BROKER.to_owned()]).await?;
        let names = brokers::post_triggers(&mut client, BROKER, &[sink.url()], None).await?;
        brokers::settle_triggers(&mut client, &names).await?;
        Ok::<_, Box<dyn Error>>((sink, brokers::ingress(&mut client).await?))
    })?;
    std::thread::sleep(REST);
    let (idle, begun) = (memory::pss(instance.process())?, Instant::now());
    let post = Post::new(brokers::HOST, &brokers::path(BROKER), BATCH);
    let requests = (thousands * 1000).div_ceil(BATCH);
    let sent = block_on(senders::send(ingress, &post, SENDERS, requests))?.values().len() * BATCH;
    let took = begun.elapsed().as_secs_f64();
    std::thread::sleep(REST);
    let held = memory::pss(instance.process())?;
    instance.stop()?;
    let again = Instance::start(&data, &[])?;
    let begun = Instant::now();
    block_on(async {
        let mut client = again.credentials.connect().await?;
        let ingress = brokers::ingress(&mut client).await?;
        let mut sender = Sender::connect(ingress).await.map_err(|error| error.to_string())?;
        let one = Post::new(brokers::HOST, &brokers::path(BROKER), 1);
        sender.post(&one, "one-more").await.map_err(|error| error.to_string())?;
        Ok(())
    })?;
    let (ready, taken) = (again.took.as_secs_f64(), begun.elapsed().as_secs_f64());
    std::thread::sleep(REST);
    let restarted = memory::pss(again.process())?;
    again.stop()?;
    Ok(format!(
        "{sent} events of 1 KB behind a stuck subscriber: taken at {:.0} events/s, {:.0} MB on disk
memory (PSS)           MB   above idle MB   x {AIM:.0} MB
idle             {idle:>8.1} {:>15} {:>10}
with the backlog {held:>8.1} {:>15.1} {:>10}
started again    {restarted:>8.1} {:>15.1} {:>10}
started again: ready in {ready:.2} s ({} x {START:.0} s), an event taken {:.0} ms later",
        sent as f64 / took,
        size(&data)? / 1024.0 / 1024.0,
        "-",
        "-",
        held - idle,
        figure((held - idle) / AIM),
        restarted - idle,
        figure((restarted - idle) / AIM),
        figure(ready / START),
        taken * 1e3,
    ))
}

/// A subscriber that never answers.
fn stuck() -> Takes {
    Arc::new(|_, _| Box::pin(std::future::pending()))
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> Result<f64, Box<dyn Error>> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        bytes += if kind.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() as f64 };
    }
    Ok(bytes)
}
