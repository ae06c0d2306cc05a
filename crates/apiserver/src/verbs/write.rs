//! The one way of a write: admit (default, mutate, validate), commit, and the state that is answered.

use std::sync::Arc;

use jiff::Timestamp;
use knoll_store::{Durability, Expect, Write, WriteError};
use serde_json::Value;

use crate::{
    ApiServer,
    addresses::Allocation,
    admission::{Admission, Operation},
    call::{Call, WriteOptions},
    claims::Claim,
    fields, hooks, metadata, narrow, object,
    objects::{self, Stored},
    readable,
    resources::{Resource, Subresource},
    status::{Cause, Status},
    validation,
};

/// How often a write that lost a race is tried again.
const ATTEMPTS: usize = 6;
/// How often another random name is tried.
const NAMES: usize = 8;

/// What a write came to.
pub(crate) struct Done {
    /// The object as it is now, or was last.
    pub(crate) object: Arc<Value>,
    /// For the client.
    pub(crate) warnings: Vec<String>,
}

/// Makes an object.
pub(crate) async fn create(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    object: Value,
) -> Result<Done, Status> {
    let prefix = object::text(&object, "/metadata/generateName").to_owned();
    if !object::name(&object).is_empty() {
        return create_named(server, call, options, object).await;
    }
    if prefix.is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(call.resource.invalid("", vec![cause]));
    }
    for attempt in 1.. {
        let mut named = object.clone();
        object::meta_mut(&mut named).insert("name".into(), metadata::generate_name(&prefix).into());
        match create_named(server, call, options, named).await {
            Err(status) if status.reason == "AlreadyExists" && attempt < NAMES => {}
            result => return result,
        }
    }
    unreachable!("the loop returns")
}

async fn create_named(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    mut object: Value,
) -> Result<Done, Status> {
    let resource = &call.resource;
    let mut warnings = Vec::new();
    let now = Timestamp::now();
    bounded(&object)?;
    fields::check_unknown(resource, &mut object, options, &mut warnings)?;
    metadata::prepare_create(resource, &call.namespace, &mut object, now)?;
    let key = resource.key(&call.namespace, object::name(&object));
    // Both stand for the object until it is stored, and what follows from it is known.
    let (_allocations, _claim) = admit(server, call, options, None, &mut object, &mut warnings).await?;
    if server.store.get(&key).is_some() {
        return Err(Status::already_exists(&resource.group, &resource.plural, object::name(&object)));
    }
    fields::track(call, options, None, &mut object, now);
    if options.dry_run {
        return Ok(Done { object: Arc::new(object), warnings });
    }
    check_served(server, resource)?;
    let value = objects::to_store(resource, &object).await?;
    let bytes = value.len();
    let mut writes = vec![Write { key, value: Some(value), expect: Expect::Absent }];
    writes.extend(companions(server, resource, &object));
    let name = object::name(&object).to_owned();
    match server.store.commit(writes, resource.durability).await {
        Ok(changes) => {
            if let Err(status) = check_served(server, resource) {
                // Whoever deletes all of a definition's objects may have looked before this one was there.
                let undo =
                    server.store.delete(&changes[0].key, Expect::Revision(changes[0].revision), resource.durability);
                return Err(undo.await.err().and_then(|error| stopped(resource, &name, error)).unwrap_or(status));
            }
            let object = published(server, resource, object, changes[0].revision, bytes);
            server.catch_up();
            Ok(Done { object, warnings })
        }
        Err(WriteError::Conflict { .. }) => Err(Status::already_exists(&resource.group, &resource.plural, &name)),
        Err(error) => Err(write_failure(resource, &name, error)),
    }
}

/// Refuses an object of a definition that is going, has gone, or was made anew while this request was on its way.
fn check_served(server: &ApiServer, resource: &Resource) -> Result<(), Status> {
    let Some(custom) = resource.custom.as_ref().filter(|custom| !custom.knative) else { return Ok(()) };
    let registry = server.registry();
    let now = registry.get(&resource.group, &resource.version, &resource.plural).and_then(|row| row.custom.as_ref());
    match now.filter(|now| now.uid == custom.uid) {
        Some(now) if !now.terminating => Ok(()),
        Some(_) => {
            let message = "create not allowed while custom resource definition is terminating";
            Err(Status { message: message.into(), ..Status::method_not_allowed() })
        }
        None => Err(Status::no_such_resource()),
    }
}

/// Refuses what is deeper or heavier than an object may be, however it was made.
fn bounded(object: &Value) -> Result<(), Status> {
    knoll_schema::limits::check(object).map_err(|exceeded| Status::bad_request(format!("the object {exceeded}")))
}

fn companions(server: &ApiServer, resource: &Resource, object: &Value) -> Vec<Write> {
    let Some(hook) = hooks::of(resource).companions else { return Vec::new() };
    let registry = server.registry();
    let made = hook(server.view(), object).into_iter().filter_map(|companion| {
        let row = registry.get("", "v1", companion.plural)?;
        let key = row.key(object::namespace(&companion.object), object::name(&companion.object));
        Some(Write { key, value: Some(objects::encode(&companion.object)), expect: Expect::Any })
    });
    made.collect()
}

/// Changes an object: `change` makes the wanted state from the stored one, again for every lost race.
pub(crate) async fn update(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    change: &mut (dyn FnMut(&Value) -> Result<Value, Status> + Send),
) -> Result<Done, Status> {
    let resource = &call.resource;
    let key = call.key();
    for attempt in 1.. {
        let entry = server.store.get(&key).ok_or_else(|| call.not_found())?;
        let old = server.trees.stored(resource, &entry).await?;
        let mut warnings = Vec::new();
        let mut new = change(&old.object)?;
        check_version(resource, &old, &new)?;
        // Both stand for the object until it is stored, and what follows from it is known.
        let (_allocations, _claim) = settle(server, call, options, &old, &mut new, &mut warnings).await?;
        if metadata::is_no_op(&old.object, &new) {
            return Ok(Done { object: old.object, warnings });
        }
        if options.dry_run {
            return Ok(Done { object: Arc::new(new), warnings });
        }
        match commit(server, call, &key, &old, new).await {
            Ok(object) => return Ok(Done { object, warnings }),
            Err(Failed::Store(WriteError::Conflict { .. })) if attempt < ATTEMPTS => {}
            Err(Failed::Store(error)) => return Err(write_failure(resource, &call.name, error)),
            Err(Failed::Refused(status)) => return Err(status),
        }
    }
    unreachable!("the loop returns")
}

/// Brings a wanted state into the form it is stored in.
async fn settle(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    old: &Stored,
    new: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Allocation>, Option<Claim>), Status> {
    let resource = &call.resource;
    let mut reserved = (Vec::new(), None);
    bounded(new)?;
    // Whatever part is written, what is stored is of its type.
    fields::check_unknown(resource, new, options, warnings)?;
    *new = narrow::narrow(resource, call.subresource, &old.object, std::mem::take(new))?;
    match call.subresource {
        None | Some(Subresource::Scale | Subresource::EphemeralContainers | Subresource::Resize) => {
            metadata::prepare_update(resource, &old.object, new)?;
            reserved = admit(server, call, options, Some(&old.object), new, warnings).await?;
            // What the writer left out and the server fills in is no change of what is wanted.
            metadata::count_generation(resource, &old.object, new);
        }
        Some(Subresource::Status | Subresource::Approval) => {
            let mut causes = validation::metadata::check(resource, new);
            causes.extend(fields::misfits(resource, new));
            causes.extend((hooks::of(resource).validate_status)(new, &old.object));
            if !causes.is_empty() {
                return Err(resource.invalid(object::name(new), causes));
            }
            readable::check(resource, &call.identity, new).await?;
        }
        Some(_) => {}
    }
    objects::stamp(new, old.revision);
    fields::track(call, options, Some(&old.object), new, Timestamp::now());
    Ok(reserved)
}

fn check_version(resource: &Resource, old: &Stored, new: &Value) -> Result<(), Status> {
    let given = object::resource_version(new);
    metadata::check_uid(resource, &old.object, object::uid(new))?;
    match given {
        "" => Ok(()),
        given if given.parse() == Ok(old.revision) || given == "0" => Ok(()),
        given if given.parse::<u64>().is_err() => {
            let cause = Cause::invalid("metadata.resourceVersion", &given.into(), "must be an unsigned integer");
            Err(resource.invalid(object::name(new), vec![cause]))
        }
        _ => Err(Status::modified(&resource.group, &resource.plural, object::name(&old.object))),
    }
}

/// Admits a write of the object itself.
async fn admit(
    server: &Arc<ApiServer>,
    call: &Call,
    options: &WriteOptions,
    old: Option<&Value>,
    new: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Allocation>, Option<Claim>), Status> {
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let mut admission = Admission {
        view: server.view(),
        resource: &call.resource,
        identity: &call.identity,
        namespace: &call.namespace,
        subresource: call.subresource,
        operation,
        old,
        dry_run: options.dry_run,
        warnings,
        allocations: Vec::new(),
        claim: None,
    };
    hooks::admit(&mut admission, new).await?;
    Ok((admission.allocations, admission.claim))
}

/// Why a state was not written.
enum Failed {
    /// The store said no.
    Store(WriteError),
    /// It may not be stored.
    Refused(Status),
}

impl From<WriteError> for Failed {
    fn from(error: WriteError) -> Self {
        Failed::Store(error)
    }
}

/// The group of Knative's own controllers and autoscaler.
const OWN_ACCOUNTS: &str = "system:serviceaccounts:knative-serving";

/// Whether what this writes comes about again by itself, should a power cut lose it. A scale that the autoscaler decided does;
/// one that a user asked for does not.
fn can_be_observed_again(call: &Call) -> bool {
    match call.subresource {
        Some(Subresource::Status | Subresource::Binding) => true,
        Some(Subresource::Scale) => call.identity.groups.iter().any(|group| group == OWN_ACCOUNTS),
        _ => false,
    }
}

/// Writes a changed state, or deletes the object when nothing holds it any longer.
async fn commit(
    server: &Arc<ApiServer>,
    call: &Call,
    key: &str,
    old: &Stored,
    new: Value,
) -> Result<Arc<Value>, Failed> {
    let resource = &call.resource;
    let durability = if can_be_observed_again(call) { Durability::Relaxed } else { resource.durability };
    let expect = Expect::Revision(old.revision);
    let object = if object::is_released(&new) {
        let change = server.store.delete(key, expect, durability).await?;
        let mut last = new;
        objects::stamp(&mut last, change.revision);
        Arc::new(last)
    } else {
        let value = objects::to_store(resource, &new).await.map_err(Failed::Refused)?;
        let bytes = value.len();
        let revision = server.store.put(key, value, expect, durability).await?;
        published(server, resource, new, revision, bytes)
    };
    server.catch_up();
    Ok(object)
}

/// Writes a state as it is, without admission: for the server's own steps (deletion marks, bindings).
pub(crate) async fn put(
    server: &Arc<ApiServer>,
    call: &Call,
    old: &Stored,
    new: Value,
) -> Result<Option<Arc<Value>>, Status> {
    match commit(server, call, &call.key(), old, new).await {
        Ok(object) => Ok(Some(object)),
        Err(Failed::Store(WriteError::Conflict { .. })) => Ok(None),
        Err(Failed::Store(error)) => Err(write_failure(&call.resource, &call.name, error)),
        Err(Failed::Refused(status)) => Err(status),
    }
}

/// Keeps the tree of a committed write, which has so many bytes, for its readers, and returns it with its version.
fn published(server: &ApiServer, resource: &Resource, mut object: Value, revision: u64, bytes: usize) -> Arc<Value> {
    objects::stamp(&mut object, revision);
    let tree = Arc::new(object);
    if !objects::converts(resource) {
        server.trees.keep(revision, tree.clone(), bytes);
    }
    tree
}

/// The answer to a write that the store did not take.
pub(crate) fn write_failure(resource: &Resource, name: &str, error: WriteError) -> Status {
    match error {
        WriteError::Conflict { current: None, .. } => resource.not_found(name),
        WriteError::Conflict { .. } => Status::modified(&resource.group, &resource.plural, name),
        WriteError::TooLarge { bytes, limit } => objects::too_large(bytes, limit),
        other => Status::unwritten(&other),
    }
}

/// The failure of taking something back, unless somebody else did.
fn stopped(resource: &Resource, name: &str, error: WriteError) -> Option<Status> {
    (!matches!(error, WriteError::Conflict { .. })).then(|| write_failure(resource, name, error))
}
