//! PingSource.

use base64::Engine as _;
use serde_json::Value;

use super::{
    super::{Context, json},
    reference::Scope,
    source,
};
use crate::{
    cron,
    field_error::{FieldError, FieldErrors},
};

/// The media type whose data is looked at.
const JSON: &str = "application/json";

pub(in super::super) fn default(new: &mut Value) {
    let Some(spec) = json::object_mut(new, "spec") else { return };
    if json::is_blank(json::member(spec, "schedule")) {
        json::set(spec, "schedule", "* * * * *");
    }
}

pub(in super::super) fn validate(new: &Value, context: &Context<'_>) -> FieldErrors {
    let spec = json::member(new, "spec");
    let mut errors = validate_schedule(json::text(spec, "schedule"), json::text(spec, "timezone"));
    let most = context.eventing.ping_defaults.data_max_size;
    let (data, encoded) = (json::text(spec, "data"), json::text(spec, "dataBase64"));
    let is_json = json::text(spec, "contentType") == JSON;
    match (data.is_empty(), encoded.is_empty()) {
        (false, false) => errors.push(FieldError::several_of(&["data", "dataBase64"])),
        (true, false) => errors.also(validate_encoded(encoded, is_json, most)),
        (false, true) => errors.also(validate_data(data, is_json, most)),
        (true, true) => {}
    }
    errors.also(source::validate(spec, Scope::anywhere(&context.eventing.features)));
    errors.via_field("spec")
}

fn validate_schedule(schedule: &str, time_zone: &str) -> FieldErrors {
    let mut errors = FieldErrors::none();
    if schedule.contains("@every") {
        errors.push(FieldError::invalid("unsupported descriptor @every", "schedule"));
    } else {
        match cron::parse(schedule) {
            Err(why) => errors.push(FieldError::invalid(why, "schedule")),
            Ok(parsed) if parsed.has_zone() && !time_zone.is_empty() => {
                errors.push(FieldError::invalid("its time zone is said in timezone already", "schedule"));
            }
            Ok(_) => {}
        }
    }
    if !time_zone.is_empty()
        && let Err(why) = cron::time_zone(time_zone)
    {
        errors.push(FieldError::invalid(why, "timezone"));
    }
    errors
}

fn validate_data(data: &str, is_json: bool, most: i64) -> FieldErrors {
    let mut errors = FieldErrors::from(validate_size("data", data, most));
    if is_json && let Err(why) = is_object(data.as_bytes()) {
        errors.push(FieldError::invalid(why, "data"));
    }
    errors
}

fn validate_encoded(data: &str, is_json: bool, most: i64) -> FieldErrors {
    const KEY: &str = "dataBase64";
    let mut errors = FieldErrors::from(validate_size(KEY, data, most));
    let lines: String = data.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match base64::engine::general_purpose::STANDARD.decode(lines) {
        Err(error) => errors.push(FieldError::invalid(format!("illegal base64 data: {error}"), KEY)),
        Ok(bytes) if is_json => {
            errors.also(is_object(&bytes).err().map(|why| FieldError::invalid(why, KEY)));
        }
        Ok(_) => {}
    }
    errors
}

/// What is written counts, encoded or not.
fn validate_size(key: &str, data: &str, most: i64) -> Option<FieldError> {
    let size = data.len();
    let exceeds = u64::try_from(most).is_ok_and(|most| size as u64 > most);
    exceeds.then(|| FieldError::invalid(format!("the {key} length of {size} bytes exceeds limit set at {most}."), key))
}

fn is_object(data: &[u8]) -> Result<(), String> {
    let found = match serde_json::from_slice::<Value>(data).map_err(|error| error.to_string())? {
        Value::Object(_) | Value::Null => return Ok(()),
        Value::Array(_) => "an array",
        Value::String(_) => "a string",
        Value::Number(_) => "a number",
        Value::Bool(_) => "true or false",
    };
    Err(format!("with contentType {JSON} it must be a JSON object, not {found}"))
}
