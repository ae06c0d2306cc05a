//! Fields of objects against their schema: types, unknown ones, and who manages which.

use jiff::Timestamp;
use knoll_schema::{
    apply::{self, Writer},
    ty::TypeRef,
};
use serde_json::Value;

use crate::{
    call::{Call, FieldValidation, WriteOptions},
    resources::{Resource, Subresource},
    status::Status,
};

/// Brings an object into the form its type stores; says which fields nobody knows, or refuses them, as asked.
///
/// # Errors
/// 400 for a value of the wrong type, and for unknown fields in strict requests.
pub(crate) fn check_unknown(
    resource: &Resource,
    object: &mut Value,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let Some(ty) = type_of(resource) else { return Ok(()) };
    let kind = &resource.kind;
    let unknown = knoll_schema::conform(&ty, object).map_err(|error| {
        Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {error}", resource.version))
    })?;
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

/// The type of a resource's objects.
pub(crate) fn type_of(resource: &Resource) -> Option<TypeRef> {
    match resource.custom.as_ref().and_then(|custom| custom.ty.clone()) {
        Some(ty) => Some(ty),
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
