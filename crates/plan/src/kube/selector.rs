//! Which labels a selector picks.

use std::collections::BTreeMap;

use knoll_api::{
    Resource, k8s_openapi::api::core::v1::Pod, k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
};

type Labels = BTreeMap<String, String>;

/// Whether `selector` picks an object with these labels. An empty selector picks nothing here: for the
/// kinds that use it, that is an error of the user and must not catch every pod.
pub(super) fn picks(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    let is_empty = selector.match_labels.as_ref().is_none_or(Labels::is_empty) && expressions.is_empty();
    !is_empty && matches(selector, labels)
}

/// Whether an object with these labels meets every requirement of `selector`; an empty one has none.
pub(crate) fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let wanted = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    wanted.into_iter().all(|(key, wanted)| value(key) == Some(wanted))
        && expressions.iter().all(|expression| {
            let listed =
                |value: &String| expression.values.as_ref().is_some_and(|values| values.iter().any(|v| v == value));
            match (expression.operator.as_str(), value(&expression.key)) {
                ("In", Some(value)) => listed(value),
                ("NotIn", Some(value)) => !listed(value),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        })
}

/// Whether a Service's plain selector picks the pod.
pub(super) fn picks_pod(selector: &Labels, pod: &Pod) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, wanted)| pod.label(key) == Some(wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_requirement_must_hold() {
        let selector: LabelSelector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"app": "a"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["x", "y"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "zone", "operator": "NotIn", "values": ["n"]},
            ],
        }))
        .unwrap();
        assert!(picks(&selector, Some(&labels(&[("app", "a"), ("tier", "y")]))));
        for wrong in [
            &[("app", "b"), ("tier", "y")][..],
            &[("app", "a"), ("tier", "z")],
            &[("app", "a")],
            &[("app", "a"), ("tier", "y"), ("old", "")],
            &[("app", "a"), ("tier", "y"), ("zone", "n")],
        ] {
            assert!(!picks(&selector, Some(&labels(wrong))), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_selector_picks_nothing() {
        assert!(!picks(&LabelSelector::default(), Some(&labels(&[("a", "b")]))));
    }
}
