//! `config-kreference-mapping`: URIs of objects of kinds that have no address of their own.

use std::collections::BTreeMap;

use crate::{
    config::{ConfigError, Data, EXAMPLE_KEY},
    template::{self, Template},
};

/// What a template may speak of.
#[derive(Clone, Copy, Debug)]
pub struct Referent<'a> {
    /// Name of the object.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Eventing's namespace.
    pub system_namespace: &'a str,
}

/// Templates of URIs, by `Kind.version.group`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KReferenceMapping(BTreeMap<String, Template>);

impl KReferenceMapping {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value is no template.
    pub fn parse(data: &Data) -> Result<KReferenceMapping, ConfigError> {
        let templates = data.iter().filter(|(key, _)| *key != EXAMPLE_KEY).map(|(key, raw)| {
            let template = Template::parse(raw.trim()).map_err(|error| ConfigError::value(key, error))?;
            Ok((key.clone(), template))
        });
        Ok(KReferenceMapping(templates.collect::<Result<_, ConfigError>>()?))
    }

    /// The URI of an object of a kind; nothing when the kind is not mapped.
    ///
    /// # Errors
    /// When the template asks for what is not there.
    pub fn uri(&self, api_version: &str, kind: &str, object: Referent<'_>) -> Option<Result<String, ConfigError>> {
        let key = match api_version.split_once('/') {
            Some((group, version)) => format!("{kind}.{version}.{group}"),
            None => format!("{kind}.{api_version}"),
        };
        let fields = [
            ("Name", object.name),
            ("Namespace", object.namespace),
            ("UID", object.uid),
            ("SystemNamespace", object.system_namespace),
        ];
        let data = template::Data::Fields(fields.map(|(name, text)| (name, text.into())).into());
        let template = self.0.get(&key)?;
        Some(template.render(&data).map_err(|error| ConfigError::value(&key, error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_mapped_by_its_version_and_group() {
        let data = Data::from(
            [
                ("Pod.v1", "https://addressable-pod.{{ .SystemNamespace }}.svc.cluster.local/{{ .Name }}"),
                ("Thing.v1.example.com", "http://{{ .Nothing }}"),
                ("_example", "{{"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let mapping = KReferenceMapping::parse(&data).expect("templates");
        let object = Referent { name: "p", namespace: "ns", uid: "u", system_namespace: "knative-eventing" };
        let uri = |api_version, kind| mapping.uri(api_version, kind, object);
        let expected = "https://addressable-pod.knative-eventing.svc.cluster.local/p";
        assert_eq!(uri("v1", "Pod"), Some(Ok(expected.to_owned())));
        assert!(uri("example.com/v1", "Thing").is_some_and(|found| found.is_err()));
        assert_eq!(uri("example.com/v2", "Thing"), None);
        let broken = Data::from([("Pod.v1".to_owned(), "{{".to_owned())]);
        assert!(KReferenceMapping::parse(&broken).is_err());
    }
}
