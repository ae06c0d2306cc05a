//! May somebody do something?

use serde_json::{Value, json};

use crate::{
    ApiServer,
    attributes::{Attributes, Decision, UserInfo},
    call::Call,
    object,
    status::{Cause, Status},
};

/// Whom a review asks about.
pub(super) fn subject(spec: &Value) -> UserInfo {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    UserInfo {
        user: object::text(spec, "/user").into(),
        uid: object::text(spec, "/uid").into(),
        groups: strings(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), strings(v))).collect(),
        issued: None,
    }
}

/// One thing is asked; where a subject is to be named it is; and a local review asks about its own namespace.
///
/// # Errors
/// 422 that names the field.
pub(super) fn check(call: &Call, spec: &Value) -> Result<(), Status> {
    let resource = &call.resource;
    let mut causes = Vec::new();
    let (of_resource, of_path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let mut refuse = |field: &str, value: &Value, why: &str| causes.push(Cause::invalid(field, value, why));
    if of_resource && of_path {
        let why = "cannot be specified in combination with resourceAttributes";
        refuse("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why);
    }
    if !of_resource && !of_path {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        refuse("spec.resourceAttributes", &Value::Null, why);
    }
    let of_self = resource.plural.starts_with("self");
    if !of_self && object::is_empty(spec.get("user")) && object::is_empty(spec.get("groups")) {
        refuse("spec.user", &"".into(), "at least one of user or group must be specified");
    }
    if resource.namespaced && of_path {
        refuse("spec.nonResourceAttributes", &spec["nonResourceAttributes"], "disallowed on this kind of request");
    }
    let asked = object::text(spec, "/resourceAttributes/namespace");
    if resource.namespaced && of_resource && asked != call.namespace {
        let why = "must match metadata.namespace";
        refuse("spec.resourceAttributes.namespace", &asked.into(), why);
    }
    if causes.is_empty() { Ok(()) } else { Err(resource.invalid("", causes)) }
}

/// What is asked.
fn attributes(spec: &Value) -> Attributes {
    let of = |part: &str, field: &str| object::text(&spec[part], &format!("/{field}")).to_owned();
    if spec["nonResourceAttributes"].is_object() {
        let text = |field| of("nonResourceAttributes", field);
        return Attributes { verb: text("verb"), path: text("path"), ..Attributes::default() };
    }
    let text = |field| of("resourceAttributes", field);
    Attributes {
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: String::new(),
    }
}

/// The status of an access review.
pub(super) fn decide(server: &ApiServer, identity: &UserInfo, spec: &Value) -> Value {
    let (allowed, reason) = match server.config.authority.authorize(identity, &attributes(spec)) {
        Decision::Allow { reason } => (true, reason),
        Decision::Deny { reason } => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}
