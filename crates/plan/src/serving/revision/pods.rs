//! The pods of a Revision: which labels they carry, how their containers are made.

use knoll_api::{
    Resource,
    config::{Affinity as AffinityDefault, ConfigBundle},
    k8s_openapi::{
        api::core::v1::{
            Affinity, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, Lifecycle,
            LifecycleHandler, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSpec, Volume, VolumeMount,
            WeightedPodAffinityTerm,
        },
        apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
    },
    labels::serving as keys,
    serving::Revision,
};

use super::{
    health::QUEUE_CONTAINER,
    probes::{direct_readiness, fill_ports, spelt_for_kubelet},
};
use crate::{
    QueuePlacement,
    children::{Map, annotations, labels, map, union, without},
};

/// Name of the port that requests go to, whatever the user called it.
pub(crate) const USER_PORT_NAME: &str = "user-port";
/// The port when the user names none.
const DEFAULT_USER_PORT: i32 = 8080;
/// Where a queue container answers its neighbours.
const QUEUE_ADMIN_PORT: i32 = 8022;
/// Label for tracing tools.
const APP: &str = "app";

/// Labels of everything that runs a Revision.
pub(super) fn infrastructure_labels(revision: &Revision) -> Map {
    let own = map([(keys::REVISION, revision.name()), (keys::REVISION_UID, revision.uid())]);
    let labels = without(labels(revision), |key| key == keys::ROUTE || key == keys::ROUTING_STATE);
    let mut labels = union(labels, own);
    labels.entry(APP.to_owned()).or_insert_with(|| revision.name().to_owned());
    labels
}

/// Annotations of everything that runs a Revision: without those that may change while it runs, for a changed
/// annotation would replace every pod.
pub(super) fn infrastructure_annotations(revision: &Revision) -> Map {
    let dropped = [keys::LAST_PINNED, keys::NO_GC, keys::ROUTING_STATE_MODIFIED, keys::ROUTES];
    without(annotations(revision), |key| dropped.contains(&key) || key.starts_with("autoscaling.knative.dev"))
}

/// Annotations of the pods.
pub(super) fn pod_annotations(revision: &Revision) -> Map {
    let mut annotations = infrastructure_annotations(revision);
    if let Some(container) = serving_container(revision).filter(|container| !container.name.is_empty()) {
        annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), container.name.clone());
    }
    annotations
}

/// The container that takes requests: the one with a port, or the only one.
pub(super) fn serving_container(revision: &Revision) -> Option<&Container> {
    let containers = &revision.spec.pod_spec.containers;
    containers.iter().find(|container| is_serving(container, containers.len()))
}

fn is_serving(container: &Container, containers: usize) -> bool {
    containers == 1 || container.ports.as_ref().is_some_and(|ports| !ports.is_empty())
}

fn first_port(revision: &Revision) -> Option<&ContainerPort> {
    serving_container(revision)?.ports.as_ref()?.first()
}

/// The port that requests go to.
pub(crate) fn user_port(revision: &Revision) -> i32 {
    first_port(revision).map(|port| port.container_port).filter(|port| *port != 0).unwrap_or(DEFAULT_USER_PORT)
}

/// Whether the container speaks HTTP/2 with prior knowledge.
pub(crate) fn is_h2c(revision: &Revision) -> bool {
    first_port(revision).and_then(|port| port.name.as_deref()) == Some("h2c")
}

/// The pods of `revision`, whose images are resolved.
pub(super) fn pod_spec(revision: &Revision, config: &ConfigBundle, placement: QueuePlacement) -> PodSpec {
    let mut spec = revision.spec.pod_spec.clone();
    spec.containers = user_containers(revision, config, placement);
    if placement == QueuePlacement::Sidecar {
        spec.containers.push(super::queue::container(revision, config));
        spec.volumes.get_or_insert_default().extend(super::queue::volumes(revision, config));
        spec.volumes = spec.volumes.filter(|volumes| !volumes.is_empty());
    }
    spec.termination_grace_period_seconds = revision.spec.timeout_seconds;
    if spec.enable_service_links.is_none() {
        spec.enable_service_links = config.defaults.enable_service_links;
    }
    if spec.runtime_class_name.is_none() {
        spec.runtime_class_name = config.deployment.runtime_class(&labels(revision)).map(str::to_owned);
    }
    if config.observability.enable_var_log_collection {
        collect_logs(&mut spec);
    }
    if config.deployment.default_affinity == AffinityDefault::PreferSpreadRevisionOverNodes && spec.affinity.is_none() {
        spec.affinity = Some(spread(revision.name()));
    }
    spec
}

fn user_containers(revision: &Revision, config: &ConfigBundle, placement: QueuePlacement) -> Vec<Container> {
    let containers = &revision.spec.pod_spec.containers;
    let mut made = Vec::with_capacity(containers.len() + 1);
    for (index, container) in containers.iter().enumerate() {
        let mut container = if is_serving(container, containers.len()) {
            serving(container.clone(), revision, config, placement)
        } else {
            ordinary(container.clone(), revision, placement)
        };
        let digest = revision.status.container_statuses.get(index).map(|status| status.image_digest.clone());
        container.image = digest.filter(|digest| !digest.is_empty()).or(container.image);
        made.push(container);
    }
    made
}

fn serving(
    mut container: Container,
    revision: &Revision,
    config: &ConfigBundle,
    placement: QueuePlacement,
) -> Container {
    let port = user_port(revision);
    container.ports = Some(vec![ContainerPort {
        name: Some(USER_PORT_NAME.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    }]);
    container.env.get_or_insert_default().push(variable("PORT", &port.to_string()));
    let mut container = ordinary(container, revision, placement);
    container.readiness_probe = container.readiness_probe.map(|probe| direct_readiness(probe, port));
    let keeps_ports = config.features.multi_container_probing.is_enabled();
    if let Some(probe) = &mut container.liveness_probe {
        fill_ports(probe, port, !keeps_ports);
    }
    if let Some(probe) = &mut container.startup_probe {
        fill_ports(probe, port, false);
    }
    container
}

fn ordinary(mut container: Container, revision: &Revision, placement: QueuePlacement) -> Container {
    let label = |key| revision.label(key).unwrap_or_default();
    container.env.get_or_insert_default().extend([
        variable("K_REVISION", revision.name()),
        variable("K_CONFIGURATION", label(keys::CONFIGURATION)),
        variable("K_SERVICE", label(keys::SERVICE)),
    ]);
    container.stdin = None;
    container.tty = None;
    // The tail of the log is what a failing Revision shows.
    container.termination_message_policy.get_or_insert_with(|| "FallbackToLogsOnError".to_owned());
    container.readiness_probe = container.readiness_probe.map(spelt_for_kubelet);
    if placement == QueuePlacement::Sidecar {
        container.lifecycle = Some(wait_for_drain());
        // The queue container probes in the place of the kubelet, except for commands.
        container.readiness_probe = container.readiness_probe.filter(|probe| probe.exec.is_some());
    }
    container
}

pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

/// Holds the user's container until the queue container has seen the last request.
fn wait_for_drain() -> Lifecycle {
    let http_get = HTTPGetAction {
        port: IntOrString::Int(QUEUE_ADMIN_PORT),
        path: Some("/wait-for-drain".to_owned()),
        ..HTTPGetAction::default()
    };
    let pre_stop = LifecycleHandler { http_get: Some(http_get), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() }
}

/// Prefers nodes without an instance of the same Revision.
fn spread(revision: &str) -> Affinity {
    let term = PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(map([(keys::REVISION, revision)])),
            ..LabelSelector::default()
        }),
        ..PodAffinityTerm::default()
    };
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    let apart = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(preferred),
        ..PodAntiAffinity::default()
    };
    Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() }
}

/// Puts `/var/log` of every user container on a volume that a collector finds.
fn collect_logs(spec: &mut PodSpec) {
    const VOLUME: &str = "knative-var-log";
    spec.volumes.get_or_insert_default().push(Volume {
        name: VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    for container in spec.containers.iter_mut().filter(|container| container.name != QUEUE_CONTAINER) {
        let below = format!("$(K_INTERNAL_POD_NAMESPACE)_$(K_INTERNAL_POD_NAME)_{}", container.name);
        container.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: "/var/log".to_owned(),
            sub_path_expr: Some(below),
            ..VolumeMount::default()
        });
        container.env.get_or_insert_default().extend([
            field("K_INTERNAL_POD_NAME", "metadata.name"),
            field("K_INTERNAL_POD_NAMESPACE", "metadata.namespace"),
        ]);
    }
}
