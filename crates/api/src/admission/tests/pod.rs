use expect_test::expect;

use super::*;

/// The problems of a Service with one container, which has these fields and an image.
fn container(fields: Value) -> String {
    container_with(&Check::new(), fields)
}

fn container_with(check: &Check, fields: Value) -> String {
    let mut container = json!({"image": "busybox"});
    for (key, value) in fields.as_object().expect("fields") {
        container[key] = value.clone();
    }
    let found = check.errors(Kind::Service, service_with(json!({"containers": [container]})));
    found.replace("spec.template.spec.containers[0].", "~")
}

#[test]
fn there_is_a_container_with_an_image() {
    Check::new().pod(json!({}), expect!["missing field(s): spec.template.spec.containers"]);
    Check::new().pod(json!({"containers": [{}]}), expect!["missing field(s): spec.template.spec.containers[0].image"]);
}

#[test]
fn fields_that_revisions_do_not_have_are_named_together() {
    Check::new().pod(
        json!({
            "containers": [{"image": "busybox", "lifecycle": {}, "stdin": true, "tty": false}],
            "restartPolicy": "Always", "hostNetwork": true, "affinity": {}, "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": true, "securityContext": {"runAsUser": 1},
        }),
        expect!["must not set the field(s): spec.template.spec.affinity, spec.template.spec.automountServiceAccountToken, spec.template.spec.containers[0].lifecycle, spec.template.spec.containers[0].stdin, spec.template.spec.hostNetwork, spec.template.spec.restartPolicy, spec.template.spec.securityContext, spec.template.spec.securityContext.runAsUser, spec.template.spec.terminationGracePeriodSeconds"],
    );
}

#[test]
fn flags_open_fields() {
    let check = Check::with_features(&[
        ("kubernetes.podspec-affinity", "enabled"),
        ("kubernetes.podspec-nodeselector", "allowed"),
        ("kubernetes.podspec-securitycontext", "enabled"),
    ]);
    let spec = json!({
        "containers": [{"image": "busybox"}],
        "affinity": {}, "nodeSelector": {"a": "b"}, "securityContext": {"runAsUser": 1, "supplementalGroups": [1]},
    });
    check.pod(spec, expect![""]);
    check.pod(
        json!({
            "containers": [{"image": "busybox"}],
            "securityContext": {"fsGroup": -1, "supplementalGroups": [1, 4294967296_i64], "sysctls": []},
        }),
        expect![[r#"
            expected 0 <= -1 <= 2147483647: spec.template.spec.securityContext.fsGroup
            expected 0 <= 4294967296 <= 2147483647: spec.template.spec.securityContext.supplementalGroups[1]
            must not set the field(s): spec.template.spec.securityContext.sysctls"#]],
    );
}

#[test]
fn service_accounts_are_domain_names() {
    Check::new().pod(
        json!({"containers": [{"image": "busybox"}], "serviceAccountName": "foo@bar.baz"}),
        expect![[r#"
            invalid value: foo@bar.baz: spec.template.spec.serviceAccountName
            a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
}

#[test]
fn images_can_be_referred_to() {
    expect![[r#"
        Failed to parse image reference: ~image
        image: "foo:bar:baz", error: could not parse reference: foo:bar:baz"#]]
    .assert_eq(&container(json!({"image": "foo:bar:baz"})));
    expect![[r#"
        invalid value: Later: ~terminationMessagePolicy
        invalid value: Sometimes: ~imagePullPolicy"#]]
    .assert_eq(&container(json!({"imagePullPolicy": "Sometimes", "terminationMessagePolicy": "Later"})));
}

#[test]
fn variables_of_the_platform_are_reserved() {
    let env = json!([
        {"name": "PORT", "value": "1"}, {"name": "K_REVISION"}, {"value": "x"},
        {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    expect![[r#"
        "K_REVISION" is a reserved environment variable: ~env[1].name
        "PORT" is a reserved environment variable: ~env[0].name
        missing field(s): ~env[2].name
        must not set the field(s): ~env[3].valueFrom.fieldRef"#]]
    .assert_eq(&container(json!({"env": env})));
    expect!["expected exactly one, got neither: ~envFrom.configMapRef, ~envFrom.secretRef"]
        .assert_eq(&container(json!({"envFrom": [{"prefix": "P_"}]})));
}

#[test]
fn one_port_serves() {
    assert_eq!(container(json!({"ports": [{"name": "h2c", "containerPort": 8080, "protocol": "TCP"}]})), "");
    expect![[r#"
        Port name http is not allowed: ~ports
        Name must be empty, or one of: 'h2c', 'http1'
        invalid value: 8012 is a reserved port: ~ports.containerPort
        8012 is a reserved port, please use a different value
        invalid value: UDP: ~ports.protocol
        must not set the field(s): ~ports.hostPort"#]]
    .assert_eq(&container(json!({
        "ports": [{"name": "http", "containerPort": 8012, "protocol": "UDP", "hostPort": 1}],
    })));
    expect!["expected 0 <= 65536 <= 65535: ~ports.containerPort"]
        .assert_eq(&container(json!({"ports": [{"containerPort": 65536}]})));
    Check::new().pod(
        json!({"containers": [{"image": "busybox", "ports": [{"containerPort": 1}, {"containerPort": 2}]}]}),
        expect![[r#"
            more than one container port is set: spec.template.spec.containers[*].ports
            Only a single port is allowed across all containers"#]],
    );
}

#[test]
fn several_containers_need_one_that_serves() {
    let spec = json!({"containers": [{"image": "busybox", "name": "a"}, {"image": "busybox", "name": "a"}]});
    Check::new().pod(
        spec.clone(),
        expect![[r#"
            duplicate container name "a": spec.template.spec.containers[1].name
            missing field(s): spec.template.spec.containers[*].ports"#]],
    );
    Check::with_features(&[("multi-container", "disabled")]).pod(
        spec,
        expect![[r#"
            missing field(s): spec.template.spec.containers[*].ports
            multi-container is off, but found 2 containers: "#]],
    );
}

#[test]
fn sidecars_are_probed_only_where_allowed() {
    let with = |probe: Value| {
        json!({"containers": [
            {"image": "busybox", "ports": [{"containerPort": 8080}]},
            {"image": "busybox", "livenessProbe": probe, "env": [{"name": "PORT", "value": "1"}]},
        ]})
    };
    Check::new().pod(
        with(json!({"httpGet": {"port": 1}, "periodSeconds": 2})),
        expect!["must not set the field(s): spec.template.spec.containers[1].livenessProbe, spec.template.spec.containers[1].livenessProbe.periodSeconds"],
    );
    let check = Check::with_features(&[("multi-container-probing", "enabled")]);
    check.pod(with(json!({"httpGet": {"port": 1}})), expect![""]);
    check.pod(
        with(json!({"httpGet": {"path": "/"}})),
        expect![[r#"
            invalid value: 0: spec.template.spec.containers[1].livenessProbe.httpGet.port
            Probe port must be specified"#]],
    );
}

#[test]
fn init_containers_are_switched_on_and_simple() {
    let spec = json!({
        "containers": [{"image": "busybox"}],
        "initContainers": [{"image": "busybox", "livenessProbe": {"exec": {}}, "ports": [{"containerPort": 9090}]}],
    });
    Check::new().pod(
        spec.clone(),
        expect![[r#"
            must not set the field(s): spec.template.spec.initContainers
            pod spec support for init-containers is off, but found 1 init containers: "#]],
    );
    Check::with_features(&[("kubernetes.podspec-init-containers", "enabled")]).pod(
        spec,
        expect![[r#"
            field not allowed in an init container: spec.template.spec.containers[0].livenessProbe
            invalid value: 9090 is a reserved port: spec.template.spec.containers[0].ports.containerPort
            9090 is a reserved port, please use a different value"#]],
    );
}

#[test]
fn probes_have_one_handler() {
    expect!["expected exactly one, got both: ~readinessProbe.httpGet, ~readinessProbe.tcpSocket"]
        .assert_eq(&container(json!({"readinessProbe": {"httpGet": {}, "tcpSocket": {}}})));
    expect![
        "expected exactly one, got neither: ~livenessProbe.exec, ~livenessProbe.grpc, ~livenessProbe.httpGet, ~livenessProbe.tcpSocket"
    ]
    .assert_eq(&container(json!({"livenessProbe": {"periodSeconds": 1}})));
}

#[test]
fn probes_name_the_serving_port_or_give_a_number() {
    assert_eq!(container(json!({"livenessProbe": {"httpGet": {"port": 5000}}})), "");
    assert_eq!(container(json!({"livenessProbe": {"httpGet": {"port": "http"}}})), "");
    let ports = json!([{"name": "h2c", "containerPort": 8080}]);
    expect![[r#"
        invalid value: http: ~livenessProbe.tcpSocket.port
        Probe port must match container port"#]]
    .assert_eq(&container(json!({"ports": ports, "livenessProbe": {"tcpSocket": {"port": "http"}}})));
}

#[test]
fn the_aggressive_readiness_probe_has_no_thresholds() {
    expect![[r#"
        failureThreshold is disallowed when periodSeconds is zero: ~readinessProbe.failureThreshold
        timeoutSeconds is disallowed when periodSeconds is zero: ~readinessProbe.timeoutSeconds"#]]
    .assert_eq(&container(json!({"readinessProbe": {"failureThreshold": 1, "timeoutSeconds": 1}})));
    expect![[r#"
        expected 0 <= -1 <= 2147483647: ~readinessProbe.initialDelaySeconds
        expected 1 <= -1 <= 2147483647: ~readinessProbe.successThreshold, ~readinessProbe.timeoutSeconds"#]]
    .assert_eq(&container(json!({"readinessProbe": {
        "periodSeconds": 1, "timeoutSeconds": -1, "successThreshold": -1, "initialDelaySeconds": -1,
    }})));
}

#[test]
fn containers_keep_their_privileges_to_themselves() {
    expect![[r#"
        expected 0 <= -1 <= 2147483647: ~securityContext.runAsUser
        must not set the field(s): ~securityContext.capabilities.add, ~securityContext.privileged, ~securityContext.procMount"#]]
    .assert_eq(&container(json!({"securityContext": {
        "runAsUser": -1, "privileged": true, "procMount": "Default", "capabilities": {"add": ["NET_ADMIN"]},
    }})));
    assert_eq!(container(json!({"securityContext": {"privileged": false, "runAsNonRoot": true}})), "");
    let secure = Check::with_features(&[("secure-pod-defaults", "enabled")]);
    let add = |name: &str| json!({"securityContext": {"capabilities": {"add": [name]}}});
    assert_eq!(container_with(&secure, add("NET_BIND_SERVICE")), "");
    expect!["must not set the field(s): ~securityContext.capabilities.add"]
        .assert_eq(&container_with(&secure, add("NET_ADMIN")));
}

#[test]
fn container_names_of_the_platform_are_reserved() {
    expect![[r#""queue-proxy" is a reserved container name: ~name"#]]
        .assert_eq(&container(json!({"name": "queue-proxy"})));
    expect!["must not set the field(s): ~resources.claims"]
        .assert_eq(&container(json!({"resources": {"claims": [{"name": "x"}]}})));
}

#[test]
fn requests_above_limits_are_refused_in_the_words_of_kubernetes() {
    let resources =
        |requests: Value| container(json!({"resources": {"limits": {"cpu": "500m"}, "requests": requests}}));
    expect![[r#"Invalid value: "540m": must be less than or equal to cpu limit of 500m: ~resources.requests"#]]
        .assert_eq(&resources(json!({"cpu": "540m"})));
    assert_eq!(resources(json!({"cpu": "0.5", "memory": "1Gi"})), "");
    expect![[r#"Invalid value: "-1": must be greater than or equal to 0: ~resources.requests[memory]"#]]
        .assert_eq(&resources(json!({"memory": "-1"})));
}

fn mounted(volume: Value, mount: Value) -> Value {
    json!({"containers": [{"image": "busybox", "volumeMounts": [mount]}], "volumes": [volume]})
}

#[test]
fn volumes_are_of_one_allowed_kind() {
    let mount = json!({"name": "v", "mountPath": "/v"});
    let check = Check::new();
    check.pod(mounted(json!({"name": "v", "emptyDir": {"medium": "Memory"}}), mount.clone()), expect![""]);
    check.pod(
        mounted(json!({"name": "v"}), mount.clone()),
        expect!["expected exactly one, got neither: spec.template.spec.volumes[0].configMap, spec.template.spec.volumes[0].emptyDir, spec.template.spec.volumes[0].projected, spec.template.spec.volumes[0].secret"],
    );
    check.pod(
        mounted(json!({"name": "v", "secret": {}, "configMap": {"items": [{"key": "k"}]}}), mount.clone()),
        expect![[r#"
            expected exactly one, got both: spec.template.spec.volumes[0].configMap, spec.template.spec.volumes[0].secret
            missing field(s): spec.template.spec.volumes[0].items[0].path"#]],
    );
    check.pod(
        mounted(json!({"name": "v", "hostPath": {"path": "/"}}), mount.clone()),
        expect![[r#"
            HostPath volume support is disabled, but found HostPath volume v: 
            must not set the field(s): spec.template.spec.volumes[0].hostPath"#]],
    );
    check.pod(
        mounted(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}), mount),
        expect![[r#"
            Persistent volume claim support is disabled, but found persistent volume claim c: 
            Persistent volume write support is disabled, but found persistent volume claim c that is not read-only: 
            must not set the field(s): spec.template.spec.volumes[0].persistentVolumeClaim"#]],
    );
}

#[test]
fn projections_are_complete() {
    let sources = json!([
        {"secret": {}}, {"serviceAccountToken": {}}, {}, {"downwardAPI": {"items": [{"path": "p"}]}},
    ]);
    Check::new().pod(
        mounted(json!({"name": "v", "projected": {"sources": sources}}), json!({"name": "v", "mountPath": "/v"})),
        expect![[r#"
            expected exactly one, got neither: spec.template.spec.volumes[0].projected[2].configMap, spec.template.spec.volumes[0].projected[2].downwardAPI, spec.template.spec.volumes[0].projected[2].secret, spec.template.spec.volumes[0].projected[2].serviceAccountToken, spec.template.spec.volumes[0].projected[3].downwardAPI.items[0].fieldRef, spec.template.spec.volumes[0].projected[3].downwardAPI.items[0].resourceFieldRef
            missing field(s): spec.template.spec.volumes[0].projected[0].secret.name, spec.template.spec.volumes[0].projected[1].serviceAccountToken.path"#]],
    );
}

#[test]
fn every_volume_is_mounted_and_every_mount_has_its_volume() {
    Check::new().pod(
        json!({
            "containers": [{"image": "busybox", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}],
            "volumes": [{"name": "a", "secret": {}}, {"name": "a", "secret": {}}, {"name": "No", "emptyDir": {}}],
        }),
        expect![[r#"
            duplicate volume name "a": spec.template.spec.volumes[1].name
            invalid value: No: spec.template.spec.volumes[2].name
            volume with name "No" not mounted: spec.template.spec.volumes[2].name
            volume with name "a" not mounted: spec.template.spec.volumes[0].name, spec.template.spec.volumes[1].name
            volumeMount has no matching volume: spec.template.spec.containers[0].volumeMounts[0].name"#]],
    );
}

#[test]
fn mounts_go_to_free_absolute_paths() {
    let mounts = json!([
        {"name": "e", "mountPath": "/dev/"}, {"name": "e", "mountPath": "relative"},
        {"name": "e", "mountPath": "/data"}, {"name": "e", "mountPath": "/data/"}, {"name": "e"},
        {"name": "e", "mountPath": "/p", "mountPropagation": "Bidirectional", "subPathExpr": "x"},
    ]);
    Check::new().pod(
        json!({
            "containers": [{"image": "busybox", "volumeMounts": mounts}],
            "volumes": [{"name": "e", "emptyDir": {}}],
        }),
        expect![[r#"
            Volume Mount Propagation support is disabled, but found volume mount e with mount propagation: 
            invalid value: "/data/" must be unique: spec.template.spec.containers[0].volumeMounts[3].mountPath
            invalid value: relative: spec.template.spec.containers[0].volumeMounts[1].mountPath
            missing field(s): spec.template.spec.containers[0].volumeMounts[4].mountPath
            mount propagation should be set to None or HostToContainer: spec.template.spec.containers[0].volumeMounts[5].mountPropagation
            mountPath "/dev" is a reserved path: spec.template.spec.containers[0].volumeMounts[0].mountPath
            must not set the field(s): spec.template.spec.containers[0].volumeMounts[5].mountPropagation, spec.template.spec.containers[0].volumeMounts[5].subPathExpr"#]],
    );
}

#[test]
fn read_only_claims_are_mounted_read_only() {
    let check = Check::with_features(&[("kubernetes.podspec-persistent-volume-claim", "enabled")]);
    check.pod(
        mounted(
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}),
            json!({"name": "v", "mountPath": "/v"}),
        ),
        expect![
            "volume is readOnly but volume mount is not: spec.template.spec.containers[0].volumeMounts[0].readOnly"
        ],
    );
}
