//! What a pod asks for, as control group values; its quality-of-service class.
//!
//! CPU time is shared by weight (`cpu` request) and capped by quota (`cpu` limit); memory is capped by the limit
//! alone, a memory request only steers who is killed first.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use knoll_api::quantity::{Quantity, QuantityError};

/// Smallest and largest weight the kernel takes.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// Length of a quota period.
pub const QUOTA_PERIOD_MICROS: u64 = 100_000;
/// Smallest quota the kernel takes.
const MIN_QUOTA_MICROS: u64 = 1000;

/// Control group values of one container or of a whole pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Weight against others, 1024 a core.
    pub cpu_shares: u64,
    /// CPU time a period of [`QUOTA_PERIOD_MICROS`]; `None` is unlimited.
    pub cpu_quota_micros: Option<u64>,
    /// Most memory, bytes; `None` is unlimited.
    pub memory_bytes: Option<u64>,
    /// Who the kernel kills first when memory runs out, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// A quantity in a pod that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid quantity {text:?} for {resource}")]
pub struct ResourceError {
    /// Which resource.
    pub resource: String,
    /// What it says.
    pub text: String,
    /// Why that is no quantity.
    #[source]
    pub source: QuantityError,
}

/// The class that decides who goes first under memory pressure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has equal requests and limits for cpu and memory.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// Requests and limits of one container for cpu and memory; an absent request falls back to the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    cpu_request: Option<Quantity>,
    cpu_limit: Option<Quantity>,
    memory_request: Option<Quantity>,
    memory_limit: Option<Quantity>,
}

impl Asked {
    fn of(resources: Option<&ResourceRequirements>) -> Result<Asked, ResourceError> {
        let Some(resources) = resources else { return Ok(Asked::default()) };
        let cpu_limit = read(resources.limits.as_ref(), "cpu")?;
        let memory_limit = read(resources.limits.as_ref(), "memory")?;
        Ok(Asked {
            cpu_request: read(resources.requests.as_ref(), "cpu")?.or(cpu_limit),
            cpu_limit,
            memory_request: read(resources.requests.as_ref(), "memory")?.or(memory_limit),
            memory_limit,
        })
    }

    fn limits(self, oom_score_adj: i32) -> Limits {
        Limits {
            cpu_shares: shares(self.cpu_request.map_or(0, Quantity::milli)),
            cpu_quota_micros: self.cpu_limit.and_then(|q| quota(q.milli())),
            memory_bytes: self.memory_limit.and_then(|q| u64::try_from(q.units()).ok()).filter(|b| *b > 0),
            oom_score_adj,
        }
    }
}

/// Control group values of one container of `pod`, on a machine with `memory_capacity` bytes.
///
/// # Errors
/// When a quantity cannot be read.
pub fn container_limits(pod: &Pod, container: &Container, memory_capacity: u64) -> Result<Limits, ResourceError> {
    let asked = Asked::of(container.resources.as_ref())?;
    Ok(asked.limits(oom_score_adj(qos_class(pod), asked.memory_request, memory_capacity)))
}

/// Control group values of the pod as a whole: the sum of its containers; a limit only when each has one.
///
/// # Errors
/// When a quantity cannot be read.
pub fn pod_limits(pod: &Pod) -> Result<Limits, ResourceError> {
    let spec = pod.spec.as_ref();
    let mut total = Asked { cpu_limit: Some(Quantity::ZERO), memory_limit: Some(Quantity::ZERO), ..Asked::default() };
    let sidecars = spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().filter(|c| is_sidecar(c));
    for container in spec.iter().flat_map(|s| &s.containers).chain(sidecars) {
        let one = Asked::of(container.resources.as_ref())?;
        total.cpu_request = sum(total.cpu_request, one.cpu_request);
        total.memory_request = sum(total.memory_request, one.memory_request);
        total.cpu_limit = total.cpu_limit.zip(one.cpu_limit).map(|(a, b)| a.plus(b));
        total.memory_limit = total.memory_limit.zip(one.memory_limit).map(|(a, b)| a.plus(b));
    }
    // An init container runs alone, so the pod's cap must not be below its own.
    for container in spec.and_then(|s| s.init_containers.as_ref()).into_iter().flatten().filter(|c| !is_sidecar(c)) {
        let one = Asked::of(container.resources.as_ref())?;
        total.cpu_limit = total.cpu_limit.zip(one.cpu_limit).map(|(a, b)| a.max(b));
        total.memory_limit = total.memory_limit.zip(one.memory_limit).map(|(a, b)| a.max(b));
    }
    Ok(total.limits(0))
}

/// Whether an init container keeps running beside the pod's containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The class of a pod. Quantities that cannot be read count as absent.
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = pod.spec.as_ref() else { return QosClass::BestEffort };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let asked = Asked::of(container.resources.as_ref()).unwrap_or_default();
        let set = |q: Option<Quantity>| q.is_some_and(|q| !q.is_zero());
        any |= set(asked.cpu_request) || set(asked.memory_request) || set(asked.cpu_limit) || set(asked.memory_limit);
        guaranteed &= set(asked.cpu_limit) && set(asked.memory_limit);
        guaranteed &= asked.cpu_request == asked.cpu_limit && asked.memory_request == asked.memory_limit;
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

fn oom_score_adj(class: QosClass, memory_request: Option<Quantity>, capacity: u64) -> i32 {
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = i128::from(memory_request.map_or(0, Quantity::units));
            let share = 1000 * request / i128::from(capacity.max(1));
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// The quantity of one resource in a list.
///
/// # Errors
/// When it cannot be read.
pub fn read(list: Option<&BTreeMap<String, Text>>, resource: &str) -> Result<Option<Quantity>, ResourceError> {
    let Some(text) = list.and_then(|l| l.get(resource)) else { return Ok(None) };
    Quantity::parse(&text.0).map(Some).map_err(|source| ResourceError {
        resource: resource.to_owned(),
        text: text.0.clone(),
        source,
    })
}

fn sum(a: Option<Quantity>, b: Option<Quantity>) -> Option<Quantity> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.plus(b)),
        (a, b) => a.or(b),
    }
}

fn shares(milli: i64) -> u64 {
    let milli = u64::try_from(milli).unwrap_or(0);
    (milli.saturating_mul(1024) / 1000).clamp(*SHARES.start(), *SHARES.end())
}

fn quota(milli: i64) -> Option<u64> {
    let milli = u64::try_from(milli).ok().filter(|m| *m > 0)?;
    Some((milli.saturating_mul(QUOTA_PERIOD_MICROS) / 1000).max(MIN_QUOTA_MICROS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).expect("a pod")
    }

    fn first(pod: &Pod) -> Limits {
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        container_limits(pod, container, 8 << 30).expect("readable")
    }

    #[test]
    fn requests_weigh_and_limits_cap() {
        let pod = pod(json!([{"name": "a", "resources": {
            "requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1500m", "memory": "2Gi"}}}]));
        assert_eq!(
            first(&pod),
            Limits {
                cpu_shares: 256,
                cpu_quota_micros: Some(150_000),
                memory_bytes: Some(2 << 30),
                oom_score_adj: 875
            }
        );
        assert_eq!(qos_class(&pod), QosClass::Burstable);
    }

    #[test]
    fn nothing_asked_is_best_effort_with_the_smallest_weight() {
        let pod = pod(json!([{"name": "a"}]));
        assert_eq!(
            first(&pod),
            Limits { cpu_shares: 2, cpu_quota_micros: None, memory_bytes: None, oom_score_adj: 1000 }
        );
        assert_eq!(qos_class(&pod), QosClass::BestEffort);
    }

    #[test]
    fn a_limit_is_its_own_request_and_guarantees() {
        let pod = pod(json!([{"name": "a", "resources": {"limits": {"cpu": "5m", "memory": "64Mi"}}}]));
        assert_eq!(first(&pod).cpu_quota_micros, Some(1000));
        assert_eq!(first(&pod).cpu_shares, 5);
        assert_eq!(first(&pod).oom_score_adj, -997);
        assert_eq!(qos_class(&pod), QosClass::Guaranteed);
    }

    #[test]
    fn a_pod_is_capped_only_when_each_container_is() {
        let one = json!({"name": "a", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}});
        let both = pod(json!([one, {"name": "b", "resources": {"limits": {"cpu": "2", "memory": "64Mi"}}}]));
        let limits = pod_limits(&both).expect("readable");
        assert_eq!((limits.cpu_quota_micros, limits.memory_bytes), (Some(300_000), Some(128 << 20)));
        let open = pod(json!([one, {"name": "b"}]));
        let limits = pod_limits(&open).expect("readable");
        assert_eq!((limits.cpu_quota_micros, limits.memory_bytes, limits.cpu_shares), (None, None, 1024));
    }

    #[test]
    fn an_unreadable_quantity_names_the_resource() {
        let pod = pod(json!([{"name": "a", "resources": {"limits": {"memory": "64Mibi"}}}]));
        let error = pod_limits(&pod).expect_err("unreadable");
        assert_eq!(error.to_string(), "invalid quantity \"64Mibi\" for memory");
    }
}
