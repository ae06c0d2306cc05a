//! Pod → the node it runs on: the first node that is schedulable, has the labels it asks for, and room.
//!
//! Costs: placing a pod looks at the nodes it tries, however many pods they have; a pod that frees room, or a node that
//! changes, looks at the pods that wait.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{
        api::core::v1::{Node, Pod, PodCondition, PodSpec},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};

use super::{
    node_load::{RESOURCES, nano, requests},
    pods,
};
use crate::{Absence, EventType, Plan, Row, Term, Want, World};

/// Pods a node takes when it does not say.
const DEFAULT_PODS: i128 = 110;

/// See the module.
pub(super) const ROW: Row = Row {
    name: "scheduler",
    of: Kind::Pod,
    wakes: &[(Kind::Pod, freed), (Kind::Node, every_pending)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// A pod that went or ended frees room: every pod that waits for some.
fn freed(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let Object::Pod(pod) = object else { return Vec::new() };
    let holds_room = pods::node(pod).is_some();
    let gone = !world.holds(Kind::Pod, &pod.key(), pod.uid()) || pods::is_finished(pod);
    if holds_room && gone { every_pending(world, object, of) } else { Vec::new() }
}

fn every_pending(world: &World, _object: &Object, _of: Kind) -> Vec<Key> {
    world.pods.find(Term::Unbound).iter().filter(|pod| is_pending(pod)).map(|pod| pod.key()).collect()
}

/// Whether this scheduler is to place it.
fn is_pending(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler" || name.is_empty());
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    pods::node(pod).is_none() && pods::is_active(pod) && ours && !gated
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = world.pods.get(key).filter(|pod| is_pending(pod)) else { return plan };
    match place(world, &pod) {
        Ok(node) => {
            plan.wants.push(Want::Bind { pod: key.clone(), uid: pod.uid().to_owned(), node: node.name().to_owned() });
            let message = format!("Successfully assigned {key} to {}", node.name());
            plan.event(pod.as_ref(), EventType::Normal, "Scheduled", message);
        }
        Err(message) => unschedulable(&mut plan, &pod, message, now),
    }
    plan
}

/// The node for a pod, or why there is none.
fn place(world: &World, pod: &Pod) -> Result<Arc<Node>, String> {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut nodes = 0;
    for node in world.nodes.iter() {
        nodes += 1;
        let against = objections(world, &node, pod);
        if against.is_empty() {
            return Ok(node);
        }
        for reason in against {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    if nodes == 0 {
        return Err("no nodes available to schedule pods".into());
    }
    let reasons: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Err(format!(
        "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not \
         helpful for scheduling.",
        reasons.join(", ")
    ))
}

/// Why the pod cannot run on the node; empty when it can.
fn objections(world: &World, node: &Node, pod: &Pod) -> Vec<String> {
    let spec = pod.spec.as_ref();
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
        return vec!["node(s) were unschedulable".into()];
    }
    if let Some(taint) = untolerated(node, spec) {
        return vec![format!("node(s) had untolerated taint(s) {{{taint}}}")];
    }
    let wanted = spec.and_then(|spec| spec.node_selector.as_ref());
    if wanted.into_iter().flatten().any(|(key, value)| node.label(key) != Some(value.as_str())) {
        return vec!["node(s) didn't match Pod's node affinity/selector".into()];
    }
    shortages(world, node, pod)
}

/// The first taint that keeps new pods away and that the pod does not bear.
fn untolerated(node: &Node, spec: Option<&PodSpec>) -> Option<String> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let borne = |taint: &knoll_api::k8s_openapi::api::core::v1::Taint| {
        tolerations.iter().any(|toleration| {
            let same = |a: &Option<String>, b: &str| a.as_deref().is_none_or(|a| a.is_empty() || a == b);
            same(&toleration.effect, &taint.effect)
                && same(&toleration.key, &taint.key)
                && (toleration.operator.as_deref() == Some("Exists")
                    || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default())
        })
    };
    let taint = taints.iter().find(|taint| taint.effect != "PreferNoSchedule" && !borne(taint))?;
    Some(format!("{}: {}", taint.key, taint.value.as_deref().unwrap_or_default()))
}

/// What the node has too little of.
fn shortages(world: &World, node: &Node, pod: &Pod) -> Vec<String> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let wanted = requests(pod);
    let used = world.node_loads.of(node.name());
    let mut short = Vec::new();
    let room = allocatable.and_then(|all| all.get("pods")).map_or(DEFAULT_PODS, |most| nano(most) / 1_000_000_000);
    if used.pods >= room {
        short.push("Too many pods".to_owned());
    }
    for (at, resource) in RESOURCES.iter().enumerate() {
        // A node that does not say how much it has of something does not limit it.
        let Some(all) = allocatable.and_then(|all| all.get(*resource)) else { continue };
        if wanted[at] > 0 && used.requests[at].saturating_add(wanted[at]) > nano(all) {
            short.push(format!("Insufficient {resource}"));
        }
    }
    short
}

fn unschedulable(plan: &mut Plan, pod: &Pod, message: String, now: Timestamp) {
    let was = pods::condition(pod, "PodScheduled");
    if was.is_some_and(|was| was.status == "False" && was.message.as_deref() == Some(message.as_str())) {
        return;
    }
    let transition = match was {
        Some(was) if was.status == "False" => was.last_transition_time.clone(),
        _ => Some(Time(pods::whole_seconds(now))),
    };
    let mut wanted = pod.clone();
    let status = wanted.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message.clone()),
        last_transition_time: transition,
        ..PodCondition::default()
    });
    plan.status(pod, wanted);
    plan.event(pod, EventType::Warning, "FailedScheduling", message);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{plan_of, put, world};
    use super::*;

    fn node(w: &mut World, name: &str, cpu: &str, extra: serde_json::Value) {
        put(
            w,
            Kind::Node,
            json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": extra,
                   "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}}}),
        );
    }

    fn pod(w: &mut World, name: &str, cpu: &str, spec: serde_json::Value) {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "100Mi"}}}]);
        put(w, Kind::Pod, json!({"metadata": {"namespace": "a", "name": name}, "spec": spec}));
    }

    fn message(w: &World, name: &str) -> String {
        let pod = w.pods.get(&Key::new("a", name)).expect("it exists");
        pods::condition(&pod, "PodScheduled").and_then(|c| c.message.clone()).unwrap_or_default()
    }

    #[test]
    fn pods_are_bound_while_there_is_room_and_told_why_not() {
        let mut w = world(&[]);
        node(&mut w, "n", "1", json!({}));
        pod(&mut w, "one", "600m", json!({}));
        pod(&mut w, "two", "600m", json!({}));
        assert_eq!(plan_of(&ROW, &mut w, "a/one"), "bind a/one to n\n");
        assert_eq!(plan_of(&ROW, &mut w, "a/one"), "", "once");
        assert_eq!(plan_of(&ROW, &mut w, "a/two"), "status Pod a/two\n");
        assert!(message(&w, "two").starts_with("0/1 nodes are available: 1 Insufficient cpu. "));
        assert_eq!(plan_of(&ROW, &mut w, "a/two"), "", "said once");
        let one = w.object(Kind::Pod, &Key::new("a", "one")).expect("it exists");
        w.apply(crate::Change::Gone(Kind::Pod, Key::new("a", "one")));
        assert_eq!(freed(&w, &one, Kind::Pod), [Key::new("a", "two")]);
        assert_eq!(plan_of(&ROW, &mut w, "a/two"), "bind a/two to n\n");
    }

    #[test]
    fn nodes_that_do_not_fit_are_counted_by_reason() {
        let mut w = world(&[]);
        node(&mut w, "full", "100m", json!({}));
        node(&mut w, "off", "4", json!({"unschedulable": true}));
        node(&mut w, "tainted", "4", json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}));
        pod(&mut w, "p", "1", json!({}));
        plan_of(&ROW, &mut w, "a/p");
        assert!(
            message(&w, "p").starts_with(
                "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s) {gpu: yes}, 1 \
                 node(s) were unschedulable. "
            ),
            "{}",
            message(&w, "p")
        );
    }

    #[test]
    fn selectors_and_tolerations_choose_the_node() {
        let mut w = world(&[]);
        node(&mut w, "a", "4", json!({}));
        node(&mut w, "b", "4", json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}));
        let tolerations = json!([{"key": "gpu", "operator": "Exists"}]);
        pod(&mut w, "p", "1", json!({"nodeSelector": {"disk": "b"}, "tolerations": tolerations}));
        assert_eq!(plan_of(&ROW, &mut w, "a/p"), "bind a/p to b\n");
        pod(&mut w, "q", "1", json!({"nodeSelector": {"disk": "c"}}));
        plan_of(&ROW, &mut w, "a/q");
        assert!(message(&w, "q").contains("1 node(s) didn't match Pod's node affinity/selector"));
    }

    #[test]
    fn a_node_takes_no_more_pods_than_it_says() {
        let mut w = world(&[]);
        node(&mut w, "n", "4", json!({}));
        for name in ["p1", "p2", "p3"] {
            pod(&mut w, name, "1m", json!({"nodeName": "n"}));
        }
        pod(&mut w, "p4", "1m", json!({}));
        plan_of(&ROW, &mut w, "a/p4");
        assert!(message(&w, "p4").contains("1 Too many pods"), "{}", message(&w, "p4"));
    }

    #[test]
    fn gated_pods_and_those_of_other_schedulers_are_left_alone() {
        let mut w = world(&[]);
        node(&mut w, "n", "4", json!({}));
        pod(&mut w, "p", "1m", json!({"schedulerName": "mine"}));
        pod(&mut w, "q", "1m", json!({"schedulingGates": [{"name": "wait"}]}));
        assert_eq!(plan_of(&ROW, &mut w, "a/p") + &plan_of(&ROW, &mut w, "a/q"), "");
    }
}
