//! CustomResourceDefinitions.

use serde_json::{Value, json};

use crate::{object, status::Cause};

/// The name says plural and group; one version is stored; every version has a schema.
pub(crate) fn definition(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (object::text(new, "/spec/group"), object::text(new, "/spec/names/plural"));
    for (field, value) in [
        ("spec.group", group),
        ("spec.names.plural", plural),
        ("spec.names.kind", object::text(new, "/spec/names/kind")),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let name = format!("{plural}.{group}");
    if object::name(new) != name {
        causes.push(Cause::invalid(
            "metadata.name",
            &object::name(new).into(),
            &format!("must be spec.names.plural+\".\"+spec.group: {name:?}"),
        ));
    }
    let scope = object::text(new, "/spec/scope");
    if !matches!(scope, "Cluster" | "Namespaced") {
        causes.push(Cause::not_supported("spec.scope", &scope.into(), &["Cluster", "Namespaced"]));
    }
    let versions = object::list(new, "/spec/versions");
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!(versions.len()), why));
    }
    for (at, version) in versions.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, "schemas are required"));
        }
    }
    if let Some(old) = old {
        for (field, pointer) in [
            ("spec.group", "/spec/group"),
            ("spec.scope", "/spec/scope"),
            ("spec.names.plural", "/spec/names/plural"),
            ("spec.names.kind", "/spec/names/kind"),
        ] {
            if old.pointer(pointer) != new.pointer(pointer) {
                let value = new.pointer(pointer).cloned().unwrap_or(Value::Null);
                causes.push(Cause::invalid(field, &value, "field is immutable"));
            }
        }
    }
    causes
}
