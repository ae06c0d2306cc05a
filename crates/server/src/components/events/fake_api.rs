//! As much of an API server as what is tested here takes: objects that are made, replaced, read, listed and watched.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use knoll_client::{Body, Client, whole};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// See the module. Selectors are not looked at. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By their paths.
    objects: BTreeMap<String, Value>,
    /// What happened: the path of an object, and what watches tell of it. A revision is how many there are.
    events: Vec<(String, String)>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    /// Answered instead, once, to what asks for a path that ends so.
    faults: Vec<(&'static str, u16)>,
    /// Answered to whoever writes an object whose path ends so.
    refusals: Vec<(&'static str, u16)>,
    /// Creates of Secrets wait for this where there is one.
    gate: Option<Arc<Notify>>,
}

impl FakeApi {
    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        Client::new(move |request| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        })
    }

    /// The next request for a path that ends so is answered by this status.
    pub(super) fn fail(&self, end: &'static str, code: u16) {
        self.state().faults.push((end, code));
    }

    /// From now on nobody may write an object whose path ends so, or everybody again.
    pub(super) fn refuse(&self, end: &'static str, code: Option<u16>) {
        let mut state = self.state();
        state.refusals.retain(|(refused, _)| *refused != end);
        state.refusals.extend(code.map(|code| (end, code)));
    }

    /// From now on Secrets are made when this is notified, if there is one.
    pub(super) fn hold(&self, gate: Option<Arc<Notify>>) {
        self.state().gate = gate;
    }

    /// Puts an object at this path, whether there is one or not. It has the uid of the one that there is, or what it says.
    pub(super) fn put(&self, path: &str, object: Value) -> Value {
        self.state().write(path.to_owned(), object)
    }

    /// Removes an object.
    pub(super) fn remove(&self, path: &str) {
        let mut state = self.state();
        let object = state.objects.remove(path).expect("it is there");
        state.tell(path, "DELETED", object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// The paths of all objects.
    pub(super) fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let gate = self.state().gate.clone();
        if let Some(gate) = gate.filter(|_| head.method == Method::POST && head.uri.path().ends_with("secrets")) {
            gate.notified().await;
        }
        let query = head.uri.query().unwrap_or_default();
        if query.starts_with("watch=1") {
            let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).expect("a revision");
            return Response::new(self.watch(head.uri.path(), from.parse().expect("a number")));
        }
        let (code, value) = self.state().decide(&head, &body);
        let mut response = Response::new(whole(value.to_string()));
        *response.status_mut() = StatusCode::from_u16(code).expect("a status");
        response
    }

    fn watch(&self, collection: &str, from: usize) -> Body {
        let (events, lines) = mpsc::unbounded_channel();
        let mut state = self.state();
        for (_, line) in state.events[from..].iter().filter(|(path, _)| is_in(path, collection)) {
            events.send(line.clone().into()).expect("it is listened to");
        }
        state.watches.push((collection.to_owned(), events));
        let lines =
            stream::unfold(
                lines,
                |mut lines| async move { lines.recv().await.map(|line| (Ok(Frame::data(line)), lines)) },
            );
        StreamBody::new(lines).boxed_unsync()
    }
}

impl State {
    fn decide(&mut self, head: &Parts, body: &[u8]) -> (u16, Value) {
        let path = head.uri.path();
        if let Some(at) = self.faults.iter().position(|(end, _)| path.ends_with(end)) {
            return status(self.faults.remove(at).1);
        }
        if head.method == Method::GET {
            return match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None if head.uri.query().is_some_and(|query| query.contains("limit=")) => (200, self.list(path)),
                None => status(404),
            };
        }
        let object: Value = serde_json::from_slice(body).expect("an object");
        let makes = head.method == Method::POST;
        let path = if makes { format!("{path}/{}", name(&object)) } else { path.to_owned() };
        if let Some((_, code)) = self.refusals.iter().find(|(end, _)| path.ends_with(end)) {
            return status(*code);
        }
        match (makes, self.objects.contains_key(&path)) {
            (true, true) => status(409),
            (false, false) => status(404),
            (true, false) => (201, self.write(path, object)),
            (false, true) => (200, self.write(path, object)),
        }
    }

    fn list(&self, collection: &str) -> Value {
        let items: Vec<_> = self.objects.iter().filter(|(path, _)| is_in(path, collection)).map(|(_, it)| it).collect();
        json!({"metadata": {"resourceVersion": self.events.len().to_string()}, "items": items})
    }

    fn write(&mut self, path: String, mut object: Value) -> Value {
        let before = self.objects.get(&path);
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let uid = before.unwrap_or(&object)["metadata"]["uid"].clone();
        object["metadata"]["uid"] = if uid.is_null() { format!("uid-{}", self.events.len()).into() } else { uid };
        object["metadata"]["resourceVersion"] = (self.events.len() + 1).to_string().into();
        self.objects.insert(path.clone(), object.clone());
        self.tell(&path, kind, object.clone());
        object
    }

    fn tell(&mut self, path: &str, kind: &str, mut object: Value) {
        object["metadata"]["resourceVersion"] = (self.events.len() + 1).to_string().into();
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.watches
            .retain(|(collection, events)| !is_in(path, collection) || events.send(line.clone().into()).is_ok());
        self.events.push((path.to_owned(), line));
    }
}

fn status(code: u16) -> (u16, Value) {
    let reason = if code == 404 { "NotFound" } else { "" };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"}))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// Whether an object is in a collection: of its namespace, or of all.
fn is_in(object: &str, collection: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let of_all = parent.split_once("/namespaces/").and_then(|(root, rest)| {
        let (_, plural) = rest.split_once('/')?;
        Some(format!("{root}/{plural}"))
    });
    parent == collection || of_all.as_deref() == Some(collection)
}
