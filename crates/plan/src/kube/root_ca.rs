//! Namespace → its `kube-root-ca.crt` ConfigMap, with which pods check the API server's certificate.

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};

use super::service_account::by_namespace;
use crate::{Absence, Plan, Row, World};

/// Name of the ConfigMap.
const NAME: &str = "kube-root-ca.crt";
/// Its only entry.
const ENTRY: &str = "ca.crt";

/// See the module.
pub(super) const ROW: Row = Row {
    name: "root-ca",
    of: Kind::Namespace,
    wakes: &[(Kind::ConfigMap, by_namespace)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

fn plan(world: &World, key: &Key, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let ca = &world.settings.cluster_ca;
    if ca.is_empty() || world.namespaces.get(key).is_none_or(|namespace| namespace.is_deleting()) {
        return plan;
    }
    let data = Some([(ENTRY.to_owned(), ca.clone())].into());
    match world.config_maps.get(&Key::new(key.name.clone(), NAME)) {
        None => plan.create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            data,
            ..ConfigMap::default()
        }),
        Some(current) if current.data != data && !current.is_deleting() => {
            plan.update(current.as_ref(), ConfigMap { data, ..current.as_ref().clone() });
        }
        Some(_) => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{plan_of, world};
    use super::*;

    #[test]
    fn the_bundle_is_made_and_kept_right() {
        let mut w = world(&["Namespace a"]);
        w.settings.cluster_ca = "PEM 1".into();
        assert_eq!(plan_of(&ROW, &mut w, "/a"), "create ConfigMap a/kube-root-ca.crt\n");
        assert_eq!(plan_of(&ROW, &mut w, "/a"), "");
        w.settings.cluster_ca = "PEM 2".into();
        assert_eq!(plan_of(&ROW, &mut w, "/a"), "update ConfigMap a/kube-root-ca.crt\n");
        assert_eq!(plan_of(&ROW, &mut w, "/a"), "");
    }
}
