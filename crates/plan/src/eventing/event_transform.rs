//! EventTransform → a Deployment of the program that transforms, a Service, its expressions in a ConfigMap and, where
//! results go to a sink, a SinkBinding. As upstream, whose image `eventing-transformations-images` names.
//!
//! Such a pod does not ask senders who they are: where a feature asks for that, it is told instead of passed over. Where https
//! is asked for, the pod presents the certificate of a Secret, which whoever keeps certificates makes ([`certificate_of`]).

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{READY, find, is_true},
    config::eventing::TransportEncryption,
    duck::{AddressStatus, SourceSpec, SourceStatus},
    eventing::{EventTransform, JsonataStatus},
    k8s_openapi::{
        api::{
            apps::v1::Deployment,
            core::v1::{ConfigMap, Secret, Service},
        },
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    },
    names,
    sources::{BindingSubject, SinkBinding, SinkBindingSpec},
    status::Condition,
};
use serde_json::{Value, json};

use super::{
    ADDRESSABLE, Stopped, addresses, container_source::bound_like, destination, follow, policies, terms::is_decidable,
    trust_bundles::COMBINED_PATH,
};
use crate::{
    Absence, Mapper, Plan, Row, SystemConfig, World, by_controller,
    children::{Map, child_of, map, says},
    kube::fingerprint,
    status::Reporting,
};

/// What everything of a transform is called after it.
const SUFFIX: &str = "-jsonata";
const NAME_LABEL: &str = "eventing.knative.dev/event-transform-name";
const JSONATA_LABEL: &str = "eventing.knative.dev/event-transform-jsonata";
/// Annotation of pods: another expression needs other pods.
const HASH: &str = "eventing.knative.dev/event-transform-jsonata-expression-hash";
/// Where expressions are mounted, and their files.
const FOLDER: &str = "/etc/jsonata";
const EXPRESSION: &str = "jsonata-expression";
const REPLY_EXPRESSION: &str = "jsonata-expression-reply";
/// What the Secret of a transform's certificate is called after it.
const CERTIFICATE_SUFFIX: &str = "-server-tls";
/// Annotation of pods: another certificate needs other pods.
const CERTIFICATE_HASH: &str = "eventing.knative.dev/event-transform-jsonata-certificate-hash";
/// Where it is mounted, and as what.
const CERTIFICATES: &str = "/etc/jsonata-tls";
const CERTIFICATE_VOLUME: &str = "jsonata-tls-certs";
/// Ports of the program: http, and https.
const PORT: i32 = 8080;
const TLS_PORT: i32 = 8443;
const SLICE_LABEL: &str = "kubernetes.io/service-name";
const TRANSFORMATION_READY: &str = "TransformationReady";
const DEPLOYMENT_READY: &str = "JsonataDeploymentReady";
const BINDING_READY: &str = "JsonataSinkBindingReady";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "event-transform",
    of: Kind::EventTransform,
    wakes: WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("eventing-transformations-images")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};
const WAKES: &[(Kind, Mapper)] = &[
    (Kind::ConfigMap, by_controller),
    (Kind::CoreService, by_controller),
    (Kind::SinkBinding, by_controller),
    (Kind::Deployment, by_controller),
    (Kind::Secret, by_certificate),
    (Kind::EndpointSlice, by_slice),
    (Kind::EventPolicy, policies::by_policy),
];

/// The transform whose Service the endpoints are of.
fn by_slice(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let service = object.meta().labels.as_ref().and_then(|labels| labels.get(SLICE_LABEL));
    // A look at the name spares one at the Service for nearly all.
    let service = service.filter(|name| name.ends_with(SUFFIX)).map(|name| object.key().sibling(name.clone()));
    let service = service.and_then(|key| world.core_services.get(&key));
    service.map_or(Vec::new(), |service| by_controller(world, &Object::CoreService(service), of))
}

/// The transform whose certificate a Secret may be.
fn by_certificate(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let secret = object.key();
    let named = secret.name.strip_suffix(CERTIFICATE_SUFFIX).map(|name| secret.sibling(name.to_owned()));
    let own = by_controller(world, object, of);
    let named = named.filter(|key| !own.contains(key) && world.event_transforms.contains(key));
    own.into_iter().chain(named).collect()
}

/// The Secret with the certificate of a transform's pods.
pub fn certificate_of(transform: &Key) -> Key {
    transform.sibling(names::child(&transform.name, CERTIFICATE_SUFFIX))
}

/// The Service that leads to a transform's pods.
pub fn service_of(transform: &Key) -> Key {
    transform.sibling(names::child(&transform.name, SUFFIX))
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let transform = world.event_transforms.get(key).filter(|transform| is_decidable(world, transform.as_ref()));
    let Some(transform) = transform else { return plan };
    let mut next = EventTransform::clone(&transform);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    policies::report(world, &mut next, now, |next| &mut next.status.policies);
    plan.report(transform.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut EventTransform, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    if next.spec.jsonata.is_none() {
        return Ok(());
    }
    check_features(world, next, now)?;
    let failed = |next: &mut EventTransform, why: String| {
        next.conditions(now).mark_false(TRANSFORMATION_READY, "NotOwned", &why);
        Stopped
    };
    settle_expressions(world, next, plan).map_err(|why| failed(next, why))?;
    let tls = find_certificate(world, next, now)?;
    settle_service(world, next, plan).map_err(|why| failed(next, why))?;
    let binding = settle_binding(world, next, plan).map_err(|why| failed(next, why))?;
    follow_binding(next, binding, now);
    let deployment = settle_deployment(world, next, tls.as_deref(), plan).map_err(|why| failed(next, why))?;
    follow_deployment(next, &deployment, now);
    report_transformation(next, now)?;
    report_address(world, next, tls.as_deref(), now)
}

/// Says what of the features the program's pods cannot give.
fn check_features(world: &World, next: &mut EventTransform, now: Timestamp) -> Result<(), Stopped> {
    if !world.eventing.features.oidc_authentication.is_enabled() {
        return Ok(());
    }
    let text = "an EventTransform's pods do not ask senders who they are; switch authentication-oidc off to use it";
    next.status.address = AddressStatus::default();
    next.conditions(now).mark_false(TRANSFORMATION_READY, "NotSupported", text);
    Err(Stopped)
}

/// The Secret with the certificate that the pods present, where they are to present one.
fn find_certificate(
    world: &World,
    next: &mut EventTransform,
    now: Timestamp,
) -> Result<Option<std::sync::Arc<Secret>>, Stopped> {
    if world.eventing.features.transport_encryption == TransportEncryption::Disabled {
        return Ok(None);
    }
    let key = certificate_of(&next.key());
    let found = world.secrets.get(&key).filter(|secret| secret.data.is_some());
    if found.is_none() {
        let text = format!("Secret {} with the certificate of the pods is not there yet", key.name);
        next.conditions(now).mark_unknown(TRANSFORMATION_READY, "JsonataCertificateNotReady", &text);
        return Err(Stopped);
    }
    Ok(found)
}

fn child(transform: &EventTransform) -> ObjectMeta {
    child_of(transform, names::child(transform.name(), SUFFIX), labels(transform), Default::default())
}

fn labels(transform: &EventTransform) -> Map {
    map([(JSONATA_LABEL, "true"), (NAME_LABEL, transform.name())])
}

/// The object of the transform's that is there already, if one is.
///
/// # Errors
/// When it is another's.
fn own<R: Resource>(
    existing: Option<std::sync::Arc<R>>,
    transform: &EventTransform,
) -> Result<Option<std::sync::Arc<R>>, String> {
    match existing {
        Some(one) if !one.is_controlled_by(transform) => {
            Err(format!("{} {:?} is not owned by EventTransform {:?}", R::KIND.kind(), one.name(), transform.name()))
        }
        other => Ok(other),
    }
}

fn expressions(transform: &EventTransform) -> Map {
    let of = |jsonata: &knoll_api::eventing::Jsonata| jsonata.expression.clone();
    let own = transform.spec.jsonata.as_ref().map(|jsonata| (EXPRESSION.to_owned(), of(jsonata)));
    let reply = transform.spec.reply.as_ref().and_then(|reply| reply.jsonata.as_ref());
    own.into_iter().chain(reply.map(|jsonata| (REPLY_EXPRESSION.to_owned(), of(jsonata)))).collect()
}

fn settle_expressions(world: &World, transform: &EventTransform, plan: &mut Plan) -> Result<(), String> {
    let wanted = ConfigMap { metadata: child(transform), data: Some(expressions(transform)), ..ConfigMap::default() };
    match own(world.config_maps.get(&wanted.key()), transform)? {
        None => plan.create(wanted),
        Some(existing) => {
            plan.update(existing.as_ref(), ConfigMap { data: wanted.data, ..ConfigMap::clone(&existing) })
        }
    }
    Ok(())
}

/// A port of the Service, called after what it speaks.
fn port(name: &str, port: i32, target: i32) -> Value {
    json!({"name": name, "protocol": "TCP", "appProtocol": name, "port": port, "targetPort": target})
}

fn settle_service(world: &World, transform: &EventTransform, plan: &mut Plan) -> Result<(), String> {
    let (http, https) = (port("http", 80, PORT), port("https", 443, TLS_PORT));
    let ports = match world.eventing.features.transport_encryption {
        TransportEncryption::Disabled => vec![http],
        TransportEncryption::Permissive => vec![https, http],
        TransportEncryption::Strict => vec![https],
    };
    let spec = json!({
        "selector": labels(transform), "type": "ClusterIP",
        "ports": ports,
    });
    let spec = knoll_api::json::typed(&spec).expect("the spec of a Service");
    let wanted = Service { metadata: child(transform), spec: Some(spec), ..Service::default() };
    match own(world.core_services.get(&wanted.key()), transform)? {
        None => plan.create(wanted),
        Some(existing) if !says(&existing.spec, &wanted.spec) => {
            // The API server's own fields stay.
            let mut next = Service::clone(&existing);
            if let (Some(there), Some(wanted)) = (next.spec.as_mut(), wanted.spec) {
                (there.selector, there.ports, there.type_) = (wanted.selector, wanted.ports, wanted.type_);
            }
            plan.update(existing.as_ref(), next);
        }
        Some(_) => {}
    }
    Ok(())
}

/// Sees to the SinkBinding, and returns it where there is to be one.
fn settle_binding(world: &World, transform: &EventTransform, plan: &mut Plan) -> Result<Option<SinkBinding>, String> {
    let metadata = child(transform);
    let existing = world.sink_bindings.get(&Key::of(&metadata));
    let Some(sink) = transform.spec.sink.clone() else {
        existing.iter().filter(|one| one.is_controlled_by(transform)).for_each(|one| plan.delete(&**one));
        return Ok(None);
    };
    let subject = BindingSubject {
        api_version: Kind::Deployment.api_version(),
        kind: Kind::Deployment.kind().to_owned(),
        namespace: transform.namespace().to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        selector: None,
    };
    let spec = SinkBindingSpec { source: SourceSpec { sink, ..SourceSpec::default() }, subject };
    let wanted = SinkBinding { metadata, spec, ..SinkBinding::default() };
    let Some(existing) = own(existing, transform)? else {
        plan.create(wanted.clone());
        return Ok(Some(wanted));
    };
    if !says(&existing.spec, &wanted.spec) {
        plan.update(existing.as_ref(), SinkBinding { spec: wanted.spec, ..SinkBinding::clone(&existing) });
    }
    Ok(Some(SinkBinding::clone(&existing)))
}

/// What the binding says of the sink, the transform says.
fn follow_binding(next: &mut EventTransform, binding: Option<SinkBinding>, now: Timestamp) {
    let (source, ready) = match &binding {
        None => (SourceStatus::default(), None),
        Some(binding) => (binding.status.source.clone(), binding.condition(READY).cloned()),
    };
    let common = std::mem::take(&mut next.status.source.common);
    next.status.source = SourceStatus { common, ..source };
    if binding.is_some() {
        follow(next, BINDING_READY, ready.as_ref(), ("", ""), now);
    } else {
        next.conditions(now).mark_true(BINDING_READY);
    }
}

/// Has the pods present this certificate: besides http or, where only https is answered, instead of it.
fn encrypt(pod: &mut Value, certificate: &Secret, encryption: TransportEncryption) {
    let text = certificate.data.as_ref().and_then(|data| data.get("tls.crt"));
    let text = text.map(|text| String::from_utf8_lossy(&text.0)).unwrap_or_default();
    pod["metadata"]["annotations"][CERTIFICATE_HASH] = fingerprint(&[&text]).into();
    let container = &mut pod["spec"]["containers"][0];
    let one = |name: &str, value: String| json!({"name": name, "value": value});
    let mut env = vec![
        one("HTTPS_PORT", TLS_PORT.to_string()),
        one("HTTPS_CERT_PATH", format!("{CERTIFICATES}/tls.crt")),
        one("HTTPS_KEY_PATH", format!("{CERTIFICATES}/tls.key")),
        one("NODE_EXTRA_CA_CERTS", COMBINED_PATH.to_owned()),
    ];
    if encryption == TransportEncryption::Strict {
        env.push(one("DISABLE_HTTP_SERVER", "true".to_owned()));
        for probe in ["livenessProbe", "readinessProbe"] {
            container[probe]["httpGet"]["port"] = TLS_PORT.into();
            container[probe]["httpGet"]["scheme"] = "HTTPS".into();
        }
    }
    let mount = json!({"name": CERTIFICATE_VOLUME, "readOnly": true, "mountPath": CERTIFICATES});
    let volume = json!({"name": CERTIFICATE_VOLUME, "secret": {"secretName": certificate.name(), "optional": false}});
    let add = |list: &mut Value, more: Vec<Value>| list.as_array_mut().expect("a list").extend(more);
    add(&mut container["env"], env);
    add(&mut container["volumeMounts"], vec![mount]);
    add(&mut pod["spec"]["volumes"], vec![volume]);
}

fn deployment(
    transform: &EventTransform,
    image: &str,
    tls: Option<&Secret>,
    encryption: TransportEncryption,
) -> Deployment {
    let metadata = child(transform);
    let name = metadata.name.clone().unwrap_or_default();
    let mut env = vec![
        json!({"name": "JSONATA_TRANSFORM_FILE_NAME", "value": format!("{FOLDER}/{EXPRESSION}")}),
        json!({"name": "HTTP_PORT", "value": PORT.to_string()}),
    ];
    if let Some(reply) = &transform.spec.reply {
        let discard = reply.discard.unwrap_or_default().to_string();
        env.push(json!({"name": "JSONATA_DISCARD_RESPONSE_BODY", "value": discard}));
        if reply.jsonata.is_some() {
            let file = format!("{FOLDER}/{REPLY_EXPRESSION}");
            env.push(json!({"name": "JSONATA_RESPONSE_TRANSFORM_FILE_NAME", "value": file}));
        }
    }
    let all = expressions(transform);
    let hash = fingerprint(&all.values().map(String::as_str).collect::<Vec<_>>());
    let probe = |path: &str, failures: i32| {
        json!({"httpGet": {"path": path, "port": PORT, "scheme": "HTTP"}, "periodSeconds": 5, "timeoutSeconds": 10,
               "successThreshold": 1, "failureThreshold": failures})
    };
    let mut pod = json!({
        "metadata": {"labels": labels(transform), "annotations": {HASH: hash}},
        "spec": {
            "containers": [{
                "name": "jsonata-event-transform", "image": image, "env": env,
                "volumeMounts": [{"name": name, "readOnly": true, "mountPath": FOLDER}],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "runAsNonRoot": true, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "livenessProbe": probe("/healthz", 3), "readinessProbe": probe("/readyz", 10),
            }],
            "volumes": [{"name": name, "configMap": {"name": name, "optional": false}}],
        },
    });
    tls.into_iter().for_each(|certificate| encrypt(&mut pod, certificate, encryption));
    let spec = json!({
        "selector": {"matchLabels": labels(transform)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": pod,
    });
    let spec = knoll_api::json::typed(&spec).expect("the spec of a Deployment");
    Deployment { metadata, spec: Some(spec), ..Deployment::default() }
}

/// Sees to the Deployment, and returns it as it stands.
fn settle_deployment(
    world: &World,
    transform: &EventTransform,
    tls: Option<&Secret>,
    plan: &mut Plan,
) -> Result<Deployment, String> {
    let encryption = world.eventing.features.transport_encryption;
    let wanted = deployment(transform, &world.eventing.transformation_images.jsonata, tls, encryption);
    let Some(existing) = own(world.deployments.get(&wanted.key()), transform)? else {
        plan.create(wanted.clone());
        return Ok(wanted);
    };
    let mut next = Deployment::clone(&existing);
    if let (Some(there), Some(wanted)) = (next.spec.as_mut(), wanted.spec) {
        let template = bound_like(wanted.template, &there.template);
        if !says(&there.template, &template) {
            there.template = template;
        }
    }
    plan.update(existing.as_ref(), next);
    Ok(Deployment::clone(&existing))
}

fn follow_deployment(next: &mut EventTransform, deployment: &Deployment, now: Timestamp) {
    let status = deployment.status.clone().unwrap_or_default();
    let (wanted, available) = (status.replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default());
    next.status.jsonata = Some(JsonataStatus { deployment: status });
    if wanted > 0 && wanted == available {
        next.conditions(now).mark_true(DEPLOYMENT_READY);
    } else {
        let text = format!("Expected replicas: {wanted}, available: {available}");
        next.conditions(now).mark_false(DEPLOYMENT_READY, "JsonataDeploymentUnavailable", &text);
    }
}

/// The transformation stands as the first of its parts that does not hold.
fn report_transformation(next: &mut EventTransform, now: Timestamp) -> Result<(), Stopped> {
    let conditions = &next.status.source.common.conditions;
    let parts = [DEPLOYMENT_READY, BINDING_READY].map(|part| find(conditions, part).cloned());
    let open = parts.into_iter().flatten().find(|condition| !is_true(condition));
    let whole = Condition { status: knoll_api::conditions::TRUE.to_owned(), ..Condition::default() };
    follow(next, TRANSFORMATION_READY, Some(open.as_ref().unwrap_or(&whole)), ("", ""), now);
    if open.is_some() { Err(Stopped) } else { Ok(()) }
}

fn report_address(
    world: &World,
    next: &mut EventTransform,
    tls: Option<&Secret>,
    now: Timestamp,
) -> Result<(), Stopped> {
    let service = service_of(&next.key());
    let slices = world.endpoint_slices.labelled(&service.namespace, SLICE_LABEL, &service.name);
    let is_there = slices.iter().any(|slice| {
        let ready = |ready: Option<bool>| ready != Some(false);
        let endpoints = &slice.endpoints;
        endpoints.iter().any(|one| ready(one.conditions.as_ref().and_then(|conditions| conditions.ready)))
    });
    if !is_there {
        next.conditions(now).mark_false(ADDRESSABLE, "WaitingForServiceEndpoints", "URL is empty");
        return Err(Stopped);
    }
    let host = destination::service_host(world, &service);
    let (http, https) = (format!("http://{host}"), format!("https://{host}"));
    let mut status = addresses::by_encryption(world, http, https, tls.and_then(addresses::authority_of), None);
    if status.addresses.is_empty() {
        status.addresses.extend(status.address.clone());
    }
    next.status.address = status;
    next.conditions(now).mark_true(ADDRESSABLE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, unhappy};
    use super::*;
    use crate::check::{Cluster, NOW, check_in, planned, shown};

    const TRANSFORM: &str = "apiVersion: eventing.knative.dev/v1alpha1\nkind: EventTransform\nmetadata: {name: t}\n\
                             spec: {jsonata: {expression: '{\"a\": b}'}}\n";
    const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: \
                         {kubernetes.io/service-name: t-jsonata}}\naddressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\n";

    fn with_sink() -> String {
        TRANSFORM.replace("spec: {", "spec: {sink: {uri: 'http://sink'}, reply: {jsonata: {expression: r}}, ")
    }

    /// A cluster in which everything of the transform was made, with pods that run or do not.
    fn made(transform: &str, available: i32) -> Cluster {
        let mut cluster = cluster(&[transform], &[]);
        planned(&ROW, "default/t", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        let key = Key::new("default", "t-jsonata");
        cluster.edit(Kind::Deployment, &key, |value| {
            value["status"] = json!({"replicas": 1, "availableReplicas": available});
        });
        cluster
    }

    #[test]
    fn a_transform_gets_a_program_with_its_expressions_and_a_binding_to_its_sink() {
        check_in(
            &ROW,
            "default/t",
            cluster(&[&with_sink()], &[]),
            expect![[r#"
            create ConfigMap default/t-jsonata
              labels eventing.knative.dev/event-transform-jsonata="true" eventing.knative.dev/event-transform-name="t"
            create Service default/t-jsonata
              labels eventing.knative.dev/event-transform-jsonata="true" eventing.knative.dev/event-transform-name="t"
              ports [{"appProtocol":"http","name":"http","port":80,"protocol":"TCP","targetPort":8080}]
              selector {"eventing.knative.dev/event-transform-jsonata":"true","eventing.knative.dev/event-transform-name":"t"}
              type "ClusterIP"
            create SinkBinding default/t-jsonata
              labels eventing.knative.dev/event-transform-jsonata="true" eventing.knative.dev/event-transform-name="t"
              sink {"uri":"http://sink"}
              subject {"apiVersion":"apps/v1","kind":"Deployment","name":"t-jsonata","namespace":"default"}
            create Deployment default/t-jsonata
              labels eventing.knative.dev/event-transform-jsonata="true" eventing.knative.dev/event-transform-name="t"
              selector {"matchLabels":{"eventing.knative.dev/event-transform-jsonata":"true","eventing.knative.dev/event-transform-name":"t"}}
              strategy {"rollingUpdate":{"maxUnavailable":0},"type":"RollingUpdate"}
              template {"metadata":{"annotations":{"eventing.knative.dev/event-transform-jsonata-expression-hash":"7d90ef1651189ee6"},"labels":{"eventing.knative.dev/event-transform-jsonata":"true","eventing.knative.dev/event-transform-name":"t"}},"spec":{"containers":[{"env":[{"name":"JSONATA_TRANSFORM_FILE_NAME","value":"/etc/jsonata/jsonata-expression"},{"name":"HTTP_PORT","value":"8080"},{"name":"JSONATA_DISCARD_RESPONSE_BODY","value":"false"},{"name":"JSONATA_RESPONSE_TRANSFORM_FILE_NAME","value":"/etc/jsonata/jsonata-expression-reply"}],"image":"gcr.io/knative-nightly/transform-jsonata@sha256:2ada8311bb8b38cef29fa8f04cdcc0f08f771a6b3042c61ff005e2cad0f094c9","livenessProbe":{"failureThreshold":3,"httpGet":{"path":"/healthz","port":8080,"scheme":"HTTP"},"periodSeconds":5,"successThreshold":1,"timeoutSeconds":10},"name":"jsonata-event-transform","readinessProbe":{"failureThreshold":10,"httpGet":{"path":"/readyz","port":8080,"scheme":"HTTP"},"periodSeconds":5,"successThreshold":1,"timeoutSeconds":10},"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,"runAsNonRoot":true,"seccompProfile":{"type":"RuntimeDefault"}},"volumeMounts":[{"mountPath":"/etc/jsonata","name":"t-jsonata","readOnly":true}]}],"volumes":[{"configMap":{"name":"t-jsonata","optional":false},"name":"t-jsonata"}]}}
            status EventTransform default/t
              jsonata {"deployment":{}}
              observedGeneration 1
              Addressable=Unknown
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              JsonataDeploymentReady=False JsonataDeploymentUnavailable Expected replicas: 0, available: 0
              JsonataSinkBindingReady=Unknown
              Ready=False JsonataDeploymentUnavailable Expected replicas: 0, available: 0
              TransformationReady=False JsonataDeploymentUnavailable Expected replicas: 0, available: 0
        "#]],
        );
    }

    #[test]
    fn a_transform_is_ready_when_its_pods_are_reached() {
        let told = unhappy(&ROW, "default/t", &made(TRANSFORM, 0));
        assert!(
            told.contains(
                "TransformationReady=False JsonataDeploymentUnavailable Expected replicas: 1, available: 0\n"
            ),
            "{told}"
        );
        let mut cluster = made(TRANSFORM, 1);
        let told = unhappy(&ROW, "default/t", &cluster);
        assert!(told.contains("Addressable=False WaitingForServiceEndpoints URL is empty\n"), "{told}");
        cluster.add(SLICE);
        check_in(
            &ROW,
            "default/t",
            cluster,
            expect![[r#"
            status EventTransform default/t
              address {"name":"http","url":"http://t-jsonata.default.svc.cluster.local"}
              addresses [{"name":"http","url":"http://t-jsonata.default.svc.cluster.local"}]
              jsonata {"deployment":{"availableReplicas":1,"replicas":1}}
              observedGeneration 1
              Addressable=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              JsonataDeploymentReady=True
              JsonataSinkBindingReady=True
              Ready=True
              TransformationReady=True
        "#]],
        );
    }

    #[test]
    fn what_the_binding_says_the_transform_says() {
        let mut cluster = made(&with_sink(), 1);
        cluster.add(SLICE);
        let binding = Key::new("default", "t-jsonata");
        cluster.edit(Kind::SinkBinding, &binding, |value| {
            value["status"] =
                json!({"conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m"}]});
        });
        assert!(unhappy(&ROW, "default/t", &cluster).contains("TransformationReady=False R m\n"));
        cluster.edit(Kind::SinkBinding, &binding, |value| {
            value["status"] = json!({"sinkUri": "http://sink", "conditions": [{"type": "Ready", "status": "True"}]});
        });
        // What the binding put into the pods stays there.
        cluster.edit(Kind::Deployment, &binding, |value| {
            let env = &mut value["spec"]["template"]["spec"]["containers"][0]["env"];
            env.as_array_mut().expect("a list").push(json!({"name": "K_SINK", "value": "http://sink"}));
        });
        check_in(
            &ROW,
            "default/t",
            cluster,
            expect![[r#"
            status EventTransform default/t
              address {"name":"http","url":"http://t-jsonata.default.svc.cluster.local"}
              addresses [{"name":"http","url":"http://t-jsonata.default.svc.cluster.local"}]
              jsonata {"deployment":{"availableReplicas":1,"replicas":1}}
              observedGeneration 1
              sinkUri "http://sink"
              Addressable=True
              EventPoliciesReady=True OIDCDisabled Feature "authentication-oidc" must be enabled to support Authorization
              JsonataDeploymentReady=True
              JsonataSinkBindingReady=True
              Ready=True
              TransformationReady=True
        "#]],
        );
    }

    #[test]
    fn another_expression_makes_other_pods() {
        let mut cluster = made(TRANSFORM, 1);
        let hash = |cluster: &Cluster| {
            let deployment = cluster.world.deployments.get(&Key::new("default", "t-jsonata")).expect("made");
            let template = deployment.spec.clone().expect("a spec").template;
            template.metadata.expect("metadata").annotations.expect("annotations")[HASH].clone()
        };
        let before = hash(&cluster);
        cluster.edit(Kind::EventTransform, &Key::new("default", "t"), |value| {
            value["spec"]["jsonata"]["expression"] = "c".into();
        });
        planned(&ROW, "default/t", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert_ne!(before, hash(&cluster));
        let map = cluster.world.config_maps.get(&Key::new("default", "t-jsonata")).expect("made");
        assert_eq!(map.data.clone().expect("data")[EXPRESSION], "c");
    }

    #[test]
    fn pods_present_the_certificate_of_a_secret_where_https_is_asked_for() {
        let secret =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: t-server-tls}\ndata: {tls.crt: YQ==, ca.crt: UEVN}\n";
        let told = |encryption: &str| {
            let mut cluster = made(TRANSFORM, 1);
            [SLICE, secret].iter().for_each(|fixture| cluster.add(fixture));
            feature(&mut cluster, "transport-encryption", encryption);
            shown(&cluster, &planned(&ROW, "default/t", &cluster))
        };
        let strict = told("strict");
        for expected in [
            r#"{"name":"HTTPS_CERT_PATH","value":"/etc/jsonata-tls/tls.crt"}"#,
            r#"{"name":"DISABLE_HTTP_SERVER","value":"true"}"#,
            r#"{"name":"jsonata-tls-certs","secret":{"optional":false,"secretName":"t-server-tls"}}"#,
            r#""httpGet":{"path":"/readyz","port":8443,"scheme":"HTTPS"}"#,
            r#"[{"appProtocol":"https","name":"https","port":443,"protocol":"TCP","targetPort":8443}]"#,
            r#"addresses [{"CACerts":"PEM","name":"https","url":"https://t-jsonata.default.svc.cluster.local"}]"#,
        ] {
            assert!(strict.contains(expected), "{expected}: {strict}");
        }
        let both = told("permissive");
        assert!(both.contains(r#""port":80,"#) && both.contains(r#""port":443,"#), "{both}");
        assert!(both.contains("HTTPS_KEY_PATH") && !both.contains("DISABLE_HTTP_SERVER"), "{both}");
        assert!(
            both.contains(r#"address {"name":"http","url":"http://t-jsonata.default.svc.cluster.local"}"#),
            "{both}"
        );
    }

    #[test]
    fn what_the_pods_cannot_give_is_told() {
        for (key, value, expected) in [
            (
                "authentication-oidc",
                "enabled",
                "TransformationReady=False NotSupported an EventTransform's pods do not ask",
            ),
            (
                "transport-encryption",
                "strict",
                "TransformationReady=Unknown JsonataCertificateNotReady Secret t-server-tls with the certificate",
            ),
        ] {
            let mut cluster = cluster(&[TRANSFORM], &[]);
            feature(&mut cluster, key, value);
            let told = unhappy(&ROW, "default/t", &cluster);
            assert!(told.contains(expected), "{told}");
        }
        let taken = "apiVersion: v1\nkind: Service\nmetadata: {name: t-jsonata}\n";
        let told = unhappy(&ROW, "default/t", &cluster(&[TRANSFORM, taken], &[]));
        assert!(told.contains("NotOwned Service \"t-jsonata\" is not owned by EventTransform \"t\"\n"), "{told}");
    }
}
