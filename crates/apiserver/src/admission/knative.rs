//! Knative's kinds: the rules of its webhooks, in process and in its words.

use knoll_api::{
    Kind,
    admission::{self as rules, Context},
    config::{ConfigBundle, eventing::EventingBundle},
    field_error::{FieldError, FieldErrors},
};
use serde_json::Value;

use super::{Admission, Operation};
use crate::{
    attributes::{Attributes, Decision},
    object,
    status::Status,
};

pub(crate) fn kind(admission: &Admission<'_>) -> Option<Kind> {
    let resource = admission.resource;
    resource.custom.as_ref().filter(|c| c.knative)?;
    Kind::in_any_version(&resource.group, &resource.kind)
}

fn operation(admission: &Admission<'_>) -> rules::Operation {
    match admission.operation {
        Operation::Create => rules::Operation::Create,
        Operation::Update => rules::Operation::Update,
    }
}

/// Whether the write only helps an object go that is being deleted: its spec stays. The rules may have changed
/// since it was written (a feature was switched off), and must not keep it from going.
pub(crate) fn is_leaving(admission: &Admission<'_>, object: &Value) -> bool {
    let going = |old: &&Value| !object::is_empty(old.pointer("/metadata/deletionTimestamp"));
    admission.old.filter(going).is_some_and(|old| old.get("spec") == object.get("spec"))
}

fn context<'a>(admission: &'a Admission<'_>, config: &'a ConfigBundle, eventing: &'a EventingBundle) -> Context<'a> {
    Context { config, eventing, user: &admission.identity.user, now: jiff::Timestamp::now() }
}

/// Fills in what the writer left out.
pub(crate) fn default(admission: &Admission<'_>, object: &mut Value) {
    let Some(kind) = kind(admission).filter(|_| !is_leaving(admission, object)) else { return };
    let (config, eventing) = (admission.view.knative(), admission.view.eventing());
    let context = context(admission, &config, &eventing);
    rules::default(kind, operation(admission), object, admission.old, &context);
}

/// Refuses what the rules do not allow, as the webhook would; its warnings go to the client.
pub(crate) fn validate(admission: &mut Admission<'_>, object: &Value) -> Result<(), Status> {
    let Some(kind) = kind(admission).filter(|_| !is_leaving(admission, object)) else { return Ok(()) };
    let (config, eventing) = (admission.view.knative(), admission.view.eventing());
    let context = context(admission, &config, &eventing);
    let (mut errors, warnings) = rules::validate(kind, operation(admission), object, admission.old, &context);
    if eventing.features.cross_namespace_event_links.is_enabled() {
        errors.also(far_link(admission, kind, object));
    }
    admission.warnings.extend(warnings.merged().iter().map(ToString::to_string));
    refuse(kind, &errors)
}

/// The refusal of an object with these problems.
pub(crate) fn refuse(kind: Kind, errors: &FieldErrors) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::bad_request(rules::denial(kind, errors))) }
}

/// Whoever takes events from another namespace must have the right to, there.
fn far_link(admission: &Admission<'_>, kind: Kind, object: &Value) -> Option<FieldError> {
    let pointer = match kind {
        Kind::Trigger => "/spec/brokerRef",
        Kind::Subscription => "/spec/channel",
        _ => return None,
    };
    let reference = object.pointer(pointer)?;
    let text = |key: &str| object::text(reference, &format!("/{key}")).to_owned();
    let namespace = text("namespace");
    if namespace.is_empty() || namespace == admission.namespace {
        return None;
    }
    // What is asked for is what events are taken from, whatever else the reference says.
    let (group, resource) = match (kind, text("apiVersion")) {
        (Kind::Trigger, _) => (Kind::Broker.group().to_owned(), Kind::Broker.plural().to_owned()),
        (_, version) if version.is_empty() => (text("group"), format!("{}s", text("kind").to_lowercase())),
        (_, version) => {
            let group = version.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
            (group, format!("{}s", text("kind").to_lowercase()))
        }
    };
    let wanted = Attributes {
        verb: "knsubscribe".to_owned(),
        group,
        resource,
        namespace: namespace.clone(),
        name: text("name"),
        ..Attributes::default()
    };
    let user = admission.identity;
    match admission.view.authority().authorize(user, &wanted) {
        Decision::Allow { .. } => None,
        Decision::Deny { .. } => {
            let message =
                format!("user {} is not authorized to get target resource in namespace: {namespace}", user.user);
            Some(FieldError::new(message, &[&format!("spec.{}Namespace", text("kind"))]))
        }
    }
}
