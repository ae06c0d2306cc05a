//! DELETE of one object.

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use knoll_store::{Expect, WriteError};
use serde_json::Value;

use super::write;
use crate::{
    ApiServer,
    body::Body,
    call::{self, Call},
    metadata, object,
    objects::Stored,
    purge, respond,
    status::{self, Cause, Status},
};

/// Namespaces that cannot be deleted.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];
/// Told to whoever deletes Jobs and does not say what becomes of their pods.
const KEPT: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                    remove them or set propagationPolicy=Orphan to suppress this warning";
/// How often a deletion that lost a race is tried again.
const ATTEMPTS: usize = 10;

/// What becomes of what the object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// What the caller should know.
    pub(crate) warnings: Vec<String>,
}

/// What a deletion came to.
pub(crate) struct Deleted {
    /// The object as it is now, or was last.
    pub(crate) object: Arc<Value>,
    /// Whether it is gone.
    pub(crate) gone: bool,
}

/// Deletes an object, or marks it where finalizers or a grace period hold it.
pub(crate) async fn delete(server: &Arc<ApiServer>, call: &mut Call) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::read(call).await?;
    let deleted = run(server, call, &options).await?;
    let resource = &call.resource;
    if !deleted.gone || resource.delete_returns_object {
        return Ok(respond::object(call, 200, &deleted.object, &options.warnings));
    }
    let answer = status::deleted(&resource.group, &resource.plural, &call.name, object::uid(&deleted.object));
    let mut response = respond::value(200, &answer, call.accept.format);
    respond::warn(&mut response, &options.warnings);
    Ok(response)
}

impl DeleteOptions {
    /// From the body and the query; the body wins. Jobs leave their pods behind unless it says otherwise, as they did
    /// when nothing collected them.
    ///
    /// # Errors
    /// 400 for a body that cannot be read, 422 for values that are not known.
    pub(crate) async fn read(call: &mut Call) -> Result<Self, Status> {
        let bytes = call.read_body().await?;
        let mut body = if bytes.is_empty() { Value::Null } else { call::decode(call.content_type(), &bytes)? };
        if !body.is_null() {
            call::check_fields(("", "v1", "DeleteOptions"), &mut body)?;
        }
        let query = &call.query;
        let mut options = Self {
            dry_run: call.write_options()?.dry_run || object::list(&body, "/dryRun").iter().any(|v| v == "All"),
            grace: object::integer(&body, "/gracePeriodSeconds").or(query.number("gracePeriodSeconds")?),
            propagation: None,
            uid: object::text(&body, "/preconditions/uid").into(),
            resource_version: object::text(&body, "/preconditions/resourceVersion").into(),
            warnings: Vec::new(),
        };
        let policy = object::text(&body, "/propagationPolicy");
        let policy = if policy.is_empty() { query.get("propagationPolicy") } else { policy };
        options.propagation = match policy {
            "" if body["orphanDependents"] == true || query.flag("orphanDependents") => Some(Propagation::Orphan),
            "" => None,
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                let cause = Cause::not_supported(
                    "propagationPolicy",
                    &other.into(),
                    &["Foreground", "Background", "Orphan", "nil"],
                );
                return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause]));
            }
        };
        let says = body["orphanDependents"].is_boolean() || query.has("orphanDependents");
        if options.propagation.is_none() && is_job(call) && !says {
            options.propagation = Some(Propagation::Orphan);
            options.warnings.push(KEPT.to_owned());
        }
        if !is_collected(call) {
            options.propagation = Some(Propagation::Background);
        }
        if options.grace.is_some_and(|g| g < 0) {
            options.grace = Some(1);
        }
        Ok(options)
    }
}

/// Deletes the object that `call` names.
pub(crate) async fn run(server: &Arc<ApiServer>, call: &Call, options: &DeleteOptions) -> Result<Deleted, Status> {
    let resource = &call.resource;
    if resource.plural == "namespaces" && resource.group.is_empty() && PROTECTED.contains(&call.name.as_str()) {
        return Err(resource.forbidden(&call.name, "this namespace may not be deleted"));
    }
    let key = call.key();
    for _ in 0..ATTEMPTS {
        let entry = server.store.get(&key).ok_or_else(|| call.not_found())?;
        let old = server.trees.stored(resource, &entry).await?;
        check_preconditions(call, options, &old)?;
        let Some(new) = marked(server, call, options, &old.object) else {
            if options.dry_run {
                return Ok(Deleted { object: old.object, gone: true });
            }
            match remove(server, call, &key, &old).await? {
                Some(deleted) => return Ok(deleted),
                None => continue,
            }
        };
        if options.dry_run || metadata::is_no_op(&old.object, &new) {
            return Ok(Deleted { object: Arc::new(new), gone: false });
        }
        let gone = object::is_released(&new);
        if let Some(object) = write::put(server, call, &old, new).await? {
            return Ok(Deleted { object, gone });
        }
    }
    Err(Status::modified(&resource.group, &resource.plural, &call.name))
}

fn check_preconditions(call: &Call, options: &DeleteOptions, old: &Stored) -> Result<(), Status> {
    let resource = &call.resource;
    metadata::check_uid(resource, &old.object, &options.uid)?;
    let wanted = &options.resource_version;
    if !wanted.is_empty() && *wanted != old.revision.to_string() {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {}",
            old.revision
        );
        return Err(Status::conflict(&resource.group, &resource.plural, &call.name, &why));
    }
    Ok(())
}

/// The state with its deletion marked; `None` when nothing holds it and it can go at once.
fn marked(server: &ApiServer, call: &Call, options: &DeleteOptions, old: &Value) -> Option<Value> {
    let mut new = old.clone();
    let now = Timestamp::now();
    if !object::is_deleting(old) {
        match options.propagation {
            Some(Propagation::Foreground) => metadata::add_finalizer(&mut new, "foregroundDeletion"),
            Some(Propagation::Orphan) => metadata::add_finalizer(&mut new, "orphan"),
            _ => {}
        }
        if is_definition(call) && !server.registry().is_compiled_in(old) {
            purge::hold(&mut new, now);
        }
    }
    let grace = grace(call, options, old);
    if object::is_deleting(old) {
        let left = object::integer(old, "/metadata/deletionGracePeriodSeconds").unwrap_or(0);
        if grace >= left {
            return (!object::is_released(&new)).then_some(new);
        }
        metadata::hasten_deletion(&mut new, left, grace);
        return (!object::is_released(&new)).then_some(new);
    }
    metadata::mark_deleted(&call.resource, &mut new, grace, now);
    if new["kind"] == "Namespace" {
        object::map_at(&mut new, "status").insert("phase".into(), "Terminating".into());
    }
    (!object::is_released(&new)).then_some(new)
}

/// Whether the garbage collector sees to what objects of the kind own: it follows whatever can be watched, but for Events.
/// A finalizer for it would stay for ever on others.
fn is_collected(call: &Call) -> bool {
    let can = |verb: &&str| call.resource.verbs.contains(verb);
    let is_event = call.resource.kind == "Event" && matches!(call.resource.group.as_str(), "" | "events.k8s.io");
    ["list", "watch"].iter().all(can) && !is_event
}

fn is_job(call: &Call) -> bool {
    call.resource.plural == "jobs" && call.resource.group == "batch"
}

fn is_definition(call: &Call) -> bool {
    call.resource.plural == "customresourcedefinitions" && call.resource.group == "apiextensions.k8s.io"
}

/// Seconds an object stays after its deletion was asked for: only pods on a node stay, until the node is done.
fn grace(call: &Call, options: &DeleteOptions, object: &Value) -> i64 {
    if call.resource.plural != "pods" || !call.resource.group.is_empty() {
        return 0;
    }
    let unbound = object::text(object, "/spec/nodeName").is_empty();
    let done = matches!(object::text(object, "/status/phase"), "Succeeded" | "Failed");
    if unbound || done {
        return 0;
    }
    options.grace.or(object::integer(object, "/spec/terminationGracePeriodSeconds")).unwrap_or(30).max(0)
}

async fn remove(server: &Arc<ApiServer>, call: &Call, key: &str, old: &Stored) -> Result<Option<Deleted>, Status> {
    match server.store.delete(key, Expect::Revision(old.revision), call.resource.durability).await {
        Ok(change) => {
            let mut last = (*old.object).clone();
            crate::objects::stamp(&mut last, change.revision);
            server.catch_up();
            Ok(Some(Deleted { object: Arc::new(last), gone: true }))
        }
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(error) => Err(write::write_failure(&call.resource, &call.name, error)),
    }
}
