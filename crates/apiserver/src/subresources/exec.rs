//! `exec` and `attach`: a command in a container, or its own streams.

use std::sync::Arc;

use http::Response;
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::log;
use crate::{
    ApiServer,
    body::Body,
    call::Call,
    node_backend::{ContainerRef, ExecRequest},
    object, panics,
    resources::Subresource,
    status::Status,
    streams::{channels, web_socket},
};

/// Opens the streams. What can be told without the machine is told before the connection changes its protocol; why a
/// command does not start, on its channel of errors: clients take any other answer for a server without WebSocket.
pub(super) async fn open(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    // A WebSocket begins with GET, but it runs a command: who may only read pods may not.
    server.authorize(&call.identity, &call.attributes_of_create())?;
    let pod = server.core_object("pods", &call.namespace, &call.name).ok_or_else(|| call.not_found())?;
    let container = log::container(&pod, call.query.get("container"))?;
    let phase = object::text(&pod, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Status::bad_request(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let query = &call.query;
    let request = ExecRequest {
        target: ContainerRef {
            namespace: call.namespace.clone(),
            pod: call.name.clone(),
            uid: object::uid(&pod).to_owned(),
            container,
        },
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        tty: query.flag("tty"),
    };
    if request.command.is_empty() && call.subresource == Some(Subresource::Exec) {
        return Err(Status::bad_request("you must specify at least 1 command for the container"));
    }
    if !web_socket::is_wanted(&call.headers) {
        return Err(Status::bad_request("Upgrade request required: only WebSocket is spoken"));
    }
    let protocol = web_socket::protocol(&call.headers, channels::PROTOCOLS).ok_or_else(|| {
        Status::bad_request(format!("the client must offer one of {}", channels::PROTOCOLS.join(", ")))
    })?;
    let answer = web_socket::switch(&call.headers, protocol)?;
    let upgrade =
        call.take_upgrade().ok_or_else(|| Status::bad_request("this connection cannot change its protocol"))?;
    let started = server.config.node.exec(request).await;
    let (place, counters) = (call.take_place(), server.counters.clone());
    tokio::spawn(async move {
        // Held for as long as the command is.
        let _place = place;
        match upgrade.await {
            Ok(socket) => {
                let carried = channels::carry(TokioIo::new(socket), started);
                panics::contain(&counters, "carry a command's streams", carried).await;
            }
            Err(error) => debug!(%error, "a connection did not change its protocol"),
        }
    });
    Ok(answer)
}
