//! Bindings.

use serde_json::Value;

use crate::{object, status::Cause};

/// They name a role, which cannot change.
pub(crate) fn binding(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kind = object::text(new, "/roleRef/kind");
    if !matches!(kind, "Role" | "ClusterRole") {
        causes.push(Cause::not_supported("roleRef.kind", &kind.into(), &["Role", "ClusterRole"]));
    }
    if object::text(new, "/roleRef/name").is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    for (at, subject) in object::list(new, "/subjects").iter().enumerate() {
        if object::name_of(subject).is_empty() {
            causes.push(Cause::required(format!("subjects[{at}].name"), ""));
        }
        let account = subject["kind"] == "ServiceAccount";
        if account && object::text(subject, "/namespace").is_empty() {
            causes.push(Cause::required(format!("subjects[{at}].namespace"), ""));
        }
    }
    if let Some(old) = old
        && old["roleRef"] != new["roleRef"]
    {
        causes.push(Cause::invalid("roleRef", &new["roleRef"], "cannot change roleRef"));
    }
    causes
}
