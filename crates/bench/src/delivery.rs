//! From posting an event until its subscriber has it: senders that each post one event, and the next once this one was both
//! accepted and delivered. Accepted means on disk, so what one sync takes is part of it; a plain file that is synced for
//! as many writers stands beside it, in turn, and what is left is what the way costs.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::figures::Spread;
use crate::instance::Instance;
use crate::plain_file::PlainFile;
use crate::senders::{Post, SIZE, Sender};
use crate::sink::{Sink, Takes};
use crate::{block_on, brokers};

/// Senders at a time.
const SENDERS: [usize; 2] = [1, 16];
/// Rounds in which both take turns.
const ROUNDS: usize = 5;
/// The broker.
const BROKER: &str = "delivery";

/// Who waits for which event to be delivered.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<Instant>>>>;

/// Microseconds.
#[derive(Default)]
struct Waits {
    accepted: Vec<f64>,
    delivered: Vec<f64>,
    plain: Vec<f64>,
}

/// Measures so many events for each number of senders.
pub(crate) fn run(events: usize) -> Result<String, Box<dyn Error>> {
    let folder = tempfile::Builder::new().prefix("knoll-bench").tempdir_in("/var/tmp")?;
    let instance = Instance::start(&folder.path().join("data"), &[])?;
    let mut text = String::from(
        "an event of 1 KB (us)                p50      p99   p50 beyond a plain file's sync   x plain file (p50)\n",
    );
    let measured = block_on(async {
        let waiting = Waiting::default();
        let sink = Sink::start(telling(waiting.clone())).await?;
        let mut client = instance.credentials.connect().await?;
        brokers::create(&mut client, &[BROKER.to_owned()]).await?;
        let triggers = brokers::post_triggers(&mut client, BROKER, &[sink.url()], None).await?;
        brokers::settle_triggers(&mut client, &triggers).await?;
        let ingress = brokers::ingress(&mut client).await?;
        let file = PlainFile::create(&folder.path().join("plain"))?;
        let mut measured = Vec::new();
        for senders in SENDERS {
            let (mut waits, each) = (Waits::default(), events.div_ceil(senders * ROUNDS));
            for round in 0..=ROUNDS {
                let mut connections = Vec::new();
                for _ in 0..senders {
                    connections.push(Sender::connect(ingress).await.map_err(|error| error.to_string())?);
                }
                let ours = ways(connections, &waiting, &format!("{senders}-{round}"), each).await?;
                let plain = synced(&file, senders, each).await?;
                // The first round warms up.
                if round > 0 {
                    waits.accepted.extend(ours.accepted);
                    waits.delivered.extend(ours.delivered);
                    waits.plain.extend(plain);
                }
            }
            measured.push((senders, waits));
        }
        Ok(measured)
    })?;
    instance.stop()?;
    for (senders, waits) in &measured {
        let plain = Spread::of(&waits.plain);
        let rows =
            [("accepted", &waits.accepted), ("delivered", &waits.delivered), ("a plain file's sync", &waits.plain)];
        for (name, waits) in rows {
            let spread = Spread::of(waits);
            let (p50, p99) = (spread.at(50.0), spread.at(99.0));
            let (name, beyond) = (format!("{senders} senders, {name}"), p50 - plain.at(50.0));
            let ratio = p50 / plain.at(50.0);
            text.push_str(&format!("{name:<32} {p50:>8.0} {p99:>8.0} {beyond:>32.0} {ratio:>20.2}\n"));
        }
    }
    Ok(text.trim_end().to_owned())
}

/// A subscriber that tells who waits.
fn telling(waiting: Waiting) -> Takes {
    Arc::new(move |id, at| {
        if let Some(waits) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
            // Who waited may have failed meanwhile.
            waits.send(at).ok();
        }
        Box::pin(std::future::ready(()))
    })
}

/// Has each sender post `each` events, one after the other.
async fn ways(senders: Vec<Sender>, waiting: &Waiting, prefix: &str, each: usize) -> Result<Waits, Box<dyn Error>> {
    let post = Post::new(brokers::HOST, &brokers::path(BROKER), 1);
    let tasks: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(sender, connection)| {
            let (post, waiting, prefix) = (post.clone(), waiting.clone(), format!("{prefix}-{sender}"));
            tokio::spawn(one_after_the_other(connection, post, waiting, prefix, each))
        })
        .collect();
    let mut all = Waits::default();
    for task in tasks {
        let waits = task.await??;
        all.accepted.extend(waits.accepted);
        all.delivered.extend(waits.delivered);
    }
    Ok(all)
}

async fn one_after_the_other(
    mut connection: Sender,
    post: Post,
    waiting: Waiting,
    prefix: String,
    count: usize,
) -> Result<Waits, String> {
    let mut waits = Waits::default();
    for number in 0..count {
        let (id, (arrived, arrives)) = (format!("{prefix}-{number}"), oneshot::channel());
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), arrived);
        let posted = Instant::now();
        connection.post(&post, &id).await.map_err(|error| error.to_string())?;
        waits.accepted.push(posted.elapsed().as_secs_f64() * 1e6);
        let arrived = arrives.await.map_err(|error| error.to_string())?;
        waits.delivered.push((arrived - posted).as_secs_f64() * 1e6);
    }
    Ok(waits)
}

/// What as many writers wait for a plain file.
async fn synced(file: &PlainFile, writers: usize, each: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let asks = file.asks();
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for _ in 0..each {
                    let (asked, (told, synced)) = (Instant::now(), oneshot::channel());
                    let told = Box::new(move || {
                        told.send(()).ok();
                    });
                    asks.send((Bytes::from(vec![b'x'; SIZE]), told)).map_err(|error| error.to_string())?;
                    synced.await.map_err(|error| error.to_string())?;
                    waits.push(asked.elapsed().as_secs_f64() * 1e6);
                }
                Ok::<_, String>(waits)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}
