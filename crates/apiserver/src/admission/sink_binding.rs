//! SinkBindings: what is written while there is one for it is bound at once, as by upstream's webhook. Pods of a Job are told
//! in no other way: its template does not change any more.
//!
//! Which binding counts is what its controller says, too: the oldest, and not for what another controller makes of
//! something else, which is bound by that; but for Jobs, of which there is a new one each time.

use std::time::Duration;

use knoll_api::{
    Kind,
    k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::OwnerReference},
    sources::{
        SinkBinding,
        bound::{self, Bound},
    },
};
use knoll_store::Watch;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::Instant;

use super::{Admission, Operation, pod_security, promises};
use crate::{bindings::BINDINGS, object, view::View};

/// How long a new Job waits for where its binding leads.
const PATIENCE: Duration = Duration::from_secs(2);

/// Binds what is written. A Job that is there stays bound as it was when it was made.
pub(crate) async fn bind(admission: &Admission<'_>, object: &mut Value) {
    let resource = admission.resource;
    let Some(template) = template(admission, object) else { return };
    if admission.subresource.is_some() || object::is_deleting(object) {
        return;
    }
    let pod = format!("{template}/spec");
    let is_job = (resource.group.as_str(), resource.plural.as_str()) == ("batch", "jobs");
    // Controllers write what they read of bindings themselves, and may know more than is stored.
    if !is_job && promises::is_own(&admission.identity.user) {
        return;
    }
    if let (true, Operation::Update, Some(old)) = (is_job, admission.operation, admission.old) {
        let there = old.pointer(&pod).and_then(|there| PodSpec::deserialize(there).ok());
        if let (Some(there), Some(pod)) = (there, object.pointer_mut(&pod)) {
            bound::change(pod, |pod| bound::keep(&there, pod));
        }
        return;
    }
    let Some(binding) = resolved(admission, object, is_job).await else { return };
    let bound = Bound::of(&binding, bundles(admission.view, &binding));
    if let Some(pod) = object.pointer_mut(&pod) {
        // One that cannot be read is refused later, with reasons.
        bound::change(pod, |pod| bound.put(pod));
    }
}

/// Where an object has a template of pods: custom resources of users' own where most have it.
fn template(admission: &Admission<'_>, object: &Value) -> Option<&'static str> {
    let resource = admission.resource;
    let is_users = resource.is_custom() && Kind::in_any_version(&resource.group, &resource.kind).is_none();
    let is_podspecable = || object.pointer("/spec/template/spec/containers").is_some_and(Value::is_array);
    pod_security::template(&resource.group, &resource.plural)
        .or_else(|| (is_users && is_podspecable()).then_some("/spec/template"))
}

/// The binding that counts, once it says where it leads and has its token: a new Job waits for that.
async fn resolved(admission: &Admission<'_>, object: &Value, is_job: bool) -> Option<SinkBinding> {
    let patience = if is_job && !admission.dry_run { PATIENCE } else { Duration::ZERO };
    let until = Instant::now() + patience;
    loop {
        let (binding, changes) = oldest(admission, object, is_job)?;
        let (has_token, is_late) = (!awaits_token(&binding), Instant::now() >= until);
        if binding.status.source.sink_uri.is_some() && (has_token || is_late) {
            return Some(binding);
        }
        let is_told = has_token && binding.status.source.common.observed_generation == binding.metadata.generation;
        if is_told || is_late {
            return None;
        }
        // When something comes of it, or nothing for too long, it is looked at again.
        match tokio::time::timeout_at(until, changes?.next()).await {
            Ok(Ok(Some(_))) | Err(_) => {}
            Ok(Ok(None) | Err(_)) => return None,
        }
    }
}

/// Whether the token that its containers send is still to come.
fn awaits_token(binding: &SinkBinding) -> bool {
    let conditions = &binding.status.source.common.conditions;
    conditions.iter().any(|condition| condition.type_ == "OIDCTokenSecretCreated" && condition.status == "Unknown")
}

/// The oldest binding of an object, if that is not another controller's to bind, and its changes from now on.
fn oldest(admission: &Admission<'_>, object: &Value, is_job: bool) -> Option<(SinkBinding, Option<Watch>)> {
    let (view, resource) = (admission.view, admission.resource);
    let (namespace, api_version) = (admission.namespace, resource.api_version());
    let name = view.bindings().oldest(namespace, &api_version, &resource.kind, object)?;
    let key = format!("{BINDINGS}{namespace}/{name}");
    let changes = view.changes(&key);
    let binding: SinkBinding = serde_json::from_value((*view.object(&key)?).clone()).ok()?;
    let controller = controller(object);
    let may = is_job || controller.is_none_or(|owner| bound::may_bind(&owner, &binding));
    may.then_some((binding, changes))
}

fn controller(object: &Value) -> Option<OwnerReference> {
    let owners = object::list(object, "/metadata/ownerReferences");
    let controller = owners.iter().find(|owner| owner["controller"] == true)?;
    serde_json::from_value(controller.clone()).ok()
}

/// Names of the ConfigMaps whose certificates are to be trusted.
fn bundles(view: View<'_>, binding: &SinkBinding) -> Vec<String> {
    let meta = &binding.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    view.bindings().bundles(&text(&meta.namespace), &text(&meta.uid))
}
