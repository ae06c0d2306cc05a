//! GET with `watch`: changes as they happen.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::Response;
use jiff::Timestamp;
use knoll_store::{Change, Lagged, Snapshot, Watch};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::list::parse_version;
use crate::{
    ApiServer,
    accept::Representation,
    body::{self, Body, BodyError},
    breath::Breath,
    call::Call,
    objects, panics,
    resources::Resource,
    respond,
    selectors::Selectors,
    status::{Cause, Status},
    tables::{self, Include},
};

/// How long a watch lives when the client does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(1800);
/// How often a watcher hears how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch waits for a revision that does not exist yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// Most changes that are put into one piece of the answer.
const BATCH: usize = 256;
/// Bytes of initial objects that are put into one piece.
const PIECE: usize = 64 * 1024;

/// Answers with a stream of events that ends after `timeoutSeconds`.
pub(crate) async fn watch(server: &Arc<ApiServer>, call: &Call) -> Result<Response<Body>, Status> {
    let mut selectors = Selectors::parse(&call.query, &call.resource)?;
    if !call.name.is_empty() {
        let by_name = crate::query::Query::parse(Some(&format!("fieldSelector=metadata.name%3D{}", call.name)));
        selectors.fields = Selectors::parse(&by_name, &call.resource)?.fields;
    }
    check_initial(call)?;
    let since = parse_version(call.query.get("resourceVersion"))?;
    let initial_events = call.query.flag("sendInitialEvents");
    let seconds = call.query.number::<u64>("timeoutSeconds")?.filter(|&s| s > 0);
    let life = seconds.map_or(DEFAULT_LIFE, |s| Duration::from_secs(s.min(24 * 3600)));
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let mut feed = Feed {
        server: server.clone(),
        resource: call.resource.clone(),
        shape: Shape::of(call),
        selectors,
        bookmarks,
        initial: None,
        end_of_initial: false,
        watch: None,
        seen: 0,
        deadline: Instant::now() + life,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        state: State::Open,
    };
    let (prefix, is_one) = feed.prefix(call);
    if let Some(revision) = since.filter(|&r| r > 0)
        && !server.store.wait_for(revision, FUTURE_WAIT).await
    {
        return Err(Status::future_revision(revision, server.store.revision()));
    }
    match since {
        Some(revision) if revision > 0 && !initial_events => feed.resume(&prefix, is_one, revision),
        _ => feed.start(&prefix, is_one, !call.query.has("sendInitialEvents") || initial_events),
    }
    let events = stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        match AssertUnwindSafe(feed.next()).catch_unwind().await {
            Ok(piece) => Some((Ok::<Bytes, BodyError>(piece?), Some(feed))),
            Err(panic) => {
                panics::note(&feed.server.counters, &*panic, "", &format!("watch {}", feed.resource.plural));
                Some((Err("the watch failed unexpectedly".into()), None))
            }
        }
    });
    Ok(respond::with_type(200, "application/json", body::stream(events)))
}

fn check_initial(call: &Call) -> Result<(), Status> {
    let rule = call.query.get("resourceVersionMatch");
    let refuse = |causes| Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
    if !call.query.has("sendInitialEvents") {
        if !rule.is_empty() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return refuse(vec![Cause::forbidden("resourceVersionMatch", why)]);
        }
        return Ok(());
    }
    if rule != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return refuse(vec![Cause::forbidden("resourceVersionMatch", why)]);
    }
    Ok(())
}

/// How objects are shown in events.
struct Shape {
    view: Representation,
    include: Include,
    /// Whether the columns were sent.
    columns_sent: bool,
}

impl Shape {
    fn of(call: &Call) -> Self {
        Self { view: call.accept.view, include: Include::parse(call.query.get("includeObject")), columns_sent: false }
    }
}

#[derive(PartialEq)]
enum State {
    Open,
    /// One last piece was sent.
    Closed,
}

/// What was there when a watch began. It is read as it is sent: whole, it may be more than there is room for.
struct Initial {
    snapshot: Snapshot,
    prefix: String,
    /// Up to here it was sent.
    after: Option<Arc<str>>,
}

/// What one watcher gets.
struct Feed {
    server: Arc<ApiServer>,
    resource: Arc<Resource>,
    shape: Shape,
    selectors: Selectors,
    bookmarks: bool,
    /// What was there at the start, while something of it is still to be sent.
    initial: Option<Initial>,
    /// Whether the end of the initial objects is still to be marked.
    end_of_initial: bool,
    watch: Option<Watch>,
    /// Everything up to this revision was sent, or concerns others.
    seen: u64,
    deadline: Instant,
    next_bookmark: Instant,
    state: State,
}

impl Feed {
    /// The narrowest prefix that holds everything that can match, and whether it is the key of the one object that can.
    fn prefix(&self, call: &Call) -> (String, bool) {
        let located = !call.resource.namespaced || !call.namespace.is_empty();
        match self.selectors.fields.exact("metadata.name") {
            Some(name) if located => (call.resource.key(&call.namespace, name), true),
            _ => (call.resource.prefix_in(&call.namespace), false),
        }
    }

    /// Starts with what is there now.
    fn start(&mut self, prefix: &str, is_one: bool, with_objects: bool) {
        let snapshot = self.server.store.snapshot();
        self.seen = snapshot.revision;
        let revision = snapshot.revision;
        if with_objects {
            self.initial = Some(Initial { snapshot, prefix: prefix.to_owned(), after: None });
            self.end_of_initial = self.bookmarks;
        }
        self.resume(prefix, is_one, revision);
    }

    /// Starts after a revision.
    fn resume(&mut self, prefix: &str, is_one: bool, after: u64) {
        self.seen = self.seen.max(after);
        let store = &self.server.store;
        self.watch = if is_one { store.watch_key(prefix, after) } else { store.watch(prefix, after) }.ok();
        if self.watch.is_none() {
            self.initial = None;
        }
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Instant {
        if self.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline }
    }

    /// The next piece: whole lines. `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Closed {
            return None;
        }
        let mut out = Vec::new();
        if self.watch.is_none() {
            self.fail(
                &mut out,
                &Status::expired(format!("too old resource version: {} ({})", self.seen, self.server.store.revision())),
            );
            return Some(out.into());
        }
        self.send_initial(&mut out).await;
        while out.is_empty() && self.state == State::Open {
            let until = self.due();
            // Looked at first: a watch with something new at every moment ends on time, too.
            if Instant::now() >= until {
                self.tick(&mut out).await;
                continue;
            }
            let watch = self.watch.as_mut()?;
            // The timer is only made when nothing is waiting: it costs more than a change.
            let first = match watch.next().now_or_never() {
                Some(result) => Some(result),
                None => tokio::select! {
                    biased;
                    result = watch.next() => Some(result),
                    () = tokio::time::sleep_until(until) => None,
                },
            };
            if let Some(result) = first {
                self.take(&mut out, result).await;
            }
        }
        if out.is_empty() { None } else { Some(out.into()) }
    }

    async fn send_initial(&mut self, out: &mut Vec<u8>) {
        if let Some(Initial { snapshot, prefix, after }) = self.initial.take() {
            let mut breath = Breath::default();
            for entry in snapshot.range(&prefix, after.as_deref()) {
                match self.admits(&entry.value, entry.revision).await {
                    Ok(true) => self.event(out, "ADDED", &entry.value, entry.revision).await,
                    Ok(false) => {}
                    Err(status) => self.fail(out, &status),
                }
                if self.state == State::Closed {
                    return;
                }
                if out.len() > PIECE {
                    let (snapshot, prefix) = (snapshot.clone(), prefix.clone());
                    self.initial = Some(Initial { snapshot, prefix, after: Some(entry.key) });
                    return;
                }
                breath.after(entry.value.len()).await;
            }
        }
        if std::mem::take(&mut self.end_of_initial) {
            self.bookmark(out, true);
        }
    }

    /// Takes a change, and those that wait behind it. Whether none waits any more.
    async fn take(&mut self, out: &mut Vec<u8>, first: Result<Option<Arc<Change>>, Lagged>) -> bool {
        let (mut result, mut breath) = (first, Breath::default());
        for _ in 0..BATCH {
            match result {
                Ok(Some(change)) => {
                    self.change(out, &change).await;
                    let previous = change.previous.as_ref().map(|entry| &entry.value);
                    breath.after(change.value.iter().chain(previous).map(Bytes::len).sum()).await;
                }
                Ok(None) => {
                    self.state = State::Closed;
                    return false;
                }
                Err(Lagged) => {
                    self.fail(out, &Status::expired("the watcher is too slow"));
                    return false;
                }
            }
            let full = out.len() > PIECE || self.state == State::Closed;
            let Some(watch) = self.watch.as_mut().filter(|_| !full) else { return false };
            result = match watch.try_next() {
                Ok(None) => return true,
                other => other,
            };
        }
        false
    }

    /// Says how far the watcher is, and ends when it is time.
    async fn tick(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        // Read before what waits is taken: every change up to it is in the watch by now. A watcher of what never
        // changes learns so how far everything is, and goes on from there instead of listing again.
        let revision = self.server.store.revision();
        let caught_up = match self.watch.as_mut().map(Watch::try_next) {
            None | Some(Ok(None)) => true,
            Some(result) => self.take(out, result).await,
        };
        if self.state == State::Closed {
            return;
        }
        if caught_up {
            self.seen = self.seen.max(revision);
        }
        if self.bookmarks {
            self.bookmark(out, false);
        }
        self.next_bookmark = now + BOOKMARK_EVERY;
        if now >= self.deadline {
            self.state = State::Closed;
        }
    }

    async fn change(&mut self, out: &mut Vec<u8>, change: &Change) {
        self.seen = change.revision;
        let before = match &change.previous {
            Some(previous) => self.admits(&previous.value, previous.revision).await,
            None => Ok(false),
        };
        let is = match &change.value {
            Some(value) => self.admits(value, change.revision).await,
            None => Ok(false),
        };
        // Nobody knows whether what cannot be read is wanted: left out, it would be missing at the watcher for ever.
        let (before, is) = match (before, is) {
            (Ok(before), Ok(is)) => (before, is),
            (Err(status), _) | (_, Err(status)) => return self.fail(out, &status),
        };
        let was = change.previous.as_ref().filter(|_| before);
        match &change.value {
            Some(value) => match (was, is, &change.previous) {
                (_, true, None) | (None, true, Some(_)) => self.event(out, "ADDED", value, change.revision).await,
                (Some(_), true, _) => self.event(out, "MODIFIED", value, change.revision).await,
                (Some(previous), false, _) => self.event(out, "DELETED", &previous.value, change.revision).await,
                (None, false, _) => {}
            },
            None => {
                if let Some(previous) = was {
                    self.event(out, "DELETED", &previous.value, change.revision).await;
                }
            }
        }
    }

    async fn admits(&self, value: &Bytes, revision: u64) -> Result<bool, Status> {
        if self.selectors.is_empty() {
            return Ok(true);
        }
        // A prefix that is a whole key also covers longer names, so the name is always compared.
        let object = self.server.trees.read(&self.resource, value, revision).await?;
        Ok(self.selectors.matches(&object))
    }

    async fn event(&mut self, out: &mut Vec<u8>, kind: &str, value: &Bytes, revision: u64) {
        let copied = self.shape.view == Representation::Plain && !objects::converts(&self.resource);
        let object = match copied {
            true => None,
            false => match self.read(value, revision).await {
                Ok(object) => Some(object),
                // Left out, it would be missing at the watcher for ever.
                Err(status) => return self.fail(out, &status),
            },
        };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        match object {
            Some(object) => self.shown(&object, out),
            None => objects::write_stamped(out, value, revision),
        }
        out.extend_from_slice(b"}\n");
    }

    /// The tree of stored bytes under another version (a deletion's, perhaps).
    async fn read(&self, value: &Bytes, revision: u64) -> Result<Value, Status> {
        let mut object: Value = serde_json::from_slice(value).unwrap_or(Value::Null);
        objects::stamp(&mut object, revision);
        objects::show(&self.resource, &mut object).await?;
        Ok(object)
    }

    fn shown(&mut self, object: &Value, out: &mut Vec<u8>) {
        let shown = match self.shape.view {
            Representation::Plain => return push(out, object),
            Representation::Partial(version) => tables::partial(object, version),
            Representation::Table(version) => {
                let row = tables::row(&self.resource.printer, object, self.shape.include, version, Timestamp::now());
                self.table(object, version, vec![row])
            }
        };
        push(out, &shown);
    }

    fn table(&mut self, object: &Value, version: &str, rows: Vec<Value>) -> Value {
        let metadata = json!({"resourceVersion": crate::object::resource_version(object)});
        let first = !std::mem::replace(&mut self.shape.columns_sent, true);
        let columns = if first { self.resource.printer.columns() } else { Value::Null };
        tables::table(version, metadata, columns, rows)
    }

    /// Says how far the watcher is; `end` closes the initial objects.
    fn bookmark(&mut self, out: &mut Vec<u8>, end: bool) {
        let mut object = json!({
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": self.seen.to_string(), "creationTimestamp": null},
        });
        if end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = match self.shape.view {
            Representation::Plain => object,
            Representation::Partial(version) => tables::partial(&object, version),
            Representation::Table(version) => {
                let row = json!({"cells": [], "object": tables::partial(&object, version)});
                self.table(&object, version, vec![row])
            }
        };
        out.extend_from_slice(b"{\"type\":\"BOOKMARK\",\"object\":");
        push(out, &shown);
        out.extend_from_slice(b"}\n");
    }

    fn fail(&mut self, out: &mut Vec<u8>, status: &Status) {
        push(out, &json!({"type": "ERROR", "object": status.to_json()}));
        out.push(b'\n');
        self.state = State::Closed;
    }
}

fn push(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("writing JSON to memory cannot fail");
}
