//! One request for objects, decoded as far as its head goes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use serde_json::Value;

use crate::{
    accept::{self, Accept},
    attributes::{Attributes, UserInfo},
    body::{self, Body},
    flow::Place,
    object,
    query::Query,
    resources::{Resource, Subresource},
    route::{Target, Verb},
    status::{Cause, Status},
};

/// A request for objects.
pub(crate) struct Call {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: Option<Subresource>,
    pub(crate) verb: Verb,
    pub(crate) query: Query,
    pub(crate) accept: Accept,
    pub(crate) headers: HeaderMap,
    pub(crate) identity: UserInfo,
    /// Taken by the first reader. Behind a lock only because calls are shared and bodies cannot be.
    body: Mutex<Option<Body>>,
    /// Fields that the body gave twice.
    duplicates: Vec<String>,
    /// The connection, should it change its protocol.
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// Its place in flight, where it lasts.
    place: Option<Place>,
}

/// What becomes of fields nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// How a write is to be done.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: bool,
    /// Whether the record of managers is already made, by apply.
    pub(crate) applied: bool,
    /// Fields that the body gives twice, each as `duplicate field "data.a"`.
    pub(crate) duplicates: Vec<String>,
}

impl Call {
    pub(crate) fn new(
        target: Target,
        request: http::Request<Body>,
        query: Query,
        identity: UserInfo,
    ) -> Result<Self, Status> {
        let (mut parts, body) = request.into_parts();
        Ok(Self {
            accept: accept::negotiate(&parts.headers)?,
            resource: target.resource,
            namespace: target.namespace,
            name: target.name,
            subresource: target.subresource,
            verb: target.verb,
            query,
            upgrade: parts.extensions.remove(),
            place: parts.extensions.remove(),
            headers: parts.headers,
            identity,
            body: Mutex::new(Some(body)),
            duplicates: Vec::new(),
        })
    }

    /// What authorization is asked.
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes {
            verb: self.verb.name().into(),
            group: self.resource.group.clone(),
            version: self.resource.version.clone(),
            resource: self.resource.plural.clone(),
            subresource: self.subresource.map(|s| s.path().to_owned()).unwrap_or_default(),
            // A Namespace's own requests are judged by the rules inside it, too.
            namespace: if self.resource.plural == "namespaces" && self.resource.group.is_empty() {
                self.name.clone()
            } else {
                self.namespace.clone()
            },
            name: self.name.clone(),
            path: String::new(),
        }
    }

    /// What authorization is asked where a write turns out to make the object.
    pub(crate) fn attributes_of_create(&self) -> Attributes {
        Attributes { verb: Verb::Create.name().into(), ..self.attributes() }
    }

    /// The key of the object it names.
    pub(crate) fn key(&self) -> String {
        self.resource.key(&self.namespace, &self.name)
    }

    /// 404 for the object it names.
    pub(crate) fn not_found(&self) -> Status {
        self.resource.not_found(&self.name)
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// Reads the whole body for those who read it later; how long it is.
    pub(crate) async fn gather(&mut self) -> Result<usize, Status> {
        let bytes = self.read_body().await?;
        let length = bytes.len();
        *self.body.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(body::full(bytes));
        Ok(length)
    }

    /// The whole body; empty the second time.
    pub(crate) async fn read_body(&mut self) -> Result<Bytes, Status> {
        match self.body.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            Some(body) => body::read(body).await,
            None => Ok(Bytes::new()),
        }
    }

    /// The connection, once, where it can change its protocol.
    pub(crate) fn take_upgrade(&mut self) -> Option<hyper::upgrade::OnUpgrade> {
        self.upgrade.take()
    }

    /// Its place in flight, for what outlives the answer.
    pub(crate) fn take_place(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// The body as an object of the call's kind (or of what its subresource speaks).
    pub(crate) async fn read_object(&mut self) -> Result<Value, Status> {
        let bytes = self.read_body().await?;
        let mut object = match self.content_type() {
            "" | "application/json" => {
                let parsed = knoll_schema::json::from_json(&bytes).map_err(|e| malformed(&e))?;
                self.duplicates = parsed.duplicates;
                parsed.value
            }
            other => decode(other, &bytes)?,
        };
        let (api_version, kind) = self.speaks();
        check_type(&mut object, &api_version, &kind)?;
        if let Some(spoken) = self.subresource.and_then(Subresource::speaks) {
            check_fields(spoken, &mut object)?;
        }
        Ok(object)
    }

    /// `apiVersion` and kind of the body.
    pub(crate) fn speaks(&self) -> (String, String) {
        match self.subresource.and_then(Subresource::speaks) {
            Some(("", version, kind)) => (version.into(), kind.into()),
            Some((group, version, kind)) => (format!("{group}/{version}"), kind.into()),
            None => (self.resource.api_version(), self.resource.kind.clone()),
        }
    }

    /// How the write is to be done.
    pub(crate) fn write_options(&self) -> Result<WriteOptions, Status> {
        let dry_run = match self.query.get("dryRun") {
            "" => false,
            "All" => true,
            other => {
                let cause = Cause::not_supported("dryRun", &other.into(), &["All"]);
                return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
            }
        };
        let field_validation = match self.query.get("fieldValidation") {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                let cause = Cause::not_supported("fieldValidation", &other.into(), &["", "Ignore", "Strict", "Warn"]);
                return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]));
            }
        };
        let field_manager = self.query.get("fieldManager");
        Ok(WriteOptions {
            dry_run,
            field_manager: if field_manager.is_empty() { self.agent() } else { field_manager.into() },
            field_validation,
            force: self.query.flag("force"),
            applied: false,
            duplicates: self.duplicates.clone(),
        })
    }

    /// The client's name: its user agent up to the version.
    fn agent(&self) -> String {
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = agent.split('/').next().unwrap_or_default();
        if name.is_empty() { "unknown".into() } else { name.chars().take(128).collect() }
    }
}

/// Reads a body as JSON, YAML or Kubernetes' protobuf.
///
/// # Errors
/// 400 when it is none, 415 for any other type.
pub(crate) fn decode(content_type: &str, bytes: &[u8]) -> Result<Value, Status> {
    match content_type {
        "application/vnd.kubernetes.protobuf" => {
            knoll_schema::protobuf::decode(bytes).map_err(|e| Status::bad_request(format!("decode protobuf: {e}")))
        }
        "application/json"
        | ""
        | "*/*"
        | "application/json-patch+json"
        | "application/merge-patch+json"
        | "application/strategic-merge-patch+json"
        | "text/plain"
        | "application/x-www-form-urlencoded" => {
            knoll_schema::json::from_json(bytes).map(|parsed| parsed.value).map_err(|e| malformed(&e))
        }
        "application/yaml" | "application/apply-patch+yaml" => {
            knoll_schema::json::from_yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))
        }
        _ => Err(Status::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Refuses what is not of its type, where that is not the type of the stored object.
///
/// # Errors
/// 400 that names the field.
pub(crate) fn check_fields((group, version, kind): (&str, &str, &str), object: &mut Value) -> Result<(), Status> {
    let Some(ty) = knoll_schema::lookup(group, version, kind) else { return Ok(()) };
    let conformed = knoll_schema::conform(ty, object).map(drop);
    conformed.map_err(|error| {
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
    })
}

fn malformed(error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
}

/// Fills in `apiVersion` and kind, or refuses others; drops nulls.
fn check_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request("the body must be an object"));
    };
    let given_kind = map.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !given_kind.is_empty() && given_kind != kind {
        let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let version = version.rsplit('/').next().unwrap_or_default();
        return Err(Status::bad_request(format!("{given_kind} in version {version:?} cannot be handled as a {kind}")));
    }
    let given_version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if !given_version.is_empty() && given_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    match map.get("metadata") {
        None | Some(Value::Null | Value::Object(_)) => {}
        Some(_) => return Err(Status::bad_request(format!("{kind} cannot be decoded: metadata must be an object"))),
    }
    object::strip_nulls(object);
    Ok(())
}
