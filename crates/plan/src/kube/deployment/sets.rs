//! The ReplicaSets of a Deployment: which is the newest, which are history, and what changes in them.

use std::collections::BTreeMap;

use knoll_api::{
    Key, Resource,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
            core::v1::PodTemplateSpec,
        },
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    },
};
use serde_json::Value;

use super::{DESIRED, MOST, REVISION, TEMPLATE_HASH, rollout, spec, wanted};
use crate::{
    EventType, Plan, World,
    kube::{hash, selector},
};

/// Letters of a template hash.
const HASH_LETTERS: usize = 10;
/// ReplicaSets kept for history when the Deployment does not say.
const HISTORY: i32 = 10;

/// A ReplicaSet as it is and as it should be.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// As it is; `None` when it is to be made.
    before: Option<ReplicaSet>,
    /// As it should be.
    pub(super) after: ReplicaSet,
}

impl Set {
    /// Replicas it should have.
    pub(super) fn replicas(&self) -> i32 {
        replicas(&self.after)
    }

    /// Replicas of it that take requests.
    pub(super) fn available(&self) -> i32 {
        self.after.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
    }

    /// Whether it was seen to have no pods, at its newest generation.
    pub(super) fn is_settled(&self) -> bool {
        self.after
            .status
            .as_ref()
            .is_some_and(|status| status.replicas == 0 && status.observed_generation >= self.after.metadata.generation)
    }

    /// Lets it have `replicas` of `deployment`'s.
    pub(super) fn scale(&mut self, deployment: &Deployment, replicas: i32) {
        self.after.spec.get_or_insert_default().replicas = Some(replicas.max(0));
        self.mark(deployment);
    }

    /// Notes for which scale of the Deployment its replicas were chosen.
    pub(super) fn mark(&mut self, deployment: &Deployment) {
        let annotations = self.after.metadata.annotations.get_or_insert_default();
        annotations.insert(DESIRED.into(), wanted(deployment).to_string());
        annotations.insert(MOST.into(), (wanted(deployment) + rollout::surge(deployment)).to_string());
    }

    fn number(&self, annotation: &str) -> Option<i64> {
        self.after.annotation(annotation)?.parse().ok()
    }

    /// Name.
    pub(super) fn name(&self) -> &str {
        self.after.name()
    }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn template(set: &ReplicaSet) -> Option<&PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref()
}

/// The ReplicaSets of a Deployment.
pub(super) struct Sets {
    /// The one of the current template, if it exists or is to be made.
    pub(super) new: Option<Set>,
    /// The others, oldest first.
    pub(super) old: Vec<Set>,
    /// Whether the name for the current template is taken by a ReplicaSet with another one.
    pub(super) collides: bool,
}

impl Sets {
    /// What the World holds.
    pub(super) fn observed(world: &World, deployment: &Deployment) -> Sets {
        let owned = world.replica_sets.owned_by(deployment.uid()).filter(|set| !set.is_deleting());
        let mut all: Vec<Set> =
            owned.map(|set| Set { before: Some(set.as_ref().clone()), after: set.as_ref().clone() }).collect();
        all.sort_by_cached_key(|set| (set.after.metadata.creation_timestamp.clone(), set.name().to_owned()));
        let current = normal(&spec(deployment).template);
        let at = all.iter().position(|set| template(&set.after).is_some_and(|t| normal(t) == current));
        let new = at.map(|at| all.remove(at));
        let name = Key::new(deployment.namespace(), new_name(deployment));
        let collides = new.is_none() && world.replica_sets.get(&name).is_some_and(|set| !set.is_deleting());
        Sets { new, old: all, collides }
    }

    /// Gives the newest set its revision and the Deployment's annotations, or makes it.
    pub(super) fn stamp(&mut self, deployment: &Deployment) {
        let newest = self.old.iter().filter_map(|set| set.number(REVISION)).max().unwrap_or_default();
        let set = self.new.get_or_insert_with(|| Set { before: None, after: make(deployment) });
        let revision = set.number(REVISION).unwrap_or_default().max(newest + 1);
        let annotations = set.after.metadata.annotations.get_or_insert_default();
        for (key, value) in deployment.metadata.annotations.iter().flatten() {
            if is_passed_on(key) {
                annotations.insert(key.clone(), value.clone());
            }
        }
        annotations.insert(REVISION.into(), revision.to_string());
        if set.before.is_none() {
            set.mark(deployment);
        }
        set.after.spec.get_or_insert_default().min_ready_seconds = spec(deployment).min_ready_seconds;
    }

    /// All of them, newest template first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    /// Sum of a number over all.
    pub(super) fn sum(&self, of: impl Fn(&Set) -> i32) -> i32 {
        self.all().map(of).sum()
    }

    /// Whether replicas were last chosen for another scale of the Deployment.
    pub(super) fn is_scaling(&self, deployment: &Deployment) -> bool {
        let mut active = self.all().filter(|set| set.replicas() > 0);
        active.any(|set| set.number(DESIRED).is_some_and(|desired| desired != i64::from(wanted(deployment))))
    }

    /// Wants what differs: first what grows, then what shrinks.
    pub(super) fn changes(&self, plan: &mut Plan, deployment: &Deployment) {
        let mut changed: Vec<&Set> = self.all().filter(|set| set.before.as_ref() != Some(&set.after)).collect();
        let growth = |set: &Set| set.replicas() - set.before.as_ref().map_or(0, replicas);
        changed.sort_by_key(|set| -growth(set));
        for set in changed {
            let (grown, name) = (growth(set), set.name());
            match &set.before {
                None => plan.create(set.after.clone()),
                Some(before) => plan.update(before, set.after.clone()),
            }
            if grown != 0 {
                let (direction, from) = (if grown > 0 { "up" } else { "down" }, set.replicas() - grown);
                let message = format!("Scaled {direction} replica set {name} from {from} to {}", set.replicas());
                plan.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
            }
        }
    }

    /// Deletes the oldest sets beyond the history that is kept.
    pub(super) fn forget_history(&self, plan: &mut Plan, deployment: &Deployment) {
        let keep = usize::try_from(spec(deployment).revision_history_limit.unwrap_or(HISTORY)).unwrap_or_default();
        let mut old: Vec<&Set> = self.old.iter().collect();
        old.sort_by_key(|set| set.number(REVISION));
        let surplus = old.len().saturating_sub(keep);
        for set in old.into_iter().take(surplus).filter(|set| set.replicas() == 0 && set.is_settled()) {
            plan.delete(&set.after);
        }
    }

    /// Whether the newest set is to be made.
    pub(super) fn is_made(&self) -> bool {
        self.new.as_ref().is_some_and(|set| set.before.is_none())
    }
}

/// Takes in ReplicaSets that match and have no controller. Whether there were any.
pub(super) fn adopt(plan: &mut Plan, world: &World, deployment: &Deployment) -> bool {
    let near = world.replica_sets.uncontrolled(deployment.namespace());
    let matches = |set: &ReplicaSet| selector::picks(&spec(deployment).selector, set.meta().labels.as_ref());
    for set in near.filter(|set| !set.is_deleting() && matches(set)) {
        let mut wanted = set.as_ref().clone();
        wanted.metadata.owner_references.get_or_insert_default().push(deployment.controller_reference());
        plan.update(set.as_ref(), wanted);
    }
    !plan.is_empty()
}

/// Writes on the Deployment at which revision it is.
pub(super) fn annotate(plan: &mut Plan, deployment: &Deployment, sets: &Sets) {
    let Some(revision) = sets.new.as_ref().and_then(|set| set.after.annotation(REVISION)) else { return };
    let mut wanted = deployment.clone();
    wanted.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision.to_owned());
    plan.update(deployment, wanted);
}

/// Annotations of a Deployment that its ReplicaSets carry too.
fn is_passed_on(key: &str) -> bool {
    !matches!(key, REVISION | DESIRED | MOST | knoll_api::labels::LAST_APPLIED)
        && key != "deployment.kubernetes.io/revision-history"
}

/// A template without what tells equal ones apart: the hash label and empty fields.
fn normal(template: &PodTemplateSpec) -> Value {
    let mut value = knoll_api::json::value_of(template);
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(TEMPLATE_HASH);
    }
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
    }
    drop_empty(&mut value);
    value
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                // `emptyDir: {}` and its like say something by being there.
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// Label value for the current template.
fn template_hash(deployment: &Deployment) -> String {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or_default();
    let text = normal(&spec(deployment).template).to_string();
    hash::text(hash::of(&[&text, &collisions.to_string()]), HASH_LETTERS)
}

/// Name of the ReplicaSet for the current template.
fn new_name(deployment: &Deployment) -> String {
    let hash = template_hash(deployment);
    let mut end = deployment.name().len().min(253 - hash.len() - 1);
    while !deployment.name().is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &deployment.name()[..end])
}

/// The ReplicaSet for the current template, without replicas.
fn make(deployment: &Deployment) -> ReplicaSet {
    let hash = template_hash(deployment);
    let with_hash = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(TEMPLATE_HASH.into(), hash.clone());
        Some(labels)
    };
    let mut template = spec(deployment).template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels = with_hash(metadata.labels.take());
    let mut selector = spec(deployment).selector.clone();
    selector.match_labels = with_hash(selector.match_labels.take());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(new_name(deployment)),
            namespace: deployment.metadata.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()),
            owner_references: Some(vec![deployment.controller_reference()]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec(deployment).min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
