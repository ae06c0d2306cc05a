//! The queue container beside the user's: limits, probes and drains in the pod itself, for clusters where more
//! than one gateway sends requests. Names of variables and ports are a contract that custom queue images rely on.

use knoll_api::{
    Resource,
    config::{ConfigBundle, Flag},
    k8s_openapi::{
        api::core::v1::{
            Capabilities, Container, ContainerPort, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar,
            EnvVarSource, HTTPGetAction, HTTPHeader, ObjectFieldSelector, Probe, ProjectedVolumeSource,
            ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection,
            TCPSocketAction, Volume, VolumeMount, VolumeProjection,
        },
        apimachinery::pkg::{api::resource::Quantity as Amount, util::intstr::IntOrString},
    },
    labels::{SYSTEM_NAMESPACE, serving as keys},
    quantity::Quantity,
    serving::Revision,
};

use super::{
    health::QUEUE_CONTAINER,
    pods::{is_h2c, serving_container, user_port, variable},
    probes::fill_ports,
};

/// Where the queue takes http/1.1.
pub(crate) const HTTP1_PORT: i32 = 8012;
/// Where the queue takes http/2.
pub(crate) const H2C_PORT: i32 = 8013;
/// Where the queue takes https.
pub(crate) const HTTPS_PORT: i32 = 8112;

const POD_INFO: &str = "pod-info";
const TOKENS: &str = "knative-token-volume";
const CERTIFICATES: &str = "server-certs";
const SERVING_CERTIFICATE: &str = "serving-certs";
const POD_INFO_ANNOTATION: &str = "features.knative.dev/queueproxy-podinfo";
const FULL_DUPLEX_ANNOTATION: &str = "features.knative.dev/http-full-duplex";

/// The queue container of `revision`.
pub(super) fn container(revision: &Revision, config: &ConfigBundle) -> Container {
    let port = if is_h2c(revision) { H2C_PORT } else { HTTP1_PORT };
    let ports = [
        ("http-queueadm", 8022),
        ("http-autometric", 9090),
        ("http-usermetric", 9091),
        ("queue-port", port),
        ("https-port", HTTPS_PORT),
    ];
    Container {
        name: QUEUE_CONTAINER.to_owned(),
        image: Some(config.deployment.queue_sidecar_image.clone()),
        resources: Some(resources(revision, config)),
        ports: Some(ports.into_iter().map(|(name, port)| container_port(name, port)).collect()),
        readiness_probe: readiness(revision, port),
        security_context: Some(locked_down()),
        env: Some(environment(revision, config, port)),
        volume_mounts: Some(mounts(revision, config)).filter(|mounts| !mounts.is_empty()),
        ..Container::default()
    }
}

fn container_port(name: &str, port: i32) -> ContainerPort {
    ContainerPort { name: Some(name.to_owned()), container_port: port, ..ContainerPort::default() }
}

fn locked_down() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    }
}

/// The kubelet asks the queue, which asks the user's container the way the user said.
fn readiness(revision: &Revision, port: i32) -> Option<Probe> {
    let user = serving_container(revision)?.readiness_probe.clone()?;
    let header = HTTPHeader { name: "K-Network-Probe".to_owned(), value: "queue".to_owned() };
    Some(Probe {
        http_get: Some(HTTPGetAction {
            port: IntOrString::Int(port),
            http_headers: Some(vec![header]),
            ..HTTPGetAction::default()
        }),
        exec: None,
        tcp_socket: None,
        grpc: None,
        period_seconds: user.period_seconds.filter(|period| *period > 0),
        ..user
    })
}

/// What the queue asks the user's container.
fn user_probe(revision: &Revision) -> Option<String> {
    const LOOPBACK: &str = "127.0.0.1";
    let mut probe = serving_container(revision)?.readiness_probe.clone()?;
    if probe.exec.take().is_some() {
        probe.tcp_socket = Some(TCPSocketAction::default());
    }
    fill_ports(&mut probe, user_port(revision), false);
    if let Some(http) = &mut probe.http_get {
        http.host = Some(LOOPBACK.to_owned());
        http.scheme.get_or_insert_with(|| "HTTP".to_owned());
    }
    if let Some(tcp) = &mut probe.tcp_socket {
        tcp.host = Some(LOOPBACK.to_owned());
    }
    serde_json::to_string(&probe).ok()
}

fn environment(revision: &Revision, config: &ConfigBundle, port: i32) -> Vec<EnvVar> {
    let label = |key| revision.label(key).unwrap_or_default().to_owned();
    let number = |number: Option<i64>| number.unwrap_or_default().to_string();
    let spec = &revision.spec;
    let deployment = &config.deployment;
    let full_duplex = revision.annotation(FULL_DUPLEX_ANNOTATION).is_some_and(|v| v.eq_ignore_ascii_case("enabled"));
    let plain = [
        ("SERVING_NAMESPACE", revision.namespace().to_owned()),
        ("SERVING_SERVICE", label(keys::SERVICE)),
        ("SERVING_CONFIGURATION", label(keys::CONFIGURATION)),
        ("SERVING_REVISION", revision.name().to_owned()),
        ("QUEUE_SERVING_PORT", port.to_string()),
        ("QUEUE_SERVING_TLS_PORT", HTTPS_PORT.to_string()),
        ("CONTAINER_CONCURRENCY", number(spec.container_concurrency)),
        ("REVISION_TIMEOUT_SECONDS", number(spec.timeout_seconds)),
        ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", number(spec.response_start_timeout_seconds)),
        ("REVISION_IDLE_TIMEOUT_SECONDS", number(spec.idle_timeout_seconds)),
        ("USER_PORT", user_port(revision).to_string()),
        ("SYSTEM_NAMESPACE", SYSTEM_NAMESPACE.to_owned()),
        ("SERVING_READINESS_PROBE", user_probe(revision).unwrap_or_default()),
        ("ENABLE_HTTP2_AUTO_DETECTION", config.features.auto_detect_http2.is_enabled().to_string()),
        ("ENABLE_HTTP_FULL_DUPLEX", full_duplex.to_string()),
        ("ROOT_CA", deployment.queue_sidecar_root_ca.clone()),
        ("QUEUE_PROXY_TLS_MIN_VERSION", deployment.queue_sidecar_tls_min_version.clone()),
        ("QUEUE_PROXY_TLS_MAX_VERSION", deployment.queue_sidecar_tls_max_version.clone()),
        ("QUEUE_PROXY_TLS_CIPHER_SUITES", deployment.queue_sidecar_tls_cipher_suites.clone()),
        ("QUEUE_PROXY_TLS_CURVE_PREFERENCES", deployment.queue_sidecar_tls_curve_preferences.clone()),
        ("ENABLE_MULTI_CONTAINER_PROBES", config.features.multi_container_probing.is_enabled().to_string()),
    ];
    let fields = [("SERVING_POD", "metadata.name"), ("SERVING_POD_IP", "status.podIP"), ("HOST_IP", "status.hostIP")];
    let fields = fields.into_iter().map(|(name, path)| EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
    plain.into_iter().map(|(name, value)| variable(name, &value)).chain(fields).collect()
}

/// Whether the queue sees the pod's annotations.
fn sees_pod(revision: &Revision, config: &ConfigBundle) -> bool {
    let asked = revision.annotation(POD_INFO_ANNOTATION).is_some_and(|value| value.eq_ignore_ascii_case("enabled"));
    match config.features.queue_proxy_mount_pod_info {
        Flag::Enabled => true,
        Flag::Allowed => asked,
        Flag::Disabled => false,
    }
}

fn mounts(revision: &Revision, config: &ConfigBundle) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let mut mounts = Vec::new();
    if sees_pod(revision, config) {
        mounts.push(mount(POD_INFO, "/etc/podinfo", Some(true)));
    }
    if !config.deployment.queue_sidecar_token_audiences.is_empty() {
        mounts.push(mount(TOKENS, "/var/run/secrets/tokens", None));
    }
    if config.network.system_internal_tls {
        mounts.push(mount(CERTIFICATES, "/var/lib/knative/certs", Some(true)));
    }
    mounts
}

/// The volumes that the queue container mounts.
pub(super) fn volumes(revision: &Revision, config: &ConfigBundle) -> Vec<Volume> {
    let mut volumes = Vec::new();
    if sees_pod(revision, config) {
        let field =
            ObjectFieldSelector { field_path: "metadata.annotations".to_owned(), ..ObjectFieldSelector::default() };
        let file = DownwardAPIVolumeFile {
            path: "annotations".to_owned(),
            field_ref: Some(field),
            ..DownwardAPIVolumeFile::default()
        };
        let source = DownwardAPIVolumeSource { items: Some(vec![file]), ..DownwardAPIVolumeSource::default() };
        volumes.push(Volume { name: POD_INFO.to_owned(), downward_api: Some(source), ..Volume::default() });
    }
    let tokens: Vec<_> = config.deployment.queue_sidecar_token_audiences.iter().map(|name| token(name)).collect();
    if !tokens.is_empty() {
        let source = ProjectedVolumeSource { sources: Some(tokens), ..ProjectedVolumeSource::default() };
        volumes.push(Volume { name: TOKENS.to_owned(), projected: Some(source), ..Volume::default() });
    }
    if config.network.system_internal_tls {
        let secret =
            SecretVolumeSource { secret_name: Some(SERVING_CERTIFICATE.to_owned()), ..SecretVolumeSource::default() };
        volumes.push(Volume { name: CERTIFICATES.to_owned(), secret: Some(secret), ..Volume::default() });
    }
    volumes
}

fn token(audience: &str) -> VolumeProjection {
    VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience.to_owned()),
            expiration_seconds: Some(3600),
            path: audience.to_owned(),
        }),
        ..VolumeProjection::default()
    }
}

/// A resource of the queue: its annotation's middle part, and the range that a share of the user's is kept in.
const SHARES: [(&str, &str, &str, &str); 4] = [
    ("cpu", "request", "25m", "100m"),
    ("cpu", "limit", "40m", "500m"),
    ("memory", "request", "50Mi", "200Mi"),
    ("memory", "limit", "200Mi", "500Mi"),
];

fn resources(revision: &Revision, config: &ConfigBundle) -> ResourceRequirements {
    let configured = |amounts: &std::collections::BTreeMap<&'static str, Quantity>| {
        amounts.iter().map(|(name, amount)| ((*name).to_owned(), Amount(amount.to_string()))).collect()
    };
    let mut requests: std::collections::BTreeMap<String, Amount> =
        configured(&config.deployment.queue_sidecar_requests);
    let mut limits: std::collections::BTreeMap<String, Amount> = configured(&config.deployment.queue_sidecar_limits);
    let user = serving_container(revision).and_then(|container| container.resources.clone()).unwrap_or_default();
    let share = ["resource-percentage", "resourcePercentage"]
        .iter()
        .find_map(|key| revision.annotation(&format!("queue.sidecar.serving.knative.dev/{key}")))
        .and_then(|percent| percent.parse::<f64>().ok());
    for (resource, which, least, most) in SHARES {
        let (from, to) = if which == "request" { (&user.requests, &mut requests) } else { (&user.limits, &mut limits) };
        let amount = from.as_ref().and_then(|amounts| amounts.get(resource));
        if let (Some(share), Some(amount)) = (share, amount)
            && let Some(amount) = part(amount, share, least, most)
        {
            to.insert(resource.to_owned(), amount);
        }
    }
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        for (which, to) in [("request", &mut requests), ("limit", &mut limits)] {
            let key = format!("queue.sidecar.serving.knative.dev/{resource}-resource-{which}");
            if let Some(amount) = revision.annotation(&key).filter(|amount| Quantity::parse(amount).is_ok()) {
                to.insert(resource.to_owned(), Amount(amount.to_owned()));
            }
        }
    }
    ResourceRequirements {
        requests: Some(requests).filter(|amounts| !amounts.is_empty()),
        limits: Some(limits).filter(|amounts| !amounts.is_empty()),
        ..ResourceRequirements::default()
    }
}

/// `percent` of `amount`, within the range.
fn part(amount: &Amount, percent: f64, least: &str, most: &str) -> Option<Amount> {
    let share = Quantity::parse(&amount.0).ok()?.fraction(percent / 100.0);
    let (lowest, highest) = (Quantity::parse(least).ok()?, Quantity::parse(most).ok()?);
    let text = match share.nano() {
        nano if nano < lowest.nano() => least.to_owned(),
        nano if nano > highest.nano() => most.to_owned(),
        _ => share.to_string(),
    };
    Some(Amount(text))
}
