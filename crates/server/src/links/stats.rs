//! From the gateway to the autoscaler: what revisions carried, and who waits for an instance.
//!
//! While the autoscaler is away what was to be said is dropped: a window lacks that second, and who waits is
//! said again each second.

use std::{io, path::Path};

use knoll_api::{Key, stats::RevisionStat};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
};

use super::{
    Peer,
    wire::{Named, Stat},
};

/// Revisions in one frame: with the longest names it stays well below the bound.
const TOGETHER: usize = 1000;
/// Gateways at a time; more are closed at once.
const GATEWAYS: usize = 64;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Report {
    Stats(Vec<Stat>),
    Wake(Named),
}

/// Sends what the gateway measures to who listens at `path`, until the gateway is gone.
pub(crate) async fn send(path: &Path, stats: &mut mpsc::Receiver<Vec<RevisionStat>>, wakes: &mut mpsc::Receiver<Key>) {
    loop {
        let mut peer = {
            let found = Peer::find(path);
            tokio::pin!(found);
            loop {
                tokio::select! {
                    peer = &mut found => break peer,
                    dropped = stats.recv() => if dropped.is_none() { return },
                    dropped = wakes.recv() => if dropped.is_none() { return },
                }
            }
        };
        tracing::info!("the autoscaler listens");
        match pass_on(&mut peer, stats, wakes).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "the autoscaler is gone; it is looked for"),
        }
    }
}

async fn pass_on(
    peer: &mut Peer,
    stats: &mut mpsc::Receiver<Vec<RevisionStat>>,
    wakes: &mut mpsc::Receiver<Key>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            biased;
            wake = wakes.recv() => match wake {
                Some(revision) => peer.send(&Report::Wake((&revision).into())).await?,
                None => return Ok(()),
            },
            report = stats.recv() => match report {
                Some(report) => {
                    for part in report.chunks(TOGETHER) {
                        peer.send(&Report::Stats(part.iter().map(Stat::from).collect())).await?;
                    }
                }
                None => return Ok(()),
            },
            // It says nothing: this is its end.
            said = peer.next::<()>() => {
                said?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// Hears gateways, for ever.
pub(crate) async fn receive(listener: &UnixListener, stats: mpsc::Sender<Vec<RevisionStat>>, wakes: mpsc::Sender<Key>) {
    let mut peers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if peers.len() < GATEWAYS => {
                    peers.spawn(hear(stream, stats.clone(), wakes.clone()));
                }
                Ok(_) => tracing::warn!(most = GATEWAYS, "too many gateways; one is turned away"),
                Err(error) => {
                    tracing::warn!(%error, "a gateway could not be let in");
                    tokio::time::sleep(super::PAUSE.1).await;
                }
            },
            Some(ended) = peers.join_next(), if !peers.is_empty() => {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "a gateway's reports broke off");
                }
            }
        }
    }
}

async fn hear(stream: UnixStream, stats: mpsc::Sender<Vec<RevisionStat>>, wakes: mpsc::Sender<Key>) -> io::Result<()> {
    let mut peer = Peer::new(stream);
    tracing::info!("a gateway reports");
    while let Some(report) = peer.next().await? {
        let heard = match report {
            Report::Wake(revision) => wakes.send(revision.into()).await.is_ok(),
            Report::Stats(stat) => stats.send(stat.into_iter().map(RevisionStat::from).collect()).await.is_ok(),
        };
        if !heard {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_finds_an_autoscaler_that_begins_again() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("autoscaler.sock");
        let (wake, mut wakes) = mpsc::channel(8);
        let (stat, mut stats) = mpsc::channel(8);
        let at = path.clone();
        let sending = tokio::spawn(async move { send(&at, &mut stats, &mut wakes).await });
        let revision = Key::new("ns", "r");
        for _life in 0..2 {
            let listener = crate::links::listen(&path).expect("listens");
            let (stats_in, mut heard) = mpsc::channel(8);
            let (wakes_in, mut woken) = mpsc::channel(8);
            let receiving = tokio::spawn(async move { receive(&listener, stats_in, wakes_in).await });
            // What is said before the two have met is dropped; the gateway says it again.
            let report = RevisionStat {
                revision: revision.clone(),
                average_concurrency: 1.5,
                request_count: 3.0,
                period_seconds: 1.0,
            };
            while woken.try_recv().ok().as_ref() != Some(&revision) {
                wake.send(revision.clone()).await.expect("is sent");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            stat.send(vec![report.clone()]).await.expect("is sent");
            assert_eq!(heard.recv().await.expect("comes"), [report]);
            receiving.abort();
            receiving.await.expect_err("ends");
        }
        drop((wake, stat));
        sending.await.expect("ends with its gateway");
    }
}
