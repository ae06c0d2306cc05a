//! Roles that come with Knative Eventing.
//!
//! Roles by what a kind is good for (addressable, a channel, a source, ...) are put together from all roles with a label,
//! so that who brings another kind adds a role of his own.

use serde_json::{Value, json};

use super::{ALL, READ, aggregated_to, cluster_role, rule};

const EVENTING: &str = "eventing.knative.dev";
const MESSAGING: &str = "messaging.knative.dev";
const FLOWS: &str = "flows.knative.dev";
const SOURCES: &str = "sources.knative.dev";
const SINKS: &str = "sinks.knative.dev";
/// Everything of Eventing's; `bindings.knative.dev` is for kinds that others bring.
const GROUPS: [&str; 6] = [EVENTING, MESSAGING, SOURCES, FLOWS, "bindings.knative.dev", SINKS];

const ADDRESSABLE: &str = "duck.knative.dev/addressable";
const CHANNELABLE: &str = "duck.knative.dev/channelable";
const SUBSCRIBABLE: &str = "duck.knative.dev/crossnamespace-subscribable";
const POD_SPECABLE: &str = "duck.knative.dev/podspecable";
const SOURCE: &str = "duck.knative.dev/source";

/// What a controller does with a channel that a Channel is made from.
const MANIPULATE: &[&str] = &["create", "get", "list", "watch", "update", "patch", "delete"];

pub(super) fn roles() -> Vec<Value> {
    let mut roles = by_label();
    roles.extend(addressable());
    roles.extend([
        part_of(
            "meta-channelable-manipulator",
            CHANNELABLE,
            rule(&[MESSAGING], &["channels", "channels/status"], MANIPULATE),
        ),
        part_of(
            "imc-channelable-manipulator",
            CHANNELABLE,
            rule(&[MESSAGING], &["inmemorychannels", "inmemorychannels/status"], MANIPULATE),
        ),
        part_of("channel-subscriber", SUBSCRIBABLE, rule(&[MESSAGING], &["channels"], &["knsubscribe"])),
        part_of("imc-subscriber", SUBSCRIBABLE, rule(&[MESSAGING], &["inmemorychannels"], &["knsubscribe"])),
        part_of("broker-subscriber", SUBSCRIBABLE, rule(&[EVENTING], &["brokers"], &["knsubscribe"])),
        part_of(
            "eventing-sources-source-observer",
            SOURCE,
            rule(
                &[SOURCES],
                &["apiserversources", "pingsources", "sinkbindings", "containersources", "integrationsources"],
                READ,
            ),
        ),
        cluster_role(
            "builtin-podspecable-binding",
            json!({POD_SPECABLE: "true"}),
            vec![
                rule(
                    &["apps"],
                    &["deployments", "daemonsets", "statefulsets", "replicasets"],
                    &["list", "watch", "patch"],
                ),
                rule(&["batch"], &["jobs"], &["list", "watch", "patch"]),
            ],
        ),
    ]);
    roles.extend(of_users());
    roles.push(cluster_role(
        "knative-eventing-controller",
        json!({}),
        vec![rule(&GROUPS, &["*", "*/status", "*/finalizers"], ALL)],
    ));
    roles
}

/// Roles that are put together from all roles with a label.
fn by_label() -> Vec<Value> {
    let all = [
        ("addressable-resolver", ADDRESSABLE),
        ("channelable-manipulator", CHANNELABLE),
        ("crossnamespace-subscriber", SUBSCRIBABLE),
        ("podspecable-binding", POD_SPECABLE),
        ("source-observer", SOURCE),
    ];
    let role = |(name, label): (&str, &str)| {
        let mut role = cluster_role(name, json!({}), Vec::new());
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        role
    };
    all.map(role).into()
}

/// A role that becomes part of those of its label.
fn part_of(name: &str, label: &str, rule: Value) -> Value {
    cluster_role(name, json!({label: "true"}), vec![rule])
}

/// Roles by which the addresses of objects are read.
fn addressable() -> Vec<Value> {
    let read = |name: &str, group: &str, plurals: &[&str]| {
        let with_status: Vec<String> =
            plurals.iter().flat_map(|plural| [(*plural).to_owned(), format!("{plural}/status")]).collect();
        let resources: Vec<&str> = with_status.iter().map(String::as_str).collect();
        part_of(&format!("{name}-addressable-resolver"), ADDRESSABLE, rule(&[group], &resources, READ))
    };
    let mut channel = read("channel", MESSAGING, &["channels"]);
    if let Some(rules) = channel["rules"].as_array_mut() {
        rules.push(rule(&[MESSAGING], &["channels/finalizers"], &["update"]));
    }
    vec![
        part_of("service-addressable-resolver", ADDRESSABLE, rule(&[""], &["services"], READ)),
        read("serving", "serving.knative.dev", &["routes", "services"]),
        channel,
        read("imc", MESSAGING, &["inmemorychannels"]),
        read("broker", EVENTING, &["brokers"]),
        read("flows", FLOWS, &["sequences", "parallels"]),
        read("jobsinks", SINKS, &["jobsinks"]),
        read("integrationsinks", SINKS, &["integrationsinks"]),
        read("eventtransforms", EVENTING, &["eventtransforms"]),
    ]
}

/// What who administers, edits or views a namespace may do there.
fn of_users() -> Vec<Value> {
    let admin = |name: &str, group: &str| {
        let name = format!("knative-{name}-namespaced-admin");
        cluster_role(&name, aggregated_to("admin"), vec![rule(&[group], &["*"], &["*"])])
    };
    let change = &["create", "update", "patch", "delete"];
    vec![
        admin("eventing", EVENTING),
        admin("messaging", MESSAGING),
        admin("flows", FLOWS),
        admin("sources", SOURCES),
        admin("bindings", "bindings.knative.dev"),
        admin("sinks", SINKS),
        cluster_role("knative-eventing-namespaced-edit", aggregated_to("edit"), vec![rule(&GROUPS, &["*"], change)]),
        cluster_role("knative-eventing-namespaced-view", aggregated_to("view"), vec![rule(&GROUPS, &["*"], READ)]),
        cluster_role(
            "knative-eventing-eventpolicy-reader",
            aggregated_to("view"),
            vec![rule(&[EVENTING], &["eventpolicies"], READ)],
        ),
    ]
}
