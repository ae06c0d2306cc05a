//! What the autoscaler is to follow: one decider a PodAutoscaler of class `kpa`.

use knoll_api::{Key, Kind, Resource, autoscaling::PodAutoscaler};
use knoll_scale::{DeciderSpec, ScalingMetric, Silence, Target, TargetInputs, target::resolve};

use super::{
    annotations::{Annotations, KPA},
    pod_autoscaler::revision_name,
};
use crate::{QueuePlacement, ScaleDecision, World, instances::ready_count};

/// One revision that the autoscaler follows.
#[derive(Clone, Debug, PartialEq)]
pub struct FollowedRevision {
    /// The Revision, and the PodAutoscaler of the same name.
    pub revision: Key,
    /// What to follow.
    pub spec: DeciderSpec,
    /// Instances that take requests now.
    pub ready: u32,
}

/// Kinds that decide about what to follow.
pub const DECIDER_KINDS: &[Kind] = &[Kind::PodAutoscaler, Kind::ServerlessService, Kind::Pod, Kind::ConfigMap];

/// What the autoscaler follows for one revision; `None` when it is not for us to scale, or not measured yet.
pub fn decider(world: &World, key: &Key) -> Option<FollowedRevision> {
    let autoscaler = world.pod_autoscalers.get(key)?;
    let wishes = Annotations::of(autoscaler.as_ref(), &world.config.autoscaler);
    let sks = world.serverless_services.get(key)?;
    let measured = !sks.status.private_service_name.is_empty();
    if autoscaler.is_deleting() || wishes.class() != KPA || !measured {
        return None;
    }
    let ready = ready_count(world, autoscaler.namespace(), revision_name(&autoscaler));
    Some(FollowedRevision { revision: key.clone(), spec: spec(world, &autoscaler, wishes), ready })
}

fn spec(world: &World, autoscaler: &PodAutoscaler, wishes: Annotations<'_>) -> DeciderSpec {
    let config = &world.config.autoscaler;
    let scraped = world.settings.queue_placement == QueuePlacement::Sidecar && wishes.target_burst_capacity() >= 0.0;
    DeciderSpec {
        metric: wishes.metric(),
        algorithm: wishes.algorithm(),
        target: target(world, autoscaler, wishes),
        max_scale_up_rate: config.max_scale_up_rate,
        max_scale_down_rate: config.max_scale_down_rate,
        target_burst_capacity: wishes.target_burst_capacity(),
        activation_scale: wishes.activation_scale(),
        initial_scale: wishes.initial_scale(),
        panic_threshold: wishes.panic_threshold(),
        panic_window_percent: wishes.panic_window_percent(),
        stable_window: wishes.stable_window(),
        scale_down_delay: wishes.scale_down_delay(),
        reachable: autoscaler.spec.reachability != "Unreachable",
        // A gateway that all requests pass has nothing to report when there are none.
        silence: if scraped { Silence::KeepsDecision } else { Silence::IsZero },
    }
}

/// What one instance should carry.
pub(super) fn target(world: &World, autoscaler: &PodAutoscaler, wishes: Annotations<'_>) -> Target {
    let config = &world.config.autoscaler;
    let metric = wishes.metric();
    let (default_total, default_utilization) = match metric {
        ScalingMetric::Concurrency => {
            (config.container_concurrency_target_default, config.container_concurrency_target_fraction)
        }
        ScalingMetric::Rps => (config.requests_per_second_target_default, config.requests_per_second_target_fraction),
    };
    resolve(&TargetInputs {
        metric,
        container_concurrency: u32::try_from(autoscaler.spec.container_concurrency).unwrap_or_default(),
        default_total,
        default_utilization,
        annotated_target: wishes.target(),
        annotated_utilization: wishes.utilization(),
    })
}

/// The autoscaler's newest decision, or what stands before the first.
pub(super) fn decision(world: &World, autoscaler: &PodAutoscaler, wishes: Annotations<'_>) -> ScaleDecision {
    if let Some(decision) = world.observed.decisions.get(&autoscaler.key()) {
        return *decision;
    }
    let burst = wishes.target_burst_capacity();
    let spare = f64::from(wishes.initial_scale()) * target(world, autoscaler, wishes).total - burst;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which is the wanted answer for absurd inputs")]
    let excess_burst_capacity = if burst > 0.0 { spare.floor() as i64 } else { burst as i64 };
    ScaleDecision { desired: -1, excess_burst_capacity, at: jiff::Timestamp::UNIX_EPOCH }
}
