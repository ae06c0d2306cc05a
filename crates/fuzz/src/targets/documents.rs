//! Objects and their patches, in every form in which clients send them.

use knoll_apiserver::parsers::json_patch as patched;
use knoll_schema::{
    Type,
    apply::{Writer, apply as schema_apply, track},
    conform, crd,
    json::{from_json, from_yaml},
    limits::{self, measure},
    lookup, misfits, protobuf as schema_protobuf, strategic_merge, unknown_fields,
};
use serde_json::Value;

use super::trees;
use crate::Target;

const OBJECT: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "\"\"",
    "\"apiVersion\":\"v1\"",
    "\"kind\":\"Pod\"",
    "\"metadata\":",
    "\"spec\":",
    "\"containers\":",
    "\"name\":\"c\"",
    "\"ports\":",
    "\"containerPort\":80",
    "\"protocol\":\"TCP\"",
    "\"labels\":",
    "\"env\":",
    "\"managedFields\":",
    "\"fieldsV1\":",
    "\"f:spec\":{}",
    "\"k:{\\\"name\\\":\\\"c\\\"}\":{}",
    "\"v:1\":{}",
    "\".\":{}",
    "\n---\n",
];

pub(super) const JSON: Target = Target { name: "json", cases: 3000, words: OBJECT, check: json };
pub(super) const YAML: Target = Target {
    name: "yaml",
    cases: 300,
    words: &[
        "&a ",
        "*a",
        "- ",
        ": ",
        "\n",
        "  ",
        "|",
        ">",
        "!!binary ",
        "!!map",
        "? ",
        "<<: ",
        "---",
        "...",
        "{",
        "[",
        "'",
        "\"",
        "~",
        "0x1",
        ".inf",
    ],
    check: yaml,
};
pub(super) const PROTOBUF: Target =
    Target { name: "protobuf", cases: 5000, words: &["k8s\u{0}", "\u{a}\u{2}v1\u{12}\u{3}Pod"], check: protobuf };
pub(super) const JSON_PATCH: Target = Target {
    name: "json_patch",
    cases: 3000,
    words: &[
        "{\"op\":\"copy\",",
        "\"add\"",
        "\"move\"",
        "\"remove\"",
        "\"replace\"",
        "\"test\"",
        "\"from\":\"/a\"",
        "\"path\":\"/a/-\"",
        "\"path\":\"\"",
        "\"value\":",
        "~0",
        "~1",
        "\n---\n",
    ],
    check: json_patch,
};
pub(super) const STRATEGIC_PATCH: Target = Target {
    name: "strategic_patch",
    cases: 3000,
    words: &[
        "\"$patch\":\"delete\"",
        "\"$patch\":\"replace\"",
        "\"$retainKeys\":",
        "\"$setElementOrder/containers\":",
        "\"$deleteFromPrimitiveList/finalizers\":",
        "\"containers\":",
        "\"name\":\"c\"",
        "\"spec\":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "null",
        "\n---\n",
    ],
    check: strategic_patch,
};
pub(super) const APPLY: Target = Target { name: "apply", cases: 1500, words: OBJECT, check: apply };
pub(super) const DEFINITION: Target = Target {
    name: "definition",
    cases: 2000,
    words: &[
        "\"type\":\"object\"",
        "\"type\":\"array\"",
        "\"properties\":",
        "\"additionalProperties\":",
        "\"items\":",
        "\"allOf\":",
        "\"anyOf\":",
        "\"oneOf\":",
        "\"not\":",
        "\"enum\":",
        "\"default\":",
        "\"nullable\":true",
        "\"required\":",
        "\"pattern\":\"(a+)+$\"",
        "\"format\":",
        "\"x-kubernetes-list-type\":\"map\"",
        "\"x-kubernetes-list-type\":\"set\"",
        "\"x-kubernetes-list-map-keys\":[\"a\"]",
        "\"x-kubernetes-preserve-unknown-fields\":true",
        "\"x-kubernetes-int-or-string\":true",
        "\"multipleOf\":0",
        "\n---\n",
    ],
    check: definition,
};

/// Whether a tree is beyond what a decoder takes.
fn exceeds(value: &Value) -> bool {
    let found = measure(value);
    // Decoders pay as they go, with slightly other prices than a tree is weighed by afterwards.
    found.depth > limits::DEPTH || found.weight > limits::WEIGHT / 2 || has_long_name(value)
}

fn has_long_name(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_long_name),
        Value::Object(entries) => entries.iter().any(|(name, inner)| name.len() > limits::NAME || has_long_name(inner)),
        _ => false,
    }
}

/// Ours and serde_json's own reader see the same tree.
fn json(input: &[u8]) {
    let theirs = serde_json::from_slice::<Value>(input);
    match (from_json(input), theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours.value, theirs);
            assert!(ours.duplicates.len() <= limits::FINDINGS);
            limits::check(&ours.value).expect("is within bounds");
        }
        (Ok(ours), Err(error)) => panic!("{:?} where serde_json says {error}", ours.value),
        (Err(error), Ok(theirs)) => assert!(exceeds(&theirs), "{error}"),
        (Err(_), Err(_)) => {}
    }
}

fn yaml(input: &[u8]) {
    let Ok(tree) = from_yaml(input) else { return };
    limits::check(&tree).expect("is within bounds");
    let text = tree.to_string();
    assert_eq!(from_yaml(text.as_bytes()).expect("JSON is YAML"), tree);
}

fn protobuf(input: &[u8]) {
    let Ok(mut tree) = schema_protobuf::decode(input) else { return };
    limits::check(&tree).expect("is within bounds");
    let ty = type_of(&tree).expect("only known kinds are decoded");
    conform(ty, &mut tree).expect("what was decoded is of its type");
}

/// The type that `apiVersion` and `kind` name.
fn type_of(object: &Value) -> Option<&'static Type> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    lookup(group, version, kind)
}

/// An object and a patch. Where ours patches, the crate beneath patches the same, and where ours refuses for anything
/// but a bound, so does the crate.
fn json_patch(input: &[u8]) {
    let Some(trees) = trees(input) else { return };
    let [object, operations] = &trees[..] else { return };
    let ours = patched(operations.clone(), object);
    if ours.as_ref().is_err_and(|status| status.code == 413 || status.message.contains("levels")) {
        // What the bounds are there for: the crate has none.
        return;
    }
    let theirs = serde_json::from_value::<json_patch::Patch>(operations.clone()).map_err(drop).and_then(|patch| {
        let mut copy = object.clone();
        json_patch::patch(&mut copy, &patch).map(|()| copy).map_err(drop)
    });
    assert_eq!(ours.map_err(drop), theirs);
}

/// An object and a patch. Nothing becomes more than both together.
fn strategic_patch(input: &[u8]) {
    let Some(trees) = trees(input) else { return };
    let [object, patch] = &trees[..] else { return };
    let Some(ty) = type_of(object) else { return };
    let empty = Value::Object(serde_json::Map::new());
    if object.is_object() {
        assert_eq!(&strategic_merge(ty, object, &empty).expect("nothing is asked for"), object);
    }
    let Ok(merged) = strategic_merge(ty, object, patch) else { return };
    let most = measure(object).weight + measure(patch).weight;
    assert!(measure(&merged).weight <= most, "{} where {most} came in", measure(&merged).weight);
    unknown_fields(ty, &merged);
    misfits(ty, &merged);
}

/// The live object, and configurations that are applied one after the other by two managers.
fn apply(input: &[u8]) {
    let Some(trees) = trees(input) else { return };
    let Some((live, configurations)) = trees.split_first() else { return };
    let Some(ty) = type_of(live) else { return };
    let (api_version, kind) =
        (live["apiVersion"].as_str().unwrap_or_default(), live["kind"].as_str().unwrap_or_default());
    let mut live = live.clone();
    if conform(ty, &mut live).is_err() {
        return;
    }
    let writer = |manager| Writer {
        ty,
        api_version,
        kind,
        manager,
        subresource: "",
        ignored: &[&["status"]],
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    live = track(&writer("first"), None, live);
    for (at, configuration) in configurations.iter().take(4).enumerate() {
        let writer = writer(if at % 2 == 0 { "a" } else { "b" });
        let Ok(applied) = schema_apply(&writer, Some(&live), configuration, at % 3 == 2) else { continue };
        let again = schema_apply(&writer, Some(&applied), configuration, false).expect("applies again");
        assert_eq!(again, applied, "applying again changed it");
        live = applied;
    }
}

/// The schema of a definition, and an object of its kind.
fn definition(input: &[u8]) {
    let Some(trees) = trees(input) else { return };
    let [schema, object] = &trees[..] else { return };
    let schema = crd::Schema::new("example.com", "v1", "Thing", schema);
    let mut object = object.clone();
    if schema.prune(&mut object).is_err() {
        return;
    }
    let unknown = schema.prune(&mut object).expect("is of its type still");
    assert!(unknown.is_empty(), "pruning again found {unknown:?}");
    if schema.fill_defaults(&mut object).is_err() {
        return;
    }
    let problems = schema.validate(&object);
    assert!(problems.len() <= limits::FINDINGS);
    assert!(problems.iter().all(|problem| problem.message.len() <= 8 << 10));
    unknown_fields(schema.ty(), &object);
}
