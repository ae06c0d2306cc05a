//! Objects in the store: their bytes, and the trees made of them.
//!
//! Bytes are kept with the metadata first and without `resourceVersion`, so that a reader's copy is made by
//! putting the version in front, without parsing.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use knoll_store::Entry;
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{object, resources::Resource, status::Status};

const HEAD: &[u8] = b"{\"metadata\":{";

/// The bytes under which an object is stored. It must have metadata with at least one field.
pub(crate) fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(HEAD);
    let metadata = object["metadata"].as_object().into_iter().flatten().filter(|(k, _)| *k != "resourceVersion");
    write_fields(&mut out, metadata, false);
    out.push(b'}');
    write_fields(&mut out, object.as_object().into_iter().flatten().filter(|(k, _)| *k != "metadata"), true);
    out.push(b'}');
    // Kept as long as the object is: without the room that growing left.
    out.into_boxed_slice().into()
}

fn write_fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a String, &'a Value)>, mut comma: bool) {
    for (key, value) in fields {
        if comma {
            out.push(b',');
        }
        comma = true;
        serde_json::to_writer(&mut *out, key).expect("writing JSON to memory cannot fail");
        out.push(b':');
        serde_json::to_writer(&mut *out, value).expect("writing JSON to memory cannot fail");
    }
}

/// Appends stored bytes with their version.
pub(crate) fn write_stamped(out: &mut Vec<u8>, stored: &[u8], revision: u64) {
    out.extend_from_slice(HEAD);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(stored.get(HEAD.len()..).unwrap_or_default());
}

/// Puts a version into an object.
pub(crate) fn stamp(object: &mut Value, revision: u64) {
    object::meta_mut(object).insert("resourceVersion".into(), revision.to_string().into());
}

/// An object as it was read.
#[derive(Clone)]
pub(crate) struct Stored {
    /// Its tree, with the version, in the form of the row it was read through.
    pub(crate) object: Arc<Value>,
    /// Revision of its last write.
    pub(crate) revision: u64,
}

/// Most trees that are kept: readers of a write come within milliseconds of it.
const KEPT: usize = 256;
/// Most bytes of the objects that they are of, together: a tree weighs ten times its object and more.
const KEPT_BYTES: usize = 8 << 20;

/// How long a tree is kept: nobody comes for it later, and an instance at rest holds none.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Trees of recent revisions, so that a write and its many readers share one.
#[derive(Clone, Default)]
pub(crate) struct Trees(Arc<Shared>);

#[derive(Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// There is something to let go of.
    some: Notify,
}

/// Trees by revision, and the revisions in the order they came, with when that was and how many bytes their objects have.
#[derive(Default)]
struct Kept {
    trees: HashMap<u64, Arc<Value>>,
    order: VecDeque<(Instant, u64, usize)>,
    bytes: usize,
}

impl Kept {
    fn drop_oldest(&mut self) {
        if let Some((_, oldest, bytes)) = self.order.pop_front() {
            self.trees.remove(&oldest);
            self.bytes -= bytes;
        }
    }
}

impl Trees {
    /// The tree of an entry, in the stored form, with its version.
    pub(crate) fn of(&self, bytes: &Bytes, revision: u64) -> Result<Arc<Value>, Status> {
        if let Some(tree) = self.kept().trees.get(&revision) {
            return Ok(tree.clone());
        }
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|e| Status::internal(format!("read a stored object: {e}")))?;
        stamp(&mut value, revision);
        let tree = Arc::new(value);
        self.keep(revision, tree.clone(), bytes.len());
        Ok(tree)
    }

    /// Keeps the tree of a revision, whose object has so many bytes.
    pub(crate) fn keep(&self, revision: u64, tree: Arc<Value>, bytes: usize) {
        let mut kept = self.kept();
        if kept.trees.insert(revision, tree).is_none() {
            kept.order.push_back((Instant::now(), revision, bytes));
            kept.bytes += bytes;
        }
        while kept.order.len() > KEPT || kept.bytes > KEPT_BYTES {
            kept.drop_oldest();
        }
        drop(kept);
        self.0.some.notify_one();
    }

    /// Lets go of trees when their time has come, for ever. While there are none it sleeps.
    pub(crate) async fn let_go(&self) -> Infallible {
        loop {
            self.0.some.notified().await;
            while let Some(came) = self.oldest() {
                tokio::time::sleep_until(came + KEPT_FOR).await;
                let mut kept = self.kept();
                // All that are due within a second: what comes one by one wakes nobody one by one.
                let due = Instant::now() + Duration::from_secs(1);
                while kept.order.front().is_some_and(|(came, ..)| *came + KEPT_FOR <= due) {
                    kept.drop_oldest();
                }
            }
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.kept().order.front().map(|(came, ..)| *came)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tree of an entry in the form of `resource`. Waits only where forms are converted.
    pub(crate) async fn read(&self, resource: &Resource, bytes: &Bytes, revision: u64) -> Result<Arc<Value>, Status> {
        let tree = self.of(bytes, revision)?;
        if !converts(resource) {
            return Ok(tree);
        }
        let mut object = Arc::unwrap_or_clone(tree);
        show(resource, &mut object).await?;
        Ok(Arc::new(object))
    }

    /// An entry as it was read through `resource`.
    pub(crate) async fn stored(&self, resource: &Resource, entry: &Entry) -> Result<Stored, Status> {
        let object = self.read(resource, &entry.value, entry.revision).await?;
        Ok(Stored { object, revision: entry.revision })
    }
}

/// Brings a stored object into the form of `resource`.
pub(crate) async fn show(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    match resource.conversion {
        Some(conversion) => (conversion.read)(object).await,
        None => {
            object["apiVersion"] = resource.api_version().into();
            Ok(())
        }
    }
}

/// Whether the stored form may differ from the row's.
pub(crate) fn converts(resource: &Resource) -> bool {
    resource.conversion.is_some() || resource.custom.as_ref().is_some_and(|c| !c.knative)
}

/// Most bytes of one stored object: what etcd takes at most, so that what fits here fits a cluster, too.
const MOST: usize = 1536 * 1024;

/// 413 for an object of so many bytes.
pub(crate) fn too_large(bytes: usize, most: usize) -> Status {
    let message =
        format!("etcdserver: request is too large: the object would take {bytes} bytes, and at most {most} are stored");
    Status::new(413, "RequestEntityTooLarge", message)
}

/// The stored form of an object of `resource`.
///
/// # Errors
/// 413 when it is longer than an object may be, and what conversion fails with.
pub(crate) async fn to_store(resource: &Resource, object: &Value) -> Result<Bytes, Status> {
    let bytes = match resource.conversion {
        None => encode(object),
        Some(conversion) => {
            let mut object = object.clone();
            (conversion.write)(&mut object).await?;
            encode(&object)
        }
    };
    if bytes.len() > MOST { Err(too_large(bytes.len(), MOST)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_bytes_take_their_version_without_parsing() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "3"}, "data": {"k": "v"}});
        let bytes = encode(&object);
        let mut out = Vec::new();
        write_stamped(&mut out, &bytes, 42);
        let mut expected = object;
        stamp(&mut expected, 42);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
        assert_eq!(*Trees::default().of(&bytes, 42).unwrap(), expected);
    }

    #[test]
    fn trees_of_large_objects_are_shared_and_few_are_kept() {
        let trees = Trees::default();
        let bytes = encode(&json!({"metadata": {"name": "a"}, "data": {"a": "x".repeat(1 << 20)}}));
        for revision in 1..100 {
            let read = trees.of(&bytes, revision).unwrap();
            assert!(Arc::ptr_eq(&read, &trees.of(&bytes, revision).unwrap()), "readers share it");
            trees.keep(1000 + revision, read, bytes.len());
        }
        let kept = trees.kept();
        assert!(kept.bytes <= KEPT_BYTES && kept.trees.len() == kept.order.len(), "{} bytes", kept.bytes);
        assert_eq!(kept.bytes, kept.trees.len() * bytes.len());
    }

    #[tokio::test(start_paused = true)]
    async fn trees_go_when_nobody_comes_for_them_any_more() {
        let trees = Trees::default();
        let held = trees.clone();
        let letting_go = tokio::spawn(async move { held.let_go().await });
        let bytes = encode(&json!({"metadata": {"name": "a"}}));
        let first = trees.of(&bytes, 1).unwrap();
        tokio::time::sleep(KEPT_FOR / 2).await;
        assert!(Arc::ptr_eq(&first, &trees.of(&bytes, 1).unwrap()), "readers share it");
        trees.of(&bytes, 2).unwrap();
        tokio::time::sleep(KEPT_FOR * 3 / 4).await;
        assert_eq!(trees.kept().trees.keys().collect::<Vec<_>>(), [&2]);
        tokio::time::sleep(KEPT_FOR).await;
        assert!(trees.kept().trees.is_empty() && trees.kept().order.is_empty());
        trees.of(&bytes, 3).unwrap();
        tokio::time::sleep(KEPT_FOR * 2).await;
        assert!(trees.kept().trees.is_empty(), "it goes on");
        letting_go.abort();
    }
}
