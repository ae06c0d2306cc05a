//! Knative's kinds: the rules of its webhooks, in process and in its words.

use knoll_api::{
    Kind,
    admission::{self as rules, Context},
};
use serde_json::Value;

use super::{Admission, Operation};
use crate::{object, status::Status};

pub(crate) fn kind(admission: &Admission<'_>) -> Option<Kind> {
    let resource = admission.resource;
    resource.custom.as_ref().filter(|c| c.knative)?;
    Kind::from_api(&resource.api_version(), &resource.kind)
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

/// Fills in what the writer left out.
pub(crate) fn default(admission: &Admission<'_>, object: &mut Value) {
    let Some(kind) = kind(admission).filter(|_| !is_leaving(admission, object)) else { return };
    let config = admission.view.knative();
    let context = Context { config: &config, user: &admission.identity.user, now: jiff::Timestamp::now() };
    rules::default(kind, operation(admission), object, admission.old, &context);
}

/// Refuses what the rules do not allow, as the webhook would; its warnings go to the client.
pub(crate) fn validate(admission: &mut Admission<'_>, object: &Value) -> Result<(), Status> {
    let Some(kind) = kind(admission).filter(|_| !is_leaving(admission, object)) else { return Ok(()) };
    let config = admission.view.knative();
    let context = Context { config: &config, user: &admission.identity.user, now: jiff::Timestamp::now() };
    let (errors, warnings) = rules::validate(kind, operation(admission), object, admission.old, &context);
    admission.warnings.extend(warnings.merged().iter().map(ToString::to_string));
    if !errors.is_empty() {
        return Err(Status::bad_request(rules::denial(&errors)));
    }
    Ok(())
}
