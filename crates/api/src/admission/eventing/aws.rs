//! What connectors to AWS have in common.

use serde_json::{Value, json};

use super::super::json;
use crate::field_error::FieldError;

/// What of a connector's part is filled in, by the part's name.
fn defaults(part: &str) -> Value {
    match part {
        "s3" => json!({
            "deleteAfterRead": true, "moveAfterRead": false, "autoCreateBucket": false, "ignoreBody": false,
            "overrideEndpoint": false, "forcePathStyle": false, "delay": 500, "maxMessagesPerPoll": 10,
        }),
        "sqs" => json!({
            "deleteAfterRead": true, "autoCreateQueue": false, "host": "amazonaws.com", "protocol": "https",
            "overrideEndpoint": false, "delay": 500, "greedy": false, "maxMessagesPerPoll": 1,
        }),
        "ddbStreams" => json!({"streamIteratorType": "FROM_LATEST", "overrideEndpoint": false, "delay": 500}),
        "sns" => json!({"autoCreateTopic": false, "overrideEndpoint": false}),
        _ => Value::Null,
    }
}

/// Fills in a part that is there.
pub(super) fn fill(holder: &mut Value, part: &str, defaults: &Value) {
    let Some(part) = holder.get_mut(part).filter(|part| part.is_object()) else { return };
    for (key, value) in defaults.as_object().into_iter().flatten() {
        json::set_absent(part, key, value.clone());
    }
}

/// Fills in the parts of `aws` that are there.
pub(super) fn default(spec: &mut Value) {
    let Some(aws) = spec.get_mut("aws") else { return };
    for part in ["s3", "sqs", "ddbStreams", "sns"] {
        fill(aws, part, &defaults(part));
    }
}

/// Checks that exactly one of several systems is set: `own` ones, or parts of `aws`; `what` names them in messages.
/// What the part of `aws` needs is checked only then. Paths are relative to the spec.
pub(super) fn validate(spec: &Value, own: &str, parts: &[(&str, &str, &str)], what: &str) -> Vec<FieldError> {
    let aws = json::member(spec, "aws");
    let set: Vec<_> = parts.iter().filter(|(part, ..)| json::has(aws, part)).collect();
    let count = set.len() + usize::from(json::has(spec, own));
    if count != 1 {
        let message = if count == 0 {
            format!("at least one {what} type must be specified")
        } else {
            format!("only one {what} type can be set")
        };
        return vec![FieldError::new(message, &["spec"])];
    }
    let mut errors = Vec::new();
    for (part, shown, key) in set {
        let auth = json::member(aws, "auth");
        let secret = json::at(auth, &["secret", "ref", "name"]).as_str().unwrap_or_default();
        if secret.is_empty() && json::text(auth, "serviceAccountName").is_empty() {
            errors.push(FieldError::missing(&["aws.auth.secret.ref.name"]));
        }
        let missing = [*key, "region"].into_iter().filter(|key| json::text(json::member(aws, part), key).is_empty());
        errors.extend(missing.map(|key| FieldError::missing(&[&format!("aws.{shown}.{key}")])));
    }
    errors
}
