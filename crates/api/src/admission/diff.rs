//! What differs between two templates or specs, one entry a leaf:
//!
//! ```text
//! {v1.RevisionSpec}.PodSpec.Containers[0].Image:
//!     -: "old"
//!     +: "new"
//! ```

use serde_json::Value;

use super::json::{NOTHING, is_blank, member, same};

/// The differences, under a name for the whole.
pub(super) fn short(root: &str, old: &Value, new: &Value) -> String {
    let mut out = String::new();
    walk(
        &Place { path: root.to_owned(), is_map: false, is_revision_spec: root.contains("RevisionSpec") },
        old,
        new,
        &mut out,
    );
    out
}

/// Where in the tree a value stands.
struct Place {
    path: String,
    /// Its members are entries of a map, not fields.
    is_map: bool,
    /// Most of its members belong to the pod's part.
    is_revision_spec: bool,
}

impl Place {
    fn member(&self, key: &str) -> Place {
        let is_map = matches!(key, "annotations" | "labels" | "limits" | "nodeSelector" | "requests");
        if self.is_map {
            return Place { path: format!("{}[{key:?}]", self.path), is_map: false, is_revision_spec: false };
        }
        let part = if self.is_revision_spec && !REVISION_FIELDS.contains(&key) { ".PodSpec" } else { "" };
        let is_revision_spec = key == "spec" && !self.is_revision_spec;
        Place { path: format!("{}{part}.{}", self.path, field_name(key)), is_map, is_revision_spec }
    }

    fn item(&self, at: &str) -> Place {
        Place { path: format!("{}[{at}]", self.path), is_map: false, is_revision_spec: false }
    }
}

/// Fields of a revision's spec that are not the pod's.
const REVISION_FIELDS: [&str; 4] =
    ["containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"];

/// Scalars whose absence differs from zero; their changes are marked with an asterisk.
const OPTIONAL_SCALARS: [&str; 16] = [
    "AllowPrivilegeEscalation",
    "AutomountServiceAccountToken",
    "ContainerConcurrency",
    "EnableServiceLinks",
    "FSGroup",
    "IdleTimeoutSeconds",
    "Optional",
    "Privileged",
    "ReadOnlyRootFilesystem",
    "ResponseStartTimeoutSeconds",
    "RunAsGroup",
    "RunAsNonRoot",
    "RunAsUser",
    "RuntimeClassName",
    "ShareProcessNamespace",
    "TimeoutSeconds",
];

/// The name of a field as it is shown: its JSON name with a capital, and initialisms in capitals.
fn field_name(key: &str) -> String {
    let initialism = |prefix: &str| key.strip_prefix(prefix).map(|rest| format!("{}{rest}", prefix.to_uppercase()));
    match key {
        "metadata" => "ObjectMeta".to_owned(),
        "apiVersion" => "APIVersion".to_owned(),
        "uri" => "URI".to_owned(),
        "httpGet" | "dnsPolicy" | "dnsConfig" | "tcpSocket" | "fsGroup" | "fsGroupChangePolicy" | "grpc" | "csi" => {
            let prefixes = ["http", "dns", "tcp", "fs", "grpc", "csi"];
            prefixes.iter().find_map(|prefix| initialism(prefix)).unwrap_or_else(|| key.to_owned())
        }
        _ => {
            let mut chars = key.chars();
            chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
        }
    }
}

fn walk(place: &Place, old: &Value, new: &Value, out: &mut String) {
    if same(old, new) {
        return;
    }
    match (old, new) {
        (Value::Object(x), Value::Object(y)) => {
            let mut keys: Vec<&String> = x.keys().chain(y.keys().filter(|key| !x.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                walk(&place.member(key), member(old, key), member(new, key), out);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            for at in 0..x.len().max(y.len()) {
                let name = match (x.get(at), y.get(at)) {
                    (Some(_), Some(_)) => at.to_string(),
                    (None, _) => format!("?->{at}"),
                    (_, None) => format!("{at}->?"),
                };
                walk(&place.item(&name), x.get(at).unwrap_or(&NOTHING), y.get(at).unwrap_or(&NOTHING), out);
            }
        }
        _ => leaf(&place.path, old, new, out),
    }
}

fn leaf(path: &str, old: &Value, new: &Value, out: &mut String) {
    let is_optional = OPTIONAL_SCALARS.iter().any(|name| path.rsplit('.').next() == Some(name));
    let mark = if is_optional && !old.is_null() && !new.is_null() { "*" } else { "" };
    let entry = path.ends_with(']');
    *out += &format!("{mark}{path}:\n");
    for (sign, value, other) in [("-", old, new), ("+", new, old)] {
        // An entry that is not there has no line; a field that is not there has its zero value.
        if !(entry && value.is_null()) {
            *out += &format!("\t{sign}: \"{}\"\n", shown(value, other, is_optional));
        }
    }
}

fn shown(value: &Value, other: &Value, is_optional: bool) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null if is_optional || other.is_object() => "<nil>".to_owned(),
        Value::Null => match other {
            Value::Bool(_) => "false".to_owned(),
            Value::Number(_) => "0".to_owned(),
            Value::Array(_) => "[]".to_owned(),
            _ => String::new(),
        },
        value if is_blank(value) && value.is_object() => "{}".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::short;

    #[test]
    fn leaves_are_named_by_their_fields() {
        let old = json!({"containerConcurrency": 2, "containers": [{"image": "busybox"}]});
        let new =
            json!({"containerConcurrency": 1, "containers": [{"image": "helloworld"}], "serviceAccountName": "f"});
        let expected = "*{v1.RevisionSpec}.ContainerConcurrency:\n\t-: \"2\"\n\t+: \"1\"\n\
                        {v1.RevisionSpec}.PodSpec.Containers[0].Image:\n\t-: \"busybox\"\n\t+: \"helloworld\"\n\
                        {v1.RevisionSpec}.PodSpec.ServiceAccountName:\n\t-: \"\"\n\t+: \"f\"\n";
        assert_eq!(short("{v1.RevisionSpec}", &old, &new), expected);
    }

    #[test]
    fn entries_of_maps_and_lists_show_only_what_is_there() {
        let old = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": []}});
        let new = json!({"metadata": {"labels": {"b": "1"}}, "spec": {"containers": [{"image": "x"}]}});
        let root = "{*v1.RevisionTemplateSpec}";
        let expected = format!(
            "{root}.ObjectMeta.Labels[\"a\"]:\n\t-: \"1\"\n{root}.ObjectMeta.Labels[\"b\"]:\n\t+: \"1\"\n\
             {root}.Spec.PodSpec.Containers[?->0]:\n\t+: \"{{\"image\":\"x\"}}\"\n"
        );
        assert_eq!(short(root, &old, &new), expected);
    }

    #[test]
    fn what_is_blank_is_no_difference() {
        assert_eq!(short("{r}", &json!({"a": {}, "b": null, "c": ""}), &json!({"d": []})), "");
    }
}
