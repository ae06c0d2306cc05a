//! Jobs find their pods by a label that names the job's uid, and are told of their sinks by SinkBindings.

use serde_json::{Value, json};

use super::{Admission, Operation, sink_binding};
use crate::{object, status::Status};

/// Gives a new job its selector and its pods the labels that match.
pub(crate) fn admit(admission: &mut Admission<'_>, job: &mut Value) -> Result<(), Status> {
    if admission.operation == Operation::Update {
        if let Some(old) = admission.old {
            // Both were made at creation; a writer that does not know them keeps them.
            if object::is_empty(job["spec"].get("selector")) {
                job["spec"]["selector"] = old["spec"]["selector"].clone();
                job["spec"]["template"]["metadata"] = old["spec"]["template"]["metadata"].clone();
            }
        }
        return Ok(());
    }
    sink_binding::job(admission, job);
    if job["spec"]["manualSelector"] == true {
        return Ok(());
    }
    // What the writer says instead is refused, not replaced.
    let (uid, name) = (object::uid(job).to_owned(), object::name(job).to_owned());
    object::map_at(&mut job["spec"], "selector");
    let selector = object::map_at(&mut job["spec"]["selector"], "matchLabels");
    selector.entry("batch.kubernetes.io/controller-uid").or_insert_with(|| uid.as_str().into());
    let template = object::map_at(&mut job["spec"], "template");
    let metadata = template.entry("metadata").or_insert_with(|| json!({}));
    let labels = object::map_at(metadata, "labels");
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.entry(key).or_insert_with(|| value.as_str().into());
    }
    Ok(())
}
