//! Who sends what to whom, as an operator asks for it: `GET /graph?namespace=NAME&most=N` of the admin endpoint; of all
//! namespaces without a name.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use knoll_drive::Inspect;
use serde_json::json;

use super::operations::{Asked, Refused, document, plain};
use crate::admin::{Operation, Sources};

/// Objects in one answer, when nothing is said, and at most.
const MOST: usize = 1000;
const MOST_AT_ALL: usize = 10_000;

/// Draws it for an operator.
pub(crate) fn attend(sources: &mut Sources, inspect: Inspect) {
    sources.operate("graph", move |operation| {
        let inspect = inspect.clone();
        Box::pin(
            async move { draw(&inspect, &operation).await.unwrap_or_else(|(status, why)| plain(status, why + "\n")) },
        )
    });
}

async fn draw(inspect: &Inspect, operation: &Operation) -> Result<Response<Full<Bytes>>, Refused> {
    if operation.method != Method::GET || !matches!(operation.path.as_str(), "" | "/") {
        return Err((StatusCode::NOT_FOUND, "there is: GET /graph".to_owned()));
    }
    let asked = Asked::of(operation.query.as_deref().unwrap_or_default());
    let most = asked.most(MOST, MOST_AT_ALL)?;
    let graph = inspect.graph(asked.value("namespace"), most).await;
    let graph = graph.ok_or((StatusCode::SERVICE_UNAVAILABLE, "the controllers do not answer now".to_owned()))?;
    Ok(document(&json!(graph)))
}
