//! Label selectors as requests say them.

use knoll_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Whether it selects everything.
pub(super) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// What follows `labelSelector=`.
///
/// # Errors
/// When an expression has an operator that there is none of, or none of the values it needs.
pub(super) fn query(selector: &LabelSelector) -> Result<String, String> {
    let labels = selector.match_labels.iter().flatten().map(|(name, value)| Ok(format!("{name}={value}")));
    let expressions = selector.match_expressions.iter().flatten().map(requirement);
    let parts: Vec<String> = labels.chain(expressions).collect::<Result<_, String>>()?;
    Ok(parts.join(","))
}

fn requirement(of: &LabelSelectorRequirement) -> Result<String, String> {
    let LabelSelectorRequirement { key, operator, values } = of;
    let values = values.as_deref().unwrap_or_default();
    let listed = |word: &str| {
        if values.is_empty() {
            Err(format!("{operator} of {key} names no values"))
        } else {
            Ok(format!("{key} {word} ({})", values.join(",")))
        }
    };
    match operator.as_str() {
        "In" => listed("in"),
        "NotIn" => listed("notin"),
        "Exists" => Ok(key.clone()),
        "DoesNotExist" => Ok(format!("!{key}")),
        other => Err(format!("{other:?} is no operator: it is one of In, NotIn, Exists and DoesNotExist")),
    }
}

#[cfg(test)]
mod tests {
    use knoll_api::k8s_openapi::serde_json;

    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).expect("a selector")
    }

    #[test]
    fn labels_and_expressions_all_have_to_hold() {
        let both = r#"{"matchLabels": {"a": "1", "b": "2"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "NotIn", "values": ["z"]},
            {"key": "e", "operator": "Exists"}, {"key": "f", "operator": "DoesNotExist"}]}"#;
        assert_eq!(query(&selector(both)).as_deref(), Ok("a=1,b=2,c in (x,y),d notin (z),e,!f"));
        assert_eq!(query(&selector("{}")).as_deref(), Ok(""));
        assert!(is_empty(&selector(r#"{"matchLabels": {}}"#)) && !is_empty(&selector(both)));
    }

    #[test]
    fn what_selects_nothing_sensible_is_told() {
        let why = |json: &str| query(&selector(json)).expect_err("none");
        assert_eq!(why(r#"{"matchExpressions": [{"key": "c", "operator": "In"}]}"#), "In of c names no values");
        assert!(
            why(r#"{"matchExpressions": [{"key": "c", "operator": "Like"}]}"#).starts_with("\"Like\" is no operator")
        );
    }
}
