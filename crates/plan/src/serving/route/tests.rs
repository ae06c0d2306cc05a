use expect_test::expect;

use super::ROW;
use crate::check::{Cluster, check, check_in};

const ROUTE: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Route
metadata:
  name: hello
  labels: {serving.knative.dev/service: hello}
  annotations: {a: b, serving.knative.dev/rollout-duration: 0s}
spec:
  traffic:
  - {percent: 90, latestRevision: true, configurationName: hello}
  - {percent: 10, latestRevision: false, revisionName: hello-00001, tag: old}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config-domain, namespace: knative-serving}
data: {example.com: ""}
"#;

fn revision(name: &str, service: &str, ready: &str) -> String {
    format!(
        r#"
---
apiVersion: serving.knative.dev/v1
kind: Revision
metadata: {{name: {name}, labels: {{serving.knative.dev/configuration: hello, serving.knative.dev/service: {service}}}}}
spec: {{containers: [{{name: user-container, image: i}}]}}
status: {{observedGeneration: 1, conditions: [{{type: Ready, status: "{ready}"}}]}}
"#
    )
}

fn targets() -> String {
    let configuration = r#"
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: hello, labels: {serving.knative.dev/service: hello}}
spec: {}
status: {latestReadyRevisionName: hello-00002}
"#;
    format!("{ROUTE}{configuration}{}", revision("hello-00002", "hello", "True"))
}

#[test]
fn names_are_taken_and_an_ingress_splits_the_traffic() {
    let fixture = format!("{}{}", targets(), revision("hello-00001", "hello", "True"));
    check(
        &ROW,
        "default/hello",
        &fixture,
        expect![[r#"
        create Service default/hello
          labels serving.knative.dev/route="hello" serving.knative.dev/service="hello"
          annotations a="b" serving.knative.dev/rollout-duration="0s"
          externalName "hello.default.example.com"
          ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"targetPort":80}]
          sessionAffinity "None"
          type "ExternalName"
        note Created: Created placeholder service "hello"
        create Service default/old-hello
          labels serving.knative.dev/route="hello" serving.knative.dev/service="hello"
          annotations a="b" serving.knative.dev/rollout-duration="0s"
          externalName "old-hello.default.example.com"
          ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"targetPort":80}]
          sessionAffinity "None"
          type "ExternalName"
        note Created: Created placeholder service "old-hello"
        create Ingress default/hello
          labels serving.knative.dev/route="hello" serving.knative.dev/routeNamespace="default" serving.knative.dev/service="hello"
          annotations a="b" networking.internal.knative.dev/rollout="{\"configurations\":[{\"configurationName\":\"hello\",\"percent\":90,\"revisions\":[{\"revisionName\":\"hello-00002\",\"percent\":90}],\"stepParams\":{}}]}" networking.internal.knative.dev/tag-to-host="{\"old\":[\"old-hello.default.svc.cluster.local\",\"old-hello.default.example.com\"]}" networking.knative.dev/ingress.class="istio.ingress.networking.knative.dev"
          httpOption "Enabled"
          rules [{"hosts":["hello.default","hello.default.svc","hello.default.svc.cluster.local"],"http":{"paths":[{"splits":[{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00002"},"percent":90,"serviceName":"hello-00002","serviceNamespace":"default","servicePort":80},{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00001"},"percent":10,"serviceName":"hello-00001","serviceNamespace":"default","servicePort":80}]}]},"visibility":"ClusterLocal"},{"hosts":["hello.default.example.com"],"http":{"paths":[{"splits":[{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00002"},"percent":90,"serviceName":"hello-00002","serviceNamespace":"default","servicePort":80},{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00001"},"percent":10,"serviceName":"hello-00001","serviceNamespace":"default","servicePort":80}]}]},"visibility":"ExternalIP"},{"hosts":["old-hello.default","old-hello.default.svc","old-hello.default.svc.cluster.local"],"http":{"paths":[{"splits":[{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00001"},"percent":100,"serviceName":"hello-00001","serviceNamespace":"default","servicePort":80}]}]},"visibility":"ClusterLocal"},{"hosts":["old-hello.default.example.com"],"http":{"paths":[{"splits":[{"appendHeaders":{"Knative-Serving-Namespace":"default","Knative-Serving-Revision":"hello-00001"},"percent":100,"serviceName":"hello-00001","serviceNamespace":"default","servicePort":80}]}]},"visibility":"ExternalIP"}]
        note Created: Created Ingress "hello"
        status Route default/hello
          address {"url":"http://hello.default.svc.cluster.local"}
          observedGeneration 1
          traffic [{"latestRevision":true,"percent":90,"revisionName":"hello-00002"},{"latestRevision":false,"percent":10,"revisionName":"hello-00001","tag":"old","url":"http://old-hello.default.example.com"}]
          url "http://hello.default.example.com"
          AllTrafficAssigned=True
          CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled
          IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.
          Ready=Unknown IngressNotConfigured Ingress has not yet been reconciled.
    "#]],
    );
}

#[test]
fn a_header_chooses_the_tag_where_that_is_enabled() {
    let fixture = format!("{}{}", targets(), revision("hello-00001", "hello", "True"));
    let feature = r#"
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config-features, namespace: knative-serving}
data: {tag-header-based-routing: enabled}
"#;
    let cluster = Cluster::of(&format!("{fixture}{feature}"));
    let plan = (ROW.plan)(&cluster.world, &knoll_api::Key::new("default", "hello"), crate::check::NOW);
    let ingress = plan.wants.iter().find_map(|want| match want {
        crate::Want::Create(knoll_api::Object::Ingress(ingress)) => Some(ingress.clone()),
        _ => None,
    });
    let rules = &ingress.expect("an Ingress").spec.rules;
    let lines = rules.iter().flat_map(|rule| {
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        paths.map(|path| {
            let exact: Vec<_> = path.headers.values().map(|header| header.exact.as_str()).collect();
            let append: Vec<_> = path.append_headers.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            let to: Vec<_> = path.splits.iter().map(|split| split.service_name.as_str()).collect();
            format!("{} if {exact:?} append {append:?} to {to:?}\n", rule.hosts[0])
        })
    });
    expect![[r#"
        hello.default if ["old"] append [] to ["hello-00001"]
        hello.default if [] append ["Knative-Serving-Default-Route:true"] to ["hello-00002", "hello-00001"]
        hello.default.example.com if ["old"] append [] to ["hello-00001"]
        hello.default.example.com if [] append ["Knative-Serving-Default-Route:true"] to ["hello-00002", "hello-00001"]
        old-hello.default if [] append ["Knative-Serving-Tag:old"] to ["hello-00001"]
        old-hello.default.example.com if [] append ["Knative-Serving-Tag:old"] to ["hello-00001"]
    "#]]
    .assert_eq(&lines.collect::<String>());
}

#[test]
fn one_bad_target_freezes_the_route() {
    let missing = targets();
    check(
        &ROW,
        "default/hello",
        &missing,
        expect![[r#"
        status Route default/hello
          observedGeneration 1
          url "http://hello.default.example.com"
          AllTrafficAssigned=False RevisionMissing Revision "hello-00001" referenced in traffic not found.
          CertificateProvisioned=Unknown
          IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.
          Ready=False RevisionMissing Revision "hello-00001" referenced in traffic not found.
    "#]],
    );
    let foreign = format!("{}{}", targets(), revision("hello-00001", "other", "True"));
    check(
        &ROW,
        "default/hello",
        &foreign,
        expect![[r#"
        status Route default/hello
          observedGeneration 1
          url "http://hello.default.example.com"
          AllTrafficAssigned=False RevisionNotOwned Revision "hello-00001" belongs to Service "other", not Service "hello".
          CertificateProvisioned=Unknown
          IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.
          Ready=False RevisionNotOwned Revision "hello-00001" belongs to Service "other", not Service "hello".
    "#]],
    );
    let waiting = format!("{}{}", targets(), revision("hello-00001", "hello", "Unknown"));
    check(
        &ROW,
        "default/hello",
        &waiting,
        expect![[r#"
        status Route default/hello
          observedGeneration 1
          url "http://hello.default.example.com"
          AllTrafficAssigned=Unknown RevisionMissing Revision "hello-00001" is not yet ready.
          CertificateProvisioned=Unknown
          IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.
          Ready=Unknown RevisionMissing Revision "hello-00001" is not yet ready.
    "#]],
    );
}

#[test]
fn a_service_of_someone_else_keeps_its_name() {
    let fixture = format!("{}{}", targets(), revision("hello-00001", "hello", "True"));
    let foreign = r#"
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {}
"#;
    check(
        &ROW,
        "default/hello",
        &format!("{fixture}{foreign}"),
        expect![[r#"
        status Route default/hello
          address {"url":"http://hello.default.svc.cluster.local"}
          observedGeneration 1
          traffic [{"latestRevision":true,"percent":90,"revisionName":"hello-00002"},{"latestRevision":false,"percent":10,"revisionName":"hello-00001","tag":"old","url":"http://old-hello.default.example.com"}]
          url "http://hello.default.example.com"
          AllTrafficAssigned=True
          CertificateProvisioned=Unknown
          IngressReady=False NotOwned There is an existing placeholder Service "hello" that we do not own.
          Ready=False NotOwned There is an existing placeholder Service "hello" that we do not own.
    "#]],
    );
}

#[test]
fn a_ready_ingress_points_the_placeholders_and_dropped_tags_go() {
    let fixture = format!("{}{}", targets(), revision("hello-00001", "hello", "True"));
    let mut cluster = Cluster::of(&fixture);
    let key = knoll_api::Key::new("default", "hello");
    let plan = (ROW.plan)(&cluster.world, &key, crate::check::NOW);
    plan.wants.iter().for_each(|want| cluster.carry_out(want, crate::check::NOW));
    cluster.edit(knoll_api::Kind::Ingress, &key, |value| {
        value["status"] = serde_json::json!({
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True"}],
            "publicLoadBalancer": {"ingress": [{"domainInternal": "gateway.system.svc.cluster.local"}]},
            "privateLoadBalancer": {"ingress": [{"domainInternal": "gateway.system.svc.cluster.local"}]},
        });
    });
    cluster.add(
        r#"
apiVersion: v1
kind: Service
metadata: {name: gone-hello, owner: Route/hello, labels: {serving.knative.dev/route: hello}}
spec: {type: ExternalName, externalName: x}
"#,
    );
    check_in(
        &ROW,
        "default/hello",
        cluster,
        expect![[r#"
        delete Service default/gone-hello
        update Service default/hello
          spec/externalName "hello.default.example.com" -> "gateway.system.svc.cluster.local"
          spec/ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"protocol":"TCP","targetPort":80}] -> [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"targetPort":80}]
        update Service default/old-hello
          spec/externalName "old-hello.default.example.com" -> "gateway.system.svc.cluster.local"
          spec/ports [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"protocol":"TCP","targetPort":80}] -> [{"appProtocol":"kubernetes.io/h2c","name":"http2","port":80,"targetPort":80}]
        status Route default/hello
          address {"url":"http://hello.default.svc.cluster.local"}
          observedGeneration 1
          traffic [{"latestRevision":true,"percent":90,"revisionName":"hello-00002"},{"latestRevision":false,"percent":10,"revisionName":"hello-00001","tag":"old","url":"http://old-hello.default.example.com"}]
          url "http://hello.default.example.com"
          AllTrafficAssigned=True
          CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled
          IngressReady=True
          Ready=True
    "#]],
    );
}
