//! How a controller is tested: objects in, wants out, as text.
//!
//! [`check`] also proves what every plan must keep, for each fixture: the same plan twice; a legal name and an
//! owner on every child; an empty plan once its wants are carried out, also after a crash between any two of
//! them; transition times that move only with their condition.

mod chain;
mod cluster;
mod events;
mod growth;
mod platform;
mod print;

use std::collections::BTreeMap;

use expect_test::Expect;
use knoll_api::{Key, Kind, Timestamp, syntax};
use serde_json::Value;

pub(crate) use cluster::Cluster;

use crate::{Plan, Row, Want, World};

/// The time at which fixtures are planned: noon of the first of January 2026.
pub(crate) const NOW: Timestamp = Timestamp::constant(1_767_268_800, 0);

/// Rounds in which a plan must come to rest.
const ROUNDS: usize = 6;

/// Plans `key` (`namespace/name`) of `row` over the objects of `fixture` (YAML), and compares what it wants.
#[track_caller]
pub(crate) fn check(row: &Row, key: &str, fixture: &str, expected: Expect) {
    check_in(row, key, Cluster::of(fixture), expected);
}

/// Like [`check`], over a cluster made otherwise.
#[track_caller]
pub(crate) fn check_in(row: &Row, key: &str, cluster: Cluster, expected: Expect) {
    let plan = planned(row, key, &cluster);
    expected.assert_eq(&shown(&cluster, &plan));
}

/// A plan, as [`check`] compares it.
pub(crate) fn shown(cluster: &Cluster, plan: &Plan) -> String {
    print::plan(&cluster.world, plan)
}

/// Plans `key` (`namespace/name`) of `row`, and proves what every plan must keep.
#[track_caller]
pub(crate) fn planned(row: &Row, key: &str, cluster: &Cluster) -> Plan {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    let key = Key::new(namespace, name);
    let before = cluster.world.visits_by_kind();
    let plan = (row.plan)(&cluster.world, &key, NOW);
    let declared = row.kinds();
    for (kind, visits) in cluster.world.visits_by_kind() {
        assert!(visits == before[&kind] || declared.contains(&kind), "{} reads {kind:?} and does not say so", row.name);
    }
    assert_eq!(plan, (row.plan)(&cluster.world, &key, NOW), "the same plan twice");
    assert_children(row, &cluster.world, &key, &plan);
    assert_transitions(&cluster.world, &plan);
    assert_rest(row, &key, cluster, &plan);
    plan
}

fn assert_children(row: &Row, world: &World, key: &Key, plan: &Plan) {
    for want in &plan.wants {
        let Want::Create(object) = want else { continue };
        let meta = object.meta();
        let name = meta.name.clone().unwrap_or_default();
        let problems = syntax::dns1123_subdomain(&name);
        assert!(problems.is_empty() && name.len() <= 63, "{name}: {problems:?}");
        // Made for a user, who may do with them as he likes.
        if [Kind::ClusterDomainClaim, Kind::Broker].contains(&object.kind()) {
            continue;
        }
        // Every binding of a namespace owns the copies of bundles there.
        let is_shared = (row.of, object.kind()) == (Kind::SinkBinding, Kind::ConfigMap);
        let mut owners = meta.owner_references.iter().flatten();
        let owner = owners.find(|owner| is_shared || owner.controller == Some(true));
        let owner = owner.unwrap_or_else(|| panic!("{name} has no controller"));
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), (row.of.kind(), key.name.as_str()));
        let uid = world.meta(row.of, key).and_then(|meta| meta.uid.clone());
        assert_eq!(Some(&owner.uid), uid.as_ref(), "{name} is owned by what is there");
    }
}

/// A condition that says the same keeps its time.
fn assert_transitions(world: &World, plan: &Plan) {
    for want in &plan.wants {
        let Want::Status(after) = want else { continue };
        let before = world.object(after.kind(), &after.key()).expect("a status is written to what is there");
        let (before, after) = (conditions(&before.to_json()), conditions(&after.to_json()));
        for (type_, (content, time)) in after {
            if let Some((was, since)) = before.get(&type_)
                && *was == content
            {
                assert_eq!(*since, time, "{type_} moved without changing");
            }
        }
    }
}

type Conditions = BTreeMap<String, (Value, Value)>;

/// Content and time of conditions, by type.
fn conditions(object: &Value) -> Conditions {
    let listed = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let split = |mut condition: Value| {
        let time = condition["lastTransitionTime"].take();
        (condition["type"].as_str().unwrap_or_default().to_owned(), (condition, time))
    };
    listed.into_iter().map(split).collect()
}

/// Carried out, the plan is empty in a few rounds; so it is after a crash that left the first `k` wants done.
fn assert_rest(row: &Row, key: &Key, cluster: &Cluster, plan: &Plan) {
    let mut whole = cluster.clone();
    settle(row, key, &mut whole);
    for done in 0..plan.wants.len() {
        let mut crashed = cluster.clone();
        plan.wants[..done].iter().for_each(|want| crashed.carry_out(want, NOW));
        settle(row, key, &mut crashed);
        assert_eq!(whole.names(), crashed.names(), "after a crash at want {done}");
    }
}

fn settle(row: &Row, key: &Key, cluster: &mut Cluster) {
    for _ in 0..ROUNDS {
        let plan = (row.plan)(&cluster.world, key, NOW);
        if plan.is_empty() {
            return;
        }
        plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
    }
    let plan = (row.plan)(&cluster.world, key, NOW);
    panic!("no rest after {ROUNDS} rounds:\n{}", print::plan(&cluster.world, &plan));
}
