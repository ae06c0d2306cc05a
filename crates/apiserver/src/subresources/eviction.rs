//! `eviction`: a deletion that disruption budgets may refuse.

use std::sync::Arc;

use http::Response;
use serde_json::Value;

use crate::{
    ApiServer,
    body::Body,
    call::Call,
    label_selector::LabelSelector,
    object, respond,
    status::{self, Cause, Status},
    verbs::delete::{self, DeleteOptions},
};

/// Where disruption budgets are kept, by namespace.
pub(crate) const BUDGETS: &str = "/policy/poddisruptionbudgets/";

pub(super) async fn create(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = call.write_options()?;
    let eviction = call.read_object().await?;
    let pod = server.core_object("pods", &call.namespace, &call.name).ok_or_else(|| call.not_found())?;
    let finished = matches!(object::text(&pod, "/status/phase"), "Succeeded" | "Failed" | "Pending");
    if !finished && !object::is_deleting(&pod) {
        ask_budgets(server, &call.namespace, &pod)?;
    }
    let delete = DeleteOptions {
        dry_run: options.dry_run,
        grace: object::integer(&eviction, "/deleteOptions/gracePeriodSeconds"),
        uid: object::text(&eviction, "/deleteOptions/preconditions/uid").into(),
        ..DeleteOptions::default()
    };
    delete::run(server, call, &delete).await?;
    let mut done = status::success();
    done["code"] = 201.into();
    Ok(respond::value(201, &done, call.accept.format))
}

/// 429 when a budget that covers the pod allows no disruption.
fn ask_budgets(server: &ApiServer, namespace: &str, pod: &Value) -> Result<(), Status> {
    let snapshot = server.store.snapshot();
    for entry in snapshot.range(&format!("{BUDGETS}{namespace}/"), None) {
        let budget = server.trees.of(&entry.value, entry.revision)?;
        let covers = LabelSelector::from_object(&budget["spec"]["selector"])
            .is_some_and(|s| s.matches(&pod["metadata"]["labels"]));
        if !covers || object::integer(&budget, "/status/disruptionsAllowed").unwrap_or(0) > 0 {
            continue;
        }
        let mut refusal =
            Status::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
        let why = format!(
            "The disruption budget {} needs {} healthy pods and has {} currently",
            object::name(&budget),
            object::integer(&budget, "/status/desiredHealthy").unwrap_or(0),
            object::integer(&budget, "/status/currentHealthy").unwrap_or(0),
        );
        refusal.cause(Cause::other("DisruptionBudget", "", why));
        return Err(refusal);
    }
    Ok(())
}
