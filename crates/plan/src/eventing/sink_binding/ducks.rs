//! Subjects of kinds that no controller knows, by the template of pods that they have.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Resource,
    sources::{
        SinkBinding,
        bound::{self, Bound},
    },
};
use serde_json::{Value, json};

use super::{MOST_LOOKED_AT, age, destination, may_write, too_many};
use crate::{
    DuckKind, Plan, Want, World,
    ducks::{Lookup, PodSpecable},
    kube::matches,
};

/// Tells the containers of subjects of a kind that controllers do not know, where those have a template of pods.
pub(super) fn bind(
    world: &World,
    kind: &DuckKind,
    binding: &SinkBinding,
    bound: &Bound,
    plan: &mut Plan,
) -> Result<(), (&'static str, String)> {
    let (namespace, name) = (binding.namespace(), &binding.spec.subject.name);
    let key = Key::new(namespace, name.clone());
    if !name.is_empty() && world.ducks.look_up(kind, &key) == Lookup::Missing {
        return Err(("SubjectMissing", destination::duck_not_found(kind, name)));
    }
    let all = world.ducks.podspecables(kind, namespace);
    let all = all.map_err(|why| ("SubjectUnavailable", format!("nothing is known of {}: {why}", kind.kind)))?;
    let looked_at: Vec<(&Key, &PodSpecable)> = match name.as_str() {
        "" => all.take(MOST_LOOKED_AT + 1).collect(),
        name => all.filter(|(key, _)| key.name == name).collect(),
    };
    if !name.is_empty() && looked_at.is_empty() {
        let text = format!("{} {name} has no containers in spec.template.spec", kind.kind);
        return Err(("SubjectUnavailable", text));
    }
    let subjects = looked_at.iter().take(MOST_LOOKED_AT).filter(|(key, one)| chooses_duck(binding, key, one));
    let (mut outcome, older) = (Ok(()), older_of_ducks(world, kind, binding));
    for (key, subject) in subjects.filter(|(_, subject)| !subject.is_deleting) {
        let first = older.iter().find(|other| chooses_duck(other, key, subject)).map(|other| other.name());
        if let Err(why) = may_write(binding, (&kind.kind, &key.name), subject.controller.as_ref(), first) {
            outcome = Err(why);
            continue;
        }
        let there = subject.pod();
        let mut wanted = there.clone();
        bound::change(&mut wanted, |pod| bound.put(pod));
        if wanted != there {
            plan.wants.push(patch(world, kind, key, subject, wanted));
        }
    }
    if looked_at.len() > MOST_LOOKED_AT { Err(too_many(&kind.kind)) } else { outcome }
}

/// Puts a pod into the template of a subject.
fn patch(world: &World, kind: &DuckKind, key: &Key, subject: &PodSpecable, mut pod: Value) -> Want {
    let lists = ["initContainers", "containers", "volumes"].map(|list| (list.to_owned(), pod[list].take()));
    let pod: serde_json::Map<String, Value> = lists.into_iter().collect();
    let meta = json!({"uid": subject.uid, "resourceVersion": subject.resource_version});
    let patch = json!({"metadata": meta, "spec": {"template": {"spec": pod}}});
    Want::Patch { path: world.ducks.object_path(kind, key), patch }
}

/// The bindings of subjects of this kind that count before one, each read once.
fn older_of_ducks(world: &World, kind: &DuckKind, binding: &SinkBinding) -> Vec<Arc<SinkBinding>> {
    let mine = (binding.metadata.creation_timestamp.clone(), binding.key());
    let mut others = world.leading_to_duck(Kind::SinkBinding, kind, None);
    others.retain(|other| other.namespace == binding.namespace());
    let others = others.iter().filter_map(|other| world.sink_bindings.get(other)).filter(|other| {
        let of = DuckKind::of(&other.spec.subject.api_version, &other.spec.subject.kind);
        !other.is_deleting() && of.as_ref() == Some(kind) && age(other) < mine
    });
    others.collect()
}

/// Whether a binding of this kind of subjects means this one.
fn chooses_duck(binding: &SinkBinding, key: &Key, subject: &PodSpecable) -> bool {
    let means = &binding.spec.subject;
    let is_chosen = match means.name.as_str() {
        "" => means.selector.as_ref().is_some_and(|selector| matches(selector, Some(&subject.labels))),
        name => name == key.name,
    };
    is_chosen && binding.namespace() == key.namespace
}
