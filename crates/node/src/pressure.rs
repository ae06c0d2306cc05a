//! Whether the machine runs short of something, as a kubelet judges it. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// How long a shortage must be over before the node says so: what hovers at a threshold must not flap.
const SETTLED: Duration = Duration::from_secs(300);

/// Below which remainders the machine is short of something.
///
/// Disk thresholds are a share of the disk, as a kubelet's, but never more than so many bytes: a tenth of a large disk
/// is room enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Free share, in percent, and free bytes of the disk that volumes, logs and writable layers lie on.
    pub nodefs: (u8, u64),
    /// The same for images: nothing more is pulled before unused ones are gone.
    pub imagefs: (u8, u64),
    /// Free share, in percent, of the files that the disk can hold.
    pub files_percent: u8,
    /// Available bytes of memory.
    pub memory_bytes: u64,
    /// Free share of process numbers, in percent.
    pub pids_percent: u8,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            nodefs: (10, 5 << 30),
            imagefs: (15, 10 << 30),
            files_percent: 5,
            memory_bytes: 100 << 20,
            pids_percent: 5,
        }
    }
}

/// What is left of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remainder {
    /// Bytes of the disk: all and available.
    pub disk: (u64, u64),
    /// Files of the disk: all it can hold and how many more; zero where it has no such bound.
    pub files: (u64, u64),
    /// Bytes of memory available.
    pub memory: u64,
    /// Process numbers: all and free.
    pub pids: (u64, u64),
}

/// What the machine is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Disk.
    pub disk: bool,
    /// Memory.
    pub memory: bool,
    /// Process numbers.
    pub pids: bool,
}

impl Thresholds {
    /// What the machine is short of with so much left.
    pub fn judge(&self, left: &Remainder) -> Pressure {
        let (all, available) = left.disk;
        let short = |(percent, bytes): (u8, u64)| available < share(all, percent).min(bytes);
        let few = |(all, free): (u64, u64), percent| all > 0 && free < share(all, percent);
        Pressure {
            disk: all > 0 && (short(self.nodefs) || short(self.imagefs)) || few(left.files, self.files_percent),
            memory: left.memory < self.memory_bytes,
            pids: few(left.pids, self.pids_percent),
        }
    }
}

fn share(all: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What the node says about shortages: begun at once, over only when they stay over.
#[derive(Clone, Debug, Default)]
pub struct Barometer {
    disk: Option<Timestamp>,
    memory: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Barometer {
    /// Takes a judgement and says what is told.
    pub fn take(&mut self, judged: Pressure, now: Timestamp) -> Pressure {
        let told = |last: &mut Option<Timestamp>, is: bool| {
            if is {
                *last = Some(now);
            }
            let since = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
            *last = last.filter(|at| is || since(*at) < SETTLED);
            last.is_some()
        };
        Pressure {
            disk: told(&mut self.disk, judged.disk),
            memory: told(&mut self.memory, judged.memory),
            pids: told(&mut self.pids, judged.pids),
        }
    }
}

/// The least priority of pods that the system cannot do without.
pub(crate) const CRITICAL: i32 = 2_000_000_000;

/// A pod that could be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Its priority.
    pub priority: i32,
    /// Bytes it uses of what is short.
    pub used: u64,
    /// Bytes of it that it asked for.
    pub requested: u64,
}

/// Who goes first when disk or memory is short: those above their request before those within it, lower priorities before
/// higher ones, then who is furthest above. Pods the system cannot do without stay.
pub fn first_to_go(candidates: Vec<Candidate>) -> Option<Candidate> {
    let may_go = candidates.into_iter().filter(|c| c.priority < CRITICAL && c.used > 0);
    let above = |c: &Candidate| i128::from(c.used) - i128::from(c.requested);
    may_go.max_by(|a, b| {
        let rank = |c: &Candidate| (above(c) > 0, std::cmp::Reverse(c.priority), above(c));
        rank(a).cmp(&rank(b)).then_with(|| b.uid.cmp(&a.uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIB: u64 = 1 << 40;
    const GIB: u64 = 1 << 30;

    fn left(all: u64, available: u64) -> Remainder {
        Remainder { disk: (all, available), files: (1000, 500), memory: GIB, pids: (32_768, 30_000) }
    }

    #[test]
    fn a_disk_is_full_by_its_share_or_by_bytes_whichever_is_less() {
        let disk = |all, available| Thresholds::default().judge(&left(all, available)).disk;
        assert!(disk(20 * GIB, 2 * GIB), "below 15 % of a small disk");
        assert!(!disk(20 * GIB, 4 * GIB));
        assert!(!disk(4 * TIB, 100 * GIB), "2 % of a large disk are room enough");
        assert!(disk(4 * TIB, 9 * GIB));
        assert!(!disk(0, 0), "a disk that says nothing is not full");
    }

    #[test]
    fn a_disk_that_can_hold_few_more_files_is_full() {
        let disk = |files| Thresholds::default().judge(&Remainder { files, ..left(TIB, TIB) }).disk;
        assert_eq!((disk((1000, 50)), disk((1000, 49)), disk((0, 0))), (false, true, false));
    }

    #[test]
    fn memory_and_process_numbers_have_their_thresholds() {
        let judge = |memory, free| {
            let judged = Thresholds::default().judge(&Remainder { memory, pids: (1000, free), ..left(TIB, TIB) });
            (judged.memory, judged.pids)
        };
        assert_eq!(judge(99 << 20, 50), (true, false));
        assert_eq!(judge(100 << 20, 49), (false, true));
    }

    #[test]
    fn a_shortage_is_told_at_once_and_over_when_it_stays_over() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut barometer = Barometer::default();
        let full = Pressure { disk: true, ..Pressure::default() };
        assert_eq!(barometer.take(Pressure::default(), at(0)), Pressure::default());
        assert_eq!(barometer.take(full, at(10)), full);
        assert_eq!(barometer.take(Pressure::default(), at(300)), full);
        assert_eq!(barometer.take(full, at(301)), full);
        assert_eq!(barometer.take(Pressure::default(), at(600)), full);
        assert_eq!(barometer.take(Pressure::default(), at(601)), Pressure::default());
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first() {
        let pod = |uid: &str, priority, used, requested| Candidate { uid: uid.into(), priority, used, requested };
        let first = |list: Vec<Candidate>| first_to_go(list).map(|c| c.uid);
        assert_eq!(first(vec![pod("within", 0, 90, 100), pod("above", 0, 5, 0)]), Some("above".into()));
        assert_eq!(first(vec![pod("low", 0, 5, 0), pod("high", 10, 500, 0)]), Some("low".into()));
        assert_eq!(first(vec![pod("less", 0, 5, 0), pod("more", 0, 6, 0)]), Some("more".into()));
        assert_eq!(first(vec![pod("system", 2_000_001_000, 500, 0), pod("idle", 0, 0, 0)]), None);
    }
}
