//! `token`: tokens of a ServiceAccount.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use crate::{
    ApiServer, auth,
    authority::TokenOrder,
    body::Body,
    call::Call,
    object, respond,
    status::{Cause, Status},
};

/// Shortest and longest life of a token, in seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

pub(super) async fn create(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let mut request = call.read_object().await?;
    let account = server.core_object("serviceaccounts", &call.namespace, &call.name).ok_or_else(|| call.not_found())?;
    let seconds = object::integer(&request, "/spec/expirationSeconds").unwrap_or(3600);
    if !(SHORTEST..=LONGEST).contains(&seconds) {
        let why = if seconds < SHORTEST {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &call.name, vec![cause]));
    }
    of_node(server, call, &request["spec"]["boundObjectRef"])?;
    let audiences = object::list(&request, "/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned);
    let bound_to = bound_to(server, call, &request["spec"]["boundObjectRef"])?;
    let order = TokenOrder {
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        uid: object::uid(&account).to_owned(),
        audiences: audiences.collect(),
        expiration_seconds: seconds,
        node: bound_to.as_ref().and_then(|bound| node_of(server, call, bound)),
        bound_to,
    };
    let token = server.config.authority.issue(&order)?;
    let spec = object::map_at(&mut request, "spec");
    spec.insert("expirationSeconds".into(), seconds.into());
    spec.insert("audiences".into(), token.audiences.into());
    request["metadata"] = json!({
        "name": call.name,
        "namespace": call.namespace,
        "creationTimestamp": object::seconds(jiff::Timestamp::now()),
    });
    request["status"] = json!({"token": token.token, "expirationTimestamp": object::seconds(token.expires)});
    Ok(respond::value(201, &request, call.accept.format))
}

/// A node gets tokens for the pods that run on it, bound to them.
fn of_node(server: &ApiServer, call: &Call, reference: &Value) -> Result<(), Status> {
    let Some(node) = auth::node_name(&call.identity) else { return Ok(()) };
    let refuse = |why: &str| Err(Status::forbidden("", "serviceaccounts", &call.name, why));
    if object::text(reference, "/kind") != "Pod" || object::text(reference, "/uid").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    let pod = server.core_object("pods", &call.namespace, object::name_of(reference));
    if pod.is_none_or(|pod| object::text(&pod, "/spec/nodeName") != node) {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

/// The object that the token dies with; it must exist.
fn bound_to(server: &ApiServer, call: &Call, reference: &Value) -> Result<Option<(String, String, String)>, Status> {
    if reference.is_null() {
        return Ok(None);
    }
    let (kind, name) = (object::text(reference, "/kind"), object::name_of(reference));
    let (plural, namespace) = match kind {
        "Pod" => ("pods", call.namespace.as_str()),
        "Secret" => ("secrets", call.namespace.as_str()),
        "Node" => ("nodes", ""),
        other => return Err(Status::bad_request(format!("cannot bind token to object of type {other}"))),
    };
    let object = server.core_object(plural, namespace, name).ok_or_else(|| Status::not_found("", plural, name))?;
    if kind == "Pod" && object::text(&object, "/spec/serviceAccountName") != call.name {
        let account = &call.name;
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let uid = object::text(reference, "/uid");
    if !uid.is_empty() && uid != object::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", plural, name, &why));
    }
    Ok(Some((kind.into(), name.into(), object::uid(&object).into())))
}

/// The node that runs the pod a token is bound to.
fn node_of(server: &ApiServer, call: &Call, (kind, name, _): &(String, String, String)) -> Option<(String, String)> {
    let pod = server.core_object("pods", &call.namespace, name).filter(|_| kind == "Pod")?;
    let node = object::text(&pod, "/spec/nodeName");
    let object = server.core_object("nodes", "", node)?;
    Some((node.to_owned(), object::uid(&object).to_owned()))
}
