//! From a method and a path to what is asked for.

use std::sync::Arc;

use http::Method;

use crate::{
    query::{self, Query},
    resources::{Resource, ResourceRegistry, Subresource},
    status::Status,
};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Make one.
    Create,
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Replace one.
    Update,
    /// Change one.
    Patch,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
}

impl Verb {
    /// Whether it may change something.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }

    /// As authorization names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

/// A request for objects.
#[derive(Clone)]
pub(crate) struct Target {
    /// The row.
    pub resource: Arc<Resource>,
    /// Namespace; empty for all, and for cluster-scoped resources.
    pub namespace: String,
    /// Name; empty for collections.
    pub name: String,
    /// Subresource of the object.
    pub subresource: Option<Subresource>,
    /// What is done.
    pub verb: Verb,
}

/// Where a request goes.
pub(crate) enum RequestInfo {
    /// To objects.
    Objects(Target),
    /// To a document of its own, e.g. `/version`.
    Path(String),
    /// Nowhere: plain-text 404.
    Unknown,
}

/// Finds the way of a request.
///
/// # Errors
/// 404 for a resource that is not served, 405 for a verb it does not have.
pub(crate) fn route(
    registry: &ResourceRegistry,
    method: &Method,
    path: &str,
    query: &Query,
) -> Result<RequestInfo, Status> {
    let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(|s| query::decode(s, false)).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(RequestInfo::Path(path.to_owned())),
    };
    if !registry.has_group(group, Some(version)) {
        return Ok(RequestInfo::Unknown);
    }
    let (watch_prefix, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, part) = match rest {
        [plural] => (*plural, "", None),
        [plural, name] => (*plural, *name, None),
        [plural, name, part] => (*plural, *name, Some(*part)),
        _ => return Err(Status::no_such_resource()),
    };
    let resource = registry.get(group, version, plural).ok_or_else(Status::no_such_resource)?;
    if !namespace.is_empty() && !resource.namespaced {
        return Err(Status::no_such_resource());
    }
    if resource.namespaced && namespace.is_empty() && !name.is_empty() {
        return Err(Status::no_such_resource());
    }
    let subresource = part.map(|part| find_subresource(resource, part)).transpose()?;
    let watching = watch_prefix || query.flag("watch");
    let verb = verb(method, &name_or_subresource(name, part), watching, subresource)?;
    let allowed = match subresource {
        Some(part) => part.verbs().contains(&verb.name()),
        None => resource.verbs.contains(&verb.name()),
    };
    if !allowed {
        return Err(Status::method_not_allowed());
    }
    Ok(RequestInfo::Objects(Target {
        resource: resource.clone(),
        namespace: namespace.into(),
        name: name.into(),
        subresource,
        verb,
    }))
}

fn name_or_subresource(name: &str, part: Option<&str>) -> String {
    part.unwrap_or(name).to_owned()
}

fn find_subresource(resource: &Resource, part: &str) -> Result<Subresource, Status> {
    resource.subresources.iter().copied().find(|s| s.path() == part).ok_or_else(Status::no_such_resource)
}

fn verb(method: &Method, name: &str, watching: bool, part: Option<Subresource>) -> Result<Verb, Status> {
    let collection = name.is_empty();
    Ok(match *method {
        Method::GET | Method::HEAD if watching && part.is_none() => Verb::Watch,
        Method::GET | Method::HEAD if collection => Verb::List,
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST if collection || part.is_some() => Verb::Create,
        Method::PUT if !collection => Verb::Update,
        Method::PATCH if !collection => Verb::Patch,
        Method::DELETE if collection => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return Err(Status::method_not_allowed()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: Method, path: &str, query: &str) -> String {
        match route(&ResourceRegistry::built_in(), &method, path, &Query::parse(Some(query))) {
            Ok(RequestInfo::Objects(t)) => {
                format!("{} {} {}/{} {:?}", t.verb.name(), t.resource.plural, t.namespace, t.name, t.subresource)
            }
            Ok(RequestInfo::Path(path)) => format!("path {path}"),
            Ok(RequestInfo::Unknown) => "unknown".into(),
            Err(status) => format!("{} {}", status.code, status.reason),
        }
    }

    #[test]
    fn paths_name_collections_objects_and_parts() {
        assert_eq!(find(Method::GET, "/api/v1/pods", ""), "list pods / None");
        assert_eq!(find(Method::GET, "/api/v1/namespaces/a/pods", "watch=true"), "watch pods a/ None");
        assert_eq!(find(Method::GET, "/api/v1/watch/namespaces/a/pods/x", ""), "watch pods a/x None");
        assert_eq!(find(Method::GET, "/api/v1/namespaces/a", ""), "get namespaces /a None");
        assert_eq!(find(Method::PUT, "/api/v1/namespaces/a/finalize", ""), "update namespaces /a Some(Finalize)");
        assert_eq!(
            find(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/d/scale", ""),
            "patch deployments a/d Some(Scale)"
        );
    }

    #[test]
    fn what_is_not_served_is_told_apart() {
        assert_eq!(find(Method::GET, "/apis/nope/v1/things", ""), "unknown");
        assert_eq!(find(Method::GET, "/api/v1/things", ""), "404 NotFound");
        assert_eq!(find(Method::POST, "/api/v1/namespaces/a/pods/x", ""), "405 MethodNotAllowed");
        assert_eq!(find(Method::GET, "/version", ""), "path /version");
    }
}
