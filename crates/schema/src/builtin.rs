//! The built-in kinds.

use std::sync::OnceLock;

use crate::table::{self, TypeTable};
use crate::ty::{Type, TypeRef};

const SOURCES: [&str; 37] = [
    include_str!("../tables/admissionregistration_v1.types"),
    include_str!("../tables/apiextensions_v1.types"),
    include_str!("../tables/apiregistration_v1.types"),
    include_str!("../tables/apps_v1.types"),
    include_str!("../tables/authentication_v1.types"),
    include_str!("../tables/authorization_v1.types"),
    include_str!("../tables/autoscaling_v1.types"),
    include_str!("../tables/autoscaling_v2.types"),
    include_str!("../tables/batch_v1.types"),
    include_str!("../tables/certificates_v1.types"),
    include_str!("../tables/coordination_v1.types"),
    include_str!("../tables/core_v1.types"),
    include_str!("../tables/discovery_v1.types"),
    include_str!("../tables/events_v1.types"),
    include_str!("../tables/knative_autoscaling_internal_v1alpha1.types"),
    include_str!("../tables/knative_caching_internal_v1alpha1.types"),
    include_str!("../tables/knative_eventing_v1.types"),
    include_str!("../tables/knative_eventing_v1alpha1.types"),
    include_str!("../tables/knative_eventing_v1beta1.types"),
    include_str!("../tables/knative_eventing_v1beta2.types"),
    include_str!("../tables/knative_eventing_v1beta3.types"),
    include_str!("../tables/knative_flows_v1.types"),
    include_str!("../tables/knative_messaging_v1.types"),
    include_str!("../tables/knative_networking_internal_v1alpha1.types"),
    include_str!("../tables/knative_serving_v1.types"),
    include_str!("../tables/knative_serving_v1beta1.types"),
    include_str!("../tables/knative_sinks_v1alpha1.types"),
    include_str!("../tables/knative_sources_v1.types"),
    include_str!("../tables/knative_sources_v1alpha1.types"),
    include_str!("../tables/knative_sources_v1beta2.types"),
    include_str!("../tables/meta_v1.types"),
    include_str!("../tables/networking_v1.types"),
    include_str!("../tables/node_v1.types"),
    include_str!("../tables/policy_v1.types"),
    include_str!("../tables/rbac_authorization_v1.types"),
    include_str!("../tables/scheduling_v1.types"),
    include_str!("../tables/storage_v1.types"),
];

fn table() -> &'static TypeTable {
    static TABLE: OnceLock<TypeTable> = OnceLock::new();
    TABLE.get_or_init(|| table::parse(&SOURCES))
}

pub(crate) fn at(at: u32) -> &'static Type {
    &table().types[at as usize]
}

/// The type of a built-in kind. The core group is the empty string.
///
/// Kinds that every group accepts, such as `DeleteOptions`, are found under any group and version.
pub fn lookup(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    place(group, version, kind).map(at)
}

/// As [`lookup`], shareable with types made at run time.
pub fn lookup_ref(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    place(group, version, kind).map(TypeRef::Table)
}

fn place(group: &str, version: &str, kind: &str) -> Option<u32> {
    let kinds = &table().kinds;
    kinds.get(&(group, version, kind)).or_else(|| kinds.get(&("meta", "v1", kind))).copied()
}

/// The type every object's `metadata` has.
pub fn object_meta() -> TypeRef {
    named("meta/v1", "ObjectMeta")
}

/// A built-in type by package (`core/v1`) and name.
pub(crate) fn named(package: &'static str, name: &'static str) -> TypeRef {
    TypeRef::Table(table().named(package, name).expect("the tables hold every type the program names"))
}

/// Every kind of one group and version, sorted by name.
pub fn kinds(group: &str, version: &str) -> impl Iterator<Item = &'static Type> {
    let (group, version) = (group.to_owned(), version.to_owned());
    table().kinds.iter().filter(move |((g, v, _), _)| *g == group && *v == version).map(|(_, place)| at(*place))
}

/// True when the kinds of a group are served like those of a CustomResourceDefinition: no strategic merge, no protobuf.
pub fn is_custom(group: &str) -> bool {
    group.ends_with(".knative.dev")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ty::{ListKind, Presence, Shape};

    #[test]
    fn a_pods_volumes_have_the_fields_of_their_source() {
        let pod = lookup("", "v1", "Pod").unwrap();
        let volume = pod.walk(&["spec", "volumes", "emptyDir"]).unwrap();
        assert_eq!(volume.name, "EmptyDirVolumeSource");
        let volumes = pod.walk(&["spec"]).unwrap().field("volumes").unwrap();
        assert!(volumes.strategy.merge && volumes.strategy.retain_keys);
        assert_eq!(volumes.merge_key.as_deref(), Some("name"));
    }

    #[test]
    fn a_probe_nests_its_handler_two_levels_deep() {
        let pod = lookup("", "v1", "Pod").unwrap();
        assert_eq!(
            pod.walk(&["spec", "ephemeralContainers", "livenessProbe", "httpGet"]).unwrap().name,
            "HTTPGetAction"
        );
    }

    #[test]
    fn container_ports_are_told_apart_by_port_and_protocol() {
        let container = lookup("", "v1", "Pod").unwrap().walk(&["spec", "containers", "ports"]).unwrap();
        let Shape::List(list) = &container.shape else { panic!("ports is a list") };
        assert_eq!(list.kind, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!(list.items.field("protocol").unwrap().default, Some("TCP".into()));
    }

    #[test]
    fn replicas_keeps_its_zero_and_scheduler_name_does_not() {
        let spec = lookup("apps", "v1", "Deployment").unwrap().walk(&["spec"]).unwrap();
        assert_eq!(spec.field("replicas").unwrap().presence, Presence::Explicit);
        let pod = spec.walk(&["template", "spec"]).unwrap();
        assert_eq!(pod.field("schedulerName").unwrap().presence, Presence::NonZero);
    }

    #[test]
    fn options_are_known_to_every_group() {
        assert!(lookup("apps", "v1", "DeleteOptions").is_some());
        assert!(lookup("apps", "v1", "Nonsense").is_none());
    }
}
