//! `finalize`: a namespace's own finalizers, which hold its deletion until it is empty.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use crate::{ApiServer, body::Body, call::Call, object, respond, status::Status, verbs::write};

pub(super) async fn update(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let wanted = call.read_object().await?;
    let call = &*call;
    let mut change = |old: &Value| {
        let mut new = old.clone();
        let finalizers = wanted.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
        let spec = object::map_at(&mut new, "spec");
        if object::is_empty(Some(&finalizers)) {
            spec.remove("finalizers");
        } else {
            spec.insert("finalizers".into(), finalizers);
        }
        match object::resource_version(&wanted) {
            "" => object::meta_mut(&mut new).remove("resourceVersion"),
            version => object::meta_mut(&mut new).insert("resourceVersion".into(), version.into()),
        };
        Ok(new)
    };
    let done = write::update(server, call, &options, &mut change).await?;
    Ok(respond::object(call, 200, &done.object, &done.warnings))
}
