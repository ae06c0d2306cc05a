//! `autoscaling`.

use serde_json::Value;

use super::{Table, age, count, joined, name, text};
use crate::object;

/// HorizontalPodAutoscalers.
pub(crate) static HORIZONTAL_POD_AUTOSCALER: Table = Table {
    columns: &[
        text("Name"),
        text("Reference"),
        text("Targets"),
        text("MinPods"),
        text("MaxPods"),
        text("Replicas"),
        text("Age"),
    ],
    cells: |o, now| {
        let target = &o["spec"]["scaleTargetRef"];
        let reference = format!("{}/{}", object::text(target, "/kind"), object::text(target, "/name"));
        let min = object::integer(o, "/spec/minReplicas").map_or("<unset>".into(), |n| n.to_string());
        vec![
            name(o),
            reference.into(),
            targets(o),
            min.into(),
            count(o, "/spec/maxReplicas"),
            count(o, "/status/currentReplicas"),
            age(o, now),
        ]
    },
};

fn targets(autoscaler: &Value) -> Value {
    let current = object::list(autoscaler, "/status/currentMetrics");
    joined(object::list(autoscaler, "/spec/metrics").iter().enumerate().map(|(at, metric)| {
        let target = metric.pointer("/resource/target").or_else(|| metric.pointer("/pods/target"));
        let wanted = target.map(shown).unwrap_or_default();
        let seen = current.get(at).and_then(|m| m.pointer("/resource/current").or_else(|| m.pointer("/pods/current")));
        let seen = seen.map(shown).filter(|s| !s.is_empty()).unwrap_or_else(|| "<unknown>".into());
        match object::text(metric, "/resource/name") {
            "" => format!("{seen}/{wanted}"),
            resource => format!("{resource}: {seen}/{wanted}"),
        }
    }))
}

fn shown(value: &Value) -> String {
    match value["averageUtilization"].as_i64() {
        Some(percent) => format!("{percent}%"),
        None => ["averageValue", "value"].iter().find_map(|k| value[*k].as_str()).unwrap_or_default().to_owned(),
    }
}
