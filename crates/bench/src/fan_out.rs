//! One event to many: a broker whose Triggers all get every event, 10 of them and 1,000, each with a subscriber of its own.
//!
//! Beside it a bare client posts as many of the same events to one of those over 64 connections: what it costs to send them at
//! all. Both take turns.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cpu::Whose;
use crate::figures::{Spread, figure};
use crate::instance::Instance;
use crate::peer;
use crate::senders::{self, Post};
use crate::sink::{Sink, Takes};
use crate::{block_on, brokers};

/// Triggers of the broker.
const TRIGGERS: [usize; 2] = [10, 1000];
/// Rounds in which both take turns.
const ROUNDS: usize = 3;
/// Senders of events, at most as many as there are events.
const SENDERS: usize = 8;
/// Connections of the bare client.
const CONNECTIONS: usize = 64;
/// How long the next delivery may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One round.
struct Round {
    /// Deliveries a second, from the first event posted to the last delivery.
    rate: f64,
    /// Processor time of who delivers, microseconds a delivery.
    cpu: f64,
}

/// Measures rounds of so many thousand deliveries.
pub(crate) fn run(thousands: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    let mut text = String::from(
        "fan-out, events of 1 KB (medians)     deliveries/s   x bare client   CPU us a delivery   x bare client (CPU)\n",
    );
    for triggers in TRIGGERS {
        let (ours, bare) = measure(&instance, triggers, thousands * 1000)?;
        let middle =
            |rounds: &[Round], of: fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>()).at(50.0);
        let (base, base_cpu) = (middle(&bare, |round| round.rate), middle(&bare, |round| round.cpu));
        for (name, rounds) in [(format!("{triggers} triggers"), &ours), ("bare client".to_owned(), &bare)] {
            let (rate, cpu) = (middle(rounds, |round| round.rate), middle(rounds, |round| round.cpu));
            let (rates, cpus) = (figure(rate / base), figure(cpu / base_cpu));
            text.push_str(&format!("{name:<36} {rate:>13.0} {rates:>15} {cpu:>19.1} {cpus:>21}\n"));
        }
    }
    instance.stop()?;
    Ok(text.trim_end().to_owned())
}

fn measure(
    instance: &Instance,
    triggers: usize,
    deliveries: usize,
) -> Result<(Vec<Round>, Vec<Round>), Box<dyn Error>> {
    let broker = format!("fan-out-{triggers}");
    let events = (deliveries / triggers).max(1);
    let whose = Whose::Process(instance.process());
    let arrived = Arc::new(watch::Sender::new(0_usize));
    // The subscriber's runtime goes on while a bare client is waited for.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (sinks, ingress) = runtime.block_on(async {
        let mut sinks = Vec::new();
        for _ in 0..triggers {
            sinks.push(Sink::start(counting(arrived.clone())).await?);
        }
        let urls: Vec<String> = sinks.iter().map(Sink::url).collect();
        let mut client = instance.credentials.connect().await?;
        brokers::create(&mut client, std::slice::from_ref(&broker)).await?;
        let names = brokers::post_triggers(&mut client, &broker, &urls, None).await?;
        brokers::settle_triggers(&mut client, &names).await?;
        Ok::<_, Box<dyn Error>>((sinks, brokers::ingress(&mut client).await?))
    })?;
    let post = Post::new(brokers::HOST, &brokers::path(&broker), 1);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        arrived.send_replace(0);
        let (before, begun) = (whose.micros(), Instant::now());
        let senders = SENDERS.min(events);
        let wanted = block_on(senders::send(ingress, &post, senders, events))?.values().len() * triggers;
        runtime.block_on(reached(arrived.subscribe(), wanted))?;
        let (took, cpu) = (begun.elapsed().as_secs_f64(), whose.micros() - before);
        let posted = peer::post(sinks[0].local(), CONNECTIONS, wanted)?;
        // The first round warms up.
        if round > 0 {
            ours.push(Round { rate: wanted as f64 / took, cpu: cpu / wanted as f64 });
            bare.push(Round { rate: posted.rate, cpu: posted.cpu });
        }
    }
    Ok((ours, bare))
}

fn counting(arrived: Arc<watch::Sender<usize>>) -> Takes {
    Arc::new(move |_, _| {
        arrived.send_modify(|count| *count += 1);
        Box::pin(std::future::ready(()))
    })
}

/// Waits until so many have arrived.
async fn reached(mut arrived: watch::Receiver<usize>, wanted: usize) -> Result<(), Box<dyn Error>> {
    while *arrived.borrow_and_update() < wanted {
        tokio::time::timeout(PATIENCE, arrived.changed())
            .await
            .map_err(|_| format!("{} of {wanted} deliveries came", *arrived.borrow()))??;
    }
    Ok(())
}
