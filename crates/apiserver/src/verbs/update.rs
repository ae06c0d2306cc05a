//! PUT of one object.

use std::sync::Arc;

use http::Response;
use serde_json::Value;

use super::write;
use crate::{
    ApiServer,
    body::Body,
    call::Call,
    object, respond,
    status::{Cause, Status},
};

/// Replaces an object; makes it where the resource allows that.
pub(crate) async fn update(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let mut wanted = call.read_object().await?;
    let options = call.write_options()?;
    check_name(call, &mut wanted)?;
    if server.store.get(&call.key()).is_none() {
        if !call.resource.create_on_update {
            return Err(call.not_found());
        }
        server.authorize(&call.identity, &call.attributes_of_create())?;
        object::meta_mut(&mut wanted).remove("resourceVersion");
        let done = write::create(server, call, &options, wanted).await?;
        return Ok(respond::object(call, 201, &done.object, &done.warnings));
    }
    if !call.resource.unconditional_update && object::resource_version(&wanted).is_empty() {
        let cause = Cause::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
        let kind = if call.resource.is_custom() { &call.resource.plural } else { &call.resource.kind };
        return Err(Status::invalid(&call.resource.group, kind, &call.name, vec![cause]));
    }
    let (mut wanted, call) = (Some(wanted), &*call);
    let done = write::update(server, call, &options, &mut |old| next(call, &mut wanted, old)).await?;
    Ok(respond::object(call, 200, &done.object, &done.warnings))
}

/// The wanted state, again for every lost race: what was computed from a version that is no more has lost for good, and
/// need not be kept for another try.
fn next(call: &Call, wanted: &mut Option<Value>, old: &Value) -> Result<Value, Status> {
    // `0` is any version, too.
    if wanted.as_ref().is_some_and(|wanted| matches!(object::resource_version(wanted), "" | "0")) {
        return Ok(wanted.clone().unwrap_or_default());
    }
    wanted.take().ok_or_else(|| Status::modified(&call.resource.group, &call.resource.plural, object::name(old)))
}

/// The name in the body must be that of the path, or absent.
pub(crate) fn check_name(call: &Call, object: &mut Value) -> Result<(), Status> {
    let given = object::name(object);
    if given.is_empty() {
        object::meta_mut(object).insert("name".into(), call.name.as_str().into());
        return Ok(());
    }
    if given != call.name {
        let name = &call.name;
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}
