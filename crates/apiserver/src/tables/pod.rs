//! Pods: the status column tells a pod's story in a word.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Table, age, human, name, none_if_empty, text, wide};
use crate::object;

/// Pods.
pub(crate) static POD: Table = Table {
    columns: &[
        text("Name"),
        text("Ready"),
        text("Status"),
        text("Restarts"),
        text("Age"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let story = Story::of(pod);
    vec![
        name(pod),
        format!("{}/{}", story.ready, story.total).into(),
        story.status.into(),
        restarts(story.restarts, story.last_restart.as_deref(), now),
        age(pod, now),
        none_if_empty(object::text(pod, "/status/podIP")),
        none_if_empty(object::text(pod, "/spec/nodeName")),
        none_if_empty(object::text(pod, "/status/nominatedNodeName")),
        gates(pod),
    ]
}

fn restarts(count: i64, last: Option<&str>, now: Timestamp) -> Value {
    match last {
        Some(at) if count > 0 => format!("{count} ({} ago)", human::since(at, now)).into(),
        _ => count.to_string().into(),
    }
}

fn gates(pod: &Value) -> Value {
    let gates = object::list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = object::list(pod, "/status/conditions");
    let fulfilled = conditions.iter().filter(|c| c["status"] == "True");
    let fulfilled: HashSet<&str> = fulfilled.filter_map(|c| c["type"].as_str()).collect();
    let met = gates.iter().filter(|g| g["conditionType"].as_str().is_some_and(|kind| fulfilled.contains(kind)));
    format!("{}/{}", met.count(), gates.len()).into()
}

/// A row's conditions: set for pods that are done.
pub(super) fn row_conditions(object: &Value) -> Option<Value> {
    if object["kind"] != "Pod" {
        return None;
    }
    let (reason, message) = match object::text(object, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

#[derive(Default)]
struct Story {
    ready: usize,
    total: usize,
    status: String,
    restarts: i64,
    last_restart: Option<String>,
}

impl Story {
    fn of(pod: &Value) -> Self {
        let reason = object::text(pod, "/status/reason");
        let phase = object::text(pod, "/status/phase");
        let status = if reason.is_empty() { phase } else { reason };
        let mut story =
            Self { total: object::list(pod, "/spec/containers").len(), status: status.to_owned(), ..Self::default() };
        if let Some(condition) = scheduling_gated(pod) {
            condition.clone_into(&mut story.status);
        }
        if !story.initializing(pod) {
            story.running(pod);
        }
        if object::is_deleting(pod) {
            story.status = match reason {
                "NodeLost" => "Unknown",
                _ => "Terminating",
            }
            .into();
        }
        story
    }

    /// Whether init containers still hold the pod back; takes the status from the one that does.
    fn initializing(&mut self, pod: &Value) -> bool {
        let specs = object::list(pod, "/spec/initContainers").iter();
        let sidecars: HashSet<&str> =
            specs.clone().filter(|s| s["restartPolicy"] == "Always").map(object::name_of).collect();
        for (at, container) in object::list(pod, "/status/initContainerStatuses").iter().enumerate() {
            let sidecar = sidecars.contains(object::name_of(container));
            self.count_restarts(container);
            self.total += usize::from(sidecar);
            let state = &container["state"];
            if state["terminated"]["exitCode"] == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.status = if !state["terminated"].is_null() {
                format!("Init:{}", ended(&state["terminated"]))
            } else {
                match object::text(state, "/waiting/reason") {
                    "" | "PodInitializing" => format!("Init:{at}/{}", specs.len()),
                    reason => format!("Init:{reason}"),
                }
            };
            return true;
        }
        false
    }

    fn running(&mut self, pod: &Value) {
        let mut has_running = false;
        for container in object::list(pod, "/status/containerStatuses").iter().rev() {
            self.count_restarts(container);
            let state = &container["state"];
            match object::text(state, "/waiting/reason") {
                "" if !state["terminated"].is_null() => self.status = ended(&state["terminated"]),
                "" if container["ready"] == true && !state["running"].is_null() => {
                    has_running = true;
                    self.ready += 1;
                }
                "" => {}
                reason => reason.clone_into(&mut self.status),
            }
        }
        if self.status == "Completed" && has_running {
            let ready =
                object::list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            self.status = if ready { "Running" } else { "NotReady" }.into();
        }
    }

    fn count_restarts(&mut self, container: &Value) {
        self.restarts += object::integer(container, "/restartCount").unwrap_or(0);
        let finished = object::text(container, "/lastState/terminated/finishedAt");
        if self.last_restart.as_deref().unwrap_or_default() < finished {
            self.last_restart = Some(finished.to_owned());
        }
    }
}

fn scheduling_gated(pod: &Value) -> Option<&str> {
    object::list(pod, "/status/conditions")
        .iter()
        .filter(|c| c["type"] == "PodScheduled")
        .map(|c| object::text(c, "/reason"))
        .find(|reason| *reason == "SchedulingGated")
}

fn ended(terminated: &Value) -> String {
    let reason = object::text(terminated, "/reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match terminated["signal"].as_i64().filter(|&s| s != 0) {
        Some(signal) => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", terminated["exitCode"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pod: Value) -> String {
        Story::of(&pod).status
    }

    #[test]
    fn the_status_names_what_holds_a_pod_back() {
        let waiting = json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(status(json!({"status": {"phase": "Running", "containerStatuses": [waiting]}})), "CrashLoopBackOff");
        let init = json!({"name": "i", "state": {"running": {}}});
        assert_eq!(
            status(json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}]},
                "status": {"phase": "Pending", "initContainerStatuses": [init]}})),
            "Init:0/2"
        );
        assert_eq!(
            status(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running"}})),
            "Terminating"
        );
        let killed = json!({"name": "c", "state": {"terminated": {"exitCode": 137, "signal": 9}}});
        assert_eq!(status(json!({"status": {"phase": "Failed", "containerStatuses": [killed]}})), "Signal:9");
    }
}
