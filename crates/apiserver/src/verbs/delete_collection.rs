//! DELETE of a collection.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use super::{delete, list};
use crate::{ApiServer, body::Body, call::Call, respond, selectors::Selectors, status::Status};

/// Deletes what matches, each as a single deletion would; answers with the list.
pub(crate) async fn delete_collection(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = delete::DeleteOptions::read(call).await?;
    let selectors = Selectors::parse(&call.query, &call.resource)?;
    let found = list::matching(server, call, &selectors).await?;
    let mut items: Vec<Value> = Vec::new();
    let mut told = 0_usize;
    for key in found {
        let mut parts = key.rsplit('/');
        parts.next().unwrap_or_default().clone_into(&mut call.name);
        parts.next().unwrap_or_default().clone_into(&mut call.namespace);
        match delete::run(server, call, &options).await {
            // Of many large ones, the first.
            Ok(deleted) if told <= list::PAGE => {
                told = told.saturating_add(knoll_schema::limits::measure(&deleted.object).bytes);
                items.push((*deleted.object).clone());
            }
            Ok(_) => tokio::task::yield_now().await,
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let resource = &call.resource;
    let answer = json!({
        "kind": resource.list_kind,
        "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": server.store.revision().to_string()},
        "items": items,
    });
    let mut response = respond::value(200, &answer, call.accept.format);
    respond::warn(&mut response, &options.warnings);
    Ok(response)
}
