//! What form of answer a client wants.

use http::HeaderMap;

use crate::status::Status;

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Representation {
    /// As they are.
    Plain,
    /// As rows, in this version of `meta.k8s.io`.
    Table(&'static str),
    /// Metadata alone, in this version of `meta.k8s.io`.
    Partial(&'static str),
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Compact JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The chosen form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// How objects are shown.
    pub view: Representation,
    /// How bytes are written.
    pub format: Format,
    /// Whether aggregated discovery was asked for before the plain form.
    pub aggregated: bool,
}

/// Plain JSON.
pub(crate) const JSON: Accept = Accept { view: Representation::Plain, format: Format::Json, aggregated: false };

/// Picks the first form in `Accept` that we speak; plain JSON when there is no such header.
///
/// # Errors
/// 406 when none of them is known.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Accept, Status> {
    let mut any = false;
    for value in headers.get_all(http::header::ACCEPT) {
        let Ok(text) = value.to_str() else { continue };
        for clause in text.split(',').map(str::trim).filter(|c| !c.is_empty()) {
            any = true;
            if let Some(accept) = parse(clause) {
                return Ok(accept);
            }
        }
    }
    if any { Err(Status::not_acceptable("application/json, application/yaml")) } else { Ok(JSON) }
}

fn parse(clause: &str) -> Option<Accept> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()? {
        "application/json" | "*/*" | "application/*" | "text/html" | "text/plain" | "text/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut shape, mut version, mut group) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => shape = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    if group == "apidiscovery.k8s.io" {
        return (version == "v2" && shape == "APIGroupDiscoveryList").then_some(Accept { aggregated: true, ..JSON });
    }
    let version = if version == "v1beta1" { "v1beta1" } else { "v1" };
    let view = match shape {
        "" => Representation::Plain,
        "Table" => Representation::Table(version),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Representation::Partial(version),
        _ => return None,
    };
    Some(Accept { view, format, aggregated: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Accept, Status> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", text.parse().unwrap());
        negotiate(&headers)
    }

    #[test]
    fn json_is_taken_where_protobuf_is_preferred() {
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Ok(JSON));
    }

    #[test]
    fn the_first_known_form_wins() {
        let accept = of("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").unwrap();
        assert_eq!(accept.view, Representation::Table("v1"));
        assert!(
            of("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
                .unwrap()
                .aggregated
        );
        assert_eq!(of("image/png").unwrap_err().code, 406);
    }
}
