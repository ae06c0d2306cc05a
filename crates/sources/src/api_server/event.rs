//! The event for a change in the API, as upstream's adapter makes it.

use knoll_event::{Event, Invalid};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{ApiServer, Mode};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Add,
    Update,
    Delete,
}

impl Happened {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// What names an object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    name: &'a str,
    api_version: &'a str,
}

impl<'a> Reference<'a> {
    fn to(object: &'a Value) -> Self {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
        Self {
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            api_version: text("/apiVersion"),
        }
    }

    /// The path that upstream makes up of it: under `/apis` whatever the group, with a plural that is guessed.
    fn subject(&self) -> String {
        let version = self.api_version;
        let unknown = if version.contains('.') && !version.contains('/') { "/versionUnknown" } else { "" };
        format!("/apis/{version}{unknown}/namespaces/{}/{}/{}", self.namespace, plural(self.kind), self.name)
    }
}

/// The plural that clients guess for a kind that they do not know.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.as_bytes().last() {
        _ if kind.ends_with("endpoints") => kind,
        Some(b's') => format!("{kind}es"),
        Some(b'y') => format!("{}ies", &kind[..kind.len() - 1]),
        _ => format!("{kind}s"),
    }
}

/// The event for what happened to an object.
///
/// # Errors
/// When something of it breaks a rule of CloudEvents.
pub(super) fn event(source: &ApiServer, happened: Happened, object: &Value) -> Result<Event, Invalid> {
    let reference = Reference::to(object);
    let (mode, data) = match source.mode {
        Mode::Reference => ("ref", serde_json::to_vec(&reference)),
        Mode::Resource => ("resource", serde_json::to_vec(object)),
    };
    let data = data.expect("a value of JSON can be written");
    let kind = format!("dev.knative.apiserver.{mode}.{}", happened.as_str());
    let mut event = Event::new(&Uuid::new_v4().to_string(), &source.event_source, &kind)?;
    event.set("subject", reference.subject())?;
    event.set("kind", reference.kind)?;
    event.set("apiversion", reference.api_version)?;
    event.set("name", reference.name)?;
    event.set("namespace", reference.namespace)?;
    event.set_data("application/json", data)?;
    Ok(event)
}

/// Whether the source speaks of an object: of those only whose controller is of a kind, where it says so.
pub(super) fn is_meant(source: &ApiServer, object: &Value) -> bool {
    let Some((api_version, kind)) = &source.owner else { return true };
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let Some(controller) = owners.into_iter().flatten().find(|owner| owner["controller"] == true) else { return false };
    let is = |wanted: &str, found: &Value| wanted.is_empty() || found == wanted;
    is(api_version, &controller["apiVersion"]) && is(kind, &controller["kind"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Namespaces;

    fn source(mode: Mode) -> ApiServer {
        ApiServer {
            resources: Vec::new(),
            namespaces: Namespaces::All,
            owner: None,
            mode,
            filter: None,
            watches_as: "default".into(),
            event_source: "https://10.96.0.1:443".into(),
        }
    }

    fn object(api_version: &str, kind: &str, namespace: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace, "name": "x", "uid": "u"}})
    }

    fn text(event: &Event, name: &str) -> String {
        event.attribute(name).map(|value| value.into_text().into_owned()).unwrap_or_default()
    }

    #[test]
    fn an_event_names_what_happened_and_to_which_object() {
        let pod = object("v1", "Pod", "ns");
        let made = event(&source(Mode::Reference), Happened::Add, &pod).expect("an event");
        let names = ["type", "source", "subject", "kind", "apiversion", "name", "namespace", "datacontenttype"];
        assert_eq!(
            names.map(|name| text(&made, name)),
            [
                "dev.knative.apiserver.ref.add",
                "https://10.96.0.1:443",
                "/apis/v1/namespaces/ns/pods/x",
                "Pod",
                "v1",
                "x",
                "ns",
                "application/json",
            ]
        );
        let data = made.data().expect("data").bytes();
        assert_eq!(data, &br#"{"kind":"Pod","namespace":"ns","name":"x","apiVersion":"v1"}"#[..]);
        let made = event(&source(Mode::Resource), Happened::Delete, &pod).expect("an event");
        assert_eq!(text(&made, "type"), "dev.knative.apiserver.resource.delete");
        let data: Value = serde_json::from_slice(made.data().expect("data").bytes()).expect("JSON");
        assert_eq!(data, pod);
        let made = event(&source(Mode::Resource), Happened::Update, &pod).expect("an event");
        assert_eq!(text(&made, "type"), "dev.knative.apiserver.resource.update");
    }

    #[test]
    fn subjects_are_the_ones_that_upstream_makes_up() {
        let cases = [
            (object("apps/v1", "Deployment", "ns"), "/apis/apps/v1/namespaces/ns/deployments/x"),
            (object("v1", "Namespace", ""), "/apis/v1/namespaces//namespaces/x"),
            (
                object("networking.k8s.io/v1", "NetworkPolicy", "ns"),
                "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies/x",
            ),
            (object("networking.k8s.io/v1", "Ingress", "ns"), "/apis/networking.k8s.io/v1/namespaces/ns/ingresses/x"),
            (object("v1", "Endpoints", "ns"), "/apis/v1/namespaces/ns/endpoints/x"),
            (
                object("serving.knative.dev", "Route", "ns"),
                "/apis/serving.knative.dev/versionUnknown/namespaces/ns/routes/x",
            ),
        ];
        for (object, subject) in cases {
            let made = event(&source(Mode::Reference), Happened::Add, &object).expect("an event");
            assert_eq!(made.subject(), Some(subject));
        }
    }

    #[test]
    fn only_objects_with_a_controller_of_the_owners_kind_are_meant() {
        let mut only = source(Mode::Reference);
        let mut pod = object("v1", "Pod", "ns");
        assert!(is_meant(&only, &pod));
        only.owner = Some(("apps/v1".into(), "ReplicaSet".into()));
        assert!(!is_meant(&only, &pod), "no owner");
        pod["metadata"]["ownerReferences"] = json!([
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": false},
            {"apiVersion": "batch/v1", "kind": "Job", "controller": true},
        ]);
        assert!(!is_meant(&only, &pod), "its controller is another");
        only.owner = Some(("".into(), "Job".into()));
        assert!(is_meant(&only, &pod));
        only.owner = Some(("batch/v2".into(), "Job".into()));
        assert!(!is_meant(&only, &pod));
    }
}
