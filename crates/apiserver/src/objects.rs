//! Objects in the store: their bytes, and the trees made of them.
//!
//! Bytes are kept with the metadata first and without `resourceVersion`, so that a reader's copy is made by
//! putting the version in front, without parsing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use knoll_store::Entry;
use serde_json::Value;

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

/// Most trees that are kept: readers of a write come within milliseconds of it, and a tree weighs ten times its bytes.
const KEPT: usize = 256;
/// Largest object whose tree is kept, in bytes.
const LARGEST: usize = 64 * 1024;

/// Trees of recent revisions, so that a write and its many readers share one.
#[derive(Clone, Default)]
pub(crate) struct Trees(Arc<Mutex<Kept>>);

/// Trees by revision, and the revisions in the order they came.
type Kept = (HashMap<u64, Arc<Value>>, VecDeque<u64>);

impl Trees {
    /// The tree of an entry, in the stored form, with its version.
    pub(crate) fn of(&self, bytes: &Bytes, revision: u64) -> Result<Arc<Value>, Status> {
        if let Some(tree) = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(&revision) {
            return Ok(tree.clone());
        }
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|e| Status::internal(format!("read a stored object: {e}")))?;
        stamp(&mut value, revision);
        let tree = Arc::new(value);
        if bytes.len() <= LARGEST {
            self.keep(revision, tree.clone());
        }
        Ok(tree)
    }

    /// Keeps the tree of a revision.
    pub(crate) fn keep(&self, revision: u64, tree: Arc<Value>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (trees, order) = &mut *kept;
        if trees.insert(revision, tree).is_none() {
            order.push_back(revision);
        }
        while order.len() > KEPT {
            if let Some(oldest) = order.pop_front() {
                trees.remove(&oldest);
            }
        }
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
}
