//! What must hold after every step, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use knoll_api::{
    Kind, Object, Resource,
    k8s_openapi::api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    k8s_openapi::apimachinery::pkg::util::intstr::IntOrString,
    table::RoutingTable,
};
use knoll_plan::{Change, Want};

use crate::{cluster::Cluster, manager::Floors};

/// Checks a write that was just done, planned from a World that was at `view`.
pub(crate) fn after_write(cluster: &Cluster, want: &Want, view: &BTreeMap<Kind, u64>) -> Result<(), String> {
    match want {
        Want::Create(Object::Pod(pod)) => pods_asked_for(cluster, pod, view),
        Want::Create(Object::ReplicaSet(set)) | Want::Update(Object::ReplicaSet(set)) => {
            replicas_within_surge(cluster, set, view)
        }
        Want::Create(Object::Ingress(_)) | Want::Update(Object::Ingress(_)) => traffic_adds_up(cluster),
        _ => Ok(()),
    }
}

/// The greatest value an object had since the World last heard of its kind: what a plan may still have believed.
fn greatest_since<T>(
    cluster: &Cluster,
    kind: Kind,
    uid: &str,
    since: u64,
    value: impl Fn(&Object) -> Option<T>,
) -> Option<T>
where
    T: Ord,
{
    let mut known = None;
    let mut greatest = None;
    for (revision, change) in cluster.history(kind) {
        let Change::Put(object) = change else { continue };
        if object.meta().uid.as_deref() != Some(uid) {
            continue;
        }
        let value = value(object);
        if *revision <= since { known = value } else { greatest = greatest.max(value) }
    }
    greatest.max(known)
}

fn at(view: &BTreeMap<Kind, u64>, kind: Kind) -> u64 {
    view.get(&kind).copied().unwrap_or_default()
}

/// A ReplicaSet never has more pods than it asked for, a Job never more that run.
fn pods_asked_for(cluster: &Cluster, made: &Pod, view: &BTreeMap<Kind, u64>) -> Result<(), String> {
    let Some(owner) = made.controller() else { return Ok(()) };
    let pods = cluster.all(Kind::Pod).filter(|pod| match pod {
        Object::Pod(pod) => is_active(pod) && pod.controller().is_some_and(|other| other.uid == owner.uid),
        _ => false,
    });
    let count = i32::try_from(pods.count()).unwrap_or(i32::MAX);
    let kind = if owner.kind == "Job" { Kind::Job } else { Kind::ReplicaSet };
    let asked = greatest_since(cluster, kind, &owner.uid, at(view, kind), |object| match object {
        Object::ReplicaSet(set) => set.spec.as_ref().and_then(|spec| spec.replicas),
        Object::Job(job) => job.spec.as_ref().and_then(|spec| spec.parallelism),
        _ => None,
    });
    if count > asked.unwrap_or_default() {
        return Err(format!("{count} pods of {} but {asked:?} asked for", owner.name));
    }
    Ok(())
}

/// Whether a pod runs, or will.
fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !pod.is_deleting() && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn surge(deployment: &Deployment) -> i32 {
    let Some(spec) = &deployment.spec else { return 0 };
    let replicas = spec.replicas.unwrap_or(1);
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    match rolling.and_then(|rolling| rolling.max_surge.as_ref()) {
        Some(IntOrString::Int(surge)) => *surge,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or_default();
            (replicas * percent + 99) / 100
        }
        None => (replicas * 25 + 99) / 100,
    }
}

/// All ReplicaSets of a Deployment together never ask for more than it does, and the surge.
fn replicas_within_surge(cluster: &Cluster, set: &ReplicaSet, view: &BTreeMap<Kind, u64>) -> Result<(), String> {
    let Some(owner) = set.controller().filter(|owner| owner.kind == "Deployment") else { return Ok(()) };
    let grown = {
        let (mut before, mut last) = (0, 0);
        for (_, change) in cluster.history(Kind::ReplicaSet) {
            if let Change::Put(Object::ReplicaSet(other)) = change
                && other.name() == set.name()
                && other.namespace() == set.namespace()
            {
                before = last;
                last = other.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default();
            }
        }
        last > before
    };
    // Shrinking one of several is no fault, however many there are.
    if !grown {
        return Ok(());
    }
    let sum: i32 = cluster
        .all(Kind::ReplicaSet)
        .filter_map(|object| match object {
            Object::ReplicaSet(set) if set.controller().is_some_and(|other| other.uid == owner.uid) => {
                set.spec.as_ref().and_then(|spec| spec.replicas)
            }
            _ => None,
        })
        .sum();
    let most =
        greatest_since(cluster, Kind::Deployment, &owner.uid, at(view, Kind::Deployment), |object| match object {
            Object::Deployment(deployment) => {
                let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                Some(replicas + surge(deployment))
            }
            _ => None,
        });
    if sum > most.unwrap_or_default() {
        return Err(format!("replica sets of {} ask for {sum} pods, at most {most:?} are allowed", owner.name));
    }
    Ok(())
}

/// The shares of every path of every Ingress add up.
fn traffic_adds_up(cluster: &Cluster) -> Result<(), String> {
    for object in cluster.all(Kind::Ingress) {
        let Object::Ingress(ingress) = object else { continue };
        for path in ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths) {
            let sum: i64 = path.splits.iter().map(|split| split.percent).sum();
            if sum != 100 {
                return Err(format!("traffic of {} adds up to {sum}", ingress.key()));
            }
        }
    }
    Ok(())
}

/// The gateway's table sends every request somewhere.
pub(crate) fn table(table: &RoutingTable) -> Result<(), String> {
    for (name, host) in table.external.iter().chain(&table.local) {
        for path in &host.paths {
            let sum: u32 = path.splits.iter().map(|split| split.percent).sum();
            if sum != 100 {
                return Err(format!("traffic of {name} adds up to {sum} in the table"));
            }
        }
    }
    Ok(())
}

/// The gateway lets no more requests into an instance than the revision says: it holds the limit that was asked for, and
/// each instance once.
pub(crate) fn limits(cluster: &Cluster, table: &RoutingTable) -> Result<(), String> {
    for (key, backend) in &table.backends {
        let Some(policy) = &backend.revision else { continue };
        let mut pods = BTreeSet::new();
        if let Some(twice) = backend.instances.iter().find(|instance| !pods.insert(&instance.pod)) {
            return Err(format!("{} is twice among the instances of {key}", twice.pod));
        }
        let Some(Object::Revision(revision)) = cluster.get(Kind::Revision, &policy.revision) else { continue };
        let asked = revision.spec.container_concurrency.unwrap_or_default();
        if revision.uid() == policy.uid && i64::from(policy.container_concurrency) != asked {
            return Err(format!("{key} takes {} requests at a time, not {asked}", policy.container_concurrency));
        }
    }
    Ok(())
}

/// A revision that panics is not given fewer instances than it was to have when that was planned.
pub(crate) fn floor(want: &Want, floors: &Floors) -> Result<(), String> {
    let Want::Scale { kind: Kind::Deployment, key, replicas } = want else { return Ok(()) };
    let revision = key.name.strip_suffix("-deployment").map(|name| key.sibling(name));
    match revision.and_then(|revision| floors.get(&revision)) {
        Some(floor) if replicas < floor => Err(format!("{key} panics with {floor} instances and is given {replicas}")),
        _ => Ok(()),
    }
}
