//! As much of an API server as the loop needs, in memory, with faults to order.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use knoll_api::{Key, Kind};
use knoll_client::{Body, BoxError, Client, whole};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// Where the definitions of kinds are.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The status that makes the connection panic where it is awaited.
pub(crate) const PANIC: u16 = 0;

/// Answers a request instead of the server, or lets it pass: method, path, body.
type Fault = Box<dyn FnMut(&Method, &str, &Value) -> Option<(u16, &'static str)> + Send>;

type Delay = Box<dyn FnMut(&Method, &str) -> Duration + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<(Kind, Key), Value>,
    revision: u64,
    /// Every change so far: revision, kind, line of the watch.
    history: Vec<(u64, Kind, Value)>,
    watchers: Vec<(Kind, mpsc::UnboundedSender<Value>)>,
    /// Watches from before this revision are told to list again.
    compacted: u64,
    fault: Option<Fault>,
    /// How long answers take once what was asked is done.
    delay: Option<Delay>,
    requests: Vec<String>,
    /// Leases by `namespace/leases/name`.
    leases: BTreeMap<String, Value>,
    /// Kubernetes Events: kept, never watched.
    events: Vec<Value>,
    /// Custom resources by their plural.
    customs: BTreeMap<&'static str, Custom>,
    /// When the tokens end that are issued.
    tokens_end: &'static str,
    /// Whoever watches definitions.
    definition_watchers: Vec<mpsc::UnboundedSender<Value>>,
}

/// A kind of custom resources of `example.com/v1`.
struct Custom {
    kind: &'static str,
    objects: BTreeMap<Key, Value>,
    watchers: Vec<mpsc::UnboundedSender<Value>>,
}

/// The server.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Fake {
    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        Client::new(move |request| {
            let fake = fake.clone();
            async move {
                let delay = fake.delay_of(request.method(), request.uri().path());
                let answer = fake.handle(request).await;
                tokio::time::sleep(delay).await;
                Ok::<_, Infallible>(answer)
            }
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }

    /// Answers requests with `fault` first, from now on.
    pub(crate) fn set_fault(
        &self,
        fault: impl FnMut(&Method, &str, &Value) -> Option<(u16, &'static str)> + Send + 'static,
    ) {
        self.state().fault = Some(Box::new(fault));
    }

    /// Has answers wait, from now on.
    pub(crate) fn set_delay(&self, delay: impl FnMut(&Method, &str) -> Duration + Send + 'static) {
        self.state().delay = Some(Box::new(delay));
    }

    fn delay_of(&self, method: &Method, path: &str) -> Duration {
        self.state().delay.as_mut().map_or(Duration::ZERO, |delay| delay(method, path))
    }

    /// Issues tokens that end then.
    pub(crate) fn issue_tokens(&self, end: &'static str) {
        self.state().tokens_end = end;
    }

    /// As a user would: creates or replaces an object.
    pub(crate) fn put(&self, kind: Kind, mut value: Value) {
        let key = key_of(&value);
        let metadata = value["metadata"].as_object_mut().expect("metadata");
        metadata.entry("uid").or_insert(format!("{kind:?}/{key}").into());
        metadata.entry("creationTimestamp").or_insert("2026-01-01T00:00:00Z".into());
        metadata.entry("generation").or_insert(1.into());
        self.store(&mut self.state(), kind, key, Some(value));
    }

    /// As a user would: changes an object.
    pub(crate) fn edit(&self, kind: Kind, key: &Key, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let mut value = state.objects[&(kind, key.clone())].clone();
        edit(&mut value);
        bump_generation(&mut value);
        self.store(&mut state, kind, key.clone(), Some(value));
    }

    /// As a user would: deletes an object.
    pub(crate) fn delete(&self, kind: Kind, key: &Key) {
        self.store(&mut self.state(), kind, key.clone(), None);
    }

    /// Serves a kind of namespaced custom resources, of which there are none.
    pub(crate) fn serve(&self, plural: &'static str, kind: &'static str) {
        let mut state = self.state();
        state.customs.insert(plural, Custom { kind, objects: BTreeMap::new(), watchers: Vec::new() });
        state.tell_of_definitions();
    }

    /// Serves a kind no more.
    pub(crate) fn unserve(&self, plural: &str) {
        let mut state = self.state();
        state.customs.remove(plural);
        state.tell_of_definitions();
    }

    /// As a user would: creates or replaces a custom resource.
    pub(crate) fn put_custom(&self, plural: &str, mut value: Value) {
        let key = key_of(&value);
        value["metadata"]["uid"] = format!("{plural}/{key}").into();
        self.state().store_custom(plural, &key, Some(value));
        self.changed.notify_waiters();
    }

    /// As a user would: deletes a custom resource.
    pub(crate) fn delete_custom(&self, plural: &str, key: &Key, propagation: &str) {
        let mut state = self.state();
        state.delete_custom(plural, key, &json!({"propagationPolicy": propagation}));
        drop(state);
        self.changed.notify_waiters();
    }

    /// A custom resource.
    pub(crate) fn custom(&self, plural: &str, key: &Key) -> Option<Value> {
        self.state().customs.get(plural)?.objects.get(key).cloned()
    }

    /// How many watches of a kind of custom resources are open.
    pub(crate) fn watching_customs(&self, plural: &str) -> usize {
        self.state().customs.get(plural).map_or(0, |custom| custom.watchers.len())
    }

    /// Takes an object away without telling any watch, and makes every watch list again.
    pub(crate) fn lose(&self, kind: Kind, key: &Key) {
        let mut state = self.state();
        state.objects.remove(&(kind, key.clone())).expect("it exists");
        state.revision += 1;
        state.compacted = state.revision;
        state.watchers.clear();
    }

    /// The store is one from before, which an object is not in: its revisions begin again, and every watch has ended.
    pub(crate) fn set_back(&self, kind: Kind, key: &Key) {
        let mut state = self.state();
        state.objects.remove(&(kind, key.clone())).expect("it exists");
        state.revision = 1;
        state.history.clear();
        state.watchers.clear();
    }

    /// Ends every watch, as a server does after some time.
    pub(crate) fn hang_up(&self) {
        self.state().watchers.clear();
    }

    /// Much of other kinds is written: watches that ask for bookmarks are told so, and what was before is forgotten.
    pub(crate) fn age(&self) {
        let mut state = self.state();
        state.revision += 1000;
        state.compacted = state.revision;
        state.history.clear();
        let meta = json!({"metadata": {"resourceVersion": state.revision.to_string()}});
        let line = json!({"type": "BOOKMARK", "object": meta});
        state.watchers.retain(|(of, to)| {
            let mut line = line.clone();
            line["object"]["apiVersion"] = of.api_version().into();
            line["object"]["kind"] = of.kind().into();
            to.send(line).is_ok()
        });
    }

    /// How many watches are open.
    pub(crate) fn watching(&self) -> usize {
        self.state().watchers.len()
    }

    /// An object.
    pub(crate) fn get(&self, kind: Kind, key: &Key) -> Option<Value> {
        self.state().objects.get(&(kind, key.clone())).cloned()
    }

    /// Every object of a kind.
    pub(crate) fn all(&self, kind: Kind) -> Vec<Value> {
        self.state().objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, value)| value.clone()).collect()
    }

    /// Requests so far: `METHOD path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Kubernetes Events recorded so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.state().events.clone()
    }

    /// Waits until the objects are as wanted.
    ///
    /// # Panics
    /// When that takes more than an hour of the (paused) clock.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Fake) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if wanted(self) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(3600), waiting).await.is_err() {
            panic!("never: {what}; last requests: {:#?}", self.requests().iter().rev().take(20).collect::<Vec<_>>());
        }
    }

    fn store(&self, state: &mut State, kind: Kind, key: Key, value: Option<Value>) -> Value {
        state.revision += 1;
        let revision = state.revision;
        let id = (kind, key);
        let existed = state.objects.contains_key(&id);
        let (type_, mut object) = match value {
            Some(value) if existed => ("MODIFIED", value),
            Some(value) => ("ADDED", value),
            None => ("DELETED", state.objects[&id].clone()),
        };
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind().into();
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        if type_ == "DELETED" {
            state.objects.remove(&id);
        } else {
            state.objects.insert(id, object.clone());
        }
        let line = json!({"type": type_, "object": object});
        state.history.push((revision, kind, line.clone()));
        state.watchers.retain(|(of, to)| *of != kind || to.send(line.clone()).is_ok());
        self.changed.notify_waiters();
        object
    }

    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(|collected| collected.to_bytes()).unwrap_or_default();
        let sent: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut state = self.state();
        let is_watch = query.contains("watch=1");
        if !is_watch {
            state.requests.push(format!("{} {path}", parts.method));
        }
        if let Some(mut fault) = state.fault.take() {
            let answer = fault(&parts.method, &path, &sent);
            state.fault = Some(fault);
            if let Some((code, reason)) = answer {
                drop(state);
                assert_ne!(code, PANIC, "{reason}");
                return refusal(code, reason);
            }
        }
        let accept = parts.headers.get("accept").and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        match path.as_str() {
            "/api" => return answer(&json!({"items": []})),
            "/apis" if accept.contains("APIGroupDiscoveryList") => return answer(&state.discovery()),
            "/apis" => return answer(&json!({"groups": []})),
            "/api/v1" => return answer(&json!({"resources": []})),
            DEFINITIONS if is_watch => return stream_to(&mut state.definition_watchers),
            DEFINITIONS => return answer(&json!({"metadata": {"resourceVersion": "1"}, "items": []})),
            _ => {}
        }
        if path == "/apis/example.com/v1" && !state.customs.is_empty() {
            let row = |(plural, custom): (&&str, &Custom)| json!({"name": plural, "kind": custom.kind, "namespaced": true, "verbs": ["list", "watch"]});
            return answer(&json!({"resources": state.customs.iter().map(row).collect::<Vec<_>>()}));
        }
        if let Some(rest) = path.strip_prefix("/apis/example.com/v1/") {
            let answer = state.custom(&parts.method, rest, is_watch, &sent);
            self.changed.notify_waiters();
            return answer;
        }
        if parts.method == Method::POST && path.ends_with("/events") {
            state.events.push(sent.clone());
            self.changed.notify_waiters();
            return answer(&sent);
        }
        if let Some(rest) = path.strip_prefix("/apis/coordination.k8s.io/v1/namespaces/") {
            return lease(&mut state, &parts.method, rest, sent);
        }
        if path == "/apis/authorization.k8s.io/v1/subjectaccessreviews" {
            return answer(&json!({"status": {"allowed": is_allowed(&state, &sent)}}));
        }
        let Some((kind, key, subresource)) = parse(&path) else { return refusal(404, "NotFound") };
        if key.name.is_empty() && parts.method == Method::GET {
            return if is_watch { watch(&mut state, kind, &query) } else { list(&state, kind, &key.namespace, &query) };
        }
        self.one(&mut state, &parts.method, kind, key, &subresource, sent)
    }

    fn one(
        &self,
        state: &mut State,
        method: &Method,
        kind: Kind,
        key: Key,
        subresource: &str,
        mut sent: Value,
    ) -> Response<Body> {
        if *method == Method::POST && subresource.is_empty() {
            let key = Key::new(key.namespace, sent["metadata"]["name"].as_str().unwrap_or_default());
            if state.objects.contains_key(&(kind, key.clone())) {
                return refusal(409, "AlreadyExists");
            }
            sent["metadata"]["uid"] = format!("{kind:?}/{key}/{}", state.revision).into();
            sent["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            sent["metadata"]["generation"] = 1.into();
            return answer(&self.store(state, kind, key, Some(sent)));
        }
        let Some(mut current) = state.objects.get(&(kind, key.clone())).cloned() else {
            return refusal_about(404, "NotFound", &key.name);
        };
        match (method.as_str(), subresource) {
            ("GET", "") => return answer(&current),
            ("DELETE", "") => {
                let wanted = &sent["preconditions"]["uid"];
                if wanted.is_string() && *wanted != current["metadata"]["uid"] {
                    return refusal(409, "Conflict");
                }
                if current["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
                    current["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                    return answer(&self.store(state, kind, key, Some(current)));
                }
                return answer(&self.store(state, kind, key, None));
            }
            ("PATCH", "") => {
                if !merge(&mut current, &sent) {
                    return refusal(409, "Conflict");
                }
                if is_released(&current) {
                    return answer(&self.store(state, kind, key, None));
                }
            }
            ("PATCH", "scale") => {
                current["spec"]["replicas"] = sent["spec"]["replicas"].clone();
                bump_generation(&mut current);
            }
            ("POST", "token") => {
                return answer(&json!({"status": {"token": "t", "expirationTimestamp": state.tokens_end}}));
            }
            ("POST", "binding") => current["spec"]["nodeName"] = sent["target"]["name"].clone(),
            ("PUT", _) if sent["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] => {
                return refusal(409, "Conflict");
            }
            ("PUT", "status") => current["status"] = sent["status"].clone(),
            ("PUT", "finalize") => {
                current["spec"] = sent["spec"].clone();
                if current["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                    return answer(&self.store(state, kind, key, None));
                }
            }
            ("PUT", "") => {
                let status = current["status"].take();
                let same = sent["spec"] == current["spec"];
                current = sent;
                current["status"] = status;
                if !same {
                    bump_generation(&mut current);
                }
                let held = current["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
                if current["metadata"]["deletionTimestamp"].is_string() && !held {
                    return answer(&self.store(state, kind, key, None));
                }
            }
            _ => return refusal(405, "MethodNotAllowed"),
        }
        answer(&self.store(state, kind, key, Some(current)))
    }
}

impl State {
    fn tell_of_definitions(&mut self) {
        self.revision += 1;
        let definition = json!({"metadata": {"name": "changed", "resourceVersion": self.revision.to_string()}});
        let line = json!({"type": "MODIFIED", "object": definition});
        self.definition_watchers.retain(|to| to.send(line.clone()).is_ok());
    }

    /// What is served beside the kinds that controllers know.
    fn discovery(&self) -> Value {
        let resource = |(plural, custom): (&&str, &Custom)| {
            json!({"resource": plural, "responseKind": {"kind": custom.kind}, "scope": "Namespaced",
                   "verbs": ["list", "watch", "delete"]})
        };
        let resources: Vec<Value> = self.customs.iter().map(resource).collect();
        json!({"items": [{"metadata": {"name": "example.com"}, "versions": [{"version": "v1", "resources": resources}]}]})
    }

    /// Answers a request for custom resources: `plural`, or `namespaces/x/plural/name`.
    fn custom(&mut self, method: &Method, path: &str, is_watch: bool, sent: &Value) -> Response<Body> {
        let parts: Vec<&str> = path.split('/').collect();
        let (plural, key) = match parts.as_slice() {
            [plural] => (*plural, None),
            ["namespaces", namespace, plural, name] => (*plural, Some(Key::new(*namespace, *name))),
            _ => return refusal(404, "NotFound"),
        };
        let revision = self.revision.to_string();
        let Some(custom) = self.customs.get_mut(plural) else { return refusal(404, "NotFound") };
        let Some(key) = key else {
            let objects: Vec<&Value> = custom.objects.values().collect();
            if !is_watch {
                return answer(&json!({"metadata": {"resourceVersion": revision}, "items": objects}));
            }
            let lines: Vec<Value> = objects.iter().map(|object| json!({"type": "ADDED", "object": object})).collect();
            let response = stream_to(&mut custom.watchers);
            // What came since the listing is among these.
            let to = custom.watchers.last().expect("it was just added");
            lines.into_iter().for_each(|line| to.send(line).expect("the other end is the response"));
            return response;
        };
        let Some(mut current) = custom.objects.get(&key).cloned() else {
            return refusal_about(404, "NotFound", &key.name);
        };
        match method.as_str() {
            "GET" => answer(&current),
            "DELETE" if sent["preconditions"]["uid"] != current["metadata"]["uid"] => refusal(409, "Conflict"),
            "DELETE" => {
                self.delete_custom(plural, &key, sent);
                answer(&current)
            }
            "PATCH" if merge(&mut current, sent) => {
                let left = (!is_released(&current)).then(|| current.clone());
                self.store_custom(plural, &key, left);
                answer(&current)
            }
            _ => refusal(409, "Conflict"),
        }
    }

    fn delete_custom(&mut self, plural: &str, key: &Key, options: &Value) {
        let Some(mut object) = self.customs.get(plural).and_then(|custom| custom.objects.get(key)).cloned() else {
            return;
        };
        let metadata = &mut object["metadata"];
        let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
        match options["propagationPolicy"].as_str() {
            Some("Foreground") => finalizers.push("foregroundDeletion".into()),
            Some("Orphan") => finalizers.push("orphan".into()),
            _ => {}
        }
        metadata["finalizers"] = finalizers.into();
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let left = (!is_released(&object)).then_some(object);
        self.store_custom(plural, key, left);
    }

    /// Keeps a custom resource, or takes it away, and tells.
    fn store_custom(&mut self, plural: &str, key: &Key, value: Option<Value>) {
        self.revision += 1;
        let revision = self.revision.to_string();
        let custom = self.customs.get_mut(plural).expect("the kind is served");
        let before = custom.objects.remove(key);
        let type_ = match (&before, &value) {
            (_, None) => "DELETED",
            (None, _) => "ADDED",
            _ => "MODIFIED",
        };
        let Some(mut object) = value.clone().or(before) else { return };
        object["metadata"]["resourceVersion"] = revision.into();
        if value.is_some() {
            custom.objects.insert(key.clone(), object.clone());
        }
        let line = json!({"type": type_, "object": object});
        custom.watchers.retain(|to| to.send(line.clone()).is_ok());
    }
}

/// Merges lists of the metadata into an object; whether it is the one that was meant.
fn merge(object: &mut Value, sent: &Value) -> bool {
    let (metadata, sent) = (&mut object["metadata"], &sent["metadata"]);
    for field in ["uid", "resourceVersion"] {
        if sent[field].is_string() && sent[field] != metadata[field] {
            return false;
        }
    }
    for field in ["ownerReferences", "finalizers"].into_iter().filter(|field| sent[field].is_array()) {
        metadata[field] = sent[field].clone();
    }
    true
}

/// Whether an object is being deleted, and nothing holds it.
fn is_released(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

/// Everybody may do everything where there is a binding.
fn is_allowed(state: &State, review: &Value) -> bool {
    let namespace = review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    state.objects.keys().any(|(kind, key)| match kind {
        Kind::ClusterRoleBinding => true,
        Kind::RoleBinding => key.namespace == namespace,
        _ => false,
    })
}

fn lease(state: &mut State, method: &Method, path: &str, mut sent: Value) -> Response<Body> {
    state.revision += 1;
    let version = state.revision.to_string();
    let name = sent["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = if *method == Method::POST { format!("{path}/{name}") } else { path.to_owned() };
    match (method.as_str(), state.leases.get(&path)) {
        ("GET", Some(found)) => return answer(found),
        ("POST", None) => {}
        ("PUT", Some(found)) if found["metadata"]["resourceVersion"] == sent["metadata"]["resourceVersion"] => {}
        ("POST" | "PUT", Some(_)) => return refusal(409, "Conflict"),
        _ => return refusal(404, "NotFound"),
    }
    sent["metadata"]["resourceVersion"] = version.into();
    let written = answer(&sent);
    state.leases.insert(path, sent);
    written
}

fn bump_generation(value: &mut Value) {
    let next = value["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
    value["metadata"]["generation"] = next.into();
}

/// Name of an object.
pub(crate) fn key_of(value: &Value) -> Key {
    let text = |name: &str| value["metadata"][name].as_str().unwrap_or_default().to_owned();
    Key::new(text("namespace"), text("name"))
}

/// Kind, key (without a name for a collection) and subresource of a path.
fn parse(path: &str) -> Option<(Kind, Key, String)> {
    for kind in Kind::ALL {
        let collection = kind.collection_path(None);
        let root = collection.strip_suffix(kind.plural())?;
        let Some(rest) = path.strip_prefix(root) else { continue };
        let mut parts: Vec<&str> = rest.split('/').collect();
        let mut namespace = "";
        if parts[0] == "namespaces" && parts.len() > 2 && *kind != Kind::Namespace {
            namespace = parts[1];
            parts.drain(..2);
        }
        if parts[0] != kind.plural() {
            continue;
        }
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        if *kind == Kind::Namespace && !matches!(part(2), "" | "status" | "finalize") {
            continue;
        }
        return Some((*kind, Key::new(namespace, part(1)), part(2).to_owned()));
    }
    None
}

/// A page of a kind; the token is how many objects were told before.
fn list(state: &State, kind: Kind, namespace: &str, query: &str) -> Response<Body> {
    let number = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.parse::<usize>().ok());
    let (from, most) = (number("continue=").unwrap_or_default(), number("limit=").unwrap_or(usize::MAX));
    let within = |key: &Key| namespace.is_empty() || key.namespace == namespace;
    let of = state.objects.iter().filter(|((k, key), _)| *k == kind && within(key));
    let all: Vec<&Value> = of.map(|(_, value)| value).collect();
    let items = &all[from.min(all.len())..];
    let (items, is_last) = (&items[..most.min(items.len())], items.len() <= most);
    let next = if is_last { String::new() } else { (from + most).to_string() };
    answer(&json!({"metadata": {"resourceVersion": state.revision.to_string(), "continue": next}, "items": items}))
}

fn watch(state: &mut State, kind: Kind, query: &str) -> Response<Body> {
    let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
    let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or_default();
    if from > state.revision {
        return refusal(504, "ResourceVersionTooLarge");
    }
    let (to, lines) = mpsc::unbounded_channel();
    if from < state.compacted {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
            "reason": "Expired", "message": "too old resource version"});
        to.send(json!({"type": "ERROR", "object": status})).expect("the other end is below");
    } else {
        for (_, _, line) in state.history.iter().filter(|(revision, of, _)| *revision > from && *of == kind) {
            to.send(line.clone()).expect("the other end is below");
        }
        state.watchers.push((kind, to));
    }
    stream_of(lines)
}

/// A watch in which one more of these tells what comes.
fn stream_to(watchers: &mut Vec<mpsc::UnboundedSender<Value>>) -> Response<Body> {
    let (to, lines) = mpsc::unbounded_channel();
    watchers.push(to);
    stream_of(lines)
}

fn stream_of(lines: mpsc::UnboundedReceiver<Value>) -> Response<Body> {
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(format!("{line}\n")))), lines))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn answer(value: &Value) -> Response<Body> {
    Response::new(whole(value.to_string()))
}

fn refusal(code: u16, reason: &str) -> Response<Body> {
    refusal_about(code, reason, "")
}

/// One that names the object that it is about.
fn refusal_about(code: u16, reason: &str, name: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("{reason} it was"), "details": {"name": name, "causes": [{"reason": reason}]}});
    Response::builder().status(code).body(whole(status.to_string())).expect("a status code in range")
}
