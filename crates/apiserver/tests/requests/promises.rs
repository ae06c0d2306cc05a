//! Nothing is accepted in silence that is not carried out, and what a namespace's labels ask of pods is.

use crate::support::{Harness, deployment, pod};
use knoll_apiserver::UserInfo;
use serde_json::{Value, json};

async fn warnings(h: &Harness, path: &str, object: Value) -> Vec<String> {
    let answer = h.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer.warnings()
}

#[tokio::test]
async fn kinds_that_nothing_acts_on_say_so() {
    let h = Harness::new().await;
    let policy = json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}}});
    let told = warnings(&h, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", policy).await;
    assert_eq!(
        told,
        ["299 - \"NetworkPolicy is kept, but not acted on: traffic is not filtered: every pod reaches every other\""]
    );
    let hooks = json!({"metadata": {"name": "w"}, "webhooks": []});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    assert_eq!(
        warnings(&h, path, hooks).await,
        ["299 - \"ValidatingWebhookConfiguration is kept, but not acted on: webhooks are not called\""]
    );
    // Once is enough: a change that leaves it so is not told again.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert!(h.send("PATCH", &format!("{path}/w"), label).await.warnings().is_empty());
}

#[tokio::test]
async fn fields_that_nothing_acts_on_say_so() {
    let h = Harness::new().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "ports": [{"port": 80}],
    }});
    let told = warnings(&h, "/api/v1/namespaces/default/services", service).await.join("\n");
    assert!(told.contains("spec.loadBalancerSourceRanges is kept, but not acted on"), "{told}");
    assert!(told.contains("spec.type is kept, but not acted on: no load balancer gives it an address"), "{told}");
    let mut made = deployment("d");
    made["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let told = warnings(&h, path, made).await;
    assert!(told[0].contains("spec.template.spec.containers[].ports[].hostPort is kept"), "{told:?}");
    // The controllers only carry on what its writer was told of.
    let mut carried = pod("p");
    carried["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    let controller = UserInfo::service_account("knative-serving", "controller");
    let path = "/api/v1/namespaces/default/pods";
    let answer = h.send_as(controller, "POST", path, "application/json", carried).await;
    assert!(answer.warnings().is_empty(), "{answer:?}");
    answer.expect(201);
}

#[tokio::test]
async fn a_definition_with_rules_and_conversion_says_what_is_not_evaluated() {
    let h = Harness::new().await;
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "x-kubernetes-validations": [{"rule": "self.a > 0"}], "properties": {
            "a": {"type": "integer"}, "pattern": {"type": "string", "pattern": "^(a+)+$"},
        },
    }}});
    let definition = json!({"metadata": {"name": "things.acme.example"}, "spec": {
        "group": "acme.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    let answer = h.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let values = answer.headers.get_all("warning").iter();
    let told: Vec<String> = values.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    assert!(told.iter().any(|w| w.contains("rules in CEL are not evaluated")), "{told:?}");
    assert!(told.iter().any(|w| w.contains("conversion webhooks are not called")), "{told:?}");
    let patterns: Vec<_> = told.iter().filter(|w| w.contains("patterns of text are not evaluated")).collect();
    assert!(matches!(patterns[..], [told] if told.contains("spec.versions[]…pattern")), "{told:?}");
    answer.expect(201);
}

/// The rows of a table of `docs/limits.md`: what stands in backquotes, what that belongs to, and what it means.
fn documented(heading: &str) -> Vec<(String, String, String)> {
    let text = include_str!("../../../../docs/limits.md");
    let table = text.split(&format!("| {heading} | What that means |\n|---|---|\n")).nth(1).expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split(" | ");
        let (of, means) = (cells.next().unwrap_or_default().trim(), cells.next().unwrap_or_default().trim());
        let mut parts = of.trim_start_matches('`').splitn(2, '`');
        let what = parts.next().unwrap_or_default().to_owned();
        (what, parts.next().unwrap_or_default().trim_start_matches(" of ").to_owned(), means.to_owned())
    })
    .collect()
}

/// What the object of a kind must hold, so that it is taken.
fn minimal(plural: &str) -> Value {
    let pods = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
        "containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always",
    }});
    match plural {
        "replicationcontrollers" => json!({"spec": {"selector": {"a": "b"}, "template": pods}}),
        "daemonsets" | "statefulsets" => json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pods}}),
        _ => json!({"spec": {}}),
    }
}

#[tokio::test]
async fn every_kind_of_the_table_is_kept_with_a_warning() {
    let h = Harness::new().await;
    let kinds = documented("Kind");
    assert!(kinds.len() >= 20, "{kinds:?}");
    for (name, _, means) in kinds {
        let (plural, group) = name.split_once('.').unwrap_or((&name, ""));
        let groups = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}") };
        let version = match (group, plural) {
            ("", _) => String::new(),
            (_, "horizontalpodautoscalers") => "/v2".into(),
            _ => "/v1".into(),
        };
        let list = h.get(&format!("{groups}{version}")).await.expect(200);
        let row =
            list["resources"].as_array().unwrap().iter().find(|row| row["name"] == plural).expect("served").clone();
        let namespace = if row["namespaced"] == true { "/namespaces/default" } else { "" };
        let mut object = minimal(plural);
        object["metadata"] = json!({"name": "x"});
        let told = warnings(&h, &format!("{groups}{version}{namespace}/{plural}"), object).await;
        let kind = row["kind"].as_str().unwrap();
        assert!(told.contains(&format!("299 - \"{kind} is kept, but not acted on: {means}\"")), "{name}: {told:?}");
    }
}

/// An object of the kind `of` that says at `path` what nobody acts on.
fn saying(of: &str, path: &str) -> (&'static str, Value) {
    let value = match path {
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution" => {
            json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]})
        }
        path if path.ends_with("requiredDuringSchedulingIgnoredDuringExecution") => {
            json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}])
        }
        "containers[].env[].valueFrom.fileKeyRef" => json!({"volumeName": "v", "path": "e", "key": "K"}),
        "containers[].ports[].hostPort" => 80.into(),
        "containers[].resizePolicy" => json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
        "containers[].restartPolicyRules" => {
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}])
        }
        "containers[].volumeDevices" => json!([{"name": "v", "devicePath": "/dev/v"}]),
        "containers[].volumeMounts[].recursiveReadOnly" => "Enabled".into(),
        "ephemeralContainers" => json!([{"name": "e", "image": "i"}]),
        "hostnameOverride" => "other".into(),
        "resourceClaims" => json!([{"name": "c", "resourceClaimName": "c"}]),
        "resources" => json!({"limits": {"memory": "1Gi"}}),
        "topologySpreadConstraints[].whenUnsatisfiable" => "DoNotSchedule".into(),
        "workloadRef" => json!({"name": "w", "podGroup": "g"}),
        "runtimeClassName" => "there".into(),
        "securityContext.supplementalGroupsPolicy" => "Strict".into(),
        "setHostnameAsFQDN" => true.into(),
        "volumes[]" => json!({"name": "v", "nfs": {"server": "s.example", "path": "/"}}),
        path if path.ends_with("appArmorProfile.type") => "RuntimeDefault".into(),
        path if path.ends_with("seLinuxOptions") => json!({"level": "s0:c1"}),
        "spec.healthCheckNodePort" => 30_001.into(),
        "spec.loadBalancerClass" => "acme.example/lb".into(),
        "spec.loadBalancerIP" => "192.0.2.7".into(),
        "spec.loadBalancerSourceRanges" => json!(["10.0.0.0/8"]),
        "spec.ports[].protocol" => "SCTP".into(),
        "spec.type" => "LoadBalancer".into(),
        "spec.conversion.webhook" => json!({"conversionReviewVersions": ["v1"]}),
        "spec.versions[]…pattern" => "^a".into(),
        "spec.versions[]…x-kubernetes-validations" => json!([{"rule": "self.a > 0"}]),
        "spec.aws" => json!({"s3": {"arn": "a", "region": "r"}, "auth": {"serviceAccountName": "s"}}),
        path if path.starts_with("spec.log.show") => true.into(),
        "data.oidc-discovery-base-url" => "https://issuer.example".into(),
        // One for each of these maps; what its validation insists on is among them.
        "data" => json!({
            "apiserversources-nodeselector-a": "b", "autodetect-http2": "enabled", "external-domain-tls": "Enabled",
            "logging.enable-request-log": "true", "queue-sidecar-image": "i", "queue-sidecar-cpu-limit": "1",
        }),
        path if path.starts_with("spec.to[].") => "RequestReply".into(),
        "spec.scopes[]" | "spec.scopeSelector.matchExpressions[].scopeName" => "CrossNamespacePodAffinity".into(),
        other => panic!("say how {other} of {of} is written"),
    };
    let lies_in = match of {
        "pods and their templates" => ("/apis/apps/v1/namespaces/default/deployments", deployment("x")),
        "services" => (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "x"}, "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local",
                "ports": [{"port": 80, "name": "p"}]}}),
        ),
        "customresourcedefinitions" => (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "things.acme.example"}, "spec": {
                "group": "acme.example", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
                "conversion": {"strategy": "Webhook"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object"}}}],
            }}),
        ),
        "integrationsources" => (
            "/apis/sources.knative.dev/v1alpha1/namespaces/default/integrationsources",
            json!({"metadata": {"name": "x"}, "spec": {"sink": {"uri": "http://s"}}}),
        ),
        of if settings(of).is_some() => {
            let (name, namespace) = settings(of).unwrap();
            let collection = match namespace {
                "knative-serving" => "/api/v1/namespaces/knative-serving/configmaps",
                _ => "/api/v1/namespaces/knative-eventing/configmaps",
            };
            (collection, json!({"metadata": {"name": name}, "data": {}}))
        }
        "integrationsinks" => (
            "/apis/sinks.knative.dev/v1alpha1/namespaces/default/integrationsinks",
            json!({"metadata": {"name": "x"}, "spec": {}}),
        ),
        "eventpolicies" => (
            "/apis/eventing.knative.dev/v1alpha1/namespaces/default/eventpolicies",
            json!({"metadata": {"name": "x"}, "spec": {"from": [{"sub": "system:serviceaccount:default:s"}]}}),
        ),
        "resourcequotas" => (
            "/api/v1/namespaces/default/resourcequotas",
            json!({"metadata": {"name": "x"}, "spec": {"hard": {"pods": "1"}}}),
        ),
        other => panic!("say where {other} are"),
    };
    let (collection, mut object) = lies_in;
    let template = if of == "pods and their templates" { "/spec/template/spec" } else { "" };
    let mut at = object.pointer_mut(template).unwrap();
    for step in path.replace("[]…", "[].schema.openAPIV3Schema.").split('.') {
        let (name, item) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        at = &mut at[name];
        if item {
            if at.is_null() {
                *at = json!([{}]);
            }
            at = &mut at[0];
        }
    }
    *at = value;
    complete(&mut object, path);
    (collection, object)
}

/// The ConfigMap of Knative's that a row of the table is about, and its namespace.
fn settings(of: &str) -> Option<(&str, &str)> {
    of.strip_prefix('`')?.strip_suffix('`')?.split_once("` in `")
}

/// What else must be said for that to be taken.
fn complete(object: &mut Value, path: &str) {
    if let Some(expression) = object.pointer_mut("/spec/scopeSelector/matchExpressions/0") {
        expression["operator"] = "Exists".into();
    }
    if let Some(to) = object.pointer_mut("/spec/to/0") {
        let labels = json!({"a": "b"});
        let (part, field, value) =
            if path.contains("selector") { ("selector", "matchLabels", labels) } else { ("ref", "name", "r".into()) };
        to[part]["apiVersion"] = "eventing.knative.dev/v1alpha1".into();
        to[part][field] = value;
    }
    let Some(pods) = object.pointer_mut("/spec/template/spec") else { return };
    match path {
        "containers[].ports[].hostPort" => pods["containers"][0]["ports"][0]["containerPort"] = 80.into(),
        "containers[].volumeDevices" => {
            pods["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "v"}}]);
        }
        "containers[].volumeMounts[].recursiveReadOnly" => {
            let mount = &mut pods["containers"][0]["volumeMounts"][0];
            (mount["name"], mount["mountPath"], mount["readOnly"]) = ("v".into(), "/v".into(), true.into());
            pods["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        }
        "containers[].env[].valueFrom.fileKeyRef" => {
            pods["containers"][0]["env"][0]["name"] = "K".into();
            pods["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        }
        "topologySpreadConstraints[].whenUnsatisfiable" => {
            let constraint = &mut pods["topologySpreadConstraints"][0];
            (constraint["maxSkew"], constraint["topologyKey"]) = (1.into(), "kubernetes.io/hostname".into());
        }
        "containers[].restartPolicyRules" => pods["containers"][0]["restartPolicy"] = "Never".into(),
        _ => {}
    }
}

#[tokio::test]
async fn every_field_of_the_table_is_kept_with_a_warning_or_refused() {
    let h = Harness::new().await;
    // Policies are taken where senders say who they are.
    let on = json!({"data": {"authentication-oidc": "enabled"}});
    h.send("PATCH", "/api/v1/namespaces/knative-eventing/configmaps/config-features", on).await.expect(200);
    let fields = documented("Field");
    assert!(fields.len() > 20, "{fields:?}");
    for (path, of, means) in fields {
        let (collection, object) = saying(&of, &path);
        if let Some((name, _)) = settings(&of) {
            h.send("DELETE", &format!("{collection}/{name}"), json!({})).await;
        }
        let answer = h.post(&format!("{collection}?dryRun=All"), object).await;
        let values = answer.headers.get_all("warning").iter();
        let told: Vec<String> = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let said = told.iter().any(|warning| warning.contains(&format!("{path} is kept, but not acted on: {means}")));
        // What a template may not hold at all is refused before anybody could be warned.
        let refused = answer.code == 422 && answer.text.contains(path.split('[').next().unwrap_or_default());
        assert!((said && answer.code == 201) || refused, "{path} of {of}: {} {told:?} {}", answer.code, answer.text);
    }
    // What is said of containers is said of those that run before them.
    let mut before = deployment("x");
    before["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "i", "image": "i", "securityContext": {"seLinuxOptions": {"level": "s0"}}}]);
    let told = warnings(&h, "/apis/apps/v1/namespaces/default/deployments", before).await.join("\n");
    assert!(told.contains("spec.template.spec.initContainers[].securityContext.seLinuxOptions is kept"), "{told}");
}

/// What our own controllers make pods of: they are told nothing when they do.
#[tokio::test]
async fn whoever_writes_what_pods_are_made_of_is_told() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces", labelled("strict", &[("enforce", "restricted")])).await.expect(201);
    let pods = json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    let mut once = pods.clone();
    once["restartPolicy"] = "Never".into();
    for (collection, spec, path) in [
        (
            "/apis/sources.knative.dev/v1/namespaces/strict/containersources",
            json!({"sink": {"uri": "http://s"}, "template": {"spec": pods}}),
            "spec.template.spec",
        ),
        (
            "/apis/sinks.knative.dev/v1alpha1/namespaces/strict/jobsinks",
            json!({"job": {"spec": {"template": {"spec": once}}}}),
            "spec.job.spec.template.spec",
        ),
    ] {
        let told = warnings(&h, collection, json!({"metadata": {"name": "x"}, "spec": spec})).await.join("\n");
        assert!(told.contains(&format!("{path}.containers[].ports[].hostPort is kept, but not acted on")), "{told}");
        assert!(told.contains("would violate PodSecurity"), "{told}");
    }
}

/// Settings that are carried out are none to warn of.
#[tokio::test]
async fn settings_that_count_are_taken_without_a_word() {
    let h = Harness::new().await;
    for (name, data) in [
        ("config-observability", json!({"logging.revision-url-template": "http://logs/${REVISION_UID}"})),
        ("config-network", json!({"external-domain-tls": "Disabled", "http-protocol": "Redirected"})),
        ("config-deployment", json!({"queue-sidecar-image": "q", "progress-deadline": "700s"})),
        ("config-features", json!({"multi-container-probing": "enabled", "autodetect-http2": "disabled"})),
    ] {
        let path = format!("/api/v1/namespaces/knative-serving/configmaps/{name}");
        let answer = h.send("PATCH", &path, json!({"data": data})).await;
        assert!(answer.warnings().is_empty(), "{name}: {:?}", answer.warnings());
        answer.expect(200);
    }
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut namespace = json!({"metadata": {"name": name, "labels": {}}});
    for (mode, level) in labels {
        namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{mode}")] = (*level).into();
    }
    namespace
}

#[tokio::test]
async fn a_namespace_refuses_pods_that_break_its_standard() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces", labelled("strict", &[("enforce", "restricted")])).await.expect(201);
    let pods = "/api/v1/namespaces/strict/pods";
    let message = h.post(pods, pod("p")).await.failure(403);
    assert!(
        message.starts_with(
            "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false \
             (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities"
        ),
        "{message}"
    );
    let mut careful = pod("p");
    careful["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    careful["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    h.post(pods, careful).await.expect(201);
    // A container that is added later is looked at, too.
    let debug = json!({"metadata": {"name": "p"}, "spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    h.send("PUT", &format!("{pods}/p/ephemeralcontainers"), debug).await.expect(403);
    // Who makes what makes pods is told; so is who makes a Knative Service.
    let told = warnings(&h, "/apis/apps/v1/namespaces/strict/deployments", deployment("d")).await;
    assert!(told[0].contains("would violate PodSecurity \\\"restricted:latest\\\""), "{told:?}");
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": {"containers": [{"image": "example/i"}]}}}});
    let told = warnings(&h, "/apis/serving.knative.dev/v1/namespaces/strict/services", service).await.join("\n");
    assert!(told.contains("would violate PodSecurity"), "{told}");
}

#[tokio::test]
async fn a_namespace_that_becomes_strict_names_the_pods_that_are_not() {
    let h = Harness::new().await;
    h.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    for name in ["b", "a"] {
        let mut pod = pod(name);
        pod["spec"]["hostNetwork"] = true.into();
        h.post("/api/v1/namespaces/n/pods", pod).await.expect(201);
    }
    let strict = json!({"metadata": labelled("n", &[("enforce", "baseline")])["metadata"]});
    let answer = h.send("PATCH", "/api/v1/namespaces/n", strict).await;
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"existing pods in namespace \\\"n\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"a (and 1 other pod): host namespaces\"",
        ]
    );
    let message = h.post("/api/v1/namespaces", labelled("m", &[("enforce", "strict")])).await.failure(422);
    assert!(message.contains("must be one of privileged, baseline, restricted"), "{message}");
}
