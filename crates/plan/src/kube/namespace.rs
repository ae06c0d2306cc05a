//! Namespace being deleted → nothing left in it, then the namespace itself. Pods go first: nobody who could watch
//! over them may go before them.

use std::{collections::BTreeMap, time::Duration};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp, for_each_kind,
    k8s_openapi::{
        api::core::v1::{Namespace, NamespaceCondition},
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
    kind::Scope,
};

use super::pods;
use crate::{Absence, Plan, Propagation, Row, Want, World};

/// The finalizer that is ours.
const FINALIZER: &str = "kubernetes";
/// How often what is left of a namespace is counted.
const RECOUNT: Duration = Duration::from_secs(1);
/// Most deletions in one plan; the rest follows once these are seen.
const BURST: usize = 500;

macro_rules! content {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        const WAKES: &[(Kind, crate::Mapper)] = &[$((Kind::$variant, by_doomed_namespace)),*];

        /// What is in a namespace, by kind and name.
        fn content(world: &World, namespace: &str) -> Vec<(Kind, ObjectMeta)> {
            let mut found = Vec::new();
            $(
                if Kind::$variant.scope() == Scope::Namespaced {
                    let metas = world.$field.in_namespace(namespace).map(|object| object.meta().clone());
                    found.extend(metas.map(|meta| (Kind::$variant, meta)));
                }
            )*
            found
        }
    };
}
for_each_kind!(content);

/// See the module.
pub(super) const ROW: Row = Row {
    name: "namespace",
    of: Kind::Namespace,
    wakes: WAKES,
    configs: &[],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// The namespace of the object, if it is being deleted, and if that makes a difference: one more to delete, or the last
/// of its kind gone. What goes in between is counted once a second, for each look costs all that is left.
fn by_doomed_namespace(world: &World, object: &Object, _of: Kind) -> Vec<Key> {
    let (meta, kind) = (object.meta(), object.kind());
    let Some(namespace) = &meta.namespace else { return Vec::new() };
    let key = Key::new("", namespace.clone());
    let doomed = world.namespaces.get(&key).is_some_and(|namespace| namespace.is_deleting());
    let stays = meta.deletion_timestamp.is_none() && world.contains(kind, &object.key());
    if doomed && (stays || !world.is_any_in(kind, namespace)) { vec![key] } else { Vec::new() }
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(namespace) = world.namespaces.get(key).filter(|namespace| namespace.is_deleting()) else { return plan };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return plan;
    }
    let content = content(world, &key.name);
    report(&mut plan, &namespace, &content, pods::whole_seconds(now));
    if content.is_empty() {
        plan.wants.push(Want::DeleteContent { namespace: key.name.clone() });
        let mut wanted = namespace.as_ref().clone();
        let left: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        wanted.spec.get_or_insert_default().finalizers = Some(left).filter(|left| !left.is_empty());
        plan.wants.push(Want::Finalize(Object::from(wanted)));
        return plan;
    }
    plan.recheck_after(RECOUNT);
    let has_pods = content.iter().any(|(kind, _)| *kind == Kind::Pod);
    let doomed =
        content.iter().filter(|(kind, meta)| meta.deletion_timestamp.is_none() && (*kind == Kind::Pod) == has_pods);
    for (kind, meta) in doomed.take(BURST) {
        plan.wants.push(Want::Delete {
            kind: *kind,
            key: Key::of(meta),
            uid: meta.uid.clone().unwrap_or_default(),
            grace_seconds: None,
            propagation: Propagation::Background,
        });
    }
    plan
}

/// Says what is left.
fn report(plan: &mut Plan, namespace: &Namespace, content: &[(Kind, ObjectMeta)], now: Timestamp) {
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, meta) in content {
        let group = if kind.group().is_empty() { String::new() } else { format!(".{}", kind.group()) };
        *by_kind.entry(format!("{}{group}", kind.plural())).or_default() += 1;
        for finalizer in meta.finalizers.iter().flatten() {
            *by_finalizer.entry(finalizer).or_default() += 1;
        }
    }
    let parts = |items: Vec<String>| items.join(", ");
    let remaining = parts(by_kind.iter().map(|(kind, n)| format!("{kind} has {n} resource instances")).collect());
    let holding = parts(by_finalizer.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect());
    let fine = |type_: &'static str, reason, message: &str| (type_, "False", reason, message.to_owned());
    let wanted = [
        fine("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        fine(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        if remaining.is_empty() {
            fine("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed")
        } else {
            let message = format!("Some resources are remaining: {remaining}");
            ("NamespaceContentRemaining", "True", "SomeResourcesRemain", message)
        },
        if holding.is_empty() {
            let message = "All content-preserving finalizers finished";
            fine("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", message)
        } else {
            let message = format!("Some content in the namespace has finalizers remaining: {holding}");
            ("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", message)
        },
    ];
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.take().unwrap_or_default();
    let next = wanted.into_iter().map(|(type_, state, reason, message)| {
        let was = conditions.iter().find(|was| was.type_ == type_ && was.status == state);
        NamespaceCondition {
            type_: type_.to_owned(),
            status: state.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: was.map_or(Some(Time(now)), |was| was.last_transition_time.clone()),
        }
    });
    status.conditions = Some(next.collect());
    status.phase = Some("Terminating".into());
    plan.status(namespace, Namespace { status: Some(status), ..namespace.clone() });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{print, put, wants_of, world};
    use super::*;

    fn doomed() -> World {
        let mut w = world(&["Pod a/p", "ConfigMap a/c", "Secret a/s", "ConfigMap b/other"]);
        put(
            &mut w,
            Kind::Namespace,
            json!({"metadata": {"name": "a", "deletionTimestamp": "2025-06-15T15:00:00Z"},
                   "spec": {"finalizers": ["kubernetes"]}}),
        );
        w
    }

    fn printed(w: &World) -> Vec<String> {
        wants_of(&ROW, w, "/a").iter().map(print).collect()
    }

    #[test]
    fn pods_go_before_the_rest_and_the_rest_before_the_namespace() {
        let mut w = doomed();
        assert_eq!(printed(&w), ["status Namespace a", "delete Pod a/p Background"]);
        w.apply(crate::Change::Gone(Kind::Pod, Key::new("a", "p")));
        assert_eq!(
            printed(&w),
            ["status Namespace a", "delete ConfigMap a/c Background", "delete Secret a/s Background"]
        );
        w.apply(crate::Change::Gone(Kind::ConfigMap, Key::new("a", "c")));
        w.apply(crate::Change::Gone(Kind::Secret, Key::new("a", "s")));
        assert_eq!(printed(&w), ["status Namespace a", "DeleteContent { namespace: \"a\" }", "finalize Namespace a"]);
    }

    #[test]
    fn what_is_left_is_said() {
        let w = doomed();
        let Some(Want::Status(Object::Namespace(after))) = wants_of(&ROW, &w, "/a").into_iter().next() else {
            panic!("a status")
        };
        let status = after.status.clone().expect("a status");
        assert_eq!(status.phase.as_deref(), Some("Terminating"));
        let remaining = status.conditions.into_iter().flatten().find(|c| c.type_ == "NamespaceContentRemaining");
        assert_eq!(
            remaining.and_then(|c| c.message).as_deref(),
            Some(
                "Some resources are remaining: configmaps has 1 resource instances, pods has 1 resource instances, \
                 secrets has 1 resource instances"
            )
        );
    }

    #[test]
    fn a_live_namespace_keeps_its_content() {
        let w = world(&["Namespace a", "Pod a/p"]);
        assert!(printed(&w).is_empty());
    }
}
