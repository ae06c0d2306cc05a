//! Namespace → its `default` ServiceAccount, which pods without a choice of their own run as.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{api::core::v1::ServiceAccount, apimachinery::pkg::apis::meta::v1::ObjectMeta},
};

use crate::{Absence, Plan, Row, World};

/// Name of the account every namespace has.
const NAME: &str = "default";

/// See the module.
pub(super) const ROW: Row = Row {
    name: "service-account",
    of: Kind::Namespace,
    wakes: &[(Kind::ServiceAccount, by_namespace)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// The namespace that the object lives in.
pub(super) fn by_namespace(_world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    object.meta().namespace.iter().map(|namespace| Key::new("", namespace.clone())).collect()
}

fn plan(world: &World, key: &Key, _now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let live = world.namespaces.get(key).is_some_and(|namespace| !namespace.is_deleting());
    if live && world.service_accounts.get(&Key::new(key.name.clone(), NAME)).is_none() {
        plan.create(ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(key.name.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{NOW, plan_of, world};
    use super::*;

    #[test]
    fn every_live_namespace_gets_the_default_account_once() {
        let mut w = world(&["Namespace a", "Namespace b deleting"]);
        assert_eq!(plan_of(&ROW, &mut w, "/a"), "create ServiceAccount a/default\n");
        assert!(plan(&w, &Key::new("", "a"), NOW).is_empty());
        assert!(plan(&w, &Key::new("", "b"), NOW).is_empty());
    }
}
