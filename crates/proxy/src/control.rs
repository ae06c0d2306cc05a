//! The control thread: accepts clients and deals them out, puts new tables in force, gathers statistics.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use knoll_api::stats::RevisionStat;
use knoll_api::table::Table;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::Live;
use crate::gateway::{Shared, Side};
use crate::station::Station;
use crate::stats::Count;
use crate::thread::Command;

/// What the control thread is told.
pub(crate) enum Control {
    /// Accept clients.
    Listen(std::net::TcpListener, Side),
    /// Close all listeners.
    StopListening,
    /// End.
    Stop,
}

/// What the control thread works with.
pub(crate) struct Inputs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) orders: mpsc::Receiver<Control>,
    pub(crate) table: watch::Receiver<Arc<Table>>,
    pub(crate) applied: watch::Sender<Arc<Table>>,
    pub(crate) stats: mpsc::Sender<Vec<RevisionStat>>,
}

/// Starts the control thread; it ends with [`Control::Stop`] or when `orders` is closed.
pub(crate) fn spawn(inputs: Inputs) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("gateway-control".into()).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(run(inputs)),
            Err(error) => tracing::error!(%error, "gateway control thread has no runtime"),
        }
    })
}

async fn run(inputs: Inputs) {
    let Inputs { shared, mut orders, table, applied, stats } = inputs;
    tokio::task::spawn_local(follow(shared.clone(), table, applied));
    tokio::task::spawn_local(report(shared.clone(), stats));
    let mut acceptors: Vec<AbortHandle> = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            Control::Listen(listener, side) => match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let task = tokio::task::spawn_local(accept(shared.clone(), listener, side));
                    acceptors.push(task.abort_handle());
                }
                Err(error) => tracing::error!(%error, "gateway cannot watch a listener"),
            },
            Control::StopListening => acceptors.drain(..).for_each(|acceptor| acceptor.abort()),
            Control::Stop => return,
        }
    }
}

/// Puts each new table in force. Values that come faster than that are skipped; the newest always counts.
async fn follow(shared: Arc<Shared>, mut table: watch::Receiver<Arc<Table>>, applied: watch::Sender<Arc<Table>>) {
    // The first value was put in force before any thread started, but a newer one may be there already.
    loop {
        let next = table.borrow_and_update().clone();
        if !Arc::ptr_eq(&next, &applied.borrow()) {
            shared.apply(&next);
            applied.send_replace(next);
        }
        if table.changed().await.is_err() {
            // Nobody publishes any more: the last table stays in force.
            return;
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, side: Side) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match shared.admit_connection() {
                Some(thread) => deal(&shared, thread, stream, peer, side).await,
                None => {
                    tokio::task::spawn_local(turn_away(stream));
                }
            },
            Err(error) => {
                // Out of file descriptors, most likely: some will come back. Others concern one client alone.
                tracing::warn!(%error, "gateway cannot accept a client");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn deal(shared: &Arc<Shared>, thread: usize, stream: TcpStream, peer: SocketAddr, side: Side) {
    // Counts the connection out again if it never reaches its thread.
    let dealt = stream.set_nodelay(true).and_then(|()| stream.into_std());
    match dealt {
        Ok(stream) => {
            if shared.deal[thread].send(Command::Serve(stream, peer, side)).await.is_err() {
                drop(Live::new(shared.clone(), thread));
            }
        }
        Err(error) => {
            tracing::debug!(%error, %peer, "client left before it was served");
            drop(Live::new(shared.clone(), thread));
        }
    }
}

async fn turn_away(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 1\r\n\
        content-length: 20\r\nconnection: close\r\n\r\ntoo many connections";
    // A client that does not read its refusal within a second goes without.
    if let Ok(Err(error)) = timeout(Duration::from_secs(1), stream.write_all(ANSWER)).await {
        tracing::debug!(%error, "client left before it was refused");
    }
}

/// Each period: collects what the threads counted, sends it, and repeats calls for instances nobody brought.
async fn report(shared: Arc<Shared>, stats: mpsc::Sender<Vec<RevisionStat>>) {
    let mut ticks = interval(shared.config.stats_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        let counts = collect(&shared).await;
        let now = Instant::now();
        let period = now.saturating_duration_since(std::mem::replace(&mut last, now));
        let report = summarize(&shared, counts, period.as_secs_f64());
        match stats.try_send(report) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => tracing::warn!("nobody reads statistics; a report is lost"),
            // Nobody wants to know; waiting requests still need instances.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

async fn collect(shared: &Shared) -> Vec<Count> {
    // A thread that is busy for this long reports with the next period.
    let patience = shared.config.stats_period;
    let asked = shared.deal.iter().map(|thread| async move {
        let (answer, counts) = oneshot::channel();
        thread.send(Command::Report(answer)).await.ok()?;
        counts.await.ok()
    });
    let all = join_all(asked.map(|one| timeout(patience, one))).await;
    all.into_iter().filter_map(Result::ok).flatten().flatten().collect()
}

fn summarize(shared: &Shared, counts: Vec<Count>, period_seconds: f64) -> Vec<RevisionStat> {
    let mut sums: HashMap<u64, (f64, u64)> = HashMap::with_capacity(counts.len());
    for count in &counts {
        let sum = sums.entry(count.station.id).or_default();
        sum.0 += count.average;
        sum.1 += count.arrivals;
    }
    let stations: Vec<Arc<Station>> = shared.registry().all().cloned().collect();
    let mut report = Vec::new();
    for station in stations {
        station.remind();
        if !station.is_revision {
            continue;
        }
        let counted = sums.remove(&station.id);
        let was_reported = station.reported.swap(counted.is_some(), Ordering::Relaxed);
        // A revision that could take requests and had none says so; and each says zero once when it ends.
        if counted.is_some() || was_reported || station.has_instances() {
            let (average_concurrency, arrivals) = counted.unwrap_or_default();
            let revision = station.key.clone();
            report.push(RevisionStat { revision, average_concurrency, request_count: arrivals as f64, period_seconds });
        }
    }
    report.sort_by(|left, right| left.revision.cmp(&right.revision));
    report
}
