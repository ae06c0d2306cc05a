//! `Status`: the one form of every failure (and of some successes), with the words clients match on.

use std::{collections::HashSet, fmt};

use knoll_store::WriteError;
use serde_json::{Map, Value, json};

/// Most findings that one answer lists; the others are counted.
const MOST_CAUSES: usize = 200;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired` and its like.
    pub reason: &'static str,
    /// For people, without the field.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self { reason, message, field: field.into() }
    }

    /// A field that must be set.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueRequired", field, with_detail("Required value", detail))
    }

    /// A value that is not allowed there.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, with_detail(&format!("Invalid value: {}", shown(value)), detail))
    }

    /// A value outside a closed set.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        Self::new("FieldValueNotSupported", field, message)
    }

    /// A field that must not be set or changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, with_detail("Forbidden", detail))
    }

    /// A value that must be unique.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", shown(value)))
    }

    /// A value with too many bytes.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new("FieldValueTooLong", field, format!("Too long: may not be more than {limit} bytes"))
    }

    /// A list with too many items.
    pub fn too_many(field: impl Into<String>, count: usize, limit: usize) -> Self {
        let message = format!("Too many: {count}: must have at most {limit} items");
        Self::new("FieldValueTooMany", field, message)
    }

    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {}", shown(value)))
    }

    /// A cause outside the field vocabulary.
    pub fn other(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(reason, field, message.into())
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

/// What a `Status` is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural of the resource, or the Kind where the failure is about the object's content.
    pub kind: String,
    /// uid of the object.
    pub uid: String,
    /// Single findings.
    pub causes: Vec<Cause>,
    /// When to come back; also sent as `Retry-After`.
    pub retry_after_seconds: u32,
    /// Token of the list that can go on (only in the answer to an expired one).
    pub continue_token: String,
}

/// A failure as the API reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason; empty for none.
    pub reason: &'static str,
    /// For people; clients print it as it is.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

impl std::error::Error for Status {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `plural.group`, or the bare plural in the core group.
pub fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

impl Status {
    /// A failure without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(code: u16, reason: &'static str, message: String, group: &str, kind: &str, name: &str) -> Self {
        let details = Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: who is asking could not be established.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403; `why` completes `<resource> "<name>" is forbidden: `.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(group, plural);
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::about(403, "Forbidden", message, group, plural, name)
    }

    /// 404 for an object.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Self::about(404, "NotFound", message, group, plural, name)
    }

    /// 404 for a resource the server does not serve.
    pub fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self { details: Some(Box::default()), ..Self::new(404, "NotFound", message) }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(Box::default()), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 406 with what could be had.
    pub fn not_acceptable(offers: &str) -> Self {
        let message = format!("only the following media types are accepted: {offers}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, plural));
        Self::about(409, "AlreadyExists", message, group, plural, name)
    }

    /// 409: what was read is no longer what is stored.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural));
        Self::about(409, "Conflict", message, group, plural, name)
    }

    /// 409 for a lost compare-and-swap.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// 410: the revision is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413; `why` says what is limited to how much.
    pub fn too_large(why: &str) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    /// 415 with what is understood.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422 with findings about the object's content; `kind` is the Kind (the plural for some custom resources).
    pub fn invalid(group: &str, kind: &str, name: &str, mut causes: Vec<Cause>) -> Self {
        // What two rules find, or one finds twice, is told once.
        let mut seen = HashSet::new();
        causes.retain(|cause| seen.insert((cause.field.clone(), cause.message.clone())));
        let more = causes.len().saturating_sub(MOST_CAUSES);
        if more > 0 {
            causes.truncate(MOST_CAUSES);
            causes.push(Cause::other("FieldValueInvalid", "", format!("and {more} further findings")));
        }
        let list: Vec<String> = causes.iter().map(Cause::to_string).collect();
        let text = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} {name:?} is invalid: {text}", qualified(group, kind));
        let mut status = Self::about(422, "Invalid", message, group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    /// 422 for a patch that cannot be applied.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self { details: Some(Box::default()), ..Self::new(422, "Invalid", message) }
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// What a write that the store did not take is answered: 507 while its disk is full, 413 for too much at once.
    pub fn unwritten(error: &WriteError) -> Self {
        match error {
            WriteError::Full => Self::new(507, "InsufficientStorage", error.to_string()).retry_after(5),
            WriteError::TooLarge { .. } => Self::new(413, "RequestEntityTooLarge", error.to_string()),
            WriteError::Conflict { .. } | WriteError::Stopped(_) => Self::internal(error),
        }
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message).retry_after(1)
    }

    /// 504: it took longer than a request may.
    pub fn overdue() -> Self {
        Self::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout").retry_after(1)
    }

    /// 504: a revision that does not exist yet was asked for.
    pub fn future_revision(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        let mut status = Self::new(504, "Timeout", message).retry_after(1);
        status.cause(Cause::other("ResourceVersionTooLarge", "", "Too large resource version"));
        status
    }

    /// Adds a cause.
    pub fn cause(&mut self, cause: Cause) {
        self.details.get_or_insert_default().causes.push(cause);
    }

    /// Sets when to come back, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Sets the token with which an expired list can go on.
    #[must_use]
    pub fn continuing(mut self, token: String) -> Self {
        self.details.get_or_insert_default().continue_token = token;
        self
    }

    /// Its JSON form.
    pub fn to_json(&self) -> Value {
        let mut metadata = Map::new();
        let mut out = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": self.message, "code": self.code});
        if !self.reason.is_empty() {
            out["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                metadata.insert("continue".into(), details.continue_token.as_str().into());
            } else {
                out["details"] = details.to_json();
            }
        }
        out["metadata"] = Value::Object(metadata);
        out
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                out.insert(key.into(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|c| {
                let mut cause = json!({"reason": c.reason, "message": c.message});
                if !c.field.is_empty() {
                    cause["field"] = c.field.as_str().into();
                }
                cause
            });
            out.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

/// The success that answers an immediate deletion.
pub fn deleted(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let details =
        Details { name: name.into(), group: group.into(), kind: plural.into(), uid: uid.into(), ..Details::default() };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json()})
}

/// A bare success.
pub fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_stands_alone_and_several_stand_in_brackets() {
        let a = Cause::required("a", "");
        let b = Cause::invalid("b", &json!("x"), "must be y");
        assert_eq!(
            Status::invalid("apps", "Deployment", "d", vec![a.clone()]).message,
            r#"Deployment.apps "d" is invalid: a: Required value"#
        );
        assert_eq!(
            Status::invalid("apps", "Deployment", "d", vec![a, b]).message,
            r#"Deployment.apps "d" is invalid: [a: Required value, b: Invalid value: "x": must be y]"#
        );
    }

    #[test]
    fn findings_without_end_are_counted() {
        // Each is found twice, and told once.
        let causes = (0..20_000).map(|at| Cause::required(format!("a[{}]", at % 10_000), "")).collect();
        let status = Status::invalid("apps", "Deployment", "d", causes);
        assert!(status.message.ends_with(", and 9800 further findings]"), "{}", status.message.len());
        assert_eq!(status.details.expect("has some").causes.len(), 201);
    }

    #[test]
    fn an_expired_list_carries_a_token_instead_of_details() {
        let status = Status::expired("too old").continuing("t".into()).to_json();
        assert_eq!(status["metadata"]["continue"], "t");
        assert!(status.get("details").is_none());
    }
}
