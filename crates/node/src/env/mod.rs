//! A container's environment and arguments: sources, fields, `$(NAME)` references, Service addresses.
//!
//! Pure: what the API holds comes in as [`Sources`].

mod expand;
mod fields;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

pub use expand::{LONGEST, TooLong, expand};
pub use fields::{field, go_quote, resource_field};
pub use services::service_variables;

/// Most bytes of all variables, or of all arguments, together: more than any kernel passes to a program.
const LONGEST_LIST: usize = 8 << 20;

/// ConfigMaps and Secrets of the pod's namespace, by name. `None` records that one does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps that were asked for.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// Secrets that were asked for.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// What an environment is made from, beside the container.
pub struct Inputs<'a> {
    /// The pod, with its address in its status once it has one.
    pub pod: &'a Pod,
    /// The address of the machine.
    pub host_ip: &'a str,
    /// The pod's address.
    pub pod_ip: &'a str,
    /// What the machine offers: stands in for limits that are not set.
    pub allocatable: Allocatable,
    /// ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// Services whose addresses are told: `default/kubernetes`, and the namespace's own unless links are off.
    pub services: &'a [Arc<Service>],
    /// Name of the machine.
    pub node_name: &'a str,
}

/// What a machine offers to pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes.
    pub ephemeral_storage_bytes: i64,
}

/// Why a container's configuration cannot be resolved; its status shows `CreateContainerConfigError` with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A ConfigMap that must exist does not.
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    /// A Secret that must exist does not.
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    /// A ConfigMap lacks a key.
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey {
        /// The key.
        key: String,
        /// Where.
        namespace: String,
        /// In which.
        name: String,
    },
    /// A Secret lacks a key.
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey {
        /// The key.
        key: String,
        /// Where.
        namespace: String,
        /// In which.
        name: String,
    },
    /// A field that cannot be told.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// A resource that cannot be told.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// A container that the pod does not have.
    #[error("container {0} not found")]
    Container(String),
    /// A variable that its references make longer than any program takes.
    #[error("environment variable {0} becomes longer than {max} KiB when its references are filled in", max = LONGEST / 1024)]
    LongVariable(String),
    /// All variables together do.
    #[error("the environment is longer than {max} MiB", max = LONGEST_LIST >> 20)]
    LongEnvironment,
    /// An argument that its references make longer than any program takes.
    #[error("an argument becomes longer than {max} KiB when its references are filled in", max = LONGEST / 1024)]
    LongWord,
    /// All arguments together do.
    #[error("the command line is longer than {max} MiB", max = LONGEST_LIST >> 20)]
    LongCommand,
    /// A quantity that cannot be read.
    #[error("cannot read {what}")]
    Quantity {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: knoll_api::quantity::QuantityError,
    },
}

/// Names of the ConfigMaps and Secrets that a pod's environments refer to.
pub fn references(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    let spec = pod.spec.iter();
    for container in spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers)) {
        for from in container.env_from.iter().flatten() {
            config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
            secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
            config_maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
            secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    for list in [&mut config_maps, &mut secrets] {
        list.sort();
        list.dedup();
    }
    (config_maps, secrets)
}

/// The environment of a container in the order it is set: its own variables, then the addresses of Services that
/// they do not overrule. The image's variables are not among them.
///
/// # Errors
/// When something it refers to does not exist, unless it is optional.
pub fn resolve(container: &Container, inputs: &Inputs<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let service_env = service_variables(inputs.services, inputs.pod);
    let mut list = Variables::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let map = config_map(inputs.sources, &reference.name, reference.optional.unwrap_or(false))?;
            for (key, value) in map.and_then(|m| m.data.as_ref()).into_iter().flatten() {
                list.set(format!("{prefix}{key}"), value.clone())?;
            }
        }
        if let Some(reference) = &from.secret_ref {
            let secret = secret(inputs.sources, &reference.name, reference.optional.unwrap_or(false))?;
            for (key, value) in secret.and_then(|s| s.data.as_ref()).into_iter().flatten() {
                list.set(format!("{prefix}{key}"), text_of(&value.0))?;
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(variable, container, inputs, &list, &service_env)? {
            list.set(variable.name.clone(), value)?;
        }
    }
    for (name, value) in service_env {
        list.set_if_absent(name, value)?;
    }
    Ok(list.ordered)
}

/// Command and arguments with their `$(NAME)` references filled in.
///
/// # Errors
/// When a word, or all of them together, become longer than any program takes.
pub fn command_line(words: &[String], environment: &[(String, String)]) -> Result<Vec<String>, EnvError> {
    let known: BTreeMap<&str, &str> = environment.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut total = 0;
    let line = words.iter().map(|word| {
        let word = expand(word, |name| known.get(name).copied()).map_err(|_| EnvError::LongWord)?;
        total += word.len();
        if total > LONGEST_LIST { Err(EnvError::LongCommand) } else { Ok(word) }
    });
    line.collect()
}

/// Variables in order, by name.
#[derive(Default)]
struct Variables {
    ordered: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
    bytes: usize,
}

impl Variables {
    fn set(&mut self, name: String, value: String) -> Result<(), EnvError> {
        let place = self.places.get(&name).copied();
        let before = place.map_or(0, |place| name.len() + self.ordered[place].1.len());
        self.bytes = self.bytes - before + name.len() + value.len();
        if self.bytes > LONGEST_LIST {
            return Err(EnvError::LongEnvironment);
        }
        match place {
            Some(place) => self.ordered[place].1 = value,
            None => {
                self.places.insert(name.clone(), self.ordered.len());
                self.ordered.push((name, value));
            }
        }
        Ok(())
    }

    fn set_if_absent(&mut self, name: String, value: String) -> Result<(), EnvError> {
        if self.places.contains_key(&name) { Ok(()) } else { self.set(name, value) }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|&place| self.ordered[place].1.as_str())
    }
}

/// The value of one variable; `None` when it is optional and its source is missing.
fn value_of(
    variable: &EnvVar,
    container: &Container,
    inputs: &Inputs<'_>,
    before: &Variables,
    service_env: &BTreeMap<String, String>,
) -> Result<Option<String>, EnvError> {
    let namespace = || inputs.pod.metadata.namespace.clone().unwrap_or_default();
    let Some(source) = &variable.value_from else {
        let known = |name: &str| before.get(name).or_else(|| service_env.get(name).map(String::as_str));
        let text = variable.value.as_deref().unwrap_or_default();
        return expand(text, known).map(Some).map_err(|_| EnvError::LongVariable(variable.name.clone()));
    };
    if let Some(reference) = &source.field_ref {
        return field(&reference.field_path, inputs).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource_field(reference, container, inputs).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let map = config_map(inputs.sources, &reference.name, optional)?;
        let value = map.and_then(|m| m.data.as_ref()).and_then(|d| d.get(&reference.key)).cloned();
        return match value {
            None if !optional => Err(EnvError::NoConfigMapKey {
                key: reference.key.clone(),
                namespace: namespace(),
                name: reference.name.clone(),
            }),
            value => Ok(value),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let secret = secret(inputs.sources, &reference.name, optional)?;
        let value = secret.and_then(|s| s.data.as_ref()).and_then(|d| d.get(&reference.key)).map(|v| text_of(&v.0));
        return match value {
            None if !optional => Err(EnvError::NoSecretKey {
                key: reference.key.clone(),
                namespace: namespace(),
                name: reference.name.clone(),
            }),
            value => Ok(value),
        };
    }
    Ok(Some(String::new()))
}

fn config_map<'a>(sources: &'a Sources, name: &str, optional: bool) -> Result<Option<&'a ConfigMap>, EnvError> {
    match sources.config_maps.get(name).and_then(Option::as_ref) {
        None if !optional => Err(EnvError::NoConfigMap(name.to_owned())),
        found => Ok(found.map(Arc::as_ref)),
    }
}

fn secret<'a>(sources: &'a Sources, name: &str, optional: bool) -> Result<Option<&'a Secret>, EnvError> {
    match sources.secrets.get(name).and_then(Option::as_ref) {
        None if !optional => Err(EnvError::NoSecret(name.to_owned())),
        found => Ok(found.map(Arc::as_ref)),
    }
}

/// Bytes as text; what is no UTF-8 becomes the replacement character.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
