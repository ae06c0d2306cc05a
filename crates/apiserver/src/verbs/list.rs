//! GET of a collection.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Response;
use jiff::Timestamp;
use knoll_store::{Entry, Snapshot};
use serde_json::{Value, json};

use crate::{
    ApiServer,
    accept::{Format, Representation},
    body::Body,
    breath::Breath,
    call::Call,
    flow, objects, respond,
    selectors::Selectors,
    status::{Cause, Status},
    tables::{self, Include},
};

/// Bytes of objects after which a page of a list ends, though it has fewer than were asked for.
pub(super) const PAGE: usize = 16 << 20;
/// Most bytes of the objects of a list that is asked for in one piece.
const WHOLE: usize = 256 << 20;
/// How long a list waits for a revision that does not exist yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// Which state is listed, and how much of it.
struct Page {
    snapshot: Snapshot,
    start_after: Option<String>,
    limit: usize,
}

impl Page {
    /// How many bytes of objects are read for it, where none is left out.
    fn bytes(&self, prefix: &str, selectors: &Selectors) -> usize {
        let (most, mut bytes) = (if self.limit == 0 { usize::MAX } else { self.limit }, 0_usize);
        let lengths = self.snapshot.lengths(prefix, self.start_after.as_deref());
        for (count, length) in lengths.enumerate() {
            if bytes > WHOLE || (selectors.is_empty() && (count >= most || (self.limit > 0 && bytes > PAGE))) {
                break;
            }
            bytes = bytes.saturating_add(length);
        }
        bytes
    }
}

/// Answers with the objects of a collection, or a page of them.
pub(crate) async fn list(server: &Arc<ApiServer>, call: &Call) -> Result<Response<Body>, Status> {
    let selectors = Selectors::parse(&call.query, &call.resource)?;
    let page = page(server, call).await?;
    let bytes = page.bytes(&call.resource.prefix_in(&call.namespace), &selectors);
    let _turn = server.flow.list(bytes, &flow::who(&call.identity, Ipv4Addr::LOCALHOST.into())).await;
    let found = collect(server, call, &page, &selectors).await?;
    let mut metadata = json!({"resourceVersion": page.snapshot.revision.to_string()});
    if let Some(last) = &found.more_after {
        metadata["continue"] = token(Some(page.snapshot.revision), last).into();
        if selectors.is_empty() {
            let rest = page.snapshot.count_after(&call.resource.prefix_in(&call.namespace), Some(last));
            metadata["remainingItemCount"] = rest.into();
        }
    }
    match (call.accept.view, call.accept.format) {
        (Representation::Plain, Format::Json) => {
            Ok(respond::bytes(200, plain(server, call, &metadata, found.entries).await?))
        }
        (Representation::Plain, Format::Yaml) => {
            let bytes = plain(server, call, &metadata, found.entries).await?;
            let value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
            Ok(respond::value(200, &value, Format::Yaml))
        }
        (Representation::Table(version), format) => {
            Ok(respond::value(200, &table(server, call, version, metadata, found.entries).await?, format))
        }
        (Representation::Partial(version), format) => {
            let mut items = Vec::with_capacity(found.entries.len());
            let mut breath = Breath::default();
            for entry in found.entries {
                let stored = server.trees.stored(&call.resource, &entry).await?;
                items.push(tables::partial(&stored.object, version));
                breath.after(entry.value.len()).await;
            }
            let api_version = format!("meta.k8s.io/{version}");
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": api_version, "metadata": metadata, "items": items});
            Ok(respond::value(200, &list, format))
        }
    }
}

async fn table(
    server: &ApiServer,
    call: &Call,
    version: &str,
    metadata: Value,
    entries: Vec<Entry>,
) -> Result<Value, Status> {
    let (printer, now) = (&call.resource.printer, Timestamp::now());
    let include = Include::parse(call.query.get("includeObject"));
    let mut rows = Vec::with_capacity(entries.len());
    let mut breath = Breath::default();
    for entry in entries {
        let stored = server.trees.stored(&call.resource, &entry).await?;
        rows.push(tables::row(printer, &stored.object, include, version, now));
        breath.after(entry.value.len()).await;
    }
    Ok(tables::table(version, metadata, printer.columns(), rows))
}

/// The list as JSON, objects copied as they are stored where their form allows it.
async fn plain(server: &ApiServer, call: &Call, metadata: &Value, entries: Vec<Entry>) -> Result<Vec<u8>, Status> {
    let resource = &call.resource;
    let total: usize = entries.iter().map(|e| e.value.len() + 48).sum();
    let mut out = Vec::with_capacity(total + 256);
    let head = json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata});
    let head = head.to_string();
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(b",\"items\":[");
    let mut breath = Breath::default();
    for (at, entry) in entries.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        breath.after(entry.value.len()).await;
        if objects::converts(resource) {
            let stored = server.trees.stored(resource, &entry).await?;
            serde_json::to_writer(&mut out, &*stored.object).map_err(Status::internal)?;
        } else {
            objects::write_stamped(&mut out, &entry.value, entry.revision);
        }
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

struct Found {
    entries: Vec<Entry>,
    /// The last key of a page that has a next one.
    more_after: Option<String>,
}

async fn collect(server: &ApiServer, call: &Call, page: &Page, selectors: &Selectors) -> Result<Found, Status> {
    let resource = &call.resource;
    let mut entries: Vec<Entry> = Vec::new();
    if let Some(key) = single_key(call, selectors) {
        let entry = page.snapshot.get(&key).filter(|_| page.start_after.is_none());
        if let Some(entry) = entry
            && selectors.matches(&server.trees.stored(resource, &entry).await?.object)
        {
            entries.push(entry);
        }
        return Ok(Found { entries, more_after: None });
    }
    let prefix = resource.prefix_in(&call.namespace);
    let (mut bytes, mut breath) = (0_usize, Breath::default());
    for entry in page.snapshot.range(&prefix, page.start_after.as_deref()) {
        breath.after(entry.value.len()).await;
        if !selectors.is_empty() && !selectors.matches(&server.trees.stored(resource, &entry).await?.object) {
            continue;
        }
        bytes = bytes.saturating_add(entry.value.len());
        let is_full = entries.len() == page.limit || (bytes > PAGE && !entries.is_empty());
        if page.limit > 0 && is_full {
            let more_after = entries.last().map(|last| last.key.to_string());
            return Ok(Found { entries, more_after });
        }
        if bytes > WHOLE {
            let why =
                format!("the objects of this list have more than {WHOLE} bytes: ask for them in pages, with limit");
            return Err(Status::too_large(&why));
        }
        entries.push(entry);
    }
    Ok(Found { entries, more_after: None })
}

/// The one key that can match, when the name is fixed and the namespace known.
fn single_key(call: &Call, selectors: &Selectors) -> Option<String> {
    let name = selectors.fields.exact("metadata.name")?;
    let located = !call.resource.namespaced || !call.namespace.is_empty();
    located.then(|| call.resource.key(&call.namespace, name))
}

/// Keys of the objects of a collection at this moment that match; for deletions of many.
pub(crate) async fn matching(server: &ApiServer, call: &Call, selectors: &Selectors) -> Result<Vec<Arc<str>>, Status> {
    let (snapshot, prefix) = (server.store.snapshot(), call.resource.prefix_in(&call.namespace));
    let (mut keys, mut breath) = (Vec::new(), Breath::default());
    if selectors.is_empty() {
        return Ok(snapshot.keys(&prefix).map(|(key, _)| key.clone()).collect());
    }
    for entry in snapshot.range(&prefix, None) {
        breath.after(entry.value.len()).await;
        if selectors.matches(&server.trees.stored(&call.resource, &entry).await?.object) {
            keys.push(entry.key);
        }
    }
    Ok(keys)
}

async fn page(server: &Arc<ApiServer>, call: &Call) -> Result<Page, Status> {
    let query = &call.query;
    let limit = query.number::<i64>("limit")?.unwrap_or(0).max(0) as usize;
    let (version, rule, token) =
        (query.get("resourceVersion"), query.get("resourceVersionMatch"), query.get("continue"));
    if !token.is_empty() {
        if !version.is_empty() && version != "0" {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        return continued(server, call, token, limit);
    }
    check_match(version, rule)?;
    let wanted = parse_version(version)?;
    let newest = || Page { snapshot: server.store.snapshot(), start_after: None, limit };
    let Some(wanted) = wanted.filter(|&v| v > 0) else { return Ok(newest()) };
    if !server.store.wait_for(wanted, FUTURE_WAIT).await {
        return Err(Status::future_revision(wanted, server.store.revision()));
    }
    let exact = rule == "Exact" || (rule.is_empty() && limit > 0);
    if !exact {
        return Ok(newest());
    }
    let too_old = |_| Status::expired("The resourceVersion for the provided list is too old.");
    let snapshot = server.store.snapshot_at(wanted).map_err(too_old)?;
    Ok(Page { snapshot, start_after: None, limit })
}

fn check_match(version: &str, rule: &str) -> Result<(), Status> {
    let refuse = |cause| Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
    match rule {
        "" => Ok(()),
        "Exact" | "NotOlderThan" if version.is_empty() => refuse(Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        "Exact" if version == "0" => refuse(Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        "Exact" | "NotOlderThan" => Ok(()),
        other => refuse(Cause::not_supported("resourceVersionMatch", &other.into(), &["Exact", "NotOlderThan", ""])),
    }
}

/// A resource version; `None` when empty.
pub(crate) fn parse_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: must be a number that an answer of this server gave"
        ))
    })
}

fn continued(server: &ApiServer, call: &Call, token: &str, limit: usize) -> Result<Page, Status> {
    let invalid = || Status::bad_request("continue key is not valid: the token cannot be decoded");
    let decoded = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| invalid())?;
    let decoded: Value = serde_json::from_slice(&decoded).map_err(|_| invalid())?;
    let start = decoded["start"].as_str().ok_or_else(invalid)?.to_owned();
    if !start.starts_with(&call.resource.prefix_in(&call.namespace)) {
        return Err(invalid());
    }
    let snapshot = match decoded["rv"].as_i64() {
        Some(revision) if revision > 0 => server.store.snapshot_at(revision.unsigned_abs()).map_err(|_| {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
            Status::expired(message).continuing(self::token(None, &start))
        })?,
        _ => server.store.snapshot(),
    };
    Ok(Page { snapshot, start_after: Some(start), limit })
}

/// A token to go on after a key; without a revision, from whatever is there by then.
fn token(revision: Option<u64>, after: &str) -> String {
    let revision = revision.map_or(-1, |r| i64::try_from(r).unwrap_or(-1));
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": after}).to_string())
}
