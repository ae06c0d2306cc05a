//! What is kept but not acted on: whoever writes it is told so, by a `Warning` header that `kubectl` prints.
//!
//! Accepting a field is a promise. What this build does not carry out stands in one of the two tables here, and in
//! `docs/limits.md`, which a test compares with them.

use knoll_api::labels::{EVENTING_SYSTEM_NAMESPACE as EVENTING, SYSTEM_NAMESPACE as SERVING};
use serde_json::Value;

use super::{Admission, pod_security};
use crate::{object, resources::Subresource};

/// Kinds that nothing here acts on: group, plural, and what that means.
const KINDS: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "no volume is provided for a claim: pods that use it do not start"),
    ("", "persistentvolumes", "volumes are not mounted: pods that use a claim do not start"),
    ("", "replicationcontrollers", "no controller makes its pods: use a Deployment"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "webhooks are not called"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "webhooks are not called"),
    ("apiregistration.k8s.io", "apiservices", "requests are not passed on to other API servers"),
    ("apps", "daemonsets", "no controller makes its pods: use a Deployment"),
    ("apps", "statefulsets", "no controller makes its pods: use a Deployment"),
    ("autoscaling", "horizontalpodautoscalers", "nothing is scaled by it: Knative Services scale by themselves"),
    ("certificates.k8s.io", "certificatesigningrequests", "no certificate is signed"),
    ("networking.k8s.io", "ingressclasses", "Ingresses are not served: use a Knative Service or DomainMapping"),
    ("networking.k8s.io", "ingresses", "Ingresses are not served: use a Knative Service or DomainMapping"),
    ("networking.k8s.io", "networkpolicies", "traffic is not filtered: every pod reaches every other"),
    ("node.k8s.io", "runtimeclasses", "every pod runs with the one runtime there is"),
    (
        "policy",
        "poddisruptionbudgets",
        "disruptions are not counted: evictions of its pods are refused until its status allows them",
    ),
    ("scheduling.k8s.io", "priorityclasses", "pods are not evicted in favour of others of higher priority"),
    ("storage.k8s.io", "csidrivers", "storage drivers are not used"),
    ("storage.k8s.io", "csinodes", "storage drivers are not used"),
    ("storage.k8s.io", "storageclasses", "no volume is provided: pods that use a claim do not start"),
    ("storage.k8s.io", "volumeattachments", "storage drivers are not used"),
];

/// Where a field stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// In the spec of pods, and of templates of pods.
    Pod,
    /// In objects of one resource, by group and plural.
    Kind(&'static str, &'static str),
    /// In this ConfigMap of Knative's, by namespace and name.
    Settings(&'static str, &'static str),
}

/// A field that nothing here acts on.
struct Field {
    of: Of,
    /// Its path; `[]` goes through a list, `**` looks at any depth.
    path: &'static [&'static str],
    /// The values that would have an effect.
    acts: fn(&Value) -> bool,
    sentence: &'static str,
}

const fn field(of: Of, path: &'static [&'static str], acts: fn(&Value) -> bool, sentence: &'static str) -> Field {
    Field { of, path, acts, sentence }
}

fn given(value: &Value) -> bool {
    !object::is_empty(Some(value)) && *value != false && *value != 0
}

fn anything(value: &Value) -> bool {
    !value.is_null()
}

/// A profile that somebody would have to enforce.
fn is_enforced(profile: &Value) -> bool {
    profile != "Unconfined"
}

/// A source of volumes that the node says it does not know, when a pod with one starts.
fn is_unserved_volume(volume: &Value) -> bool {
    const SERVED: &[&str] = &["configMap", "downwardAPI", "emptyDir", "hostPath", "projected", "secret"];
    let sources = volume.as_object().into_iter().flatten();
    sources.filter(|(key, value)| *key != "name" && !value.is_null()).any(|(key, _)| !SERVED.contains(&key.as_str()))
}

/// As policies name kinds: in any case.
fn is_request_reply(kind: &Value) -> bool {
    kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("RequestReply"))
}

/// Whether one of the settings in `data` would have an effect, by its key and what it says.
fn any_of(data: &Value, acts: impl Fn(&str, &str) -> bool) -> bool {
    let settings = data.as_object().into_iter().flatten();
    settings.filter_map(|(key, value)| Some((key, value.as_str()?))).any(|(key, value)| acts(key, value))
}

/// Settings beside the example that explains them.
fn any_setting(data: &Value) -> bool {
    any_of(data, |key, _| key != "_example")
}

fn any_of_adapters(data: &Value) -> bool {
    any_of(data, |key, _| key.starts_with("apiserversources-nodeselector-"))
}

/// What `config-network` says of https.
fn any_of_certificates(data: &Value) -> bool {
    any_of(data, |key, value| match key {
        "autoTLS" | "auto-tls" | "external-domain-tls" | "cluster-local-domain-tls" | "system-internal-tls" => {
            value.eq_ignore_ascii_case("enabled")
        }
        "internal-encryption" => value.eq_ignore_ascii_case("true"),
        "namespace-wildcard-cert-selector" => !value.is_empty(),
        _ => false,
    })
}

/// What Serving's `config-observability` says beside the address of logs and a volume for them.
fn any_of_reports(data: &Value) -> bool {
    const MADE: &[&str] = &["_example", "logging.enable-var-log-collection", "logging.revision-url-template"];
    any_of(data, |key, _| !MADE.contains(&key))
}

/// What `config-deployment` says of the queue container, but for its image, which it has to name.
fn any_of_queue(data: &Value) -> bool {
    const IMAGE: &[&str] = &["queue-sidecar-image", "queueSidecarImage"];
    let is_queues = |key: &str| key.starts_with("queue-sidecar-") || key.starts_with("queueSidecar");
    any_of(data, |key, _| is_queues(key) && !IMAGE.contains(&key))
}

/// The features that upstream's queue container carries out.
fn any_queue_feature(data: &Value) -> bool {
    const FEATURES: &[&str] = &["autodetect-http2", "queueproxy.mount-podinfo", "queueproxy.resource-defaults"];
    let is_on = |value: &str| value.eq_ignore_ascii_case("enabled") || value.eq_ignore_ascii_case("allowed");
    any_of(data, |key, value| FEATURES.contains(&key) && is_on(value))
}

const SERVICES: Of = Of::Kind("", "services");
const INTEGRATION_SOURCES: Of = Of::Kind("sources.knative.dev", "integrationsources");
const INTEGRATION_SINKS: Of = Of::Kind("sinks.knative.dev", "integrationsinks");
const EVENT_POLICIES: Of = Of::Kind("eventing.knative.dev", "eventpolicies");
const OF_REQUEST_REPLIES: &str = "a RequestReply lets in whom its Broker lets in: name that";
const LEASES: &str = "roles have their leases by their own settings";
const LEVELS: &str = "the level is that of `--log` and `knoll admin log-level`";
const NO_QUEUE: &str = "no container stands beside that of the user";
const NO_CERTIFICATES: &str = "no certificates are issued: the gateway serves plain http";
const DEFINITIONS: Of = Of::Kind("apiextensions.k8s.io", "customresourcedefinitions");

/// Fields that nothing here acts on.
const FIELDS: &[Field] = &[
    field(
        Of::Pod,
        &["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
        given,
        "required affinities are not evaluated: use nodeSelector",
    ),
    field(
        Of::Pod,
        &["affinity", "podAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
        given,
        "affinities between pods are not evaluated",
    ),
    field(
        Of::Pod,
        &["affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"],
        given,
        "affinities between pods are not evaluated",
    ),
    field(
        Of::Pod,
        &["containers", "[]", "env", "[]", "valueFrom", "fileKeyRef"],
        given,
        "files are not read for variables: the variable is empty",
    ),
    field(
        Of::Pod,
        &["containers", "[]", "ports", "[]", "hostPort"],
        given,
        "ports of the machine are not opened: use a Service of type NodePort",
    ),
    field(
        Of::Pod,
        &["containers", "[]", "securityContext", "appArmorProfile", "type"],
        is_enforced,
        "containers are not put under profiles: pods that ask for it do not start",
    ),
    field(
        Of::Pod,
        &["containers", "[]", "securityContext", "seLinuxOptions"],
        given,
        "containers are not labelled: pods that ask for it do not start",
    ),
    field(Of::Pod, &["containers", "[]", "resizePolicy"], given, "resources of a running pod do not change"),
    field(Of::Pod, &["containers", "[]", "restartPolicyRules"], given, "restarts follow the pod's restartPolicy alone"),
    field(Of::Pod, &["containers", "[]", "volumeDevices"], given, "block devices are not passed in"),
    field(
        Of::Pod,
        &["containers", "[]", "volumeMounts", "[]", "recursiveReadOnly"],
        |value| matches!(value.as_str(), Some("Enabled" | "IfPossible")),
        "only the mount itself is read-only, not what is mounted below it",
    ),
    field(Of::Pod, &["ephemeralContainers"], given, "containers added to a running pod are not started"),
    field(Of::Pod, &["hostnameOverride"], given, "the host name is that of hostname, or the pod's name"),
    field(Of::Pod, &["resourceClaims"], given, "devices are not claimed: pods start without them"),
    field(Of::Pod, &["resources"], given, "a pod as a whole has no limits of its own: limit its containers"),
    field(Of::Pod, &["runtimeClassName"], given, "every pod runs with the one runtime there is"),
    field(
        Of::Pod,
        &["securityContext", "appArmorProfile", "type"],
        is_enforced,
        "containers are not put under profiles: pods that ask for it do not start",
    ),
    field(
        Of::Pod,
        &["securityContext", "seLinuxOptions"],
        given,
        "containers are not labelled: pods that ask for it do not start",
    ),
    field(
        Of::Pod,
        &["securityContext", "supplementalGroupsPolicy"],
        |value| value == "Strict",
        "groups that the image gives the user stay",
    ),
    field(Of::Pod, &["setHostnameAsFQDN"], given, "the host name is the short one"),
    field(
        Of::Pod,
        &["topologySpreadConstraints", "[]", "whenUnsatisfiable"],
        |value| value == "DoNotSchedule",
        "constraints are not evaluated: there is one node",
    ),
    field(
        Of::Pod,
        &["volumes", "[]"],
        is_unserved_volume,
        "this type of volume is not served: pods that use it do not start",
    ),
    field(Of::Pod, &["workloadRef"], given, "pods are bound one by one"),
    field(SERVICES, &["spec", "healthCheckNodePort"], given, "no port answers for the health of a Service"),
    field(SERVICES, &["spec", "loadBalancerClass"], given, "there is no load balancer but the gateway's"),
    field(SERVICES, &["spec", "loadBalancerIP"], given, "no load balancer takes that address"),
    field(SERVICES, &["spec", "loadBalancerSourceRanges"], given, "callers are not filtered by their address"),
    field(SERVICES, &["spec", "ports", "[]", "protocol"], |value| value == "SCTP", "SCTP is not passed on"),
    field(
        SERVICES,
        &["spec", "type"],
        |value| value == "LoadBalancer",
        "no load balancer gives it an address: it is reached at its node port",
    ),
    field(EVENT_POLICIES, &["spec", "to", "[]", "ref", "kind"], is_request_reply, OF_REQUEST_REPLIES),
    field(EVENT_POLICIES, &["spec", "to", "[]", "selector", "kind"], is_request_reply, OF_REQUEST_REPLIES),
    field(INTEGRATION_SOURCES, &["spec", "aws"], given, "sources in clouds are not carried out: no event is sent"),
    field(INTEGRATION_SINKS, &["spec", "aws"], given, "sinks in clouds are not carried out: no event is taken in"),
    field(INTEGRATION_SINKS, &["spec", "log", "showAllProperties"], given, "events have no properties beside headers"),
    field(INTEGRATION_SINKS, &["spec", "log", "showProperties"], given, "events have no properties beside headers"),
    field(INTEGRATION_SINKS, &["spec", "log", "showStreams"], given, "bodies are never streams"),
    field(
        DEFINITIONS,
        &["spec", "conversion", "webhook"],
        anything,
        "conversion webhooks are not called: objects of one version are read as they are in every other",
    ),
    field(
        DEFINITIONS,
        &["spec", "versions", "**", "x-kubernetes-validations"],
        given,
        "rules in CEL are not evaluated",
    ),
    field(DEFINITIONS, &["spec", "versions", "**", "pattern"], Value::is_string, "patterns of text are not evaluated"),
    field(Of::Settings(SERVING, "config-certmanager"), &["data"], any_setting, NO_CERTIFICATES),
    field(Of::Settings(SERVING, "config-deployment"), &["data"], any_of_queue, NO_QUEUE),
    field(Of::Settings(SERVING, "config-features"), &["data"], any_queue_feature, NO_QUEUE),
    field(Of::Settings(SERVING, "config-leader-election"), &["data"], any_setting, LEASES),
    field(Of::Settings(SERVING, "config-logging"), &["data"], any_setting, LEVELS),
    field(Of::Settings(SERVING, "config-network"), &["data"], any_of_certificates, NO_CERTIFICATES),
    field(
        Of::Settings(SERVING, "config-observability"),
        &["data"],
        any_of_reports,
        "requests are not logged, nothing is traced, and metrics are those of `knoll admin metrics`",
    ),
    field(
        Of::Settings(EVENTING, "config-features"),
        &["data", "oidc-discovery-base-url"],
        given,
        "tokens of this instance's own issuer count",
    ),
    field(
        Of::Settings(EVENTING, "config-features"),
        &["data"],
        any_of_adapters,
        "ApiServerSources have no pods to be placed",
    ),
    field(Of::Settings(EVENTING, "config-leader-election"), &["data"], any_setting, LEASES),
    field(Of::Settings(EVENTING, "config-logging"), &["data"], any_setting, LEVELS),
    field(
        Of::Settings(EVENTING, "config-observability"),
        &["data"],
        any_setting,
        "metrics are those of `knoll admin metrics`",
    ),
    field(
        Of::Kind("", "resourcequotas"),
        &["spec", "scopes", "[]"],
        is_unknown_scope,
        "pods are not counted by this scope",
    ),
    field(
        Of::Kind("", "resourcequotas"),
        &["spec", "scopeSelector", "matchExpressions", "[]", "scopeName"],
        is_unknown_scope,
        "pods are not counted by this scope",
    ),
];

fn is_unknown_scope(value: &Value) -> bool {
    let known = ["BestEffort", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
    !value.as_str().is_some_and(|scope| known.contains(&scope))
}

/// Tells the writer what of the object is not acted on. A change that leaves it as it was is not told again.
pub(crate) fn warn(admission: &mut Admission<'_>, new: &Value) {
    let acting = matches!(admission.subresource, None | Some(Subresource::EphemeralContainers | Subresource::Resize));
    // The server's own parts act on what users wrote; those were told.
    if !acting || is_own(&admission.identity.user) {
        return;
    }
    let resource = admission.resource;
    let row = (resource.group.as_str(), resource.plural.as_str());
    if admission.old.is_none()
        && let Some((.., sentence)) = KINDS.iter().find(|(group, plural, _)| (*group, *plural) == row)
    {
        admission.warnings.push(format!("{} is kept, but not acted on: {sentence}", resource.kind));
    }
    if admission.subresource == Some(Subresource::Resize) {
        admission.warnings.push("resize is kept, but not acted on: resources of a running pod do not change".into());
    }
    let pod = match row {
        ("", "pods") => Some("/spec".to_owned()),
        (group, plural) => pod_security::any_template(group, plural).map(|pointer| format!("{pointer}/spec")),
    };
    for field in FIELDS {
        let (root, prefix) = match (field.of, &pod) {
            (Of::Pod, Some(pointer)) => (pointer.as_str(), pointer[1..].replace('/', ".") + "."),
            (Of::Kind(group, plural), _) if row == (group, plural) => ("", String::new()),
            (Of::Settings(namespace, name), _) if is_settings(admission, new, namespace, name) => ("", String::new()),
            _ => continue,
        };
        for path in places(field.path) {
            let found = |object: &Value| object.pointer(root).is_some_and(|root| holds(root, &path, field.acts));
            if found(new) && !admission.old.is_some_and(found) {
                let path = shown(&path);
                admission.warnings.push(format!("{prefix}{path} is kept, but not acted on: {}", field.sentence));
            }
        }
    }
}

/// Whether an object is this ConfigMap of Knative's.
fn is_settings(admission: &Admission<'_>, object: &Value, namespace: &str, name: &str) -> bool {
    let resource = admission.resource;
    let is_map = resource.group.is_empty() && resource.plural == "configmaps";
    is_map && admission.namespace == namespace && object::name(object) == name
}

/// Where a field stands: what is said of containers is said of those that run before them, too.
fn places(path: &'static [&'static str]) -> Vec<Vec<&'static str>> {
    match path {
        ["containers", rest @ ..] => vec![path.to_vec(), [&["initContainers"], rest].concat()],
        _ => vec![path.to_vec()],
    }
}

/// Whether a writer is a part of this server's own.
pub(crate) fn is_own(user: &str) -> bool {
    user.starts_with("system:node:")
        || user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')).is_some_and(
            |(namespace, name)| namespace == knoll_api::labels::SYSTEM_NAMESPACE && name == crate::auth::CONTROLLER,
        )
}

/// A path as people write it: `spec.ports[].protocol`.
fn shown(path: &[&str]) -> String {
    path.join(".").replace(".[]", "[]").replace(".**.", "[]…")
}

/// Whether a value at the path would have an effect.
fn holds(value: &Value, path: &[&str], acts: fn(&Value) -> bool) -> bool {
    match path {
        [] => acts(value),
        ["[]", rest @ ..] => value.as_array().is_some_and(|items| items.iter().any(|item| holds(item, rest, acts))),
        ["**", key] => anywhere(value, key, acts),
        [key, rest @ ..] => value.get(key).is_some_and(|value| holds(value, rest, acts)),
    }
}

/// Whether a value under `key` would have an effect, however deep. A loop, not a descent: schemas are deep.
fn anywhere(root: &Value, key: &str, acts: fn(&Value) -> bool) -> bool {
    let mut waiting = vec![root];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(map) => {
                if map.get(key).is_some_and(acts) {
                    return true;
                }
                waiting.extend(map.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The tables as `docs/limits.md` has them.
    fn documented() -> String {
        let mut text = String::from("| Kind | What that means |\n|---|---|\n");
        for (group, plural, sentence) in KINDS {
            let name = if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") };
            text += &format!("| `{name}` | {sentence} |\n");
        }
        text += "\n| Field | What that means |\n|---|---|\n";
        for field in FIELDS {
            let of = match field.of {
                Of::Pod => "pods and their templates".to_owned(),
                Of::Kind(_, plural) => plural.to_owned(),
                Of::Settings(namespace, name) => format!("`{name}` in `{namespace}`"),
            };
            text += &format!("| `{}` of {of} | {} |\n", shown(field.path), field.sentence);
        }
        text
    }

    #[test]
    fn the_documentation_lists_what_is_not_acted_on() {
        let documentation = include_str!("../../../../docs/limits.md");
        let tables = documented();
        assert!(documentation.contains(&tables), "docs/limits.md must contain this:\n{tables}");
    }

    #[test]
    fn every_kind_in_the_table_is_served() {
        let registry = crate::resources::ResourceRegistry::built_in();
        for (group, plural, _) in KINDS {
            assert!(registry.any_version(group, plural).is_some(), "{plural}.{group}");
        }
    }

    #[test]
    fn a_path_finds_values_in_lists_and_at_any_depth() {
        let spec = json!({"containers": [{"ports": [{"hostPort": 0}]}, {"ports": [{"hostPort": 80}]}]});
        assert!(holds(&spec, &["containers", "[]", "ports", "[]", "hostPort"], given));
        assert!(!holds(&spec, &["initContainers", "[]", "ports", "[]", "hostPort"], given));
        let schema = json!([{"schema": {"properties": {"a": {"items": {"x-rules": [{"rule": "1"}]}}}}}]);
        assert!(holds(&schema, &["**", "x-rules"], given));
        assert!(!holds(&schema, &["**", "x-other"], given));
    }
}
