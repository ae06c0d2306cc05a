//! SinkBindings: what is written while there is one for it is bound at once, as by upstream's webhook. Pods of a Job are told
//! in no other way: its template does not change any more.
//!
//! Which binding counts is what its controller says, too: the oldest, and not for what another controller makes of
//! something else, which is bound by that; but for Jobs, of which there is a new one each time.

use std::time::Duration;

use knoll_api::{
    k8s_openapi::api::core::v1::PodSpec,
    labels::eventing::TRUST_BUNDLE,
    sources::{
        SinkBinding,
        bound::{self, Bound},
    },
};
use serde_json::Value;

use super::{Admission, Operation, pod_security, promises};
use crate::{label_selector::LabelSelector, object, view::View};

const BINDINGS: &str = "/sources.knative.dev/sinkbindings";
/// How long a new Job waits for where its binding leads, and how often that is looked for.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// Binds what is written. A Job that is there stays bound as it was when it was made.
pub(crate) async fn bind(admission: &Admission<'_>, object: &mut Value) {
    let resource = admission.resource;
    let Some(template) = pod_security::template(&resource.group, &resource.plural) else { return };
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
        if let Some(there) = old.pointer(&pod).and_then(read) {
            change(object, &pod, |pod| bound::keep(&there, pod));
        }
        return;
    }
    let Some(binding) = resolved(admission, object, is_job).await else { return };
    let bound = Bound::of(&binding, bundles(admission.view, &binding));
    change(object, &pod, |pod| bound.put(pod));
}

/// The binding that counts, once it says where it leads and has its token: a new Job waits for that.
async fn resolved(admission: &Admission<'_>, object: &Value, is_job: bool) -> Option<SinkBinding> {
    let mut left = if is_job && !admission.dry_run { PATIENCE } else { Duration::ZERO };
    loop {
        let binding = oldest(admission, object, is_job)?;
        let has_token = !awaits_token(&binding);
        if binding.status.source.sink_uri.is_some() && (has_token || left.is_zero()) {
            return Some(binding);
        }
        let is_told = has_token && binding.status.source.common.observed_generation == binding.metadata.generation;
        if is_told || left.is_zero() {
            return None;
        }
        tokio::time::sleep(LOOK).await;
        left = left.saturating_sub(LOOK);
    }
}

/// Whether the token that its containers send is still to come.
fn awaits_token(binding: &SinkBinding) -> bool {
    let conditions = &binding.status.source.common.conditions;
    conditions.iter().any(|condition| condition.type_ == "OIDCTokenSecretCreated" && condition.status == "Unknown")
}

/// The oldest binding of an object, if that is not another controller's to bind.
fn oldest(admission: &Admission<'_>, object: &Value, is_job: bool) -> Option<SinkBinding> {
    let view = admission.view;
    let (snapshot, prefix) = (view.snapshot(), format!("{BINDINGS}/{}/", admission.namespace));
    let all = snapshot.range(&prefix, None);
    let all = all.filter_map(|entry| view.tree(&entry));
    let choosing = all.filter(|binding| !object::is_deleting(binding) && chooses(admission, binding, object));
    let age = |binding: &Value| {
        let text = |pointer| object::text(binding, pointer).to_owned();
        (text("/metadata/creationTimestamp"), text("/metadata/name"))
    };
    let oldest = choosing.min_by_key(|binding| age(binding))?;
    let may = is_job || controller(object).is_none_or(|uid| controller(&oldest) == Some(uid));
    may.then(|| serde_json::from_value((*oldest).clone()).ok()).flatten()
}

/// Whether a binding means the object.
fn chooses(admission: &Admission<'_>, binding: &Value, object: &Value) -> bool {
    let subject = &binding["spec"]["subject"];
    let group = object::text(subject, "/apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    let is_kind = group == admission.resource.group && object::text(subject, "/kind") == admission.resource.kind;
    let is_chosen = match object::text(subject, "/name") {
        "" => LabelSelector::from_object(&subject["selector"])
            .is_some_and(|selector| selector.matches(&object["metadata"]["labels"])),
        name => name == object::name(object),
    };
    is_kind && is_chosen
}

fn controller(object: &Value) -> Option<&str> {
    let owners = object::list(object, "/metadata/ownerReferences");
    owners.iter().find(|owner| owner["controller"] == true).map(|owner| object::text(owner, "/uid"))
}

/// Names of the ConfigMaps whose certificates are to be trusted: the binding's own copies, else what its namespace has itself.
fn bundles(view: View<'_>, binding: &SinkBinding) -> Vec<String> {
    let (meta, snapshot) = (&binding.metadata, view.snapshot());
    let prefix = format!("/core/configmaps/{}/", meta.namespace.as_deref().unwrap_or_default());
    let maps = snapshot.range(&prefix, None);
    let maps = maps.filter_map(|entry| view.tree(&entry));
    let labelled: Vec<_> = maps.filter(|map| map["metadata"]["labels"][TRUST_BUNDLE] == "true").collect();
    let is_own = |map: &&std::sync::Arc<Value>| {
        let owners = object::list(map, "/metadata/ownerReferences");
        owners.iter().any(|owner| owner["uid"].as_str() == meta.uid.as_deref())
    };
    let own: Vec<String> = labelled.iter().filter(is_own).map(|map| object::name(map).to_owned()).collect();
    if own.is_empty() { labelled.iter().map(|map| object::name(map).to_owned()).collect() } else { own }
}

fn read(pod: &Value) -> Option<PodSpec> {
    serde_json::from_value(pod.clone()).ok()
}

/// Changes what of a pod a binding changes. One that cannot be read is refused later, with reasons.
fn change(object: &mut Value, pod: &str, change: impl FnOnce(&mut PodSpec)) {
    let Some(there) = object.pointer_mut(pod) else { return };
    let Some(mut pod) = read(there) else { return };
    change(&mut pod);
    let changed = serde_json::to_value(pod).unwrap_or_default();
    for list in ["initContainers", "containers"] {
        let containers = there.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, changed) in containers.zip(object::list(&changed, &format!("/{list}"))) {
            put(container, changed, &["env", "volumeMounts"]);
        }
    }
    put(there, &changed, &["volumes"]);
}

fn put(into: &mut Value, changed: &Value, fields: &[&str]) {
    let Some(into) = into.as_object_mut() else { return };
    for field in fields {
        match changed.get(field) {
            Some(value) => drop(into.insert((*field).to_owned(), value.clone())),
            None => drop(into.remove(*field)),
        }
    }
}
