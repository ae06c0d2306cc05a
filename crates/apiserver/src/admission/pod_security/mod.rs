//! Pod Security: what the labels of a namespace let its pods do.
//!
//! `pod-security.kubernetes.io/enforce`, `audit` and `warn` name `privileged`, `baseline` or `restricted`. Pods are
//! refused or warned of; whoever makes something that makes pods is warned. There is no audit log: what `audit` finds
//! stands in the server's own.

mod checks;
mod policy;

use std::collections::BTreeMap;

use serde_json::Value;

use self::{
    checks::{Violation, check, shown},
    policy::{Level, Policy, Standard},
};
use super::{Admission, Operation};
use crate::{object, status::Status};

/// Most existing pods that are looked at when a namespace becomes stricter.
const MOST_PODS: usize = 3000;

/// Where the pod's metadata and spec are in a kind that makes pods.
pub(super) fn template(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs")
        | ("serving.knative.dev", "services" | "configurations") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The same, and where it stands in what our own controllers make pods of: they are told nothing, so their users are.
pub(super) fn any_template(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("sources.knative.dev", "containersources") => Some("/spec/template"),
        ("sinks.knative.dev", "jobsinks") => Some("/spec/job/spec/template"),
        _ => template(group, plural),
    }
}

/// Refuses, or warns of, what the namespace does not allow.
pub(crate) fn admit(admission: &mut Admission<'_>, object: &Value) -> Result<(), Status> {
    let resource = admission.resource;
    let is_pod = resource.group.is_empty() && resource.plural == "pods";
    let template = any_template(&resource.group, &resource.plural);
    if !is_pod && (template.is_none() || admission.subresource.is_some()) {
        return Ok(());
    }
    let Some(namespace) = admission.view.core_object("namespaces", "", admission.namespace) else { return Ok(()) };
    let (policy, _) = Policy::of(&namespace["metadata"]["labels"]);
    let (metadata, spec) = match template {
        None => (&object["metadata"], &object["spec"]),
        Some(pointer) => match object.pointer(pointer) {
            Some(template) => (&template["metadata"], &template["spec"]),
            None => return Ok(()),
        },
    };
    if is_pod {
        if admission.old.is_some_and(|old| !is_significant(old, object)) {
            return Ok(());
        }
        let violations = check(metadata, spec, policy.enforce);
        if !violations.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, shown(&violations));
            return Err(resource.forbidden(object::name(object), &why));
        }
    }
    let audited = check(metadata, spec, policy.audit);
    if !audited.is_empty() {
        tracing::info!(
            user = admission.identity.user,
            namespace = admission.namespace,
            resource = resource.plural,
            name = object::name(object),
            "would violate PodSecurity \"{}\": {}",
            policy.audit,
            shown(&audited)
        );
    }
    let warned = check(metadata, spec, policy.warn);
    if !warned.is_empty() {
        let warning = format!("would violate PodSecurity \"{}\": {}", policy.warn, shown(&warned));
        admission.warnings.push(warning);
    }
    Ok(())
}

/// Whether a change of a pod is one that the rules look at: another image, or another container.
fn is_significant(old: &Value, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<(String, String)> {
        let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
        let all = lists.iter().flat_map(|list| object::list(pod, list));
        all.map(|one| (object::name_of(one).to_owned(), object::text(one, "/image").to_owned())).collect()
    };
    images(old) != images(new)
}

/// A namespace: its labels must be readable, and who makes it stricter is told which pods would not be let in.
pub(crate) fn namespace(admission: &mut Admission<'_>, namespace: &mut Value) -> Result<(), Status> {
    let (policy, causes) = Policy::of(&namespace["metadata"]["labels"]);
    let before = admission.old.map(|old| Policy::of(&old["metadata"]["labels"]));
    let unchanged = before.as_ref().is_some_and(|(_, known)| *known == causes);
    if !causes.is_empty() && !unchanged {
        return Err(admission.resource.invalid(object::name(namespace), causes));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (was, is) = (before.enforce, policy.enforce);
    let relaxed = was.minor == is.minor && is.level <= was.level;
    if admission.operation == Operation::Update && is.level != Level::Privileged && !relaxed {
        let warnings = existing(admission, object::name(namespace), is);
        admission.warnings.extend(warnings);
    }
    Ok(())
}

/// Which pods of a namespace break a standard, gathered by what they break.
fn existing(admission: &Admission<'_>, namespace: &str, standard: Standard) -> Vec<String> {
    let snapshot = admission.view.snapshot();
    let prefix = format!("/core/pods/{namespace}/");
    let total = snapshot.count(&prefix);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in snapshot.range(&prefix, None).take(MOST_PODS) {
        let Some(pod) = admission.view.tree(&entry) else { continue };
        let violations = check(&pod["metadata"], &pod["spec"], standard);
        if !violations.is_empty() {
            found.entry(reasons(&violations)).or_default().push(object::name(&pod).to_owned());
        }
    }
    let mut warnings = Vec::new();
    if total > MOST_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, pods)| {
            let first = pods.iter().min().map_or("", String::as_str);
            match pods.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                count => format!("{first} (and {} other pods): {reasons}", count - 1),
            }
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

fn reasons(violations: &[Violation]) -> String {
    let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason.as_str()).collect();
    reasons.join(", ")
}
