//! Bundles of certificates that senders of events trust: copies of the system's ConfigMaps where SinkBindings are.
//!
//! As upstream: each bundle has a copy of its own, and all together have one more, for programs that read one file. A copy is
//! owned by every binding of its namespace, so that it goes with the last of them.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Resource,
    k8s_openapi::{
        ByteString,
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    },
    labels::eventing::TRUST_BUNDLE,
    names,
    sources::{SinkBinding, bound::MOST_BUNDLES},
};

use crate::{Plan, World, children::map};

/// What copies are called after what they are of.
const SUFFIX: &str = "kne-bundle";
/// The bundle of all bundles, and its file.
const COMBINED: &str = "kn-combined-kne-bundle";
const COMBINED_FILE: &str = "kn-combined-kne-bundle.pem";
/// Where pods find all together in one file.
pub(super) const COMBINED_PATH: &str = "/knative-custom-certs/kn-combined-kne-bundle.pem";
/// Most bytes of it: a ConfigMap has no room for more.
const MOST: usize = 1_000_000;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Sees to the copies in a binding's namespace. The names of the ConfigMaps whose certificates its subjects are to trust, in
/// order: where the system has none, those that the namespace has itself.
///
/// # Errors
/// When the name of a copy is another's; in words for the user.
pub(super) fn propagate(world: &World, binding: &SinkBinding, plan: &mut Plan) -> Result<Vec<String>, String> {
    let system = world.settings.eventing_namespace.as_str();
    let originals = world.config_maps.labelled(system, TRUST_BUNDLE, "true");
    let there = of_namespace(world, binding.namespace());
    let named = |maps: &[Arc<ConfigMap>]| maps.iter().map(|map| map.name().to_owned()).collect();
    if binding.namespace() == system {
        return Ok(named(&originals));
    }
    let copies: BTreeMap<String, ConfigMap> =
        originals.iter().map(|map| (**map).clone()).chain(combined(&originals)).map(|map| copy(map, binding)).collect();
    let (gone, kept): (Vec<_>, Vec<_>) =
        there.into_iter().partition(|map| !copies.contains_key(map.name()) && is_owned(map, binding));
    gone.iter().for_each(|map| plan.delete(map.as_ref()));
    if copies.is_empty() {
        return Ok(named(&kept));
    }
    let names = copies.keys().cloned().collect();
    for copy in copies.into_values() {
        settle(world, binding, copy, plan)?;
    }
    Ok(names)
}

/// What a namespace has itself, copies among it: the first of them.
fn of_namespace(world: &World, namespace: &str) -> Vec<Arc<ConfigMap>> {
    let keys = world.config_maps.keys_labelled(namespace, TRUST_BUNDLE, "true");
    let found = keys.iter().take(MOST_BUNDLES).filter_map(|key| world.config_maps.get(key));
    found.filter(|map| map.namespace() == namespace && is_bundle(map.as_ref())).collect()
}

fn settle(world: &World, binding: &SinkBinding, wanted: ConfigMap, plan: &mut Plan) -> Result<(), String> {
    let Some(existing) = world.config_maps.get(&wanted.key()) else {
        plan.create(wanted);
        return Ok(());
    };
    if existing.label(TRUST_BUNDLE).is_none() {
        let (key, label) = (wanted.key(), TRUST_BUNDLE);
        return Err(format!(
            "ConfigMap {key} is no bundle of certificates, and its name is needed for one: delete it, or label it {label}=true to have it replaced"
        ));
    }
    let mut next = ConfigMap::clone(&existing);
    (next.data, next.binary_data, next.metadata.labels) = (wanted.data, wanted.binary_data, wanted.metadata.labels);
    if !is_owned(&existing, binding) {
        next.metadata.owner_references.get_or_insert_default().push(owner(binding));
    }
    plan.update(existing.as_ref(), next);
    Ok(())
}

/// The copy for a binding, by its name.
fn copy(of: ConfigMap, binding: &SinkBinding) -> (String, ConfigMap) {
    let name = names::child(of.name(), SUFFIX);
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(binding.namespace().to_owned()),
        labels: of.metadata.labels,
        annotations: of.metadata.annotations,
        owner_references: Some(vec![owner(binding)]),
        ..ObjectMeta::default()
    };
    (name, ConfigMap { metadata, data: of.data, binary_data: of.binary_data, immutable: None })
}

/// One owner among several.
fn owner(binding: &SinkBinding) -> OwnerReference {
    OwnerReference { controller: None, block_owner_deletion: None, ..binding.controller_reference() }
}

fn is_owned(map: &ConfigMap, binding: &SinkBinding) -> bool {
    map.metadata.owner_references.iter().flatten().any(|owner| owner.uid == binding.uid())
}

/// The certificates of all bundles, as far as there is room; nothing where there are none.
fn combined(originals: &[Arc<ConfigMap>]) -> Option<ConfigMap> {
    let mut all = String::new();
    let texts = originals.iter().flat_map(|map| map.data.iter().flatten().map(|(_, text)| text));
    for certificate in texts.flat_map(|text| certificates(text)) {
        if all.len() + certificate.len() > MOST {
            break;
        }
        all.push_str(&certificate);
    }
    let metadata = ObjectMeta {
        name: Some(COMBINED.to_owned()),
        labels: Some(map([(TRUST_BUNDLE, "true")])),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([(COMBINED_FILE.to_owned(), ByteString(all.clone().into_bytes()))]);
    (!all.is_empty()).then(|| ConfigMap { metadata, binary_data: Some(data), ..ConfigMap::default() })
}

/// The PEM blocks of certificates in a text, each whole.
fn certificates(text: &str) -> Vec<String> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match (line, &mut block) {
            (BEGIN, _) => block = Some(format!("{BEGIN}\n")),
            (END, Some(_)) => found.extend(block.take().map(|text| text + END + "\n")),
            (line, Some(text)) if line.bytes().all(is_base64) => *text = format!("{text}{line}\n"),
            _ => block = None,
        }
    }
    found
}

/// Whether a ConfigMap has, or had, anything to do with what is trusted.
pub(super) fn is_bundle(map: &impl Resource) -> bool {
    map.label(TRUST_BUNDLE) == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_namespaces_own_bundles_few_are_read_for_each_binding() {
        let mut world = World::new(crate::Settings::default());
        for at in 0..300 {
            let metadata = ObjectMeta {
                name: Some(format!("own{at:03}")),
                namespace: Some("a".to_owned()),
                labels: Some(map([(TRUST_BUNDLE, "true")])),
                ..ObjectMeta::default()
            };
            world.apply(crate::Change::Put(ConfigMap { metadata, ..ConfigMap::default() }.into()));
        }
        let mut binding = SinkBinding::default();
        (binding.metadata.name, binding.metadata.namespace) = (Some("b".to_owned()), Some("a".to_owned()));
        let (before, mut plan) = (world.config_maps.visits(), Plan::nothing());
        let names = propagate(&world, &binding, &mut plan).expect("there is nothing in the way");
        assert_eq!((names.len(), names[0].as_str()), (MOST_BUNDLES, "own000"));
        let read = world.config_maps.visits() - before;
        // Finding a key counts as much as reading its object.
        assert!(read <= 300 + MOST_BUNDLES as u64, "{read}");
        assert!(plan.wants.is_empty());
    }

    #[test]
    fn only_whole_blocks_of_certificates_are_combined_as_far_as_there_is_room() {
        let block = |text: &str| format!("{BEGIN}\n{text}\n{END}\n");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let text =
            format!("# mine\n {}{key}{BEGIN}\nno base64!\n{END}\n{}{BEGIN}\nBBBB\n", block("AAAA"), block("CCCC"));
        assert_eq!(certificates(&text), [block("AAAA"), block("CCCC")]);
        let bundle = |text: String| {
            let data = BTreeMap::from([("a.pem".to_owned(), text)]);
            Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() })
        };
        assert!(combined(&[bundle("nothing".to_owned())]).is_none());
        let large = block(&"A".repeat(MOST / 2));
        let all = combined(&[bundle(block("AAAA")), bundle(large.clone()), bundle(large.clone())]).expect("some");
        let all = &all.binary_data.expect("bytes")[COMBINED_FILE].0;
        assert_eq!(all.len(), block("AAAA").len() + large.len());
    }
}
