//! Whether and when a delivery that failed is tried again.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::{Delivery, backoff::LONGEST_WAIT};

/// From this attempt on there is a wait before the next, whatever the policy says: who asks for many retries and no wait
/// would have a processor to himself.
const MANY: u32 = 10;
/// That wait.
const WAIT_OF_MANY: Duration = Duration::from_millis(100);
/// The wait after an attempt that came to nothing before it began, and so took no time.
const WAIT_OF_UNSENDABLE: Duration = Duration::from_secs(1);
/// Before it is looked whether there is room again.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(1);

/// Why one attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The destination answered with something else than success.
    Status(StatusCode),
    /// The destination answered with success, and with something that is no event where one has to be.
    NoEvent,
    /// It could not be reached, or broke off.
    Transport,
    /// It did not answer within the time for one attempt.
    Timeout,
    /// It is not known where it is.
    Unresolved,
    /// Its address cannot be sent to.
    Unsendable,
    /// It is a broker or channel here, and the event log has no room for more of it, or a sink that has written its part.
    NoRoom,
}

impl Cause {
    /// The code that `knativeerrorcode` says, as upstream has it.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status.as_u16().into(),
            Self::NoEvent => 502,
            Self::Transport | Self::Timeout => 500,
            Self::Unresolved => 404,
            Self::Unsendable => -1,
            Self::NoRoom => 503,
        }
    }

    /// Whether it may go better another time: everything without an answer, and the answers 404, 408, 409, 429 and those
    /// of 500 and more.
    pub fn is_retriable(self) -> bool {
        match self {
            Self::Status(status) => matches!(status.as_u16(), 404 | 408 | 409 | 429 | 500..),
            Self::NoEvent | Self::Transport | Self::Timeout => true,
            Self::Unresolved | Self::Unsendable | Self::NoRoom => true,
        }
    }

    /// Whether the destination has too much to do, so that sending less is what helps.
    pub fn is_overload(self) -> bool {
        match self {
            Self::Status(status) => matches!(status.as_u16(), 429 | 503),
            Self::Transport | Self::Timeout | Self::NoRoom => true,
            Self::NoEvent | Self::Unresolved | Self::Unsendable => false,
        }
    }
}

/// One attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where to.
    pub destination: Box<str>,
    /// Why.
    pub cause: Cause,
    /// The beginning of the answer's body, or what went wrong.
    pub data: Bytes,
    /// What the answer's `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// What follows an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another one, after a wait.
    Retry(Duration),
    /// The same one, after a wait: it failed by no fault of the destination's, and counts for nothing.
    Hold(Duration),
    /// None: the event is a dead letter.
    DeadLetter,
}

/// What follows a failure that `made` attempts came to, this one among them.
pub fn next(delivery: &Delivery, made: u32, failure: &Failure) -> Next {
    if failure.cause == Cause::NoRoom {
        return Next::Hold(WAIT_FOR_ROOM);
    }
    if !failure.cause.is_retriable() || made > delivery.retry {
        return Next::DeadLetter;
    }
    let backoff = delivery.backoff.map_or(Duration::ZERO, |backoff| backoff.wait(made.saturating_sub(1)));
    let asked =
        delivery.retry_after_max.zip(failure.retry_after).map_or(Duration::ZERO, |(most, asked)| asked.min(most));
    let least = match failure.cause {
        Cause::Unsendable => WAIT_OF_UNSENDABLE,
        _ if made >= MANY => WAIT_OF_MANY,
        _ => Duration::ZERO,
    };
    Next::Retry(backoff.max(asked).min(LONGEST_WAIT).max(least))
}

#[cfg(test)]
mod tests {
    use super::super::{Backoff, BackoffPolicy};
    use super::*;

    fn failure(cause: Cause, retry_after: Option<u64>) -> Failure {
        let retry_after = retry_after.map(Duration::from_secs);
        Failure { destination: "http://s/".into(), cause, data: Bytes::new(), retry_after }
    }

    fn status(code: u16) -> Cause {
        Cause::Status(StatusCode::from_u16(code).expect("a status"))
    }

    #[test]
    fn exactly_these_statuses_are_tried_again() {
        let retried: Vec<u16> = (100..500).filter(|code| status(*code).is_retriable()).collect();
        assert_eq!(retried, [404, 408, 409, 429]);
        assert!((500..1000).all(|code| status(code).is_retriable()));
        for cause in [Cause::NoEvent, Cause::Transport, Cause::Timeout, Cause::Unresolved, Cause::Unsendable] {
            assert!(cause.is_retriable(), "{cause:?}");
        }
    }

    #[test]
    fn each_cause_has_its_code() {
        let causes = [
            status(418),
            Cause::NoEvent,
            Cause::Transport,
            Cause::Timeout,
            Cause::Unresolved,
            Cause::Unsendable,
            Cause::NoRoom,
        ];
        assert_eq!(causes.map(Cause::code), [418, 502, 500, 500, 404, -1, 503]);
    }

    #[test]
    fn room_is_waited_for_however_few_retries_there_are() {
        let held = Next::Hold(Duration::from_secs(1));
        for (retry, made) in [(0, 1), (3, 1), (3, 100)] {
            let delivery = Delivery { retry, ..Delivery::default() };
            assert_eq!(next(&delivery, made, &failure(Cause::NoRoom, Some(60))), held, "{retry} {made}");
        }
    }

    #[test]
    fn as_many_retries_as_said_and_then_a_dead_letter() {
        let delivery = Delivery { retry: 2, ..Delivery::default() };
        let failed = failure(status(500), None);
        let decisions = [1, 2, 3].map(|made| next(&delivery, made, &failed));
        assert_eq!(decisions, [Next::Retry(Duration::ZERO), Next::Retry(Duration::ZERO), Next::DeadLetter]);
        assert_eq!(next(&delivery, 1, &failure(status(400), None)), Next::DeadLetter);
        assert_eq!(next(&Delivery::default(), 1, &failed), Next::DeadLetter);
    }

    #[test]
    fn many_retries_and_those_that_take_no_time_have_a_wait_whatever_the_policy() {
        let (delivery, failed) = (Delivery { retry: u32::MAX, ..Delivery::default() }, failure(status(500), None));
        let waits = [9, 10, 11, u32::MAX].map(|made| next(&delivery, made, &failed));
        let wait = |milliseconds| Next::Retry(Duration::from_millis(milliseconds));
        assert_eq!(waits, [wait(0), wait(100), wait(100), wait(100)]);
        let unsendable = Failure { cause: Cause::Unsendable, ..failed };
        assert_eq!(next(&delivery, 1, &unsendable), wait(1000));
        let backoff = Some(Backoff { policy: BackoffPolicy::Exponential, delay: Duration::from_secs(2) });
        assert_eq!(next(&Delivery { backoff, ..delivery }, 1, &unsendable), wait(2000));
    }

    #[test]
    fn the_longer_of_backoff_and_what_is_asked_for_is_waited_and_the_latter_is_capped() {
        let backoff = Some(Backoff { policy: BackoffPolicy::Exponential, delay: Duration::from_secs(1) });
        let delivery = |most: Option<u64>| Delivery {
            retry: 10,
            backoff,
            retry_after_max: most.map(Duration::from_secs),
            ..Delivery::default()
        };
        let cases = [
            (None, Some(60), 1, 1),
            (Some(0), Some(60), 1, 1),
            (Some(30), Some(60), 1, 30),
            (Some(30), Some(20), 1, 20),
            (Some(30), Some(2), 4, 8),
            (Some(30), None, 2, 2),
        ];
        for (most, asked, made, waited) in cases {
            let next = next(&delivery(most), made, &failure(status(503), asked));
            assert_eq!(next, Next::Retry(Duration::from_secs(waited)), "{most:?} {asked:?} {made}");
        }
        let endless = Delivery { retry_after_max: Some(Duration::MAX), retry: 1, ..Delivery::default() };
        assert_eq!(next(&endless, 1, &failure(status(429), Some(u64::MAX))), Next::Retry(LONGEST_WAIT));
    }
}
