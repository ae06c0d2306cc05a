//! A type spelled out as the structural schema of a CustomResourceDefinition: for kinds that are compiled in here, and
//! custom resources on a cluster.

use serde_json::{Map, Value, json};

use crate::ty::{Field, List, ListKind, Object, Shape, Type};

/// The `openAPIV3Schema` of a kind. A type within itself is not spelled out again but takes any fields, and so do types
/// of Kubernetes' own groups, such as templates of pods: what they hold is known without the definition.
pub fn definition_of(kind: &Type) -> Value {
    let mut schema = Speller { package: &kind.package, within: Vec::new() }.spelled(kind);
    // The server knows these by itself, and takes no more than their type here.
    for (name, of) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][name] = json!({"type": of});
    }
    schema
}

/// An object with whatever fields.
fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Spells out the types of one kind.
struct Speller<'a> {
    /// The package of the kind.
    package: &'a str,
    /// Names of the types around the one at hand.
    within: Vec<&'a str>,
}

impl<'a> Speller<'a> {
    /// Whether an object's type is left open.
    fn is_cut(&self, ty: &Type) -> bool {
        let is_foreign = !ty.package.is_empty() && ty.package != self.package && ty.package != "meta/v1";
        is_foreign || (!ty.name.is_empty() && self.within.contains(&ty.name.as_ref()))
    }

    fn spelled(&mut self, ty: &'a Type) -> Value {
        match &ty.shape {
            Shape::String | Shape::Duration => json!({"type": "string"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            // Clients in Go write null for a time that is not set.
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time", "nullable": true}),
            Shape::Quantity | Shape::IntOrString => {
                json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
            }
            Shape::FieldsV1 | Shape::Raw => anything(),
            Shape::Any | Shape::Json | Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                json!({"x-kubernetes-preserve-unknown-fields": true})
            }
            Shape::Map(map) => {
                let mut schema = json!({"type": "object", "additionalProperties": self.spelled(&map.values)});
                if map.atomic {
                    schema["x-kubernetes-map-type"] = "atomic".into();
                }
                schema
            }
            Shape::List(list) => self.spelled_list(list),
            Shape::Object(_) if self.is_cut(ty) => anything(),
            Shape::Object(object) => {
                self.within.push(&ty.name);
                let schema = self.spelled_object(object);
                self.within.pop();
                schema
            }
        }
    }

    fn spelled_list(&mut self, list: &'a List) -> Value {
        let mut schema = json!({"type": "array", "items": self.spelled(&list.items)});
        match &list.kind {
            ListKind::Atomic => schema["x-kubernetes-list-type"] = "atomic".into(),
            ListKind::Set => schema["x-kubernetes-list-type"] = "set".into(),
            ListKind::Map(keys) => {
                schema["x-kubernetes-list-type"] = "map".into();
                schema["x-kubernetes-list-map-keys"] = json!(keys);
            }
        }
        schema
    }

    fn spelled_object(&mut self, object: &'a Object) -> Value {
        let properties: Map<String, Value> =
            object.fields.iter().map(|field| (field.name.to_string(), self.spelled_field(field))).collect();
        let mut schema = json!({"type": "object", "properties": properties});
        let required: Vec<_> = object.fields.iter().filter(|field| field.required).map(|field| &field.name).collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if object.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if object.open {
            schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        schema
    }

    fn spelled_field(&mut self, field: &'a Field) -> Value {
        let mut schema = self.spelled(&field.ty);
        // Of what is not known to be an object it cannot be said.
        if let Some(atomic) = field.atomic.filter(|_| schema["type"] == "object") {
            schema["x-kubernetes-map-type"] = if atomic { "atomic" } else { "granular" }.into();
        }
        if let Some(default) = &field.default {
            schema["default"] = default.clone();
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{builtin, crd::Schema, lookup};

    const GROUPS: [(&str, &str); 16] = [
        ("eventing.knative.dev", "v1"),
        ("eventing.knative.dev", "v1alpha1"),
        ("eventing.knative.dev", "v1beta1"),
        ("eventing.knative.dev", "v1beta2"),
        ("eventing.knative.dev", "v1beta3"),
        ("flows.knative.dev", "v1"),
        ("messaging.knative.dev", "v1"),
        ("sinks.knative.dev", "v1alpha1"),
        ("sources.knative.dev", "v1"),
        ("sources.knative.dev", "v1alpha1"),
        ("sources.knative.dev", "v1beta2"),
        ("serving.knative.dev", "v1"),
        ("serving.knative.dev", "v1beta1"),
        ("autoscaling.internal.knative.dev", "v1alpha1"),
        ("networking.internal.knative.dev", "v1alpha1"),
        ("caching.internal.knative.dev", "v1alpha1"),
    ];

    /// What a server asks of a structural schema, at every place in it.
    fn check(at: &str, schema: &Value) {
        let untyped = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        assert!(schema["type"].is_string() || untyped.iter().any(|flag| schema[*flag] == true), "{at}: {schema}");
        assert!(schema.get("allOf").is_none() && schema.get("$ref").is_none(), "{at}");
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{at}.{name}"), field);
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(inner) {
                check(&format!("{at}[]"), inner);
            }
        }
        for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
            let items = &schema["items"];
            let required = items["required"].as_array().is_some_and(|all| all.contains(key));
            let field = &items["properties"][key.as_str().expect("a name")];
            assert!(required || !field["default"].is_null(), "{at}: items are told apart by {key}");
        }
    }

    #[test]
    fn every_kind_of_knative_has_a_structural_schema() {
        let mut kinds = 0;
        for (group, version) in GROUPS {
            for kind in builtin::kinds(group, version).filter(|kind| !kind.name.ends_with("List")) {
                check(&kind.name, &definition_of(kind));
                kinds += 1;
            }
        }
        assert_eq!(kinds, 33);
    }

    #[test]
    fn filters_within_filters_and_templates_of_pods_are_left_open() {
        let kind = |group, kind| definition_of(lookup(group, "v1", kind).expect("it is compiled in"));
        let trigger = kind("eventing.knative.dev", "Trigger");
        let filter = &trigger["properties"]["spec"]["properties"]["filters"]["items"]["properties"];
        assert_eq!(filter["exact"]["additionalProperties"]["type"], "string");
        assert_eq!((&filter["not"], &filter["all"]["items"]), (&anything(), &anything()));
        let source = kind("sources.knative.dev", "ContainerSource");
        assert_eq!(source["properties"]["spec"]["properties"]["template"], anything());
        assert!(source.to_string().len() < 3_000, "a definition is kept in memory");
    }

    #[test]
    fn a_definition_takes_what_the_kind_takes_and_refuses_the_rest() {
        let kind = lookup("serving.knative.dev", "v1", "Service").expect("it is compiled in");
        let schema = Schema::new("serving.knative.dev", "v1", "Service", &definition_of(kind));
        let service = |concurrency: Value| {
            json!({
                "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "s"},
                "spec": {"template": {
                    "metadata": {"annotations": {"a": "b"}, "creationTimestamp": null},
                    "spec": {"containerConcurrency": concurrency, "containers": [{
                        "image": "i", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                        "readinessProbe": {"httpGet": {"port": "http"}}}]}}},
            })
        };
        let mut good = service(json!(10));
        assert_eq!(schema.prune(&mut good).expect("metadata"), Vec::<String>::new());
        assert_eq!(good, service(json!(10)));
        assert!(schema.validate(&good).is_empty(), "{:?}", schema.validate(&good));
        let told = schema.validate(&service(json!("ten")));
        assert_eq!(told[0].field, "spec.template.spec.containerConcurrency");
        let mut odd = service(json!(1));
        odd["spec"]["template"]["spec"]["kontainers"] = json!([]);
        assert_eq!(schema.prune(&mut odd).expect("metadata").len(), 1);
    }
}
