//! Computed resources: questions about identities and rights.

mod access;
mod identity;

use std::sync::Arc;

use http::Response;

use crate::{ApiServer, body::Body, call::Call, respond, status::Status};

/// Answers a review.
pub(crate) async fn run(server: &Arc<ApiServer>, mut call: Call) -> Result<Response<Body>, Status> {
    let mut review = call.read_object().await?;
    review["status"] = match call.resource.plural.as_str() {
        "tokenreviews" => identity::token(server, &review)?,
        "selfsubjectreviews" => identity::myself(&call.identity),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            access::check(&call, &review["spec"])?;
            let subject = access::subject(&review["spec"]);
            access::decide(server, &subject, &review["spec"])
        }
        "selfsubjectaccessreviews" => {
            access::check(&call, &review["spec"])?;
            access::decide(server, &call.identity, &review["spec"])
        }
        "selfsubjectrulesreviews" => {
            let namespace = crate::object::text(&review, "/spec/namespace").to_owned();
            if namespace.is_empty() {
                return Err(Status::bad_request("spec.namespace: Required value: whose rules, without a namespace"));
            }
            server.config.authority.rules(&call.identity, &namespace)
        }
        _ => return Err(Status::method_not_allowed()),
    };
    Ok(respond::value(201, &review, call.accept.format))
}
