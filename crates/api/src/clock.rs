//! Time that decisions are made by: the wall clock without its jumps.
//!
//! A wall clock is set: by NTP after a boot without a battery, by a person, by a restored virtual machine. What waits
//! for "ten seconds after this stamp" would then go on at once, or a day late. [`SteadyClock`] takes the wall clock as
//! it is, but passes at most twice and at least half as fast as time really does: after a jump it comes back to the wall
//! clock by and by, it never goes backwards, and no duration is wrong by more than that.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

/// What a machine's clocks say: one that is never set, and one that is.
pub type Reading = (Instant, Timestamp);

/// A difference between the two clocks that is not their drift but a jump.
const JUMP: SignedDuration = SignedDuration::from_secs(30);

/// How far clocks of different machines may differ.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// For how long something has been so whose stamp is `since`. A stamp that lies a little ahead comes from a machine whose
/// clock is ahead; one that lies far ahead was made before the clock was set back, and says nothing but that it is past.
pub fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    let ahead = since.duration_since(now) > SKEW;
    Duration::try_from(now.duration_since(since)).unwrap_or(if ahead { Duration::MAX } else { Duration::ZERO })
}

/// A clock for decisions.
pub struct SteadyClock {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    state: Mutex<Option<State>>,
}

#[derive(Clone, Copy)]
struct State {
    read: Reading,
    shown: Timestamp,
}

impl fmt::Debug for SteadyClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteadyClock").finish_non_exhaustive()
    }
}

impl SteadyClock {
    /// One over these clocks. It begins as the wall clock is.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> SteadyClock {
        SteadyClock { read: Box::new(read), state: Mutex::new(None) }
    }

    /// The time to decide by.
    pub fn now(&self) -> Timestamp {
        // Read under the lock: what is shown to one is not earlier than what was shown to another before.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = (self.read)();
        let shown = state.map_or(read.1, |before| before.shown_at(read));
        *state = Some(State { read, shown });
        shown
    }

    /// What the clocks themselves say: for what goes by dates, such as the times of a schedule and the ends of tokens.
    pub fn reading(&self) -> Reading {
        (self.read)()
    }

    /// The time to decide by at which something happened that the wall clock says was `at`: never later than now.
    pub fn translate(&self, at: Timestamp) -> Timestamp {
        let (now, (_, wall)) = (self.now(), (self.read)());
        let ago = wall.duration_since(at).max(SignedDuration::ZERO);
        now.checked_sub(ago).unwrap_or(now)
    }
}

impl State {
    fn shown_at(self, (running, wall): Reading) -> Timestamp {
        let passed = running.saturating_duration_since(self.read.0);
        let signed = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let (least, most) = (signed(passed / 2), signed(passed.saturating_mul(2)));
        let step = wall.duration_since(self.shown).clamp(least, most);
        self.shown.checked_add(step).unwrap_or(self.shown)
    }
}

/// Notices that the wall clock was set, or that the machine slept.
#[derive(Debug)]
pub struct JumpWatch {
    last: Reading,
}

impl JumpWatch {
    /// Begins to watch.
    pub fn new(read: Reading) -> JumpWatch {
        JumpWatch { last: read }
    }

    /// By how much the wall clock jumped since the last look; nothing when it did not.
    pub fn look(&mut self, read: Reading) -> Option<SignedDuration> {
        let passed = read.0.saturating_duration_since(self.last.0);
        let by_wall = read.1.duration_since(self.last.1);
        self.last = read;
        let jump = by_wall.checked_sub(SignedDuration::try_from(passed).ok()?)?;
        (jump.abs() > JUMP).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Two clocks that a test sets.
    struct Clocks {
        start: Instant,
        set: Mutex<(Duration, SignedDuration)>,
    }

    impl Clocks {
        #[expect(clippy::disallowed_methods, reason = "a point to count from: the test sets both clocks")]
        fn steady() -> (Arc<Clocks>, SteadyClock) {
            let clocks = Arc::new(Clocks { start: Instant::now(), set: Mutex::new((Duration::ZERO, HOUR * 9_000)) });
            let read = clocks.clone();
            (clocks, SteadyClock::new(move || read.read()))
        }

        fn read(&self) -> Reading {
            let (running, wall) = *self.set.lock().expect("nobody panicked");
            (self.start + running, Timestamp::UNIX_EPOCH + wall)
        }

        fn pass(&self, duration: Duration) {
            let mut set = self.set.lock().expect("nobody panicked");
            set.0 += duration;
            set.1 += SignedDuration::try_from(duration).expect("short");
        }

        fn jump(&self, by: SignedDuration) {
            self.set.lock().expect("nobody panicked").1 += by;
        }
    }

    const HOUR: SignedDuration = SignedDuration::from_hours(1);
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn without_jumps_it_is_the_wall_clock() {
        let (clocks, steady) = Clocks::steady();
        for _ in 0..100 {
            assert_eq!(steady.now(), clocks.read().1);
            clocks.pass(Duration::from_millis(777));
            // As far as NTP slews.
            clocks.jump(SignedDuration::from_micros(-300));
        }
    }

    #[test]
    fn a_jump_of_a_day_changes_no_duration_by_more_than_half_or_double() {
        for jump in [DAY, -DAY] {
            let (clocks, steady) = Clocks::steady();
            let before = steady.now();
            clocks.jump(jump);
            assert_eq!(steady.now(), before, "the jump itself takes no time");
            clocks.pass(MINUTE);
            let passed = steady.now().duration_since(before);
            assert!(passed >= SignedDuration::from_secs(30) && passed <= SignedDuration::from_secs(120), "{passed:?}");
        }
    }

    #[test]
    fn it_comes_back_to_the_wall_clock() {
        for jump in [DAY, -DAY] {
            let (clocks, steady) = Clocks::steady();
            steady.now();
            clocks.jump(jump);
            let mut last = steady.now();
            for _ in 0..2 * 24 * 60 {
                clocks.pass(MINUTE);
                let now = steady.now();
                assert!(now > last, "it goes forward");
                last = now;
            }
            assert_eq!(last, clocks.read().1);
        }
    }

    #[test]
    fn a_stamp_of_the_wall_clock_is_never_in_the_future() {
        for jump in [DAY, -DAY] {
            let (clocks, steady) = Clocks::steady();
            let start = steady.now();
            clocks.jump(jump);
            let stamp = clocks.read().1;
            clocks.pass(MINUTE);
            assert!(steady.translate(stamp) <= steady.now());
            assert!(steady.translate(stamp).duration_since(start).abs() <= SignedDuration::from_secs(60));
            assert_eq!(steady.translate(stamp + DAY), steady.now());
        }
    }

    #[test]
    fn a_stamp_of_the_future_keeps_nobody_waiting() {
        let now = Timestamp::UNIX_EPOCH + DAY;
        assert_eq!(elapsed(now - HOUR, now), Duration::from_secs(3600));
        assert_eq!(elapsed(now + SignedDuration::from_secs(5), now), Duration::ZERO);
        assert_eq!(elapsed(now + DAY, now), Duration::MAX);
    }

    #[test]
    fn a_jump_is_noticed_once() {
        let (clocks, _) = Clocks::steady();
        let mut watch = JumpWatch::new(clocks.read());
        clocks.pass(MINUTE);
        assert_eq!(watch.look(clocks.read()), None);
        clocks.jump(-DAY);
        clocks.pass(MINUTE);
        assert_eq!(watch.look(clocks.read()), Some(-DAY));
        clocks.pass(MINUTE);
        assert_eq!(watch.look(clocks.read()), None);
    }
}
