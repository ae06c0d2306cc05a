//! Who sends what to whom, as an operator asks for it: `GET /graph?namespace=NAME&most=N` of the admin endpoint; of all
//! namespaces without a name.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use knoll_drive::Inspect;
use serde_json::json;

use super::operations::{Asked, Refused, document, plain};
use crate::admin::{Operation, Sources};

/// Objects in one answer. The control loop draws them in one turn, and wakes nobody meanwhile: some milliseconds.
const MOST: usize = 1000;

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
    let most = asked.most(MOST, MOST)?;
    let graph = inspect.graph(asked.value("namespace"), most).await;
    let graph = graph.ok_or((StatusCode::SERVICE_UNAVAILABLE, "the controllers do not answer now".to_owned()))?;
    Ok(document(&json!(graph)))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http::HeaderMap;

    use super::*;

    #[tokio::test]
    async fn no_more_is_asked_for_than_the_control_loop_draws_in_a_turn() {
        let asked = async |query: &str| {
            let operation = Operation {
                method: Method::GET,
                path: String::new(),
                query: Some(query.to_owned()),
                headers: HeaderMap::new(),
                body: Bytes::new(),
            };
            // Nobody draws: whoever is let through waits for that.
            let inspect = Inspect::default();
            draw(&inspect, &operation).now_or_never().map(|drawn| drawn.map(drop).map_err(|(status, _)| status))
        };
        assert_eq!(asked("most=1000").await, None);
        for query in ["most=1001", "most=10000", "most=0"] {
            assert_eq!(asked(query).await, Some(Err(StatusCode::BAD_REQUEST)), "{query}");
        }
    }
}
