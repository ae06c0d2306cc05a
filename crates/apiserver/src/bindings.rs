//! What each write of a template of pods is looked up in: the SinkBindings of a namespace by whom they mean, and its
//! certificates to trust. Both follow the store; neither reads the namespace when it is asked.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;
use knoll_api::{labels::eventing::TRUST_BUNDLE, sources::bound::MOST_BUNDLES};
use serde_json::Value;

use crate::{label_selector::LabelSelector, object};

/// Where SinkBindings are kept.
pub(crate) const BINDINGS: &str = "/sources.knative.dev/sinkbindings/";
/// Where ConfigMaps are kept, certificates to trust among them.
pub(crate) const MAPS: &str = "/core/configmaps/";

/// See the module.
#[derive(Default)]
pub(crate) struct Bindings(RwLock<Known>);

/// By key: namespace and name.
#[derive(Default)]
struct Known {
    bindings: BTreeMap<Box<str>, Subject>,
    /// uids of the owners of each.
    bundles: BTreeMap<Box<str>, Vec<Box<str>>>,
}

/// Whom a binding means, and since when.
#[derive(PartialEq, Eq)]
struct Subject {
    /// What is oldest counts; of the same second, what comes first by name.
    created: String,
    api_version: String,
    kind: String,
    name: String,
    /// Where no name is given.
    selector: Option<LabelSelector>,
}

impl Subject {
    /// Nothing for a binding that is being deleted.
    fn of(binding: &Value) -> Option<Self> {
        let subject = &binding["spec"]["subject"];
        let text = |pointer| object::text(subject, pointer).to_owned();
        let name = text("/name");
        let selector = name.is_empty().then(|| LabelSelector::from_object(&subject["selector"])).flatten();
        (!object::is_deleting(binding)).then(|| Self {
            created: object::text(binding, "/metadata/creationTimestamp").to_owned(),
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            name,
            selector,
        })
    }

    fn is(&self, api_version: &str, kind: &str, object: &Value) -> bool {
        let is_chosen = match self.name.as_str() {
            "" => self.selector.as_ref().is_some_and(|selector| selector.matches(&object["metadata"]["labels"])),
            name => name == object::name(object),
        };
        self.api_version == api_version && self.kind == kind && is_chosen
    }
}

impl Bindings {
    /// Forgets everything of a prefix, which is told anew.
    pub(crate) fn begin(&self, prefix: &str) {
        let mut known = self.write();
        match prefix {
            BINDINGS => known.bindings.clear(),
            _ => known.bundles.clear(),
        }
    }

    /// Takes in a binding as it is now. `key` is where it is kept.
    pub(crate) fn take_binding(&self, key: &str, binding: Option<&Value>) {
        let key = key.strip_prefix(BINDINGS).unwrap_or(key);
        match binding.and_then(Subject::of) {
            Some(subject) => self.write().bindings.insert(key.into(), subject),
            None => self.write().bindings.remove(key),
        };
    }

    /// Takes in a ConfigMap as it is now: one that [`may_be_bundle`], or nothing.
    pub(crate) fn take_map(&self, key: &str, map: Option<&Value>) {
        let key = key.strip_prefix(MAPS).unwrap_or(key);
        match map.filter(|map| map["metadata"]["labels"][TRUST_BUNDLE] == "true") {
            Some(map) => {
                let owners = object::list(map, "/metadata/ownerReferences").iter();
                let owners = owners.map(|owner| object::text(owner, "/uid").into()).collect();
                self.write().bundles.insert(key.into(), owners);
            }
            None => drop(self.write().bundles.remove(key)),
        }
    }

    /// Name of the oldest binding of a namespace that means an object of this kind. Costs a comparison for each binding of the
    /// namespace.
    pub(crate) fn oldest(&self, namespace: &str, api_version: &str, kind: &str, object: &Value) -> Option<String> {
        let (prefix, known) = (format!("{namespace}/"), self.read());
        let here = known.bindings.range::<str, _>(from(&prefix)).take_while(|(key, _)| key.starts_with(&prefix));
        let meant = here.filter(|(_, subject)| subject.is(api_version, kind, object));
        let (key, _) = meant.min_by_key(|(key, subject)| (&subject.created, *key))?;
        Some(key[prefix.len()..].to_owned())
    }

    /// Names of the ConfigMaps of a namespace whose certificates who is bound by the binding of this uid is to trust: the
    /// binding's own copies, else what the namespace has itself, [`MOST_BUNDLES`] at most.
    pub(crate) fn bundles(&self, namespace: &str, uid: &str) -> Vec<String> {
        let (prefix, known) = (format!("{namespace}/"), self.read());
        let here = known.bundles.range::<str, _>(from(&prefix)).take_while(|(key, _)| key.starts_with(&prefix));
        let here: Vec<_> = here.map(|(key, owners)| (key[prefix.len()..].to_owned(), owners)).collect();
        let own = here.iter().filter(|(_, owners)| owners.iter().any(|owner| **owner == *uid));
        let own: Vec<String> = own.map(|(name, _)| name.clone()).collect();
        if own.is_empty() { here.into_iter().map(|(name, _)| name).take(MOST_BUNDLES).collect() } else { own }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from(key: &str) -> (Bound<&str>, Bound<&str>) {
    (Bound::Included(key), Bound::Unbounded)
}

/// Whether a stored ConfigMap may be one of certificates: what is not does not have to be read.
pub(crate) fn may_be_bundle(map: &Bytes) -> bool {
    std::str::from_utf8(map).is_ok_and(|text| text.contains(TRUST_BUNDLE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(created: &str, subject: Value) -> Value {
        json!({"metadata": {"creationTimestamp": created}, "spec": {"subject": subject}})
    }

    #[test]
    fn the_oldest_that_means_an_object_counts() {
        let bindings = Bindings::default();
        let by_name = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let by_label = json!({"apiVersion": "apps/v1", "kind": "Deployment", "selector": {"matchLabels": {"a": "b"}}});
        let take = |key: &str, binding: &Value| bindings.take_binding(&format!("{BINDINGS}{key}"), Some(binding));
        take("ns/young", &binding("2", by_name.clone()));
        take("ns/z", &binding("1", by_label.clone()));
        take("ns/a", &binding("1", by_label.clone()));
        take("ns-2/elsewhere", &binding("0", by_name.clone()));
        let object = json!({"metadata": {"name": "d", "labels": {"a": "b"}}});
        let oldest = |object: &Value| bindings.oldest("ns", "apps/v1", "Deployment", object);
        assert_eq!(oldest(&object).as_deref(), Some("a"));
        assert_eq!(oldest(&json!({"metadata": {"name": "d"}})).as_deref(), Some("young"));
        assert_eq!(oldest(&json!({"metadata": {"name": "other"}})), None);
        assert_eq!(bindings.oldest("ns", "apps/v1", "ReplicaSet", &object), None);
        let mut ending = binding("1", by_label);
        ending["metadata"]["deletionTimestamp"] = "3".into();
        take("ns/a", &ending);
        assert_eq!(oldest(&object).as_deref(), Some("z"));
        bindings.take_binding(&format!("{BINDINGS}ns/z"), None);
        assert_eq!(oldest(&object).as_deref(), Some("young"));
        bindings.begin(BINDINGS);
        assert_eq!(oldest(&object), None);
    }

    #[test]
    fn a_bindings_own_bundles_stand_before_those_of_its_namespace() {
        let bindings = Bindings::default();
        let map =
            |owner: &str| json!({"metadata": {"labels": {TRUST_BUNDLE: "true"}, "ownerReferences": [{"uid": owner}]}});
        bindings.take_map(&format!("{MAPS}ns/all"), Some(&map("somebody")));
        bindings.take_map(&format!("{MAPS}ns/mine"), Some(&map("u")));
        bindings.take_map(&format!("{MAPS}ns/none"), Some(&json!({"metadata": {"name": "none"}})));
        assert_eq!(bindings.bundles("ns", "u"), ["mine"]);
        assert_eq!(bindings.bundles("ns", "another"), ["all", "mine"]);
        bindings.take_map(&format!("{MAPS}ns/mine"), None);
        assert_eq!(bindings.bundles("ns", "u"), ["all"]);
        (0..100).for_each(|at| bindings.take_map(&format!("{MAPS}ns/more{at:02}"), Some(&map("somebody"))));
        assert_eq!(bindings.bundles("ns", "u").len(), MOST_BUNDLES);
        assert!(may_be_bundle(&Bytes::from(map("u").to_string())) && !may_be_bundle(&Bytes::from_static(b"{}")));
    }
}
