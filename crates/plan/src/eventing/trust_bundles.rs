//! Bundles of certificates that senders of events trust: copies of the system's ConfigMaps where SinkBindings are, and where
//! pods find them.
//!
//! As upstream: each bundle has a copy of its own, and all together have one more, for programs that read one file. A copy is
//! owned by every binding of its namespace, so that it goes with the last of them.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Resource,
    k8s_openapi::{
        ByteString,
        api::core::v1::{
            ConfigMap, ConfigMapProjection, Container, PodSpec, ProjectedVolumeSource, Volume, VolumeMount,
            VolumeProjection,
        },
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    },
    labels::eventing::TRUST_BUNDLE,
    names,
    sources::SinkBinding,
};

use crate::{Plan, World, children::map};

/// What copies are called after what they are of.
const SUFFIX: &str = "kne-bundle";
/// The bundle of all bundles, and its file.
const COMBINED: &str = "kn-combined-kne-bundle";
const COMBINED_FILE: &str = "kn-combined-kne-bundle.pem";
/// Most bytes of it: a ConfigMap has no room for more.
const MOST: usize = 1_000_000;
/// What volumes of bundles begin with, and the one that is made here.
const VOLUMES: &str = "kne-bundle-";
const VOLUME: &str = "kne-bundle-volume";
/// Where pods find them.
const FOLDER: &str = "/knative-custom-certs";
/// Where pods find all together in one file.
pub(super) const COMBINED_PATH: &str = "/knative-custom-certs/kn-combined-kne-bundle.pem";
/// Of a file's mode, as the API server fills it in.
pub(super) const READABLE: i32 = 0o644;
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
    let there = world.config_maps.labelled(binding.namespace(), TRUST_BUNDLE, "true");
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

/// The names of the ConfigMaps that [`propagate`] has seen to in a namespace.
pub(super) fn names_in(world: &World, namespace: &str) -> Vec<String> {
    world.config_maps.labelled(namespace, TRUST_BUNDLE, "true").iter().map(|map| map.name().to_owned()).collect()
}

/// Has every container of a pod find these bundles, and no others that were put there before.
pub(super) fn mount(pod: &mut PodSpec, bundles: &[String]) {
    let mut volumes = pod.volumes.take().unwrap_or_default();
    volumes.retain(|volume| !volume.name.starts_with(VOLUMES));
    volumes.extend(volume(bundles));
    pod.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        let mut mounts = container.volume_mounts.take().unwrap_or_default();
        mounts.retain(|mount| !is_of_bundles(mount));
        mounts.extend((!bundles.is_empty()).then(mount_of_bundles));
        container.volume_mounts = Some(mounts).filter(|mounts| !mounts.is_empty());
    }
}

/// What is mounted of bundles into a container.
pub(super) fn mounted(container: &Container) -> Vec<VolumeMount> {
    container.volume_mounts.iter().flatten().filter(|mount| is_of_bundles(mount)).cloned().collect()
}

/// The volumes of bundles that a pod has.
pub(super) fn volumes(pod: &PodSpec) -> Vec<Volume> {
    pod.volumes.iter().flatten().filter(|volume| volume.name.starts_with(VOLUMES)).cloned().collect()
}

fn is_of_bundles(mount: &VolumeMount) -> bool {
    mount.name.starts_with(VOLUMES)
}

fn mount_of_bundles() -> VolumeMount {
    let (name, mount_path) = (VOLUME.to_owned(), FOLDER.to_owned());
    VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
}

fn volume(bundles: &[String]) -> Option<Volume> {
    let source = |name: &String| VolumeProjection {
        config_map: Some(ConfigMapProjection { name: name.clone(), ..ConfigMapProjection::default() }),
        ..VolumeProjection::default()
    };
    let sources: Vec<VolumeProjection> = bundles.iter().map(source).collect();
    let projected = ProjectedVolumeSource { default_mode: Some(READABLE), sources: Some(sources) };
    (!bundles.is_empty()).then(|| Volume { name: VOLUME.to_owned(), projected: Some(projected), ..Volume::default() })
}

/// Whether a ConfigMap has, or had, anything to do with what is trusted.
pub(super) fn is_bundle(map: &impl Resource) -> bool {
    map.label(TRUST_BUNDLE) == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_pod_has_the_bundles_that_it_is_to_have_and_its_own_volumes() {
        let mut pod: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "c", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}],
            "initContainers": [{"name": "i"}],
            "volumes": [{"name": "own", "emptyDir": {}}],
        }))
        .expect("a pod");
        let own = pod.clone();
        mount(&mut pod, &["a".to_owned(), "b".to_owned()]);
        let shown = serde_json::to_string(&volumes(&pod)).expect("JSON");
        let expected = r#"[{"name":"kne-bundle-volume","projected":{"defaultMode":420,"sources":[{"configMap":{"name":"a"}},{"configMap":{"name":"b"}}]}}]"#;
        assert_eq!(shown, expected);
        let once = pod.clone();
        mount(&mut pod, &["a".to_owned(), "b".to_owned()]);
        assert_eq!(pod, once, "once is enough");
        let shown = serde_json::to_string(&pod.init_containers).expect("JSON");
        let expected = r#"[{"name":"i","volumeMounts":[{"mountPath":"/knative-custom-certs","name":"kne-bundle-volume","readOnly":true}]}]"#;
        assert_eq!(shown, expected);
        assert_eq!(mounted(&pod.containers[0]).len(), 1);
        mount(&mut pod, &[]);
        assert_eq!(pod, own);
    }
}
