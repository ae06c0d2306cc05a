//! Carries out what one key wants, in order, until something fails.
//!
//! The World does not keep what kubectl applied last, only that there is such an annotation: before an object that has it
//! is replaced, the annotation is read again. The resourceVersion guards against a change in between.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use knoll_api::{Key, Kind, Object, clock::SteadyClock, labels};
use knoll_client::recorder::Recorder;
use knoll_faults::chain;
use knoll_plan::{
    AccessAnswer, AnyKind, DigestRequest, EventRecord, MetadataList, Observation, Propagation, Refusal, Target,
    TokenSecret, Want,
};
use serde_json::{Value, json};

use crate::{
    access,
    api::{Answer, AnswerMeta, Api, ApiError, revision},
    coalescing::CoalescingQueue,
    counters::{Counters, count},
    namespace_content,
    queue::{Barrier, Ended, Id},
    recorder, token,
};

/// Longest time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What carrying out needs.
#[derive(Clone)]
pub(crate) struct Executor {
    pub(crate) api: Api,
    pub(crate) events: Recorder,
    pub(crate) digests: CoalescingQueue<(DigestRequest, Key), Duration>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<SteadyClock>,
}

/// What a key wants.
pub(crate) struct WorkItem {
    pub(crate) id: Id,
    /// Name of the row, for logs.
    pub(crate) row: &'static str,
    /// Kind of the key; nothing where controllers do not know it as a type.
    pub(crate) of: Option<Kind>,
    pub(crate) wants: Vec<Want>,
    pub(crate) recheck: Option<Duration>,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) id: Id,
    pub(crate) ended: Ended,
    pub(crate) observations: Vec<Observation>,
    /// What a panic said, if it ended in one.
    pub(crate) panic: String,
    /// Why it ended badly, if it did.
    pub(crate) failure: Option<String>,
}

/// One item under way.
struct Execution<'a> {
    executor: &'a Executor,
    asker: Option<(Kind, Key)>,
    barriers: Vec<Barrier>,
    observations: Vec<Observation>,
    /// Newest resourceVersion of what this item wrote: later wants of one plan were computed from the same state as
    /// the earlier ones, whose success proves that nobody else wrote in between.
    versions: HashMap<(Kind, Key), String>,
}

impl Executor {
    /// Has a Kubernetes Event recorded. Best effort: counted when there is no room.
    pub(crate) fn record(&self, event: EventRecord) {
        self.events.record(recorder::event(event));
    }

    /// Carries an item out.
    pub(crate) async fn carry_out(self, item: WorkItem) -> Done {
        count(&self.counters.executed);
        let asker = item.of.map(|of| (of, item.id.1.clone()));
        let mut execution = Execution {
            executor: &self,
            asker,
            barriers: Vec::new(),
            observations: Vec::new(),
            versions: HashMap::new(),
        };
        let result = execution.through(item.wants).await;
        let Execution { barriers, observations, .. } = execution;
        let mut failure = None;
        let ended = match result {
            Ok(()) => Ended::Well { barriers, recheck: item.recheck },
            Err(error) if error.is_conflict() => {
                count(&self.counters.conflicts);
                tracing::debug!(row = item.row, key = %item.id.1, %error, "planning again");
                Ended::Conflict { barriers }
            }
            Err(error) => {
                count(&self.counters.failures);
                failure = Some(chain(&error));
                Ended::Badly { barriers }
            }
        };
        Done { id: item.id, ended, observations, panic: String::new(), failure }
    }
}

impl Execution<'_> {
    async fn through(&mut self, wants: Vec<Want>) -> Result<(), ApiError> {
        for want in wants {
            self.one(want).await?;
        }
        Ok(())
    }

    async fn one(&mut self, want: Want) -> Result<(), ApiError> {
        let api = &self.executor.api;
        match want {
            Want::Create(object) => self.create(object).await,
            Want::Update(object) => self.replace(&object, "").await,
            Want::Status(object) => self.replace(&object, "/status").await,
            Want::Finalize(object) => self.replace(&object, "/finalize").await,
            Want::Scale { kind, key, replicas } => {
                let patch = json!({"spec": {"replicas": replicas}});
                let path = kind.object_path(&key) + "/scale";
                let answer = within(api.merge(&path, &patch)).await?;
                self.wrote(kind, &key, &answer);
                Ok(())
            }
            Want::Delete { kind, key, uid, grace_seconds, propagation } => {
                self.delete(kind, key, uid, grace_seconds, propagation).await
            }
            Want::Collect { object, uid, owners, absent, propagation } => {
                self.collect(object, uid, &owners, &absent, propagation).await
            }
            Want::Shrink { object, uid, list, without, absent } => {
                if is_any(api, &absent).await? {
                    return Ok(());
                }
                self.shrink(object, uid, list, &without).await
            }
            Want::Patch { path, patch } => match within(api.merge(&path, &patch)).await {
                Ok(_) => {
                    count(&self.executor.counters.written);
                    Ok(())
                }
                Err(error) if error.is_not_found() => Err(vanished(error)),
                Err(error) => Err(error),
            },
            Want::DeleteContent { namespace } => namespace_content::delete_content(api, &namespace).await,
            Want::Bind { pod, uid, node } => self.bind(pod, uid, node).await,
            Want::RecordEvent(event) => {
                self.executor.record(event);
                Ok(())
            }
            Want::ReviewAccess { request, asker, rules } => {
                let outcome = access::review(api, &request).await?;
                let answer = AccessAnswer { request, rules, outcome, at: self.executor.clock.now() };
                self.observations.push(Observation::Access { asker, answer });
                Ok(())
            }
            Want::IssueToken(order) => self.issue_token(*order).await,
            Want::ResolveDigest { request, asker, within } => {
                self.executor.digests.put((request, asker), within);
                Ok(())
            }
        }
    }

    async fn issue_token(&mut self, order: TokenSecret) -> Result<(), ApiError> {
        let (token, ends) = token::issue(&self.executor.api, &order.account, &order.audience).await?;
        let object = Object::from(order.with(token, ends));
        if object.meta().resource_version.is_some() {
            self.replace(&object, "").await
        } else {
            self.create(object).await
        }
    }

    async fn create(&mut self, object: Object) -> Result<(), ApiError> {
        let (kind, key) = (object.kind(), object.key());
        match within(self.executor.api.create(&object)).await {
            Ok(answer) => {
                self.wrote(kind, &key, &answer);
                self.observations.push(Observation::Accepted { object: (kind, key) });
                Ok(())
            }
            Err(error) => {
                if let (ApiError::Refused { code, reason, message, .. }, Some(asker)) = (&error, &self.asker)
                    && (400..500).contains(code)
                    && !matches!(code, 409 | 429)
                {
                    let at = self.executor.clock.now();
                    let refusal = Refusal { reason: reason.clone(), message: message.clone(), at };
                    let asker = asker.clone();
                    self.observations.push(Observation::Refused { asker, object: (kind, key), refusal });
                }
                Err(error)
            }
        }
    }

    async fn replace(&mut self, object: &Object, subresource: &str) -> Result<(), ApiError> {
        let (kind, key) = (object.kind(), object.key());
        let mut value = object.to_json();
        if object
            .meta()
            .annotations
            .as_ref()
            .and_then(|all| all.get(labels::LAST_APPLIED))
            .is_some_and(String::is_empty)
        {
            let answer = within(self.executor.api.get(kind, &key)).await?;
            let annotations = answer.metadata.annotations;
            value["metadata"]["annotations"][labels::LAST_APPLIED] =
                annotations.get(labels::LAST_APPLIED).cloned().unwrap_or_default().into();
        }
        if let Some(version) = self.versions.get(&(kind, key.clone())) {
            value["metadata"]["resourceVersion"] = Value::String(version.clone());
        }
        match within(self.executor.api.put(kind, &key, subresource, &value)).await {
            Ok(answer) => {
                self.wrote(kind, &key, &answer);
                Ok(())
            }
            Err(error) if error.is_not_found() => Err(vanished(error)),
            Err(error) => Err(error),
        }
    }

    async fn delete(
        &mut self,
        kind: Kind,
        key: Key,
        uid: String,
        grace_seconds: Option<i64>,
        propagation: Propagation,
    ) -> Result<(), ApiError> {
        let mut options = json!({"preconditions": {"uid": uid}, "propagationPolicy": policy(propagation)});
        if let Some(seconds) = grace_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        self.remove(&kind.object_path(&key), options).await?;
        self.barriers.push(Barrier::Going(kind, key, uid));
        Ok(())
    }

    /// Deletes what is at a path, unless it is gone.
    async fn remove(&self, path: &str, options: Value) -> Result<(), ApiError> {
        match within(self.executor.api.delete(path, options)).await {
            Ok(_) => count(&self.executor.counters.written),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Deletes an object that no owner keeps, if it is as it was when that was found out.
    async fn collect(
        &mut self,
        object: Target,
        uid: String,
        owners: &[String],
        absent: &[(Target, String)],
        propagation: Propagation,
    ) -> Result<(), ApiError> {
        if is_any(&self.executor.api, absent).await? {
            return Ok(());
        }
        let Some(found) = find(&self.executor.api, &object.path, &uid).await? else { return Ok(()) };
        let references = found.owner_references.iter();
        if !references.map(|owner| owner["uid"].as_str().unwrap_or_default()).eq(owners) {
            // The World will hear of these.
            return Ok(());
        }
        let options = json!({
            "preconditions": {"uid": uid, "resourceVersion": found.resource_version},
            "propagationPolicy": policy(propagation),
        });
        self.remove(&object.path, options).await?;
        if let AnyKind::Typed(kind) = object.kind {
            self.barriers.push(Barrier::Going(kind, object.key, uid));
        }
        Ok(())
    }

    /// Takes entries off a list in an object's metadata, if it is the one that was meant.
    async fn shrink(
        &mut self,
        object: Target,
        uid: String,
        list: MetadataList,
        without: &[String],
    ) -> Result<(), ApiError> {
        let Some(found) = find(&self.executor.api, &object.path, &uid).await? else { return Ok(()) };
        let entries = found.list(list);
        let left: Vec<&Value> = entries.iter().filter(|entry| !list.is_of(entry, without)).collect();
        if left.len() == entries.len() {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": found.resource_version, list.field(): left}});
        match within(self.executor.api.merge(&object.path, &patch)).await {
            Ok(answer) => match object.kind {
                AnyKind::Typed(kind) => self.wrote(kind, &object.key, &answer),
                AnyKind::Untyped(_) => count(&self.executor.counters.written),
            },
            Err(error) if error.is_not_found() => return Err(vanished(error)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn bind(&mut self, pod: Key, uid: String, node: String) -> Result<(), ApiError> {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = Kind::Pod.object_path(&pod) + "/binding";
        match within(self.executor.api.post(&path, &binding)).await {
            Ok(_) => {
                count(&self.executor.counters.written);
                self.barriers.push(Barrier::Bound(pod));
                Ok(())
            }
            Err(error) if error.is_not_found() => Err(vanished(error)),
            Err(error) => Err(error),
        }
    }

    /// Remembers what was written, so that the key waits until the World shows it.
    fn wrote(&mut self, kind: Kind, key: &Key, answer: &Answer) {
        count(&self.executor.counters.written);
        let version = &answer.metadata.resource_version;
        if version.is_empty() {
            return;
        }
        self.versions.insert((kind, key.clone()), version.clone());
        let at = revision(version);
        let earlier = self.barriers.iter_mut().find_map(|barrier| match barrier {
            Barrier::Revision(other, at) if *other == kind => Some(at),
            _ => None,
        });
        match earlier {
            Some(earlier) => *earlier = at.max(*earlier),
            None => self.barriers.push(Barrier::Revision(kind, at)),
        }
    }
}

fn policy(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Background => "Background",
        Propagation::Foreground => "Foreground",
        Propagation::Orphan => "Orphan",
    }
}

/// Whether one of these exists after all. The World will hear of it. However many uids are sought at a path, it is asked
/// about once.
async fn is_any(api: &Api, owners: &[(Target, String)]) -> Result<bool, ApiError> {
    let mut sought: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (owner, uid) in owners {
        sought.entry(&owner.path).or_default().insert(uid);
    }
    for (path, uids) in sought {
        if find_any(api, path).await?.is_some_and(|found| uids.contains(found.uid.as_str())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Metadata of the object at a path, if it has this uid.
async fn find(api: &Api, path: &str, uid: &str) -> Result<Option<AnswerMeta>, ApiError> {
    Ok(find_any(api, path).await?.filter(|found| found.uid == uid))
}

/// Metadata of the object at a path. A kind that is not served for a moment says nothing of its objects.
async fn find_any(api: &Api, path: &str) -> Result<Option<AnswerMeta>, ApiError> {
    match within(api.look_up(path)).await {
        Ok(answer) => Ok(Some(answer.metadata)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An object that is gone was not as the World had it: no failure, planning again settles it.
fn vanished(error: ApiError) -> ApiError {
    match error {
        ApiError::Refused { reason, message, about, .. } => ApiError::Refused { code: 409, reason, message, about },
        other => other,
    }
}

/// A request, bounded in time.
pub(crate) async fn within<T>(write: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::Refused {
            code: 504,
            reason: "Timeout".into(),
            message: format!("no answer within {} s", WRITE_TIMEOUT.as_secs()),
            about: String::new(),
        }),
    }
}
