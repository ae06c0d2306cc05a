//! How replicas move between ReplicaSets.

use knoll_api::{
    Resource,
    k8s_openapi::{
        api::apps::v1::{Deployment, RollingUpdateDeployment},
        apimachinery::pkg::util::intstr::IntOrString,
    },
};

use super::{
    is_recreate,
    sets::{Set, Sets},
    spec, wanted,
};
use crate::{World, kube::pods};

fn rolling(deployment: &Deployment) -> Option<&RollingUpdateDeployment> {
    spec(deployment).strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref())
}

/// A number or a share of `of`; a quarter when it is not said.
fn part(value: Option<&IntOrString>, of: i32, round_up: bool) -> i32 {
    let share = |percent: i64| {
        let product = percent * i64::from(of);
        let rounded = if round_up { (product + 99) / 100 } else { product / 100 };
        i32::try_from(rounded).unwrap_or(i32::MAX)
    };
    match value {
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => {
            text.trim_end_matches('%').parse().map_or(0, |percent: i32| share(i64::from(percent.max(0))))
        }
        None => share(25),
    }
}

/// Replicas beyond the wanted ones that may exist during a rollout.
pub(super) fn surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) {
        return 0;
    }
    part(rolling(deployment).and_then(|rolling| rolling.max_surge.as_ref()), wanted(deployment), true)
}

/// Wanted replicas that may be missing during a rollout.
pub(super) fn unavailable(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) || wanted(deployment) == 0 {
        return 0;
    }
    let of = rolling(deployment).and_then(|rolling| rolling.max_unavailable.as_ref());
    let most = part(of, wanted(deployment), false).min(wanted(deployment));
    // With neither surge nor gap allowed nothing could ever move.
    if most == 0 && surge(deployment) == 0 { 1 } else { most }
}

/// Replicas the newest set should have now.
fn new_replicas(deployment: &Deployment, sets: &Sets, new: &Set) -> i32 {
    let wanted = wanted(deployment);
    if new.replicas() >= wanted || is_recreate(deployment) {
        return wanted;
    }
    let room = wanted.saturating_add(surge(deployment)) - sets.sum(Set::replicas);
    new.replicas() + room.clamp(0, wanted - new.replicas())
}

/// One step of a rolling update: grow the new within the surge, shrink the old within what may be missing.
pub(super) fn roll(deployment: &Deployment, sets: &mut Sets) {
    let Some(new) = &sets.new else { return };
    let replicas = new_replicas(deployment, sets, new);
    if let Some(new) = &mut sets.new {
        if replicas != new.replicas() {
            new.scale(deployment, replicas);
        } else {
            new.mark(deployment);
        }
    }
    shrink_old(deployment, sets);
}

fn shrink_old(deployment: &Deployment, sets: &mut Sets) {
    let least_available = wanted(deployment) - unavailable(deployment);
    let new_unavailable = sets.new.as_ref().map_or(0, |new| new.replicas() - new.available());
    let mut room = sets.sum(Set::replicas) - least_available - new_unavailable;
    // What does not work goes first: it costs nothing.
    for old in &mut sets.old {
        let broken = (old.replicas() - old.available()).clamp(0, room.max(0));
        if broken > 0 {
            old.scale(deployment, old.replicas() - broken);
            room -= broken;
        }
    }
    // A set cannot lose more available replicas than it still has.
    let held = |set: &Set| set.available().min(set.replicas());
    let mut spare = (sets.sum(held) - least_available).min(room);
    for old in &mut sets.old {
        let surplus = old.replicas().min(spare.max(0));
        if surplus > 0 {
            old.scale(deployment, old.replicas() - surplus);
            spare -= surplus;
        }
    }
}

/// One step of a recreation: the old to zero; once they know and no pod of them runs, the new to all.
pub(super) fn recreate(world: &World, deployment: &Deployment, sets: &mut Sets) {
    let mut old_may_run = false;
    for old in &mut sets.old {
        if old.replicas() > 0 {
            old.scale(deployment, 0);
            old_may_run = true;
        }
        // One that has not seen its scale yet may still make pods.
        old_may_run |= !old.is_settled();
        old_may_run |= world.pods.owned_by(old.after.uid()).any(|pod| !pods::is_finished(&pod));
    }
    if old_may_run {
        return;
    }
    if let Some(new) = &mut sets.new {
        new.scale(deployment, wanted(deployment));
    }
}

/// Follows a change of the Deployment's scale without moving the rollout on.
pub(super) fn scale(deployment: &Deployment, sets: &mut Sets) {
    let wanted = wanted(deployment);
    let active = sets.all().filter(|set| set.replicas() > 0).count();
    if active <= 1 {
        // The one that has replicas, else the newest there is.
        let all: Vec<&mut Set> = sets.new.iter_mut().chain(sets.old.iter_mut().rev()).collect();
        let at = all.iter().position(|set| set.replicas() > 0).unwrap_or_default();
        if let Some(set) = all.into_iter().nth(at) {
            set.scale(deployment, wanted);
        }
        return;
    }
    let saturated = sets.new.as_ref().is_some_and(|new| {
        let set = &new.after;
        set.annotation(super::DESIRED).and_then(|text| text.parse::<i32>().ok()) == Some(new.replicas())
            && new.replicas() == wanted
            && new.available() == wanted
    });
    if saturated {
        sets.old.iter_mut().filter(|old| old.replicas() > 0).for_each(|old| old.scale(deployment, 0));
        return;
    }
    proportionally(deployment, sets, wanted);
}

/// Spreads what is added or taken over all sets by their size; what rounding leaves goes to the largest.
fn proportionally(deployment: &Deployment, sets: &mut Sets, wanted: i32) {
    let most = if wanted > 0 { wanted.saturating_add(surge(deployment)) } else { 0 };
    let total = sets.sum(Set::replicas);
    let mut left = most - total;
    let mut all: Vec<&mut Set> = sets.new.iter_mut().chain(&mut sets.old).filter(|set| set.replicas() > 0).collect();
    all.sort_by_key(|set| -set.replicas());
    let change = left;
    for set in &mut all {
        let share = i64::from(set.replicas()) * i64::from(change) / i64::from(total.max(1));
        let share = i32::try_from(share).unwrap_or_default();
        let share = if change >= 0 { share.clamp(0, left.max(0)) } else { share.clamp(left.min(0), 0) };
        left -= share;
        set.scale(deployment, set.replicas() + share);
    }
    if let Some(largest) = all.first_mut() {
        largest.scale(deployment, largest.replicas() + left);
    }
}
