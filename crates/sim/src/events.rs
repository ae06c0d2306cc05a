//! Eventing under harm: the real ingress, the real event log and the real workers of the data plane, in one thread and on a
//! clock of their own, over a disk in memory and with subscribers that are slow, refuse, flap or hang.
//!
//! A run is a few lives of one data plane. Each ends in the middle of everything: the process is killed, or the power is
//! cut and of what was not synced each block got to the disk or not, or the disk fails at any one of its operations, also
//! while the log is being opened. In between the disk is full for a while. In the last life nothing is harmed, and all must
//! come to rest.
//!
//! After every turn of the log it is checked, beside a ledger of what was accepted and what was delivered:
//! - If the power were cut now, every event that was accepted would be waited for by every subscriber that has not had it,
//!   or be a dead letter.
//! - No subscriber gets an event that was never sent, that its filter does not let through, or that the log, as it was found
//!   when this life began, does not say is its own yet.
//!
//! After every crash it is counted what will be delivered once more: no more than what is promised.
//!
//! A seed says when what is sent, what subscribers answer, and what happens to the disk. Which of two things that are ready
//! at the same moment is looked at first is tokio's chance, and the order of hash maps the standard library's.

mod disk;
mod kept;
mod ledger;
mod life;
mod subscribers;

use knoll_journal::{
    MemoryDisk,
    events::{EventOptions, Retention},
};

pub use self::disk::EventFault;
use self::{kept::Kept, ledger::Ledger, life::Life};
use crate::seed::Seed;

/// Lives that end badly, at most.
const LIVES: usize = 4;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Events that were accepted.
    pub accepted: u64,
    /// Requests that were refused or not answered.
    pub refused: u64,
    /// Deliveries that were taken.
    pub delivered: u64,
    /// Of those, how many came once more.
    pub again: u64,
    /// Dead letters that no sink took.
    pub letters: u64,
    /// Events that were put aside for subscribers that did not keep up.
    pub put_aside: u64,
    /// Lives that ended because the disk failed.
    pub disk_failures: u64,
    /// Of the ledger beside a disk, how many.
    pub checks: u64,
}

/// A data plane, its disk, and chance.
pub struct EventSimulation {
    number: u64,
    seed: Seed,
    fault: EventFault,
    disk: MemoryDisk,
    ledger: Ledger,
    tally: Tally,
    /// Power cuts so far: the machine's run.
    power_cuts: u64,
}

impl EventSimulation {
    /// An empty disk.
    pub fn new(number: u64) -> EventSimulation {
        EventSimulation::with(EventFault::Sound, number)
    }

    /// The same, with a fault that the run is to find.
    pub fn with(fault: EventFault, number: u64) -> EventSimulation {
        let ledger = Ledger::new(number);
        let (seed, disk) = (Seed::new(number), MemoryDisk::default());
        EventSimulation { number, seed, fault, disk, ledger, tally: Tally::default(), power_cuts: 0 }
    }

    /// Lives some lives under harm, then one without. What happened.
    ///
    /// # Panics
    /// With the seed and the life, when something was lost, came once too often, or does not come to rest.
    pub fn run(mut self) -> Tally {
        let lives = 1 + self.seed.below(LIVES);
        for life in 0..lives {
            let outcome = self.live(true).and_then(|()| self.crash());
            outcome.unwrap_or_else(|problem| panic!("seed {}, life {life} of {lives}: {problem}", self.number));
        }
        self.live(false).unwrap_or_else(|problem| panic!("seed {}, last life: {problem}", self.number));
        self.ledger.count(&mut self.tally);
        self.tally
    }

    fn live(&mut self, harm: bool) -> Result<(), String> {
        let kept = Kept::read(&self.disk, options(self.power_cuts + 1))?;
        self.tally.letters = kept.letters().count() as u64;
        self.ledger.begin_life(&kept);
        let options = options(self.power_cuts);
        let seed = Seed::new(self.seed.number());
        let life =
            Life { seed, fault: self.fault, disk: self.disk.clone(), ledger: self.ledger.clone(), options, harm };
        life.run(&mut self.tally)
    }

    /// What a crash leaves of the disk.
    fn crash(&mut self) -> Result<(), String> {
        let is_power_cut = self.seed.once_in(2);
        self.power_cuts += u64::from(is_power_cut);
        self.disk =
            if is_power_cut { self.disk.after_power_cut_with(self.seed.number() | 1) } else { self.disk.after_kill() };
        let kept = Kept::read(&self.disk, options(self.power_cuts + 1))?;
        self.tally.checks += 1;
        self.ledger.check(&kept)?;
        self.ledger.check_repetitions(&kept, is_power_cut)
    }
}

/// Small segments, little room, and nothing kept longer than it must be, so that all of that matters within a hundred events.
fn options(run: u64) -> EventOptions {
    EventOptions {
        segment_bytes: 8 << 10,
        budget_bytes: 320 << 10,
        tail_bytes: 2 << 10,
        reserve_bytes: 8 << 10,
        room_bytes: 1 << 10,
        retention: Retention { age_ms: 0, bytes: 16 << 10 },
        run: run.to_le_bytes().to_vec(),
        ..EventOptions::default()
    }
}
