//! The control thread: accepts clients and deals them out, puts new tables in force, gathers statistics.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use knoll_api::stats::RevisionStat;
use knoll_api::table::RoutingTable;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::Live;
use crate::contain::kept_going;
use crate::endpoint_pool::EndpointPool;
use crate::gateway::{Shared, Visibility};
use crate::meter::Count;
use crate::thread::Command;

/// What the control thread is told.
pub(crate) enum Control {
    /// Accept clients.
    Listen(std::net::TcpListener, Visibility),
    /// Accept no more clients and close all listeners.
    StopListening,
    /// End.
    Stop,
}

/// What the control thread works with.
pub(crate) struct Inputs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) orders: mpsc::Receiver<Control>,
    pub(crate) table: watch::Receiver<Option<Arc<RoutingTable>>>,
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
    let Inputs { shared, mut orders, table, stats } = inputs;
    let metrics = || shared.metrics.clone();
    let following = shared.clone();
    tokio::task::spawn_local(kept_going(metrics(), "following the table", move || {
        follow(following.clone(), table.clone())
    }));
    let reporting = shared.clone();
    tokio::task::spawn_local(kept_going(metrics(), "reporting", move || report(reporting.clone(), stats.clone())));
    let (listening, _) = watch::channel(true);
    while let Some(order) = orders.recv().await {
        match order {
            Control::Listen(listener, visibility) => match TcpListener::from_std(listener) {
                Ok(listener) => {
                    let (shared, listener, until) = (shared.clone(), Rc::new(listener), listening.subscribe());
                    tokio::task::spawn_local(kept_going(metrics(), "accepting", move || {
                        accept(shared.clone(), listener.clone(), visibility, until.clone())
                    }));
                }
                Err(error) => tracing::error!(%error, "gateway cannot watch a listener"),
            },
            Control::StopListening => drop(listening.send_replace(false)),
            Control::Stop => return,
        }
    }
}

/// Puts each new table in force. Values that come faster than that are skipped; the newest always counts.
async fn follow(shared: Arc<Shared>, mut table: watch::Receiver<Option<Arc<RoutingTable>>>) {
    // The first value was put in force before any thread started, but a newer one may be there already.
    loop {
        let next = table.borrow_and_update().clone();
        if let Some(next) = next
            && !shared.applied.borrow().as_ref().is_some_and(|applied| Arc::ptr_eq(applied, &next))
        {
            shared.apply(&next);
            tracing::debug!("a new table is in force");
        }
        if table.changed().await.is_err() {
            // Nobody publishes any more: the last table stays in force.
            return;
        }
    }
}

/// Accepts clients until told otherwise. What was accepted is dealt out; what was not stays in the socket's backlog,
/// for whoever else holds the socket.
async fn accept(
    shared: Arc<Shared>,
    listener: Rc<TcpListener>,
    visibility: Visibility,
    mut listening: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = listening.wait_for(|listening| !listening) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tracing::trace!(%peer, "a client came");
                match shared.admit_connection(peer.ip()) {
                    Some(thread) => deal(&shared, thread, stream, peer, visibility).await,
                    None => {
                        tokio::task::spawn_local(turn_away(stream));
                    }
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: some will come back. Others concern one client alone.
                shared.metrics.accept_failures.count();
                tracing::warn!(%error, "gateway cannot accept a client");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn deal(shared: &Arc<Shared>, thread: usize, stream: TcpStream, peer: SocketAddr, visibility: Visibility) {
    // Counts the connection out again if it never reaches its thread.
    let dealt = stream.set_nodelay(true).and_then(|()| stream.into_std());
    match dealt {
        Ok(stream) => {
            if shared.deal[thread].send(Command::Serve(stream, peer, visibility)).await.is_err() {
                drop(Live::new(shared.clone(), thread, peer.ip()));
            }
        }
        Err(error) => {
            tracing::debug!(%error, %peer, "client left before it was served");
            drop(Live::new(shared.clone(), thread, peer.ip()));
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
    let mut busy = HashMap::new();
    loop {
        ticks.tick().await;
        let counts = collect(&shared).await;
        let now = Instant::now();
        let period = now.saturating_duration_since(std::mem::replace(&mut last, now));
        let report = summarize(&shared, counts, &mut busy, period.as_secs_f64());
        match stats.try_send(report) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                shared.metrics.reports_dropped.count();
                tracing::warn!("nobody reads statistics; a report is lost");
            }
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

/// An endpoint pool in a report, with its sums.
struct Sum {
    pool: Arc<EndpointPool>,
    average: f64,
    arrivals: u64,
}

/// Makes the report of a period. It visits who counted something now or in the period before (`busy`), and who has
/// an instance: a revision that could take requests and had none says so. The rest costs nothing.
fn summarize(
    shared: &Shared,
    counts: Vec<Count>,
    busy: &mut HashMap<u64, Arc<EndpointPool>>,
    period_seconds: f64,
) -> Vec<RevisionStat> {
    let mut sums: HashMap<u64, Sum> = HashMap::with_capacity(counts.len());
    let counted = counts.into_iter().map(|Count { pool, average, arrivals }| Sum { pool, average, arrivals });
    let was_busy: Vec<Arc<EndpointPool>> = std::mem::take(busy).into_values().collect();
    let zero = |pool| Sum { pool, average: 0.0, arrivals: 0 };
    for sum in counted {
        busy.entry(sum.pool.id).or_insert_with(|| sum.pool.clone());
        match sums.entry(sum.pool.id) {
            Entry::Occupied(mut known) => {
                known.get_mut().average += sum.average;
                known.get_mut().arrivals += sum.arrivals;
            }
            Entry::Vacant(new) => drop(new.insert(sum)),
        }
    }
    for pool in was_busy.into_iter().chain(shared.populated()) {
        sums.entry(pool.id).or_insert_with(|| zero(pool));
    }
    let mut report = Vec::with_capacity(sums.len());
    for Sum { pool, average, arrivals } in sums.into_values() {
        // Who waits was counted, so nobody who waits is left out here.
        pool.remind();
        if pool.is_revision {
            let (revision, request_count) = (pool.key.clone(), arrivals as f64);
            report.push(RevisionStat { revision, average_concurrency: average, request_count, period_seconds });
        }
    }
    report.sort_by(|left, right| left.revision.cmp(&right.revision));
    report
}
