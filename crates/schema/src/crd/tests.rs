use serde_json::json;

use super::*;
use crate::ty::{ListKind, Shape};

fn schema(spec: Value) -> Schema {
    let raw = json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}});
    Schema::new("example.com", "v1", "Widget", &raw)
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

fn check(properties: Value, spec: Value, wanted: &[&str]) {
    let schema = schema(json!({"type": "object", "properties": properties}));
    let found: Vec<String> = schema.validate(&widget(spec)).iter().map(Problem::to_string).collect();
    assert_eq!(found, wanted);
}

#[test]
fn undeclared_fields_are_dropped_and_named() {
    let schema = schema(json!({"type": "object", "properties": {
        "n": {"type": "integer"},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}));
    let mut object = widget(json!({
        "n": "wrong, and left for validation",
        "x": 1,
        "open": {"any": {"thing": null}},
        "map": {"k": {"a": "1", "b": 2}},
        "pod": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
    }));
    object["metadata"]["bogus"] = json!(1);
    object["other"] = json!(true);
    let unknown = schema.prune(&mut object).unwrap();
    let wanted = [
        "unknown field \"metadata.bogus\"",
        "unknown field \"other\"",
        "unknown field \"spec.map.k.b\"",
        "unknown field \"spec.x\"",
    ];
    assert_eq!(unknown, wanted);
    let wanted = widget(json!({
        "n": "wrong, and left for validation",
        "open": {"any": {"thing": null}},
        "map": {"k": {"a": "1"}},
        "pod": {"kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
    }));
    assert_eq!(object, wanted);
}

#[test]
fn without_a_schema_everything_stays() {
    let schema = Schema::new("example.com", "v1", "Widget", &Value::Null);
    let mut object = widget(json!({"a": {"b": null}}));
    assert_eq!(schema.prune(&mut object).unwrap(), [""; 0]);
    assert_eq!(object, widget(json!({"a": {"b": null}})));
    assert_eq!(schema.validate(&object), []);
}

#[test]
fn defaults_fill_in_what_is_absent_from_the_outside_in() {
    let schema = schema(json!({"type": "object", "default": {}, "properties": {
        "n": {"type": "integer", "default": 3},
        "maybe": {"type": "string", "nullable": true, "default": "x"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
    }}));
    let mut object = json!({"metadata": {"name": "w"}});
    schema.fill_defaults(&mut object).unwrap();
    assert_eq!(object["spec"], json!({"n": 3, "maybe": "x"}));
    let mut object = widget(json!({"n": null, "maybe": null, "list": [{}, {"p": "UDP"}]}));
    schema.fill_defaults(&mut object).unwrap();
    assert_eq!(object["spec"], json!({"n": 3, "maybe": null, "list": [{"p": "TCP"}, {"p": "UDP"}]}));
}

#[test]
fn numbers_have_limits() {
    let n = json!({"n": {"type": "integer", "minimum": 0, "maximum": 10, "exclusiveMaximum": true, "multipleOf": 2}});
    check(
        n.clone(),
        json!({"n": -2}),
        &["spec.n: Invalid value: -2: spec.n in body should be greater than or equal to 0"],
    );
    check(n.clone(), json!({"n": 10}), &["spec.n: Invalid value: 10: spec.n in body should be less than 10"]);
    check(n.clone(), json!({"n": 3}), &["spec.n: Invalid value: 3: spec.n in body should be a multiple of 2"]);
    check(n, json!({"n": 4}), &[]);
}

#[test]
fn types_are_checked() {
    let n = json!({"n": {"type": "integer"}, "p": {"x-kubernetes-int-or-string": true}, "f": {"type": "number"}});
    let wanted = "spec.n: Invalid value: \"string\": spec.n in body must be of type integer: \"string\"";
    check(n.clone(), json!({"n": "1"}), &[wanted]);
    let wanted = "spec.n: Invalid value: \"null\": spec.n in body must be of type integer: \"null\"";
    check(n.clone(), json!({"n": null}), &[wanted]);
    check(n, json!({"n": 1, "p": "http", "f": 1}), &[]);
}

#[test]
fn enumerations_name_what_is_possible() {
    let color = json!({"color": {"type": "string", "enum": ["red", "blue"]}});
    let wanted = "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"";
    check(color, json!({"color": "green"}), &[wanted]);
}

#[test]
fn what_is_required_is_missed_and_lengths_are_counted() {
    let properties = json!({
        "s": {"type": "string", "minLength": 2, "maxLength": 3},
        "l": {"type": "array", "maxItems": 1, "items": {"type": "object", "required": ["name"]}},
        "at": {"type": "string", "format": "date-time"},
    });
    let item = "spec.l[0].name: Required value";
    check(properties.clone(), json!({"l": [{}]}), &[item]);
    let many = "spec.l: Too many: 2: must have at most 1 items";
    check(properties.clone(), json!({"l": [{"name": 1}, {"name": 1}]}), &[many]);
    check(properties.clone(), json!({"s": "abcd"}), &["spec.s: Too long: may not be more than 3 bytes"]);
    let short = "spec.s: Invalid value: \"a\": spec.s in body should be at least 2 chars long";
    check(properties.clone(), json!({"s": "a"}), &[short]);
    let wanted = "spec.at: Invalid value: \"noon\": spec.at in body must be of type date-time: \"noon\"";
    check(properties, json!({"at": "noon"}), &[wanted]);
}

#[test]
fn schemas_combine() {
    let properties = json!({"s": {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}}});
    let none =
        "spec.s: Invalid value: \"\": \"spec.s\" must validate one and only one schema (oneOf). Found none valid";
    check(properties.clone(), json!({"s": {}}), &[none, "spec.s.a: Required value"]);
    let both = "spec.s: Invalid value: \"\": \"spec.s\" must validate one and only one schema (oneOf). Found 2 valid alternatives";
    check(properties.clone(), json!({"s": {"a": 1, "b": 1}}), &[both]);
    let not = "spec.s: Invalid value: \"\": \"spec.s\" must not validate the schema (not)";
    check(properties, json!({"s": {"a": 1, "c": 1}}), &[not]);
}

#[test]
fn items_of_sets_and_maps_differ() {
    let properties = json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object"}},
    });
    let spec = json!({"set": ["a", "a"], "map": [{"k": 1, "v": 1}, {"k": 1, "v": 2}]});
    check(properties, spec, &["spec.map[1]: Duplicate value: {\"k\":1}", "spec.set[1]: Duplicate value: \"a\""]);
}

#[test]
fn rules_that_could_not_be_checked_are_told() {
    let spec = json!({
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.n > 0"}],
    });
    let found = schema(spec).validate(&widget(json!({"n": "x"})));
    let last = found.last().unwrap().to_string();
    assert!(last.starts_with("<nil>: Invalid value: null: some validation rules were not checked"), "{last}");
}

#[test]
fn a_schema_becomes_a_type_for_apply() {
    let schema = schema(json!({"type": "object", "properties": {
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                 "items": {"type": "object", "properties": {"k": {"type": "string", "default": "d"}}}},
    }}));
    let Shape::List(list) = &schema.ty().walk(&["spec", "list"]).unwrap().shape else { panic!("it is a list") };
    assert_eq!(list.kind, ListKind::Map(vec!["k".into()]));
    assert_eq!(schema.ty().walk(&["metadata", "labels"]).map(|ty| matches!(ty.shape, Shape::Map(_))), Some(true));
}

/// What a schema and an object, each small enough to be stored, ask for together is bounded.
mod bounds {
    use super::*;
    use crate::limits::{FINDINGS, WEIGHT, measure};

    fn last(schema: &Schema, spec: Value) -> String {
        let found = schema.validate(&widget(spec));
        assert!(found.len() <= FINDINGS, "{} findings", found.len());
        found.last().map(Problem::to_string).unwrap_or_default()
    }

    #[test]
    fn the_work_of_a_validation_has_an_end() {
        // Each item is tried by each schema, and each of those by all others again.
        let many: Vec<Value> = (0..4000).map(|at| json!({"minimum": at, "type": "integer"})).collect();
        let wide = schema(json!({"type": "array", "items": {"anyOf": many}}));
        let told = last(&wide, json!(vec!["x"; 10_000]));
        assert_eq!(
            told,
            "<nil>: Invalid value: null: checking the object against its schema takes more than 10000000 steps"
        );
        let mut deep = json!({"type": "integer"});
        for _ in 0..40 {
            deep = json!({"oneOf": [deep, deep]});
            if measure(&deep).bytes > 1 << 20 {
                break;
            }
        }
        let told = last(&schema(json!({"type": "array", "items": deep})), json!(vec!["x"; 1000]));
        assert!(told.contains("takes more than 10000000 steps"), "{told}");
        let required: Vec<String> = (0..50_000).map(|at| format!("f{at}")).collect();
        let told = last(&schema(json!({"items": {"required": required}})), json!(vec![json!({}); 50_000]));
        assert!(told.contains("takes more than 10000000 steps"), "{told}");
    }

    #[test]
    fn what_is_found_is_bounded_in_number_and_length() {
        let values: Vec<String> = (0..50_000).map(|at| format!("value {at}")).collect();
        let choice = schema(json!({"items": {"enum": values}}));
        let found = choice.validate(&widget(json!(vec!["y"; 150])));
        assert_eq!(found.len(), FINDINGS);
        assert!(found.iter().all(|problem| problem.message.len() < 5000), "{}", found[0].message.len());
        let name = "n".repeat(60_000);
        let found = schema(json!({"additionalProperties": {"type": "integer"}})).validate(&widget(json!({name: "x"})));
        assert!(found[0].field.len() < 5000);
    }

    #[test]
    fn items_of_long_sets_are_told_apart_in_one_pass() {
        let set = schema(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}));
        let mut items: Vec<u32> = (0..300_000).collect();
        items.push(7);
        assert_eq!(last(&set, json!(items)), "spec[300000]: Duplicate value: 7");
    }

    #[test]
    fn defaults_do_not_multiply_without_end() {
        let schema = schema(json!({"type": "array", "items": {"properties": {"d": {"default": "x".repeat(1 << 20)}}}}));
        let mut few = widget(json!(vec![json!({}); 10]));
        schema.fill_defaults(&mut few).unwrap();
        assert_eq!(few["spec"][9]["d"].as_str().map(str::len), Some(1 << 20));
        let mut many = widget(json!(vec![json!({}); 10_000]));
        assert!(schema.fill_defaults(&mut many).is_err());
        assert!(measure(&many).weight <= 2 * WEIGHT);
    }
}
