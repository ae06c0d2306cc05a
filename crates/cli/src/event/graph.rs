//! Prints who sends what to whom: a line for each way of events, then what is not ready and what is not there.

use std::io::{self, Write};

use serde_json::Value;

use super::{list, shown, text};

/// Prints the graph that the admin endpoint answers with.
pub(super) fn print(graph: &Value, out: &mut dyn Write) -> io::Result<()> {
    let (nodes, edges) = (list(&graph["nodes"]), list(&graph["edges"]));
    if nodes.is_empty() {
        return writeln!(out, "Nothing sends or takes events here.");
    }
    let width = edges.iter().map(|edge| short(text(edge, "from")).len()).max().unwrap_or_default().max(4);
    if !edges.is_empty() {
        writeln!(out, "{:<width$}  {:<12}  TO", "FROM", "WHAT")?;
    }
    for edge in edges {
        let (from, way, to) = (short(text(edge, "from")), text(edge, "way"), short(text(edge, "to")));
        let path = edge["path"].as_str().map(|path| format!(" at {}", shown(path))).unwrap_or_default();
        let filter = if edge["filter"].is_null() {
            String::new()
        } else {
            format!("  if {}", shown(&edge["filter"].to_string()))
        };
        writeln!(out, "{from:<width$}  {way:<12}  {to}{path}{filter}")?;
    }
    for node in nodes {
        let name = short(text(node, "id"));
        if node["exists"] == Value::Bool(false) {
            writeln!(out, "{name} is not there")?;
        } else if node["ready"].as_str().is_some_and(|ready| ready != "True") {
            let why = node["why"].as_str().map(|why| format!(": {}", shown(why))).unwrap_or_default();
            writeln!(out, "{name} is not ready{why}")?;
        }
    }
    match graph["leftOut"].as_u64() {
        Some(left_out) if left_out > 0 => writeln!(out, "{left_out} more objects are left out"),
        _ => Ok(()),
    }
}

/// `Kind.group/namespace/name` without the group; a URI as it is.
fn short(id: &str) -> String {
    let id = shown(id);
    match id.split_once('/') {
        Some((kind, rest)) if !kind.contains(':') => {
            format!("{}/{rest}", kind.split('.').next().unwrap_or(kind))
        }
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_way_has_a_line_and_what_is_missing_is_told() {
        let graph = json!({
            "nodes": [
                {"id": "Broker.eventing.knative.dev/ns/b", "exists": true, "ready": "True"},
                {"id": "Service/ns/gone", "exists": false},
                {"id": "Trigger.eventing.knative.dev/ns/t", "exists": true, "ready": "False", "why": "SubscriberNotFound: no"},
                {"id": "http://example.com/x"},
            ],
            "edges": [
                {"from": "Broker.eventing.knative.dev/ns/b", "to": "Trigger.eventing.knative.dev/ns/t", "way": "events",
                 "filter": {"attributes": {"type": "a"}}},
                {"from": "Trigger.eventing.knative.dev/ns/t", "to": "Service/ns/gone", "way": "events", "path": "/p"},
                {"from": "Trigger.eventing.knative.dev/ns/t", "to": "http://example.com/x", "way": "dead-letters"},
            ],
            "leftOut": 2,
        });
        let mut printed = Vec::new();
        print(&graph, &mut printed).expect("it is written");
        let lines = "\
FROM          WHAT          TO
Broker/ns/b   events        Trigger/ns/t  if {\"attributes\":{\"type\":\"a\"}}
Trigger/ns/t  events        Service/ns/gone at /p
Trigger/ns/t  dead-letters  http://example.com/x
Service/ns/gone is not there
Trigger/ns/t is not ready: SubscriberNotFound: no
2 more objects are left out
";
        assert_eq!(String::from_utf8(printed).expect("text"), lines);
        let mut printed = Vec::new();
        print(&json!({"nodes": [], "edges": [], "leftOut": 0}), &mut printed).expect("it is written");
        assert_eq!(printed, b"Nothing sends or takes events here.\n");
    }
}
