//! A machine that runs pods: slowly, sometimes not at all.

use jiff::Timestamp;
use knoll_api::{Key, Kind, Object, Resource, k8s_openapi::api::core::v1::Pod};
use serde_json::json;

use crate::{
    cluster::{Cluster, whole},
    seed::Seed,
};

/// Name of the node.
pub(crate) const NAME: &str = "n";

/// What a node may do for a pod next.
enum Move {
    Start,
    Fail,
    Break,
    /// Its container ends, well or badly.
    Exit(bool),
    End,
}

/// Moves one pod on. Whether there was one to move.
pub(crate) fn step(cluster: &mut Cluster, seed: &mut Seed, harm: bool, now: Timestamp) -> bool {
    let moves: Vec<(Key, Move)> = cluster.all(Kind::Pod).filter_map(|pod| next(pod, seed, harm)).collect();
    let at = seed.below(moves.len());
    let Some((key, next)) = moves.into_iter().nth(at) else { return false };
    match next {
        Move::End => {
            cluster.remove(Kind::Pod, &key);
        }
        Move::Start => report(cluster, &key, "Running", true, now),
        Move::Fail => report(cluster, &key, "Pending", false, now),
        Move::Break => report(cluster, &key, "Running", false, now),
        Move::Exit(well) => report(cluster, &key, if well { "Succeeded" } else { "Failed" }, false, now),
    }
    true
}

fn next(object: &Object, seed: &mut Seed, harm: bool) -> Option<(Key, Move)> {
    let Object::Pod(pod) = object else { return None };
    pod.spec.as_ref()?.node_name.as_ref()?;
    let key = pod.key();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_over = matches!(phase, Some("Succeeded" | "Failed"));
    if pod.is_deleting() {
        let held = pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty());
        return match (held, is_over) {
            (false, _) => Some((key, Move::End)),
            // It says how it ended; who holds it lets it go then.
            (true, false) => Some((key, Move::Exit(false))),
            (true, true) => None,
        };
    }
    if is_over {
        return None;
    }
    let runs_once = pod.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("Never"));
    match (is_ready(pod), harm && seed.once_in(4)) {
        (true, badly) if runs_once => Some((key, Move::Exit(!badly))),
        (false, false) => Some((key, Move::Start)),
        (false, true) => Some((key, Move::Fail)),
        (true, true) => Some((key, Move::Break)),
        (true, false) => None,
    }
}

/// Whether a pod takes requests.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn report(cluster: &mut Cluster, key: &Key, phase: &str, ready: bool, now: Timestamp) {
    let last = cluster.all(Kind::Pod).position(|pod| pod.key() == *key).unwrap_or_default() + 2;
    cluster.edit(Kind::Pod, key, now, |pod| {
        pod["status"] = json!({
            "phase": phase, "podIP": format!("10.244.{}.{}", last / 250, last % 250 + 1),
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": whole(now)},
            ],
        });
    });
}
