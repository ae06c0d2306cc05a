//! The last step down: when a revision without traffic may really lose its last instance.
//!
//! Two phases. An active revision first turns inactive, so that the gateway takes over its address; only when
//! the gateway is known to answer, and a grace period has passed, the last instance goes. Nothing is lost in
//! between: until then the instance still serves.

use std::time::Duration;

/// Extra time an activation may take beyond the progress deadline.
pub const ACTIVATION_SLACK: Duration = Duration::from_secs(30);

/// How soon to look again when the gateway already holds the address.
pub const PROXY_RECHECK: Duration = Duration::from_secs(3);

/// The `Active` condition of the PodAutoscaler, with the time it has had its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Activating.
    Unknown(Duration),
    /// Serving.
    True(Duration),
    /// Idle.
    False(Duration),
}

/// What the step depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// `enable-scale-to-zero`.
    pub enabled: bool,
    /// The `Active` condition.
    pub activity: Activity,
    /// Progress deadline of the revision.
    pub progress_deadline: Duration,
    /// Stable window of the revision.
    pub stable_window: Duration,
    /// `scale-to-zero-grace-period`.
    pub grace: Duration,
    /// `scale-to-zero-pod-retention-period`; zero is none.
    pub retention: Duration,
    /// Whether no route leads to the revision: then retention does not count.
    pub unreachable: bool,
    /// How long the gateway has held the address; `None` while instances are addressed.
    pub proxied_for: Option<Duration>,
    /// Whether the gateway was seen to answer for the revision; `false` when not asked yet or the answer was
    /// wrong. Pass `true` when the gateway is always in the path.
    pub gateway_answers: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Scale to this number now.
    Apply(i32),
    /// Report zero wanted without touching the scale: the revision turns inactive.
    TurnInactive,
    /// Report `want` (-1 is unknown) and do not scale; look again after `recheck`.
    Wait {
        /// Number to report.
        want: i32,
        /// When to look again.
        recheck: Duration,
    },
    /// Ask the gateway whether it answers for the revision, do not scale meanwhile.
    Probe,
}

/// Decides the step for a revision whose wanted number is zero.
pub fn step(inputs: &Inputs) -> Step {
    if !inputs.enabled {
        return Step::Apply(1);
    }
    match inputs.activity {
        Activity::Unknown(since) => {
            let deadline = inputs.progress_deadline + ACTIVATION_SLACK;
            match deadline.checked_sub(since) {
                Some(left) => Step::Wait { want: -1, recheck: at_least_a_tick(left) },
                None => Step::Apply(0),
            }
        }
        Activity::True(since) if since >= inputs.stable_window => Step::TurnInactive,
        Activity::True(_) if inputs.proxied_for.is_some() => Step::Wait { want: 1, recheck: PROXY_RECHECK },
        Activity::True(since) => Step::Wait { want: 1, recheck: at_least_a_tick(inputs.stable_window - since) },
        Activity::False(since) => idle(inputs, since),
    }
}

fn idle(inputs: &Inputs, since: Duration) -> Step {
    if !inputs.gateway_answers {
        return Step::Probe;
    }
    let retention = if inputs.unreachable { Duration::ZERO } else { inputs.retention };
    if since >= inputs.grace.max(retention) {
        return Step::Apply(0);
    }
    if let Some(left) = retention.checked_sub(since).filter(|left| !left.is_zero()) {
        return Step::Wait { want: 0, recheck: at_least_a_tick(left) };
    }
    let proxied_for = inputs.proxied_for.unwrap_or(Duration::ZERO);
    match inputs.grace.checked_sub(proxied_for).filter(|left| !left.is_zero()) {
        None => Step::Apply(0),
        Some(left) => Step::Wait { want: 0, recheck: at_least_a_tick(left) },
    }
}

fn at_least_a_tick(left: Duration) -> Duration {
    left.max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn inputs(activity: Activity) -> Inputs {
        Inputs {
            enabled: true,
            activity,
            progress_deadline: secs(600),
            stable_window: secs(60),
            grace: secs(30),
            retention: Duration::ZERO,
            unreachable: false,
            proxied_for: None,
            gateway_answers: true,
        }
    }

    #[test]
    fn disabled_keeps_one() {
        assert_eq!(step(&Inputs { enabled: false, ..inputs(Activity::False(secs(999))) }), Step::Apply(1));
    }

    #[test]
    fn an_activation_is_given_up_after_its_deadline() {
        assert_eq!(step(&inputs(Activity::Unknown(secs(600)))), Step::Wait { want: -1, recheck: secs(30) });
        assert_eq!(step(&inputs(Activity::Unknown(secs(631)))), Step::Apply(0));
    }

    #[test]
    fn an_active_revision_stays_for_a_stable_window_and_then_turns_inactive() {
        assert_eq!(step(&inputs(Activity::True(secs(20)))), Step::Wait { want: 1, recheck: secs(40) });
        assert_eq!(step(&inputs(Activity::True(secs(60)))), Step::TurnInactive);
        let proxied = Inputs { proxied_for: Some(secs(5)), ..inputs(Activity::True(secs(20))) };
        assert_eq!(step(&proxied), Step::Wait { want: 1, recheck: secs(3) });
    }

    #[test]
    fn the_last_instance_goes_only_when_the_gateway_answers() {
        let blind = Inputs { gateway_answers: false, ..inputs(Activity::False(secs(100))) };
        assert_eq!(step(&blind), Step::Probe);
        assert_eq!(step(&inputs(Activity::False(secs(30)))), Step::Apply(0));
    }

    #[test]
    fn grace_counts_from_when_the_gateway_took_over() {
        let soon = Inputs { proxied_for: Some(secs(10)), ..inputs(Activity::False(secs(5))) };
        assert_eq!(step(&soon), Step::Wait { want: 0, recheck: secs(20) });
        let long = Inputs { proxied_for: Some(secs(30)), ..inputs(Activity::False(secs(5))) };
        assert_eq!(step(&long), Step::Apply(0));
    }

    #[test]
    fn retention_keeps_the_last_instance_longer_unless_no_route_leads_there() {
        let kept = Inputs { retention: secs(90), proxied_for: Some(secs(50)), ..inputs(Activity::False(secs(50))) };
        assert_eq!(step(&kept), Step::Wait { want: 0, recheck: secs(40) });
        assert_eq!(step(&Inputs { activity: Activity::False(secs(90)), ..kept }), Step::Apply(0));
        assert_eq!(step(&Inputs { unreachable: true, ..kept }), Step::Apply(0));
    }
}
