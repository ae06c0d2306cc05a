//! What happens to an object between its writer and the store: defaults, changes, checks, in this order.

use serde_json::Value;

use super::{
    Admit, Hooks, of,
    rehearsal::{self, Rehearsal},
};
use crate::{
    admission::{Admission, Operation, knative, namespace, pod_security, promises, sink_binding},
    fields, object, quota, readable,
    status::Status,
    validation,
};

/// Default, mutate, validate. Waits where the kind's own hook does, and a new Job for its SinkBinding.
///
/// # Errors
/// The answer to the writer, when it may not be.
pub(crate) async fn admit(admission: &mut Admission<'_>, object: &mut Value) -> Result<(), Status> {
    let hooks = of(admission.resource);
    fill(&hooks, admission, object)?;
    match hooks.admit {
        None => {}
        Some(Admit::Now(hook)) => hook(admission, object)?,
        Some(Admit::Waits(hook)) => hook(admission, object).await?,
    }
    sink_binding::bind(admission, object).await;
    check(&hooks, admission, object)?;
    readable::check(admission.resource, admission.identity, object).await?;
    rehearse(admission, object).await?;
    pod_security::admit(admission, object)?;
    promises::warn(admission, object);
    if admission.resource.namespaced {
        let Admission { view, resource, namespace, old, .. } = admission;
        admission.claim = quota::check(*view, resource, namespace, *old, object).await?;
    }
    Ok(())
}

fn fill(hooks: &Hooks, admission: &Admission<'_>, object: &mut Value) -> Result<(), Status> {
    (hooks.default)(object);
    fields::fill_defaults(admission.resource, object)?;
    if admission.operation == Operation::Create {
        namespace::lifecycle(admission, object)?;
    }
    Ok(())
}

fn check(hooks: &Hooks, admission: &mut Admission<'_>, object: &mut Value) -> Result<(), Status> {
    // What a hook added has defaults, too.
    (hooks.default)(object);
    knative::default(admission, object);
    let mut causes = validation::metadata::check(admission.resource, object);
    causes.extend(fields::misfits(admission.resource, object));
    causes.extend((hooks.validate)(object, admission.old));
    if !causes.is_empty() {
        return Err(admission.resource.invalid(object::name(object), causes));
    }
    knative::validate(admission, object)
}

/// Refuses a write that could not be followed up: a dry run whose pods would be refused, a JobSink whose Jobs would.
async fn rehearse(admission: &Admission<'_>, object: &Value) -> Result<(), Status> {
    let Some(Rehearsal { row, mut object, refusal }) = rehearsal::of(admission, object)? else { return Ok(()) };
    let mut warnings = Vec::new();
    let mut rehearsed = Admission {
        resource: &row,
        subresource: None,
        operation: Operation::Create,
        old: None,
        dry_run: true,
        warnings: &mut warnings,
        allocations: Vec::new(),
        claim: None,
        ..*admission
    };
    // Neither a pod nor a Job is rehearsed again, so this ends here; the compiler only sees a circle.
    Box::pin(admit(&mut rehearsed, &mut object)).await.map_err(|status| refusal(&status))
}
