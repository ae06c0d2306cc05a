//! May somebody do something?

use serde_json::{Value, json};

use crate::{
    ApiServer,
    attributes::{Attributes, Decision, Identity},
    call::Call,
    object,
    status::{Cause, Status},
};

/// Whom a review asks about.
pub(super) fn subject(spec: &Value) -> Identity {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    Identity {
        user: object::text(spec, "/user").into(),
        uid: object::text(spec, "/uid").into(),
        groups: strings(&spec["groups"]),
        extra: spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), strings(v))).collect(),
        issued: None,
    }
}

/// Whom a review asks about must be said; a local one asks about its own namespace.
pub(super) fn check(call: &Call, spec: &Value) -> Result<(), Status> {
    let resource = &call.resource;
    if object::is_empty(spec.get("user")) && object::is_empty(spec.get("groups")) {
        let why = "at least one of user or group must be specified";
        return Err(resource.invalid("", vec![Cause::invalid("spec.user", &"".into(), why)]));
    }
    if spec["resourceAttributes"].is_object() && spec["nonResourceAttributes"].is_object() {
        let why = "cannot be specified in combination with resourceAttributes";
        let cause = Cause::invalid("spec.nonResourceAttributes", &"".into(), why);
        return Err(resource.invalid("", vec![cause]));
    }
    if !resource.namespaced {
        return Ok(());
    }
    let why = if spec["nonResourceAttributes"].is_object() {
        "disallowed on this kind of request".to_owned()
    } else if object::text(spec, "/resourceAttributes/namespace") != call.namespace {
        format!("spec.resourceAttributes.namespace must match namespace: {}", call.namespace)
    } else {
        return Ok(());
    };
    Err(Status::bad_request(why))
}

/// The status of an access review.
pub(super) fn decide(server: &ApiServer, identity: &Identity, spec: &Value) -> Result<Value, Status> {
    let attributes = if spec["resourceAttributes"].is_object() {
        let text = |field: &str| object::text(&spec["resourceAttributes"], &format!("/{field}")).to_owned();
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
    } else if spec["nonResourceAttributes"].is_object() {
        let text = |field: &str| object::text(&spec["nonResourceAttributes"], &format!("/{field}")).to_owned();
        Attributes { verb: text("verb"), path: text("path"), ..Attributes::default() }
    } else {
        return Err(Status::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    };
    let (allowed, reason) = match server.config.authority.authorize(identity, &attributes) {
        Decision::Allow { reason } => (true, reason),
        Decision::Deny { reason } => (false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    Ok(status)
}
