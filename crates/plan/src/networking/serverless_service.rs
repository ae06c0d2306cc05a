//! ServerlessService → a private Kubernetes Service that selects the pods, and a public one whose Endpoints are
//! written here.
//!
//! With the queue in the gateway, the public Endpoints are always the gateway; the mode tells only whether it
//! would be needed. With sidecars they are the pods in mode `Serve`, and the gateway in mode `Proxy` or while no
//! pod takes requests.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{FALSE, TRUE},
    k8s_openapi::{
        api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec},
        apimachinery::pkg::util::intstr::IntOrString,
    },
    labels::networking::{SERVERLESS_SERVICE, SERVICE_TYPE},
    names,
    networking::ServerlessService,
    status::Condition,
};

use crate::{
    Absence, Plan, QueuePlacement, Row, World, by_controller,
    children::{Map, annotations, child_of, labels, map, says, union},
    instances::ready_count,
    serving::revision::{H2C_PORT, HTTP1_PORT, HTTPS_PORT, USER_PORT_NAME, by_revision_label},
    status::Reporting,
};

const ENDPOINTS_POPULATED: &str = "EndpointsPopulated";
const NOT_READY: &str = "K8s Service is not ready";
const PROXY: &str = "Proxy";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "serverless-service",
    of: Kind::ServerlessService,
    wakes: &[
        (Kind::CoreService, by_controller),
        (Kind::Endpoints, by_label),
        (Kind::Deployment, by_revision_label),
        (Kind::Pod, by_revision_label),
    ],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// The ServerlessService that the object is labelled with.
fn by_label(_: &World, object: &Object, _: Kind) -> Vec<Key> {
    let meta = object.meta();
    let name = meta.labels.as_ref().and_then(|labels| labels.get(SERVERLESS_SERVICE));
    name.map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name)).into_iter().collect()
}

/// The name of a child is taken; the status says so.
struct Taken;

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(sks) = world.serverless_services.get(key).filter(|sks| !sks.is_deleting()) else {
        return Plan::nothing();
    };
    let mut plan = Plan::nothing();
    let mut next = ServerlessService::clone(&sks);
    next.conditions(now).initialize();
    // A taken name is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(sks.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut ServerlessService, plan: &mut Plan, now: Timestamp) -> Result<(), Taken> {
    let Some(selector) = selector(world, next) else { return Ok(()) };
    let private = private_service(world, next, selector);
    next.status.private_service_name = private.name().to_owned();
    settle_service(world, next, private, plan, now)?;
    next.status.service_name = next.name().to_owned();
    let public = public_service(world, next);
    settle_service(world, next, public, plan, now)?;
    let serving = has_instances(world, next);
    settle_endpoints(world, next, serving, plan, now)?;
    if serving {
        next.conditions(now).mark_true(ENDPOINTS_POPULATED);
    } else {
        next.conditions(now).mark_unknown(ENDPOINTS_POPULATED, "NoHealthyBackends", NOT_READY);
    }
    let proxied = !serving || next.spec.mode == PROXY;
    next.conditions(now).set(Condition {
        type_: "ActivatorEndpointsPopulated".to_owned(),
        status: if proxied { TRUE } else { FALSE }.to_owned(),
        severity: "Info".to_owned(),
        reason: "ActivatorEndpointsPopulated".to_owned(),
        message: "Revision is backed by Activator".to_owned(),
        ..Condition::default()
    });
    Ok(())
}

/// The labels that the pods carry; nothing while there is no Deployment.
fn selector(world: &World, sks: &ServerlessService) -> Option<Map> {
    let target = sks.spec.object_ref.name.as_deref()?;
    let deployment = world.deployments.get(&sks.key().sibling(target))?;
    deployment.spec.as_ref()?.selector.match_labels.clone()
}

fn is_h2c(sks: &ServerlessService) -> bool {
    sks.spec.protocol_type == "h2c"
}

fn service(sks: &ServerlessService, name: String, kind: &str, spec: ServiceSpec) -> Service {
    let own = map([(SERVERLESS_SERVICE, sks.name()), (SERVICE_TYPE, kind)]);
    let metadata = child_of(sks, name, union(labels(sks), own), annotations(sks));
    Service { metadata, spec: Some(spec), ..Service::default() }
}

fn port(name: &str, port: i32, target: IntOrString) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port,
        target_port: Some(target),
        ..ServicePort::default()
    }
}

/// The port that requests come in by. Its name tells the data plane how to speak.
fn request_port(sks: &ServerlessService, number: i32, target: IntOrString) -> ServicePort {
    let h2c = is_h2c(sks);
    let app_protocol = h2c.then(|| "kubernetes.io/h2c".to_owned());
    ServicePort { app_protocol, ..port(port_name(sks), number, target) }
}

fn port_name(sks: &ServerlessService) -> &'static str {
    if is_h2c(sks) { "http2" } else { "http" }
}

fn queue_port(sks: &ServerlessService) -> i32 {
    if is_h2c(sks) { H2C_PORT } else { HTTP1_PORT }
}

fn private_service(world: &World, sks: &ServerlessService, selector: Map) -> Service {
    let ports = match world.settings.queue_placement {
        QueuePlacement::Gateway => vec![request_port(sks, 80, IntOrString::String(USER_PORT_NAME.to_owned()))],
        QueuePlacement::Sidecar => {
            let queue = queue_port(sks);
            let named = |name: &str| IntOrString::String(name.to_owned());
            vec![
                request_port(sks, 80, IntOrString::Int(queue)),
                port("https", 443, IntOrString::Int(HTTPS_PORT)),
                port("http-autometric", 9090, named("http-autometric")),
                port("http-usermetric", 9091, named("http-usermetric")),
                port(&format!("{}-istio", port_name(sks)), queue, IntOrString::Int(queue)),
            ]
        }
    };
    let spec = ServiceSpec { ports: Some(ports), selector: Some(selector), ..ServiceSpec::default() };
    service(sks, names::child(sks.name(), "-private"), "Private", spec)
}

fn public_service(world: &World, sks: &ServerlessService) -> Service {
    let number = if is_h2c(sks) { 81 } else { 80 };
    let ports = match world.settings.queue_placement {
        QueuePlacement::Gateway => {
            vec![request_port(sks, number, IntOrString::Int(i32::from(world.settings.gateway.local_port)))]
        }
        QueuePlacement::Sidecar => vec![
            request_port(sks, number, IntOrString::Int(queue_port(sks))),
            port("https", 443, IntOrString::Int(HTTPS_PORT)),
        ],
    };
    service(sks, sks.name().to_owned(), "Public", ServiceSpec { ports: Some(ports), ..ServiceSpec::default() })
}

/// Makes a Service as it should be, as far as it is ours to say: ports and selector.
fn settle_service(
    world: &World,
    next: &mut ServerlessService,
    wanted: Service,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), Taken> {
    let Some(existing) = world.core_services.get(&wanted.key()) else {
        plan.create(wanted);
        return Ok(());
    };
    check_owner(next, existing.as_ref(), "Service", now)?;
    let had = existing.spec.clone().unwrap_or_default();
    let spec = wanted.spec.unwrap_or_default();
    let selects = had.selector.clone().unwrap_or_default() == spec.selector.clone().unwrap_or_default();
    if !selects || !says(&had.ports, &spec.ports) {
        let spec = ServiceSpec { ports: spec.ports, selector: spec.selector, ..had };
        plan.update(existing.as_ref(), Service { spec: Some(spec), ..Service::clone(&existing) });
    }
    Ok(())
}

fn check_owner<R: Resource>(next: &mut ServerlessService, child: &R, kind: &str, now: Timestamp) -> Result<(), Taken> {
    if child.is_controlled_by(next) {
        return Ok(());
    }
    let message = format!("Resource {} of type {kind} is not owned by SKS", child.name());
    next.conditions(now).mark_false(ENDPOINTS_POPULATED, "NotOwned", &message);
    Err(Taken)
}

/// Whether any pod takes requests. In the gateway's placement the pods themselves tell, which is sooner.
fn has_instances(world: &World, sks: &ServerlessService) -> bool {
    match world.settings.queue_placement {
        QueuePlacement::Gateway => ready_count(world, sks.namespace(), sks.name()) > 0,
        QueuePlacement::Sidecar => private_subsets(world, sks)
            .iter()
            .any(|subset| subset.addresses.as_ref().is_some_and(|addresses| !addresses.is_empty())),
    }
}

fn private_subsets(world: &World, sks: &ServerlessService) -> Vec<EndpointSubset> {
    let private = world.endpoints.get(&sks.key().sibling(&sks.status.private_service_name));
    private.and_then(|endpoints| endpoints.subsets.clone()).unwrap_or_default()
}

fn settle_endpoints(
    world: &World,
    next: &mut ServerlessService,
    serving: bool,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), Taken> {
    let direct = world.settings.queue_placement == QueuePlacement::Sidecar && serving && next.spec.mode != PROXY;
    let subsets = if direct { serving_subsets(world, next) } else { vec![gateway_subset(world, next)] };
    let Some(existing) = world.endpoints.get(&next.key()) else {
        let own = map([(SERVERLESS_SERVICE, next.name()), (SERVICE_TYPE, "Public")]);
        let metadata = child_of(next, next.name(), union(labels(next), own), annotations(next));
        plan.create(Endpoints { metadata, subsets: Some(subsets) });
        return Ok(());
    };
    check_owner(next, existing.as_ref(), "Endpoints", now)?;
    let subsets = Some(subsets);
    if !says(&existing.subsets, &subsets) {
        plan.update(existing.as_ref(), Endpoints { subsets, ..Endpoints::clone(&existing) });
    }
    Ok(())
}

/// The pods, by the ports that requests go to.
fn serving_subsets(world: &World, sks: &ServerlessService) -> Vec<EndpointSubset> {
    let queue = queue_port(sks);
    let mut subsets = private_subsets(world, sks);
    for subset in &mut subsets {
        if let Some(ports) = &mut subset.ports {
            ports.retain(|port| port.port == queue || port.port == HTTPS_PORT);
        }
    }
    subsets
}

fn gateway_subset(world: &World, sks: &ServerlessService) -> EndpointSubset {
    let gateway = &world.settings.gateway;
    let port = EndpointPort {
        name: Some(port_name(sks).to_owned()),
        port: i32::from(gateway.local_port),
        protocol: Some("TCP".to_owned()),
        app_protocol: is_h2c(sks).then(|| "kubernetes.io/h2c".to_owned()),
    };
    let address = EndpointAddress { ip: gateway.address.to_string(), ..EndpointAddress::default() };
    EndpointSubset { addresses: Some(vec![address]), ports: Some(vec![port]), ..EndpointSubset::default() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::ROW;
    use crate::{
        QueuePlacement, Settings,
        check::{Cluster, check, check_in},
    };

    const SKS: &str = r#"
apiVersion: networking.internal.knative.dev/v1alpha1
kind: ServerlessService
metadata: {name: r, owner: PodAutoscaler/r, labels: {serving.knative.dev/revision: r}}
spec: {mode: Serve, protocolType: h2c, objectRef: {apiVersion: apps/v1, kind: Deployment, name: r-deployment}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: r-deployment}
spec: {selector: {matchLabels: {serving.knative.dev/revisionUID: u}}, template: {}}
"#;

    #[test]
    fn both_services_are_made_and_the_public_one_leads_to_the_gateway() {
        check(
            &ROW,
            "default/r",
            SKS,
            expect![[r#"
            create Service default/r-private
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Private" serving.knative.dev/revision="r"
              ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"protocol":"TCP","targetPort":"user-port"}]
              selector {"serving.knative.dev/revisionUID":"u"}
            create Service default/r
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Public" serving.knative.dev/revision="r"
              ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":81,"protocol":"TCP","targetPort":80}]
            create Endpoints default/r
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Public" serving.knative.dev/revision="r"
              subsets [{"addresses":[{"ip":"169.254.77.1"}],"ports":[{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"protocol":"TCP"}]}]
            status ServerlessService default/r
              observedGeneration 1
              privateServiceName "r-private"
              serviceName "r"
              ActivatorEndpointsPopulated=True ActivatorEndpointsPopulated Revision is backed by Activator
              EndpointsPopulated=Unknown NoHealthyBackends K8s Service is not ready
              Ready=Unknown NoHealthyBackends K8s Service is not ready
        "#]],
        );
    }

    #[test]
    fn with_sidecars_the_public_service_leads_to_the_pods_when_it_serves() {
        let mut cluster = Cluster::with(Settings { queue_placement: QueuePlacement::Sidecar, ..Settings::default() });
        cluster.add(SKS);
        cluster.add(
            r#"
apiVersion: v1
kind: Endpoints
metadata: {name: r-private, labels: {networking.internal.knative.dev/serverlessservice: r}}
subsets:
- addresses: [{ip: 10.1.1.1}]
  ports: [{name: http2, port: 8013}, {name: http-autometric, port: 9090}, {name: https, port: 8112}]
"#,
        );
        cluster.edit(knoll_api::Kind::ServerlessService, &knoll_api::Key::new("default", "r"), |value| {
            value["status"] = serde_json::json!({"privateServiceName": "r-private"});
        });
        check_in(
            &ROW,
            "default/r",
            cluster,
            expect![[r#"
            create Service default/r-private
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Private" serving.knative.dev/revision="r"
              ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"protocol":"TCP","targetPort":8013},{"name":"https","port":443,"protocol":"TCP","targetPort":8112},{"name":"http-autometric","port":9090,"protocol":"TCP","targetPort":"http-autometric"},{"name":"http-usermetric","port":9091,"protocol":"TCP","targetPort":"http-usermetric"},{"name":"http2-istio","port":8013,"protocol":"TCP","targetPort":8013}]
              selector {"serving.knative.dev/revisionUID":"u"}
            create Service default/r
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Public" serving.knative.dev/revision="r"
              ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":81,"protocol":"TCP","targetPort":8013},{"name":"https","port":443,"protocol":"TCP","targetPort":8112}]
            create Endpoints default/r
              labels networking.internal.knative.dev/serverlessservice="r" networking.internal.knative.dev/serviceType="Public" serving.knative.dev/revision="r"
              subsets [{"addresses":[{"ip":"10.1.1.1"}],"ports":[{"name":"http2","port":8013},{"name":"https","port":8112}]}]
            status ServerlessService default/r
              observedGeneration 1
              privateServiceName "r-private"
              serviceName "r"
              ActivatorEndpointsPopulated=False ActivatorEndpointsPopulated Revision is backed by Activator
              EndpointsPopulated=True
              Ready=True
        "#]],
        );
    }
}
