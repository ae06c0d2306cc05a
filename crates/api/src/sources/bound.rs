//! What a SinkBinding puts into the containers of a pod: where their events go, what is set on them, the certificates to
//! trust, and a token that says who sends.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapProjection, Container, EnvVar, PodSpec, ProjectedVolumeSource, SecretProjection, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use serde::Deserialize as _;
use serde_json::Value;

use super::SinkBinding;
use crate::{Kind, Resource};

/// Variables that are a binding's.
const VARIABLES: [&str; 3] = ["K_SINK", "K_CA_CERTS", "K_CE_OVERRIDES"];
/// What volumes of certificates begin with, and the one that is made here.
const VOLUMES: &str = "kne-bundle-";
const VOLUME: &str = "kne-bundle-volume";
/// Where containers find them.
const FOLDER: &str = "/knative-custom-certs";
/// The volume of the token, and where containers find it.
const TOKEN_VOLUME: &str = "oidc-token";
const TOKEN_FOLDER: &str = "/oidc";
/// Of a file's mode, as the API server fills it in.
const READABLE: i32 = 0o644;

/// ConfigMaps of a namespace's own with certificates to trust that count: the first, by their names. Each may be as long as an
/// object can be, and every binding of the namespace looks at them.
pub const MOST_BUNDLES: usize = 64;

/// Whether a binding may write to what this controller makes. Two writers that each put back what the other wrote never end: what
/// Knoll makes of something else is bound by that, unless the same made the binding. Another's controller has what it writes
/// bound as it is written.
pub fn may_bind(controller: &OwnerReference, binding: &SinkBinding) -> bool {
    let is_ours = Kind::from_api(&controller.api_version, &controller.kind).is_some();
    !is_ours || binding.controller().is_some_and(|own| own.uid == controller.uid)
}

/// See the module. The default is what nothing was bound to.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    env: Vec<EnvVar>,
    /// Names of ConfigMaps with certificates to trust.
    bundles: Vec<String>,
    /// Name of the Secret with the token that they send.
    token: Option<String>,
}

impl Bound {
    /// What this binding puts there, by what its status says of the sink and the token, with the certificates of these ConfigMaps.
    pub fn of(binding: &SinkBinding, bundles: Vec<String>) -> Bound {
        let source = &binding.status.source;
        let overrides = binding.spec.source.ce_overrides.as_ref();
        let overrides = overrides
            .map(|overrides| serde_json::to_string(overrides).expect("overrides have string keys and strings only"));
        let one = |name: &str, value: Option<String>| EnvVar { name: name.to_owned(), value, value_from: None };
        let mut env = vec![one(VARIABLES[0], source.sink_uri.clone())];
        env.extend(source.sink_ca_certs.clone().map(|bundle| one(VARIABLES[1], Some(bundle))));
        env.push(one(VARIABLES[2], overrides));
        Bound { env, bundles, token: binding.status.oidc_token_secret_name.clone() }
    }

    /// Gives every container of a pod this, and nothing older.
    pub fn put(&self, pod: &mut PodSpec) {
        let mut volumes = pod.volumes.take().unwrap_or_default();
        volumes.retain(|volume| !is_own(&volume.name));
        volumes.extend(self.volumes());
        pod.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
        for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
            let mut env = container.env.take().unwrap_or_default();
            env.retain(|variable| !is_bound(variable));
            env.extend(self.env.iter().cloned());
            container.env = Some(env).filter(|env| !env.is_empty());
            let mut mounts = container.volume_mounts.take().unwrap_or_default();
            mounts.retain(|mount| !is_own(&mount.name));
            mounts.extend(self.mounts());
            container.volume_mounts = Some(mounts).filter(|mounts| !mounts.is_empty());
        }
    }

    fn volumes(&self) -> impl Iterator<Item = Volume> {
        let of_map = |name: &String| VolumeProjection {
            config_map: Some(ConfigMapProjection { name: name.clone(), ..ConfigMapProjection::default() }),
            ..VolumeProjection::default()
        };
        let of_secret = |name: &String| VolumeProjection {
            secret: Some(SecretProjection { name: name.clone(), ..SecretProjection::default() }),
            ..VolumeProjection::default()
        };
        let volume = |name: &str, sources: Vec<VolumeProjection>| {
            let projected = ProjectedVolumeSource { default_mode: Some(READABLE), sources: Some(sources) };
            Volume { name: name.to_owned(), projected: Some(projected), ..Volume::default() }
        };
        let bundles = (!self.bundles.is_empty()).then(|| volume(VOLUME, self.bundles.iter().map(of_map).collect()));
        let token = self.token.as_ref().map(|name| volume(TOKEN_VOLUME, vec![of_secret(name)]));
        bundles.into_iter().chain(token)
    }

    fn mounts(&self) -> impl Iterator<Item = VolumeMount> {
        let mount = |name: &str, path: &str, read_only| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only,
            ..VolumeMount::default()
        };
        let bundles = (!self.bundles.is_empty()).then(|| mount(VOLUME, FOLDER, Some(true)));
        let token = self.token.as_ref().map(|_| mount(TOKEN_VOLUME, TOKEN_FOLDER, None));
        bundles.into_iter().chain(token)
    }
}

/// Changes what of a pod a binding changes, in the pod as JSON, of which all else stays as it is. Of one that cannot be read
/// nothing changes.
pub fn change(there: &mut Value, change: impl FnOnce(&mut PodSpec)) {
    let Ok(mut pod) = PodSpec::deserialize(&*there) else { return };
    change(&mut pod);
    let changed = serde_json::to_value(pod).expect("a pod is JSON");
    for list in ["initContainers", "containers"] {
        let containers = there.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, changed) in containers.zip(changed[list].as_array().into_iter().flatten()) {
            replace(container, changed, &["env", "volumeMounts"]);
        }
    }
    replace(there, &changed, &["volumes"]);
}

fn replace(into: &mut Value, changed: &Value, fields: &[&str]) {
    let Some(into) = into.as_object_mut() else { return };
    for field in fields {
        match changed.get(field) {
            Some(value) => drop(into.insert((*field).to_owned(), value.clone())),
            None => drop(into.remove(*field)),
        }
    }
}

/// Gives a pod what was put into another one, each container what that of its name has, and nothing else.
pub fn keep(there: &PodSpec, pod: &mut PodSpec) {
    Bound::default().put(pod);
    let volumes: Vec<Volume> = there.volumes.iter().flatten().filter(|volume| is_own(&volume.name)).cloned().collect();
    if !volumes.is_empty() {
        pod.volumes.get_or_insert_default().extend(volumes);
    }
    let there: Vec<&Container> = there.init_containers.iter().flatten().chain(&there.containers).collect();
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        let Some(same) = there.iter().find(|there| there.name == container.name) else { continue };
        let env: Vec<EnvVar> = same.env.iter().flatten().filter(|variable| is_bound(variable)).cloned().collect();
        if !env.is_empty() {
            container.env.get_or_insert_default().extend(env);
        }
        let mounts: Vec<VolumeMount> =
            same.volume_mounts.iter().flatten().filter(|mount| is_own(&mount.name)).cloned().collect();
        if !mounts.is_empty() {
            container.volume_mounts.get_or_insert_default().extend(mounts);
        }
    }
}

fn is_bound(variable: &EnvVar) -> bool {
    VARIABLES.contains(&variable.name.as_str())
}

fn is_own(name: &str) -> bool {
    name.starts_with(VOLUMES) || name == TOKEN_VOLUME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodSpec {
        serde_json::from_value(serde_json::json!({
            "containers": [{"name": "c", "env": [{"name": "X", "value": "z"}, {"name": "K_SINK", "value": "http://old"}],
                "volumeMounts": [{"name": "own", "mountPath": "/own"}]}],
            "initContainers": [{"name": "i"}],
            "volumes": [{"name": "own", "emptyDir": {}}],
        }))
        .expect("a pod")
    }

    fn bound(bundles: &[&str]) -> Bound {
        let binding: SinkBinding = serde_json::from_value(serde_json::json!({
            "spec": {"sink": {"uri": "http://sink"}, "ceOverrides": {"extensions": {"a": "b"}}},
            "status": {"sinkUri": "http://sink", "sinkCACerts": "PEM", "oidcTokenSecretName": "b-oidc-token"},
        }))
        .expect("a binding");
        Bound::of(&binding, bundles.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_pod_has_what_it_is_bound_to_once_and_its_own() {
        let mut pod = pod();
        bound(&["a", "b"]).put(&mut pod);
        let shown = serde_json::to_string(&pod.volumes).expect("JSON");
        let expected = r#"[{"emptyDir":{},"name":"own"},{"name":"kne-bundle-volume","projected":{"defaultMode":420,"sources":[{"configMap":{"name":"a"}},{"configMap":{"name":"b"}}]}},{"name":"oidc-token","projected":{"defaultMode":420,"sources":[{"secret":{"name":"b-oidc-token"}}]}}]"#;
        assert_eq!(shown, expected);
        let shown = serde_json::to_string(&pod.init_containers).expect("JSON");
        let expected = r#"[{"env":[{"name":"K_SINK","value":"http://sink"},{"name":"K_CA_CERTS","value":"PEM"},{"name":"K_CE_OVERRIDES","value":"{\"extensions\":{\"a\":\"b\"}}"}],"name":"i","volumeMounts":[{"mountPath":"/knative-custom-certs","name":"kne-bundle-volume","readOnly":true},{"mountPath":"/oidc","name":"oidc-token"}]}]"#;
        assert_eq!(shown, expected);
        let once = pod.clone();
        bound(&["a", "b"]).put(&mut pod);
        assert_eq!(pod, once);
        Bound::default().put(&mut pod);
        let names = |pod: &PodSpec| -> Vec<String> {
            pod.containers[0].env.iter().flatten().map(|variable| variable.name.clone()).collect()
        };
        assert_eq!((names(&pod), pod.volumes.map(|volumes| volumes.len())), (vec!["X".to_owned()], Some(1)));
    }

    #[test]
    fn what_was_put_into_one_pod_is_put_into_another_and_nothing_else() {
        let mut there = pod();
        bound(&["a"]).put(&mut there);
        let mut next = pod();
        keep(&there, &mut next);
        assert_eq!(next, there);
        let mut bare = pod();
        Bound::default().put(&mut bare);
        keep(&bare, &mut next);
        assert_eq!(next, bare);
    }
}
