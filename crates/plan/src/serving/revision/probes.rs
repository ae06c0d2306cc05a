//! Probes of the user's containers, as they stand in the pod.

use knoll_api::k8s_openapi::{api::core::v1::Probe, apimachinery::pkg::util::intstr::IntOrString};

/// The readiness probe of the serving container, for who probes it directly.
///
/// Period 0 asks Knative to probe as fast as it can. Kubernetes has no such thing (0 becomes 10 s), so it
/// becomes the shortest period there is; a node may well look more often before the first success.
pub(super) fn direct_readiness(mut probe: Probe, user_port: i32) -> Probe {
    fill_ports(&mut probe, user_port, false);
    if probe.period_seconds.unwrap_or_default() == 0 {
        probe.period_seconds = Some(1);
        probe.timeout_seconds = probe.timeout_seconds.filter(|timeout| *timeout > 0).or(Some(1));
        probe.failure_threshold = probe.failure_threshold.filter(|threshold| *threshold > 0).or(Some(3));
    }
    probe.success_threshold = probe.success_threshold.filter(|threshold| *threshold > 0).or(Some(1));
    probe
}

/// A readiness probe as a kubelet takes it: upstream's queue takes a scheme in any case, Kubernetes in capitals alone.
pub(super) fn spelt_for_kubelet(mut probe: Probe) -> Probe {
    if let Some(scheme) = probe.http_get.as_mut().and_then(|http| http.scheme.as_mut()) {
        scheme.make_ascii_uppercase();
    }
    probe
}

/// A probe with its port filled in. The container's port was renamed, so a port by name means the user's port;
/// with `always`, so does every http and tcp port.
pub(super) fn fill_ports(probe: &mut Probe, user_port: i32, always: bool) {
    let keeps = |port: &IntOrString| matches!(port, IntOrString::Int(number) if *number != 0) && !always;
    if let Some(http) = &mut probe.http_get
        && !keeps(&http.port)
    {
        http.port = IntOrString::Int(user_port);
    }
    if let Some(tcp) = &mut probe.tcp_socket
        && !keeps(&tcp.port)
    {
        tcp.port = IntOrString::Int(user_port);
    }
    if let Some(grpc) = &mut probe.grpc
        && grpc.port == 0
    {
        grpc.port = user_port;
    }
}
