//! Answers.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    accept::{Accept, Format, Representation},
    body::{self, Body},
    call::Call,
    object,
    status::Status,
    tables::{self, Include},
};

/// JSON bytes.
pub(crate) fn bytes(code: u16, bytes: impl Into<Bytes>) -> Response<Body> {
    with_type(code, "application/json", body::full(bytes))
}

/// A body of a media type.
pub(crate) fn with_type(code: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Text.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    with_type(code, "text/plain; charset=utf-8", body::full(text.into()))
}

/// A tree in the wanted format.
pub(crate) fn value(code: u16, value: &Value, format: Format) -> Response<Body> {
    match format {
        Format::Json => bytes(code, value.to_string()),
        Format::Yaml => match serde_saphyr::to_string(value) {
            Ok(text) => with_type(code, "application/yaml", body::full(text)),
            Err(error) => failure(&Status::internal(format!("write YAML: {error}"))),
        },
    }
}

/// A failure.
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let mut response = bytes(status.code, status.to_json().to_string());
    let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// An object in the wanted view.
pub(crate) fn object(call: &Call, code: u16, object: &Value, warnings: &[String]) -> Response<Body> {
    let mut response = value(code, &view(call, object), call.accept.format);
    warn(&mut response, warnings);
    response
}

fn view<'a>(call: &Call, object: &'a Value) -> Cow<'a, Value> {
    let Accept { view, .. } = call.accept;
    match view {
        // A Scale or a Status stays what it is.
        _ if object["kind"] != call.resource.kind.as_str() => Cow::Borrowed(object),
        Representation::Plain => Cow::Borrowed(object),
        Representation::Partial(version) => Cow::Owned(tables::partial(object, version)),
        Representation::Table(version) => {
            let include = Include::parse(call.query.get("includeObject"));
            let printer = &call.resource.printer;
            let row = tables::row(printer, object, include, version, Timestamp::now());
            let metadata = serde_json::json!({"resourceVersion": object::resource_version(object)});
            Cow::Owned(tables::table(version, metadata, printer.columns(), vec![row]))
        }
    }
}

/// Adds warnings.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let clean: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).take(4096).collect();
        let quoted = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
        // By its bytes: text beyond ASCII is allowed there, and would else be dropped with its warning.
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
