//! Fields of objects against their schema: types, unknown ones, and who manages which.

use jiff::Timestamp;
use knoll_schema::{
    apply::{self, Writer},
    crd::{Problem, Schema},
    ty::{Type, TypeRef},
};
use serde_json::Value;

use crate::{
    call::{Call, FieldValidation, WriteOptions},
    object,
    resources::{Resource, Subresource},
    status::{Cause, Status},
};

/// Brings an object into the form its type stores; says which fields nobody knows, or refuses them, as asked.
///
/// # Errors
/// 400 (for custom resources 422) for a value of the wrong type, and 400 for unknown fields in strict requests.
pub(crate) fn check_unknown(
    resource: &Resource,
    object: &mut Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let kind = &resource.kind;
    let conformed = match structural(resource) {
        Some(schema) => schema.prune(object),
        None => match type_of(resource) {
            Some(ty) => {
                if resource.is_custom() {
                    refuse_misfits(resource, &ty, object)?;
                }
                knoll_schema::conform(&ty, object)
            }
            None => return Ok(()),
        },
    };
    let mut unknown = conformed.map_err(|error| {
        Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {error}", resource.version))
    })?;
    unknown.extend(options.duplicates.iter().cloned());
    if unknown.is_empty() {
        return Ok(());
    }
    match options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(unknown),
        FieldValidation::Strict => {
            let list = unknown.join(", ");
            let head = if resource.is_custom() {
                String::new()
            } else {
                format!("{kind} in version {:?} cannot be handled as a {kind}: ", resource.version)
            };
            return Err(Status::bad_request(format!("{head}strict decoding error: {list}")));
        }
    }
    Ok(())
}

/// 422 for values of the wrong type, each told by its path, as a schema tells them.
fn refuse_misfits(resource: &Resource, ty: &Type, object: &Value) -> Result<(), Status> {
    let problems = knoll_schema::misfits(ty, object);
    if problems.is_empty() {
        return Ok(());
    }
    Err(resource.invalid(object::name(object), causes(problems)))
}

fn causes(problems: Vec<Problem>) -> Vec<Cause> {
    problems.into_iter().map(|p| Cause::other(p.reason.as_str(), p.field, p.message)).collect()
}

fn structural(resource: &Resource) -> Option<&Schema> {
    resource.custom.as_ref()?.structural.as_ref()
}

/// Fills in what a custom resource's schema says of absent fields.
///
/// # Errors
/// 413 when that comes to more than an object may be.
pub(crate) fn fill_defaults(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    let Some(schema) = structural(resource) else { return Ok(()) };
    let too_large = |exceeded| Status::too_large(&format!("the object with the defaults of its schema {exceeded}"));
    schema.fill_defaults(object).map_err(too_large)
}

/// Where a custom resource does not fit its schema.
pub(crate) fn misfits(resource: &Resource, object: &Value) -> Vec<Cause> {
    let Some(schema) = structural(resource) else { return Vec::new() };
    causes(schema.validate(object))
}

/// The type of a resource's objects.
pub(crate) fn type_of(resource: &Resource) -> Option<TypeRef> {
    match structural(resource) {
        Some(schema) => Some(schema.ty().clone()),
        None => knoll_schema::lookup_ref(&resource.group, &resource.version, &resource.kind),
    }
}

/// Who writes, and through which part.
pub(crate) fn writer<'a>(
    call: &'a Call,
    options: &'a WriteOptions,
    ty: &'a TypeRef,
    api_version: &'a str,
    now: Timestamp,
) -> Writer<'a> {
    let part = call.subresource.map(Subresource::path).unwrap_or_default();
    let ignored: &[&[&str]] = match call.subresource {
        Some(Subresource::Status | Subresource::Approval) => &[&["spec"], &["metadata"], &["data"]],
        _ if call.resource.has(Subresource::Status) => &[&["status"]],
        _ => &[],
    };
    Writer {
        ty,
        api_version,
        kind: &call.resource.kind,
        manager: &options.field_manager,
        subresource: part,
        ignored,
        now,
    }
}

/// Kinds whose writers are programs that own whole objects: a record of owners would only cost.
fn is_untracked(resource: &Resource) -> bool {
    matches!(resource.kind.as_str(), "Event" | "Lease" | "Endpoints" | "EndpointSlice")
}

/// Notes which manager owns which fields after this write.
pub(crate) fn track(call: &Call, options: &WriteOptions, old: Option<&Value>, new: &mut Value, now: Timestamp) {
    if is_untracked(&call.resource) || options.applied {
        return;
    }
    let Some(ty) = type_of(&call.resource) else { return };
    let api_version = call.resource.api_version();
    let writer = writer(call, options, &ty, &api_version, now);
    *new = apply::track(&writer, old, std::mem::take(new));
}
