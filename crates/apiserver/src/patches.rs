//! The four kinds of patches.

pub(crate) mod json;

use jiff::Timestamp;
use knoll_schema::apply::{self as schema_apply, ApplyError};
use serde_json::Value;

use crate::{
    call::{self, Call, WriteOptions},
    fields, object,
    resources::Resource,
    status::{Cause, Status},
};

/// A patch as it was sent.
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows lists by key.
    Strategic(Value),
    /// The fields a manager wants.
    Apply(Value),
}

impl Patch {
    /// Reads the body by its media type.
    ///
    /// # Errors
    /// 415 for other types and for strategic patches of custom resources, 400 when it cannot be parsed.
    pub(crate) async fn read(call: &mut Call) -> Result<Self, Status> {
        let media_type = call.content_type().to_owned();
        let custom = call.resource.is_custom();
        let accepted = if custom {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        };
        let known = match media_type.as_str() {
            "application/strategic-merge-patch+json" => !custom,
            "application/json-patch+json" | "application/merge-patch+json" | "application/apply-patch+yaml" => true,
            _ => false,
        };
        if !known {
            return Err(Status::unsupported_media_type(accepted));
        }
        let bytes = call.read_body().await?;
        let value = call::decode(&media_type, &bytes)?;
        match media_type.as_str() {
            "application/json-patch+json" => json::read(value).map(Patch::Json),
            _ if !value.is_object() => Err(Status::bad_request("the patch must be an object")),
            "application/merge-patch+json" => Ok(Patch::Merge(value)),
            "application/apply-patch+yaml" => Ok(Patch::Apply(value)),
            _ => Ok(Patch::Strategic(value)),
        }
    }

    pub(crate) fn is_apply(&self) -> bool {
        matches!(self, Patch::Apply(_))
    }

    /// The configuration of an apply patch.
    pub(crate) fn into_config(self) -> Value {
        match self {
            Patch::Apply(config) | Patch::Merge(config) | Patch::Strategic(config) => config,
            Patch::Json(_) => Value::Null,
        }
    }

    /// The patched state.
    ///
    /// # Errors
    /// 422 when it does not fit.
    pub(crate) fn apply(&self, resource: &Resource, old: &Value) -> Result<Value, Status> {
        self.apply_to(&resource.group, &resource.version, &resource.kind, old)
    }

    /// The patched state of an object of any type.
    ///
    /// # Errors
    /// 422 when it does not fit.
    pub(crate) fn apply_to(&self, group: &str, version: &str, kind: &str, old: &Value) -> Result<Value, Status> {
        let mut new = old.clone();
        match self {
            Patch::Json(patch) => json::apply(&mut new, patch)?,
            Patch::Merge(patch) => json_patch::merge(&mut new, patch),
            Patch::Strategic(patch) => {
                return strategic(group, version, kind, old, patch);
            }
            Patch::Apply(_) => return Err(Status::unprocessable()),
        }
        Ok(new)
    }
}

fn strategic(group: &str, version: &str, kind: &str, old: &Value, patch: &Value) -> Result<Value, Status> {
    let ty = knoll_schema::lookup(group, version, kind)
        .ok_or_else(|| Status::unsupported_media_type("application/json-patch+json, application/merge-patch+json"))?;
    knoll_schema::strategic_merge(ty, old, patch).map_err(|error| Status::bad_request(error.to_string()))
}

/// What must hold of an apply request.
///
/// # Errors
/// 422 without a field manager, 400 when the configuration carries managed fields or another kind.
pub(crate) fn check_apply(call: &Call, _options: &WriteOptions, config: &Value) -> Result<(), Status> {
    if call.query.get("fieldManager").is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
    }
    if !object::is_empty(config.pointer("/metadata/managedFields")) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// The state after an apply, with the record of who owns what.
///
/// # Errors
/// 409 with every conflict unless forced, 500 when the configuration is not of its type (as clients know it).
pub(crate) fn apply(
    call: &Call,
    options: &WriteOptions,
    live: Option<&Value>,
    config: &Value,
) -> Result<Value, Status> {
    let resource = &call.resource;
    let ty = fields::type_of(resource).ok_or_else(Status::unprocessable)?;
    let api_version = resource.api_version();
    let writer = fields::writer(call, options, &ty, &api_version, Timestamp::now());
    let mut config = config.clone();
    if object::namespace(&config).is_empty() && resource.namespaced {
        object::meta_mut(&mut config).insert("namespace".into(), call.namespace.as_str().into());
    }
    if object::name(&config).is_empty() {
        object::meta_mut(&mut config).insert("name".into(), call.name.as_str().into());
    }
    schema_apply::apply(&writer, live, &config, options.force).map_err(|error| match error {
        ApplyError::ManagedFields => Status::bad_request(error.to_string()),
        ApplyError::Typed { .. } => Status::new(500, "", error.to_string()),
        ApplyError::Conflicts(ref conflicts) => {
            let mut status = Status::new(409, "Conflict", error.to_string());
            for conflict in conflicts {
                status.cause(Cause::other("FieldManagerConflict", conflict.field.clone(), conflict.message()));
            }
            status
        }
    })
}
