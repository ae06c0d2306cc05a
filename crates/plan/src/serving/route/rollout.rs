//! Moving traffic to a new latest Revision in steps.
//!
//! All state is in an annotation of the Ingress, so that any process can go on with it. A rollout starts with
//! 1 %; how long the Ingress took to carry that tells how short a step may be. A state that makes no sense
//! counts as none.

use std::{cmp::Ordering, time::Duration};

use knoll_api::Timestamp;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;

const SECOND: f64 = 1e9;

/// The rollouts of a Route, ordered by tag and Configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollout {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) configurations: Vec<Rolling>,
}

/// The rollout of a Configuration under a tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rolling {
    pub(super) configuration_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) tag: String,
    /// What the Revisions share.
    pub(super) percent: i64,
    /// Oldest first; one alone when nothing is being rolled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) revisions: Vec<Share>,
    #[serde(default)]
    pub(super) step_params: Steps,
}

/// A Revision's share, in percent of the Route's traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Share {
    pub(super) revision_name: String,
    pub(super) percent: i64,
}

/// Times in nanoseconds since 1970, or of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Steps {
    #[serde(default, rename = "starttime", skip_serializing_if = "is_zero")]
    pub(super) start_time: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) next_step_time: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) step_duration: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) step_size: i64,
}

impl Steps {
    /// Whether the next step is to be taken. One that lies further ahead than a step takes was planned before the clock
    /// was set back.
    fn is_due(&self, now: i64) -> bool {
        now >= self.next_step_time || self.next_step_time - now > self.step_duration
    }
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Rollout {
    /// The state in which every latest Revision has all of its share.
    pub(super) fn finished(traffic: &Traffic) -> Rollout {
        let mut configurations = Vec::new();
        for (tag, targets) in &traffic.names {
            let latest = targets.iter().filter(|target| target.latest == Some(true) && target.percent != 0);
            configurations.extend(latest.map(|target| Rolling {
                configuration_name: target.configuration.clone(),
                tag: tag.clone(),
                percent: target.percent,
                revisions: vec![Share { revision_name: target.revision.clone(), percent: target.percent }],
                step_params: Steps::default(),
            }));
        }
        configurations.sort_by(order);
        Rollout { configurations }
    }

    /// Reads the annotation; nothing when it makes no sense.
    pub(super) fn read(annotation: &str) -> Option<Rollout> {
        serde_json::from_str::<Rollout>(annotation).ok().filter(Rollout::is_valid)
    }

    fn is_valid(&self) -> bool {
        self.configurations.iter().all(|rolling| {
            let shared: i64 = rolling.revisions.iter().map(|share| share.percent).sum();
            let step = rolling.step_params.step_size;
            rolling.percent <= 100 && (0..=rolling.percent).contains(&step) && shared == rolling.percent
        })
    }

    /// The rollout of a Configuration under a tag.
    pub(super) fn find(&self, tag: &str, configuration: &str) -> Option<&Rolling> {
        self.configurations.iter().find(|r| r.tag == tag && r.configuration_name == configuration)
    }

    /// Whether no Configuration has more than one Revision.
    pub(super) fn is_done(&self) -> bool {
        self.configurations.iter().all(|rolling| rolling.revisions.len() < 2)
    }

    /// The Ingress carries the first percent now: rollouts that have just begun get their steps.
    pub(super) fn observe_ready(&mut self, now: Timestamp, duration: Duration) {
        let now = nanoseconds(now);
        for rolling in &mut self.configurations {
            let steps = &rolling.step_params;
            if steps.step_duration == 0 && steps.start_time > 0 {
                let taken = ((now - steps.start_time) as f64 / SECOND).ceil().max(1.0);
                rolling.plan_steps(now, taken, duration.as_secs_f64());
            }
        }
    }

    /// The state after `before` on the way to `self`, and when to look again.
    pub(super) fn step(self, before: Option<Rollout>, now: Timestamp) -> (Rollout, Option<Duration>) {
        let Some(before) = before.filter(|before| !before.configurations.is_empty()) else { return (self, None) };
        let now = nanoseconds(now);
        let mut configurations = Vec::with_capacity(self.configurations.len());
        for goal in self.configurations {
            let was = before.find(&goal.tag, &goal.configuration_name);
            match was {
                // With 1 % there is nothing to move in steps.
                Some(was) if goal.percent > 1 => configurations.push(advance(goal, was.clone(), now)),
                _ => configurations.push(goal),
            }
        }
        configurations.sort_by(order);
        let next = configurations.iter().map(|r| r.step_params.next_step_time).filter(|time| *time > 0).min();
        let wait = next.map(|next| Duration::from_nanos(u64::try_from(next - now).unwrap_or_default()));
        (Rollout { configurations }, wait)
    }
}

fn order(a: &Rolling, b: &Rolling) -> Ordering {
    (&a.tag, &a.configuration_name).cmp(&(&b.tag, &b.configuration_name))
}

fn nanoseconds(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Takes one Configuration from what was towards its goal, which holds the newest Revision alone.
fn advance(goal: Rolling, mut was: Rolling, now: i64) -> Rolling {
    was.set_percent(goal.percent);
    let Some(newest) = was.revisions.last().map(|share| share.revision_name.clone()) else { return goal };
    if goal.revisions.first().is_some_and(|share| share.revision_name == newest) {
        return carry_on(goal, was, now);
    }
    begin(goal, was, now)
}

/// No new Revision: goes on with a rollout, if there is one.
fn carry_on(goal: Rolling, was: Rolling, now: i64) -> Rolling {
    if was.revisions.len() < 2 {
        return goal;
    }
    let mut next = Rolling { revisions: was.revisions, step_params: was.step_params, ..goal };
    // Without a step size the Ingress does not carry the first percent yet.
    if next.step_params.step_size > 0 && next.step_params.is_due(now) {
        next.take_step(now);
    }
    next
}

/// A new Revision: it takes 1 % from the newest that has any.
fn begin(goal: Rolling, mut was: Rolling, now: i64) -> Rolling {
    if let Some(giver) = was.revisions.iter_mut().rev().find(|share| share.percent > 0) {
        giver.percent -= 1;
    }
    let mut revisions: Vec<Share> = was.revisions.into_iter().filter(|share| share.percent != 0).collect();
    let name = goal.revisions.first().map(|share| share.revision_name.clone()).unwrap_or_default();
    revisions.push(Share { revision_name: name, percent: 1 });
    let step_params = Steps { start_time: now, ..Steps::default() };
    Rolling { revisions, step_params, ..goal }
}

impl Rolling {
    /// The Configuration's share changed: growth goes to the newest Revision, loss comes off the oldest.
    fn set_percent(&mut self, percent: i64) {
        let mut change = percent - self.percent;
        self.percent = percent;
        if change >= 0 {
            if let Some(newest) = self.revisions.last_mut() {
                newest.percent += change;
            }
            return;
        }
        while change < 0 && !self.revisions.is_empty() {
            let oldest = &mut self.revisions[0];
            if oldest.percent + change > 0 {
                oldest.percent += change;
                return;
            }
            change += oldest.percent;
            self.revisions.remove(0);
        }
    }

    /// Moves one step's worth to the newest Revision, from the next newest first.
    fn take_step(&mut self, now: i64) {
        let step = self.step_params.step_size;
        let Some(mut newest) = self.revisions.pop() else { return };
        let mut left = step;
        while let Some(giver) = self.revisions.last_mut() {
            if giver.percent > left {
                giver.percent -= left;
                break;
            }
            left -= giver.percent;
            self.revisions.pop();
            if left == 0 {
                break;
            }
        }
        newest.percent = (newest.percent + step).min(self.percent);
        self.revisions.push(newest);
        if self.revisions.len() > 1 {
            self.step_params.next_step_time = now + self.step_params.step_duration;
        } else {
            self.step_params = Steps::default();
        }
    }

    /// Equal steps over what is left of `duration`, none shorter than the first percent took.
    #[expect(clippy::cast_possible_truncation, reason = "percents and nanoseconds of one rollout")]
    #[expect(clippy::cast_precision_loss, reason = "a rollout is planned to the second")]
    fn plan_steps(&mut self, now: i64, taken: f64, duration: f64) {
        let left = (duration - taken).max(1.0);
        let remaining = (self.percent - 1) as f64;
        let steps = (left / taken).max(1.0).min(remaining);
        let step_duration = (left / steps * SECOND) as i64;
        self.step_params.step_duration = step_duration;
        self.step_params.step_size = (remaining / steps).round() as i64;
        self.step_params.next_step_time = now + step_duration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn goal(revision: &str, percent: i64) -> Rollout {
        Rollout {
            configurations: vec![Rolling {
                configuration_name: "c".into(),
                percent,
                revisions: vec![Share { revision_name: revision.into(), percent }],
                ..Rolling::default()
            }],
        }
    }

    fn shares(rollout: &Rollout) -> Vec<(&str, i64)> {
        rollout.configurations[0].revisions.iter().map(|s| (s.revision_name.as_str(), s.percent)).collect()
    }

    #[test]
    fn a_new_revision_begins_with_one_percent_and_ends_with_all() {
        let (mut state, wait) = goal("r2", 100).step(Some(goal("r1", 100)), at(1000));
        assert_eq!((shares(&state), wait), (vec![("r1", 99), ("r2", 1)], None));

        state.observe_ready(at(1010), Duration::from_secs(110));
        let steps = state.configurations[0].step_params;
        assert_eq!((steps.step_size, steps.step_duration), (10, 10_000_000_000));

        let mut now = 1010;
        let mut seen = Vec::new();
        while !state.is_done() {
            now += 10;
            let (next, _) = goal("r2", 100).step(Some(state), at(now));
            let newest = next.configurations[0].revisions.last().unwrap().percent;
            let total: i64 = next.configurations[0].revisions.iter().map(|share| share.percent).sum();
            assert_eq!(total, 100);
            seen.push(newest);
            state = next;
        }
        assert_eq!(seen, [11, 21, 31, 41, 51, 61, 71, 81, 91, 100]);
        assert_eq!(state, goal("r2", 100));
    }

    #[test]
    fn nothing_moves_before_the_ingress_is_ready_or_the_step_is_due() {
        let (mut state, _) = goal("r2", 100).step(Some(goal("r1", 100)), at(1000));
        let (same, _) = goal("r2", 100).step(Some(state.clone()), at(5000));
        assert_eq!(same, state);
        state.observe_ready(at(1001), Duration::from_secs(101));
        let (same, wait) = goal("r2", 100).step(Some(state.clone()), at(1001));
        assert_eq!((same, wait), (state, Some(Duration::from_nanos(1_010_101_010))));
    }

    #[test]
    fn a_clock_that_is_set_back_a_day_holds_no_rollout_up() {
        let day = 86_400;
        let (mut state, _) = goal("r2", 100).step(Some(goal("r1", 100)), at(1000 + day));
        state.observe_ready(at(1010 + day), Duration::from_secs(100));
        let mut now = 1011;
        for _ in 0..10 {
            let (next, wait) = goal("r2", 100).step(Some(state), at(now));
            let wait = wait.unwrap_or_default();
            assert!(wait <= Duration::from_secs(100), "{wait:?}");
            state = next;
            now += i64::try_from(wait.as_secs()).unwrap() + 1;
        }
        assert_eq!(state, goal("r2", 100));
    }

    #[test]
    fn a_third_revision_joins_a_rollout_and_a_smaller_share_comes_off_the_oldest() {
        let mut state = goal("r2", 100);
        state.configurations[0].revisions =
            vec![Share { revision_name: "r1".into(), percent: 60 }, Share { revision_name: "r2".into(), percent: 40 }];
        let (three, _) = goal("r3", 100).step(Some(state.clone()), at(1));
        assert_eq!(shares(&three), [("r1", 60), ("r2", 39), ("r3", 1)]);
        let (smaller, _) = goal("r2", 30).step(Some(state), at(1));
        assert_eq!(shares(&smaller), [("r2", 30)]);
    }

    #[test]
    fn a_state_that_does_not_add_up_counts_as_none() {
        let text = r#"{"configurations":[{"configurationName":"c","percent":100,
            "revisions":[{"revisionName":"r","percent":90}],"stepParams":{}}]}"#;
        assert_eq!(Rollout::read(text), None);
        assert_eq!(Rollout::read("{"), None);
    }
}
