//! IntegrationSource.

use serde_json::{Value, json};

use super::{
    super::{Context, json},
    aws,
    reference::Scope,
    source,
};
use crate::field_error::FieldErrors;

pub(in super::super) fn default(new: &mut Value) {
    let Some(spec) = new.get_mut("spec") else { return };
    aws::fill(spec, "timer", &json!({"period": 1000, "contentType": "text/plain"}));
    aws::default(spec);
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let parts = [("s3", "s3", "arn"), ("sqs", "sqs", "arn"), ("ddbStreams", "ddb-streams", "table")];
    let mut errors: FieldErrors = aws::validate(spec, "timer", &parts, "source").into_iter().collect();
    errors.also(source::validate(spec, Scope::anywhere(&context.eventing.features)));
    errors.via_field("spec")
}
