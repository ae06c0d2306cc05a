//! IntegrationSink.

use serde_json::{Value, json};

use super::{super::json, aws};
use crate::field_error::FieldErrors;

pub(in super::super) fn default(new: &mut Value) {
    let Some(spec) = new.get_mut("spec") else { return };
    let log = json!({
        "loggerName": "log-sink", "level": "INFO", "logMask": false, "multiline": false, "showAllProperties": false,
        "showBody": true, "showBodyType": true, "showExchangePattern": true, "showHeaders": false,
        "showProperties": false, "showStreams": false, "showCachedStreams": true,
    });
    aws::fill(spec, "log", &log);
    aws::default(spec);
}

pub(in super::super) fn validate(new: &Value) -> FieldErrors {
    let parts = [("s3", "s3", "arn"), ("sqs", "sqs", "arn"), ("sns", "sns", "arn")];
    let errors = aws::validate(json::member(new, "spec"), "log", &parts, "sink").into_iter();
    errors.collect::<FieldErrors>().via_field("spec")
}
