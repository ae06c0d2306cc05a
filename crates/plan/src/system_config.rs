//! The control plane's own configuration, read from the ConfigMaps of its namespaces.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Object, Resource,
    config::{self, Data, eventing},
    k8s_openapi::api::core::v1::ConfigMap,
};

use crate::{Changed, Settings, World};

/// A ConfigMap that configures the control plane. Serving and Eventing use the same names, each in a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemConfig {
    /// One of [`config::NAMES`] in Serving's namespace, by its name.
    Serving(&'static str),
    /// One of [`eventing::NAMES`] in Eventing's namespace, by its name.
    Eventing(&'static str),
}

impl SystemConfig {
    /// Which of them a ConfigMap is, if it is one. Where both have the same namespace, it is Serving's.
    fn of(map: &ConfigMap, settings: &Settings) -> Option<SystemConfig> {
        let known = |names: &[&'static str]| names.iter().copied().find(|name| *name == map.name());
        if map.namespace() == settings.system_namespace {
            known(&config::NAMES).map(SystemConfig::Serving)
        } else if map.namespace() == settings.eventing_namespace {
            known(&eventing::NAMES).map(SystemConfig::Eventing)
        } else {
            None
        }
    }

    /// Whether it is one of Eventing's.
    pub fn is_eventing(self) -> bool {
        matches!(self, SystemConfig::Eventing(_))
    }
}

impl World {
    /// Reads the configuration again, if `object` is part of it. A map that cannot be read keeps its earlier values.
    pub(crate) fn read_config(&mut self, object: &Object) -> Option<Changed> {
        let Object::ConfigMap(map) = object else { return None };
        let config = SystemConfig::of(map, &self.settings)?;
        let is_news = match config {
            SystemConfig::Serving(_) => self.read_serving(),
            SystemConfig::Eventing(_) => self.read_eventing(),
        };
        is_news.then_some(Changed::Config(config))
    }

    fn read_serving(&mut self) -> bool {
        let maps = self.maps(&self.settings.system_namespace, &config::NAMES);
        let mut config = self.config.updated(&maps);
        config.domain = config.domain.or_else(&self.settings.default_domain);
        let is_news = config != *self.config;
        if is_news {
            self.config = Arc::new(config);
        }
        is_news
    }

    fn read_eventing(&mut self) -> bool {
        let maps = self.maps(&self.settings.eventing_namespace, &eventing::NAMES);
        let eventing = self.eventing.updated(&maps);
        let is_news = eventing != *self.eventing;
        if is_news {
            self.eventing = Arc::new(eventing);
        }
        is_news
    }

    /// What the ConfigMaps of these names say.
    fn maps(&self, namespace: &str, names: &[&str]) -> BTreeMap<String, Data> {
        let maps = self.config_maps.in_namespace(namespace).filter(|map| names.contains(&map.name()));
        maps.map(|map| (map.name().to_owned(), map.data.clone().unwrap_or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::{Key, Kind};
    use serde_json::json;

    use super::*;
    use crate::Change;

    fn put(world: &mut World, namespace: &str, name: &str, data: &serde_json::Value) -> Vec<SystemConfig> {
        let map = json!({"metadata": {"namespace": namespace, "name": name}, "data": data});
        let changes = world.apply(Change::Put(Object::from_json(Kind::ConfigMap, map).expect("a ConfigMap")));
        configs(changes)
    }

    fn configs(changes: Vec<Changed>) -> Vec<SystemConfig> {
        let config = |changed| if let Changed::Config(config) = changed { Some(config) } else { None };
        changes.into_iter().filter_map(config).collect()
    }

    #[test]
    fn maps_of_one_name_in_two_namespaces_are_two_maps() {
        let mut world = World::new(Settings::default());
        let name = "config-features";
        let auto_detect = json!({"autodetect-http2": "enabled", "transport-encryption": "strict"});
        assert_eq!(put(&mut world, "knative-serving", name, &auto_detect), [SystemConfig::Serving(name)]);
        assert!(world.config.features.auto_detect_http2.is_enabled());
        assert_eq!(*world.eventing, eventing::EventingBundle::default(), "Serving's map says nothing of Eventing");

        let serving = world.config.clone();
        let strict = json!({"transport-encryption": "strict"});
        assert_eq!(put(&mut world, "knative-eventing", name, &strict), [SystemConfig::Eventing(name)]);
        assert_ne!(*world.eventing, eventing::EventingBundle::default());
        assert_eq!(world.config, serving, "nor Eventing's of Serving");
        assert_eq!(put(&mut world, "default", name, &json!({"transport-encryption": "permissive"})), []);

        let gone = world.apply(Change::Gone(Kind::ConfigMap, Key::new("knative-serving", name)));
        assert_eq!(configs(gone), [SystemConfig::Serving(name)]);
        assert!(!world.config.features.auto_detect_http2.is_enabled());
        assert_ne!(*world.eventing, eventing::EventingBundle::default(), "what went was the other");
        let gone = world.apply(Change::Gone(Kind::ConfigMap, Key::new("knative-eventing", name)));
        assert_eq!(configs(gone), [], "Eventing's keeps what it said");
        assert_ne!(*world.eventing, eventing::EventingBundle::default());
    }

    #[test]
    fn a_map_of_eventing_that_cannot_be_read_keeps_what_was() {
        let mut world = World::new(Settings::default());
        put(&mut world, "knative-eventing", "config-ping-defaults", &json!({"data-max-size": "5"}));
        put(&mut world, "knative-eventing", "config-ping-defaults", &json!({"data-max-size": "much"}));
        assert_eq!(world.eventing.ping_defaults.data_max_size, 5);
        assert_eq!(world.eventing.errors.keys().collect::<Vec<_>>(), ["config-ping-defaults"]);
    }
}
