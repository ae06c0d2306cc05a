//! One life of the data plane, from opening its log to its end in the middle of everything, or at rest.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use knoll_broker::{Config, DataPlane, Hooks, Log, Topology};
use knoll_event::{
    Event, json,
    mode::{self, Format},
};
use knoll_journal::{
    MemoryDisk,
    events::{Committer, EventOptions},
};
use tokio::{
    runtime::Builder,
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Tally,
    disk::{self, EventFault},
    kept::Kept,
    ledger::Ledger,
    subscribers::{self, LISTENERS, Subscribers},
};
use crate::seed::Seed;

/// The longest time between two turns of the log.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(40);
/// Senders at a time.
const SENDERS: usize = 3;
/// Most events that one of them sends at a time, and most bytes of their data.
const BATCH: usize = 6;
const BYTES: usize = 300;
/// The longest life under harm.
const LIFE_MS: usize = 2500;
/// Operations of the disk in which it fails in some lives.
const OPERATIONS: usize = 150;
/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(1800);

/// See the module.
pub(super) struct Life {
    pub(super) seed: Seed,
    pub(super) fault: EventFault,
    pub(super) disk: MemoryDisk,
    pub(super) ledger: Ledger,
    pub(super) options: EventOptions,
    /// Whether there is harm; otherwise it ends at rest.
    pub(super) harm: bool,
}

impl Life {
    /// Lives it.
    pub(super) fn run(mut self, tally: &mut Tally) -> Result<(), String> {
        // Most lives end otherwise.
        let failing = (self.harm && self.seed.once_in(3)).then(|| self.seed.below(OPERATIONS) as u64);
        let last = failing.map(|operations| self.disk.operations() + operations);
        if let Some(last) = last {
            self.disk.allow_operations(last);
        }
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let fails = |disk: &MemoryDisk| last.is_some_and(|last| disk.operations() > last);
        let outcome = runtime.block_on(self.live(tally, &fails));
        tally.disk_failures += u64::from(fails(&self.disk));
        // What is under way ends here.
        drop(runtime);
        outcome.and_then(|()| self.ledger.failure())
    }

    async fn live(&mut self, tally: &mut Tally, fails: &impl Fn(&MemoryDisk) -> bool) -> Result<(), String> {
        self.ledger.start_clock();
        let disk = disk::of(self.fault, self.disk.clone());
        let (log, committer, recovery) = match Log::open_by_turns(disk, self.options.clone()) {
            Ok(opened) => opened,
            Err(_) if fails(&self.disk) => return Ok(()),
            Err(error) => return Err(format!("the log does not open: {error:?}")),
        };
        if !(recovery.damages.is_empty() && recovery.lost.is_empty()) {
            return Err(format!("a crash damages nothing, and the log says {recovery:?}"));
        }
        let (_topology, snapshots) = watch::channel(Some(subscribers::topology()));
        let (run, life) = self.ledger.life();
        let jobs = Subscribers { ledger: self.ledger.clone(), fault: self.fault, run, life, harm: self.harm };
        let hooks = Hooks { jobs: Some(Arc::new(jobs)), ..Hooks::default() };
        // A window that is soon full, so that who hangs is put aside for.
        let config = Config { window: 8, max_concurrency: subscribers::MOST_UNDER_WAY, ..Config::default() };
        let plane = DataPlane::new(log, snapshots, config, hooks).map_err(|error| error.to_string())?;
        let delivering = plane.clone();
        tokio::spawn(async move { delivering.deliver(Box::pin(pending())).await });
        let outcome = self.take_turns(committer, &plane, tally, fails).await;
        tally.put_aside += metric(&plane, "broker_events_put_aside");
        match metric(&plane, "broker_events_lost") + metric(&plane, "broker_panics") {
            0 => outcome,
            _ => outcome.and(Err("events were lost or something panicked, by the data plane's own count".to_owned())),
        }
    }

    /// Gives the log its turns until the life is over.
    async fn take_turns(
        &mut self,
        mut committer: Committer,
        plane: &DataPlane,
        tally: &mut Tally,
        fails: &impl Fn(&MemoryDisk) -> bool,
    ) -> Result<(), String> {
        let length = Duration::from_millis(self.seed.below(LIFE_MS) as u64);
        let (mut end, mut full) = (PATIENCE, None);
        let mut is_begun = false;
        while self.ledger.now() < end {
            sleep(Duration::from_millis(1 + self.seed.below(LONGEST_TURN.as_millis() as usize) as u64)).await;
            committer.turn(Instant::now().into_std());
            self.ledger.failure()?;
            if fails(&self.disk) {
                return Ok(());
            }
            if !is_begun && is_ready(plane) {
                is_begun = true;
                if self.harm {
                    end = self.ledger.now() + length;
                    self.begin_sending(plane);
                }
            }
            if self.harm && is_begun {
                self.fill(&mut full);
            }
            self.check(tally)?;
            if !self.harm && is_begun && self.unrest()?.is_none() {
                return Ok(());
            }
        }
        match (is_begun, self.harm) {
            (false, _) => Err("the subscribers never got ready".to_owned()),
            (true, true) => Ok(()),
            (true, false) => Err(self.unrest()?.unwrap_or_default()),
        }
    }

    /// What would be found if the power were cut now.
    fn check(&mut self, tally: &mut Tally) -> Result<(), String> {
        let disk = self.disk.after_power_cut_with(self.seed.number() | 1);
        let options = EventOptions { run: b"another".to_vec(), ..self.options.clone() };
        tally.checks += 1;
        self.ledger.check(&Kept::read(&disk, options)?)
    }

    /// What is not at rest yet, if something is not.
    fn unrest(&self) -> Result<Option<String>, String> {
        Ok(self.ledger.unrest(&Kept::read(&self.disk, self.options.clone())?))
    }

    /// The disk is full for a while, now and then. `full` says until when.
    fn fill(&mut self, full: &mut Option<Duration>) {
        let now = self.ledger.now();
        match *full {
            Some(until) if now >= until => {
                self.disk.set_capacity(None);
                self.ledger.full(false);
                *full = None;
            }
            None if self.seed.once_in(40) => {
                self.disk.set_capacity(Some(self.disk.used() + self.seed.below(3000)));
                self.ledger.full(true);
                *full = Some(now + Duration::from_millis(self.seed.below(1500) as u64));
            }
            Some(_) | None => {}
        }
    }

    fn begin_sending(&mut self, plane: &DataPlane) {
        for _ in 0..SENDERS {
            tokio::spawn(send(plane.clone(), self.ledger.clone(), Seed::new(self.seed.number())));
        }
    }
}

fn is_ready(plane: &DataPlane) -> bool {
    LISTENERS.iter().all(|listener| plane.status(&subscribers::uid(listener.name)).is_some())
}

fn metric(plane: &DataPlane, name: &str) -> u64 {
    let family = plane.metrics().into_iter().find(|family| family.name == name);
    family.map_or(0, |family| family.samples[0].value as u64)
}

/// Sends until the life ends.
async fn send(plane: DataPlane, ledger: Ledger, mut seed: Seed) {
    loop {
        sleep(Duration::from_millis(seed.below(80) as u64)).await;
        let count = if seed.once_in(3) { 1 + seed.below(BATCH) } else { 1 } as u64;
        let first = ledger.send(count);
        let events: Vec<Event> =
            (first..first + count).map(|number| subscribers::event(number, seed.below(BYTES))).collect();
        let status = plane.ingress().answer(request(&events)).await.status();
        ledger.answered(first..first + count, status == StatusCode::ACCEPTED);
        if !matches!(status, StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE) {
            ledger.fail(format!("a sender was answered {status}"));
        }
    }
}

fn request(events: &[Event]) -> Request<Full<Bytes>> {
    let mut headers = HeaderMap::new();
    let body = match events {
        [event] => mode::write(event, Format::Binary, &mut headers),
        _ => {
            headers.insert(CONTENT_TYPE, "application/cloudevents-batch+json".parse().expect("a media type"));
            json::write_batch(events)
        }
    };
    let address = Topology::default().address(&subscribers::broker()).expect("an address");
    let mut request = Request::post(address).body(Full::from(body)).expect("a request");
    *request.headers_mut() = headers;
    request
}
