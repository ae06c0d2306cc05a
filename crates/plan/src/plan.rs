//! What a controller wants done.

use std::time::Duration;

use knoll_api::{Key, Kind, Object, Resource};
use serde_json::Value;

use crate::{AccessRequest, DigestRequest, Target, TokenSecret};

/// What a controller wants done for one key. Empty when all is well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order they are to be carried out. The first that fails ends the plan; the key is planned again.
    pub wants: Vec<Want>,
    /// Plan this key again after this long even if nothing changes.
    pub recheck: Option<Duration>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Create the object. A refusal that is not a conflict is recorded in [`crate::Observed::refusals`].
    Create(Object),
    /// Replace metadata and spec. Carries the resourceVersion it was computed from.
    Update(Object),
    /// Replace the status. Carries the resourceVersion it was computed from.
    Status(Object),
    /// Set `spec.replicas` through the scale subresource.
    Scale {
        /// Kind of the target.
        kind: Kind,
        /// The target.
        key: Key,
        /// Wanted replicas.
        replicas: i32,
    },
    /// Delete the object, if it is still the one with this uid.
    Delete {
        /// Kind of the object.
        kind: Kind,
        /// The object.
        key: Key,
        /// Its uid: a precondition.
        uid: String,
        /// Seconds a pod gets to end; `None` takes the object's own.
        grace_seconds: Option<i64>,
        /// What becomes of its dependents.
        propagation: Propagation,
    },
    /// Delete an object that no owner keeps, once the API server confirms that it has these owners and no others, and that
    /// those which the World does not hold do not exist.
    Collect {
        /// The object.
        object: Target,
        /// Its uid: a precondition.
        uid: String,
        /// The uids of its owners.
        owners: Vec<String>,
        /// Owners that the World does not hold, and their uids.
        absent: Vec<(Target, String)>,
        /// What becomes of its dependents.
        propagation: Propagation,
    },
    /// Take entries off a list in an object's metadata, once the API server confirms that these owners do not exist.
    Shrink {
        /// The object.
        object: Target,
        /// Its uid: a precondition.
        uid: String,
        /// Which list.
        list: MetadataList,
        /// The entries: uids of owners, or finalizers.
        without: Vec<String>,
        /// Owners that the World does not hold, and their uids.
        absent: Vec<(Target, String)>,
    },
    /// Delete what a namespace holds of kinds that no controller knows. Fails while anything is left.
    DeleteContent {
        /// The namespace.
        namespace: String,
    },
    /// Merge a patch into an object of a kind that no controller knows. Carries the resourceVersion it was computed from.
    Patch {
        /// Path of the object in the API.
        path: String,
        /// The patch.
        patch: Value,
    },
    /// Bind a pod to a node through the binding subresource.
    Bind {
        /// The pod.
        pod: Key,
        /// Its uid.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// Write a Namespace's finalizers through the finalize subresource.
    Finalize(Object),
    /// Record a Kubernetes Event. Best effort.
    RecordEvent(EventRecord),
    /// Ask the API server what a ServiceAccount may do, and report it for `asker`.
    ReviewAccess {
        /// What is asked.
        request: AccessRequest,
        /// The object that waits for it.
        asker: (Kind, Key),
        /// How often rules had changed when it was planned; the answer says so, too.
        rules: u64,
    },
    /// Have the API server issue a token, and write it into a Secret.
    IssueToken(Box<TokenSecret>),
    /// Find out the digest of an image, and report it for `asker`.
    ResolveDigest {
        /// The image and whose credentials to use.
        request: DigestRequest,
        /// The Revision that waits for it.
        asker: Key,
        /// How long that may take.
        within: Duration,
    },
}

/// A list in an object's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataList {
    /// `ownerReferences`.
    OwnerReferences,
    /// `finalizers`.
    Finalizers,
}

impl MetadataList {
    /// Its name.
    pub fn field(self) -> &'static str {
        match self {
            MetadataList::OwnerReferences => "ownerReferences",
            MetadataList::Finalizers => "finalizers",
        }
    }

    /// Whether an entry is one of those that are named: owner references by their uid.
    pub fn is_of(self, entry: &Value, named: &[String]) -> bool {
        let name = match self {
            MetadataList::OwnerReferences => &entry["uid"],
            MetadataList::Finalizers => entry,
        };
        name.as_str().is_some_and(|name| named.iter().any(|one| one == name))
    }
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Collected after it is gone.
    #[default]
    Background,
    /// Collected before it goes.
    Foreground,
    /// Kept, without their owner.
    Orphan,
}

/// Whether an event reports success or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Someone should look.
    Warning,
}

/// A Kubernetes Event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// `apiVersion` of the object it is about.
    pub api_version: String,
    /// Kind of the object it is about.
    pub kind: String,
    /// The object it is about.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Normal or Warning.
    pub type_: EventType,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Plan {
    /// Wants nothing.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Whether nothing is to be done now.
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Takes out what only reports: it is said once, when there is time, as it is then. Whether there was any.
    pub fn leave_reports(&mut self) -> bool {
        let before = self.wants.len();
        self.wants.retain(|want| !matches!(want, Want::Status(_)));
        self.wants.len() < before
    }

    /// Wants the object created.
    pub fn create(&mut self, object: impl Into<Object>) {
        self.wants.push(Want::Create(object.into()));
    }

    /// Wants metadata and spec replaced when `wanted` differs from `current` in either.
    pub fn update<R: Resource + Into<Object>>(&mut self, current: &R, wanted: R) {
        if *current != wanted {
            self.wants.push(Want::Update(wanted.into()));
        }
    }

    /// Wants the status replaced when `wanted` differs from `current`.
    pub fn status<R: Resource + Into<Object>>(&mut self, current: &R, wanted: R) {
        if *current != wanted {
            self.wants.push(Want::Status(wanted.into()));
        }
    }

    /// Wants the object deleted, dependents after it.
    pub fn delete<R: Resource>(&mut self, object: &R) {
        self.wants.push(Want::Delete {
            kind: R::KIND,
            key: object.key(),
            uid: object.uid().to_owned(),
            grace_seconds: None,
            propagation: Propagation::Background,
        });
    }

    /// Wants an event recorded about `object`.
    pub fn event<R: Resource>(&mut self, object: &R, type_: EventType, reason: &str, message: impl Into<String>) {
        self.wants.push(Want::RecordEvent(EventRecord {
            api_version: R::KIND.api_version(),
            kind: R::KIND.kind().to_owned(),
            key: object.key(),
            uid: object.uid().to_owned(),
            type_,
            reason: reason.to_owned(),
            message: message.into(),
        }));
    }

    /// Asks to be planned again after `delay`, or sooner when that was asked for already.
    pub fn recheck_after(&mut self, delay: Duration) {
        self.recheck = Some(self.recheck.map_or(delay, |earlier| earlier.min(delay)));
    }
}
