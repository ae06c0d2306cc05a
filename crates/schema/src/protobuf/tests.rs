use serde_json::json;

use super::*;

/// Writes messages the way clients do: a member after the other.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push((number as u8) | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    fn number(mut self, tag: u64, number: i64) -> Self {
        self.0.extend(Self::varint(tag << 3));
        self.0.extend(Self::varint(number.cast_unsigned()));
        self
    }

    fn bytes(mut self, tag: u64, bytes: &[u8]) -> Self {
        self.0.extend(Self::varint(tag << 3 | 2));
        self.0.extend(Self::varint(bytes.len() as u64));
        self.0.extend(bytes);
        self
    }

    fn text(self, tag: u64, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }

    fn message(self, tag: u64, inner: Message) -> Self {
        self.bytes(tag, &inner.0)
    }

    fn entry(self, tag: u64, key: &str, value: &str) -> Self {
        self.message(tag, Message::default().text(1, key).text(2, value))
    }
}

fn body(api_version: &str, kind: &str, object: Message) -> Vec<u8> {
    let meta = new().text(1, api_version).text(2, kind);
    let envelope = new().message(1, meta).message(2, object).text(3, "").text(4, "");
    [MAGIC, &envelope.0].concat()
}

fn new() -> Message {
    Message::default()
}

fn metadata(name: &str) -> Message {
    // As a client writes it: empty text, zero generation and an empty creation time included.
    new().text(1, name).text(2, "").text(3, "").text(4, "").text(5, "").text(6, "").number(7, 0).message(8, new())
}

fn check(api_version: &str, kind: &str, object: Message, mut wanted: Value) {
    wanted["apiVersion"] = json!(api_version);
    wanted["kind"] = json!(kind);
    assert_eq!(decode(&body(api_version, kind, object)).unwrap(), wanted);
}

#[test]
fn a_pod_keeps_pointers_and_drops_empty_text() {
    let probe_handler =
        new().message(2, new().text(1, "/").message(2, new().number(1, 1).number(2, 0).text(3, "http")).text(3, ""));
    let probe = new().message(1, probe_handler).number(2, 0).number(3, 5);
    let resources = new().message(1, new().text(1, "cpu").message(2, new().text(1, "100m")));
    let container = new()
        .text(1, "c")
        .text(2, "img")
        .text(5, "")
        .message(6, new().text(1, "").number(2, 0).number(3, 8080).text(4, "TCP").text(5, ""))
        .message(7, new().text(1, "A").text(2, ""))
        .message(8, resources)
        .message(10, probe)
        .message(15, new().message(1, new()).number(4, 0))
        .number(16, 0);
    let volume = new().text(1, "v").message(2, new().message(2, new().text(1, "")));
    let spec = new()
        .message(1, volume)
        .message(2, container)
        .text(3, "")
        .number(4, 0)
        .entry(7, "disk", "ssd")
        .text(8, "")
        .number(11, 0)
        .message(14, new().number(2, 0))
        .text(19, "")
        .number(21, 0);
    let object = new().message(1, metadata("p").entry(11, "app", "x")).message(2, spec).message(3, new().text(1, ""));
    let wanted = json!({
        "metadata": {"name": "p", "labels": {"app": "x"}},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c",
                "image": "img",
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "A"}],
                "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "timeoutSeconds": 5},
                "securityContext": {"capabilities": {}, "runAsUser": 0},
            }],
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"disk": "ssd"},
            "securityContext": {"runAsUser": 0},
            "automountServiceAccountToken": false,
        },
    });
    check("v1", "Pod", object, wanted);
}

#[test]
fn a_secret_holds_base64_and_a_config_map_text() {
    let object = new()
        .message(1, metadata("s"))
        .message(2, new().text(1, "k").bytes(2, &[0, 255]))
        .text(3, "Opaque")
        .number(5, 0);
    let wanted = json!({"metadata": {"name": "s"}, "data": {"k": "AP8="}, "type": "Opaque", "immutable": false});
    check("v1", "Secret", object, wanted);
    let object = new().message(1, metadata("c")).entry(2, "a", "1").entry(2, "b", "");
    check("v1", "ConfigMap", object, json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": ""}}));
}

#[test]
fn delete_options_are_known_to_every_group() {
    let object = new().number(1, 0).message(2, new().text(1, "u")).text(4, "Foreground");
    let wanted = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"});
    for api_version in ["v1", "apps/v1", "meta.k8s.io/v1"] {
        check(api_version, "DeleteOptions", object.clone(), wanted.clone());
    }
}

#[test]
fn a_deployment_keeps_its_zero_replicas() {
    let update = new().message(2, new().number(1, 1).number(2, 0).text(3, "25%"));
    let spec = new()
        .number(1, 0)
        .message(2, new().entry(1, "a", "b"))
        .message(3, new().message(1, metadata("")).message(2, new()))
        .message(4, new().text(1, "RollingUpdate").message(2, update))
        .number(5, 0)
        .number(7, 0);
    let wanted = json!({
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        },
    });
    check(
        "apps/v1",
        "Deployment",
        new().message(1, metadata("d")).message(2, spec).message(3, new().number(1, 0)),
        wanted,
    );
}

#[test]
fn times_have_no_decimals_and_micro_times_six() {
    let time = new().number(1, 1_767_225_600).number(2, 5000);
    let spec = new().text(1, "me").number(2, 15).message(4, time.clone());
    let meta = new().text(1, "l").message(8, time);
    let wanted = json!({
        "metadata": {"name": "l", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000005Z"},
    });
    check("coordination.k8s.io/v1", "Lease", new().message(1, meta).message(2, spec), wanted);
}

#[test]
fn reviews_carry_lists_in_maps() {
    let extra = new().text(1, "scopes").message(2, new().text(1, "a").text(1, "b"));
    let attributes = new().text(1, "ns").text(2, "get").text(5, "pods");
    let spec = new().message(1, attributes).text(3, "bob").text(4, "dev").message(5, extra);
    let wanted = json!({
        "spec": {
            "resourceAttributes": {"namespace": "ns", "verb": "get", "resource": "pods"},
            "user": "bob",
            "groups": ["dev"],
            "extra": {"scopes": ["a", "b"]},
        },
        "status": {"allowed": false},
    });
    let object = new().message(1, metadata("")).message(2, spec).message(3, new().number(1, 0).text(2, ""));
    check("authorization.k8s.io/v1", "SubjectAccessReview", object, wanted);
}

#[test]
fn a_token_request_and_a_scale_are_read() {
    let spec = new().text(1, "aud").number(4, 600);
    let wanted = json!({"spec": {"audiences": ["aud"], "expirationSeconds": 600}, "status": {"token": ""}});
    let object = new().message(2, spec).message(3, new().text(1, "").message(2, new()));
    check("authentication.k8s.io/v1", "TokenRequest", object, wanted);
    let object = new().message(1, metadata("d")).message(2, new().number(1, 3)).message(3, new().number(1, 0));
    check(
        "autoscaling/v1",
        "Scale",
        object,
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 3}, "status": {"replicas": 0}}),
    );
}

#[test]
fn a_definition_carries_schemas_and_embedded_json() {
    let default = new().bytes(1, b"{\"a\":[1]}");
    let items = new().message(1, new().text(5, "string"));
    let allows = new().number(1, 1);
    let property = new().text(5, "array").message(8, default).message(24, items).message(30, allows).number(38, 1);
    let properties = new().text(1, "spec").message(2, property);
    let schema = new().text(5, "object").message(29, properties).text(2, "s");
    let version = new().text(1, "v1").number(2, 1).number(3, 0).message(4, new().message(1, schema));
    let spec = new().text(1, "g").message(7, version);
    let object = new().message(1, metadata("c")).message(2, spec);
    let tree = decode(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", object)).unwrap();
    let version = &tree["spec"]["versions"][0];
    assert_eq!((&version["served"], &version["storage"]), (&json!(true), &json!(false)));
    let schema = &version["schema"]["openAPIV3Schema"];
    assert_eq!(schema["$schema"], "s");
    let wanted = json!({
        "type": "array",
        "default": {"a": [1]},
        "items": {"type": "string"},
        "additionalProperties": true,
        "x-kubernetes-preserve-unknown-fields": true,
    });
    assert_eq!(schema["properties"]["spec"], wanted);
}

#[test]
fn negative_numbers_and_packed_lists_are_read() {
    let key = new().text(1, "k").text(2, "p").number(3, -1);
    let source = new().message(2, key);
    let volume = new().text(1, "v").message(2, new().message(19, source));
    let context = new().bytes(4, &[1, 0x80, 0x02]);
    let object = new().message(2, new().message(1, volume).message(14, context));
    let tree = decode(&body("v1", "Pod", object)).unwrap();
    assert_eq!(tree["spec"]["volumes"][0]["configMap"]["items"][0], json!({"key": "k", "path": "p", "mode": -1}));
    assert_eq!(tree["spec"]["securityContext"]["supplementalGroups"], json!([1, 256]));
}

#[test]
fn malformed_bodies_are_refused() {
    assert_eq!(decode(b"{}").unwrap_err(), ProtobufError::Magic);
    let whole = body("v1", "ConfigMap", new().message(1, metadata("c")));
    // The object's member begins behind the magic and the kind, and two empty members follow it.
    let object = MAGIC.len() + 4 + "v1".len() + "ConfigMap".len() + 2;
    for length in object + 1..whole.len() - 4 {
        assert_eq!(decode(&whole[..length]).unwrap_err(), ProtobufError::Truncated, "cut at {length}");
    }
    let unknown = body("serving.knative.dev/v1", "Service", new());
    assert!(matches!(decode(&unknown), Err(ProtobufError::Kind { .. })));
    let wrong = body("v1", "ConfigMap", new().number(1, 1));
    assert_eq!(decode(&wrong).unwrap_err(), ProtobufError::WireType("metadata".into()));
    let mut schema = new();
    for _ in 0..200 {
        schema = new().message(28, schema);
    }
    let version = new().message(4, new().message(1, schema));
    let deep = body("apiextensions.k8s.io/v1", "CustomResourceDefinition", new().message(2, new().message(7, version)));
    assert_eq!(decode(&deep).unwrap_err(), ProtobufError::Depth);
}
