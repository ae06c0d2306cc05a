//! `default-ch-webhook`: what a Channel is made from that does not say; and the same for the channel of a Broker.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    config::{ConfigError, Data, ensure},
    messaging::ChannelTemplate,
};

/// Key of the document.
pub(super) const KEY: &str = "default-ch-config";
/// What it says from the start.
pub(super) const SHIPPED: &str = "\
clusterDefault:
  apiVersion: messaging.knative.dev/v1
  kind: InMemoryChannel
";
/// Key of the template in the map that a Broker names.
pub(super) const TEMPLATE_KEY: &str = "channel-template-spec";
/// What the map that comes with Eventing says there.
pub(super) const SHIPPED_TEMPLATE: &str = "\
apiVersion: messaging.knative.dev/v1
kind: InMemoryChannel
";

/// What channels are made from by default, in the cluster and in namespaces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChannelDefaults {
    namespace_defaults: BTreeMap<String, Option<ChannelTemplate>>,
    cluster_default: Option<ChannelTemplate>,
}

impl ChannelDefaults {
    /// Parses the map.
    ///
    /// # Errors
    /// When the document is missing or cannot be read.
    pub fn parse(data: &Data) -> Result<ChannelDefaults, ConfigError> {
        super::document(data, KEY)
    }

    /// What the channels of a namespace are made from; of the cluster, for an empty name.
    pub fn template(&self, namespace: &str) -> Option<&ChannelTemplate> {
        let of_namespace = self.namespace_defaults.get(namespace).and_then(Option::as_ref);
        of_namespace.or(self.cluster_default.as_ref())
    }
}

/// What the channel of a Broker is made from, by the map that the Broker names.
///
/// # Errors
/// When the map does not say, or not of which kind.
pub fn channel_template(data: &Data) -> Result<ChannelTemplate, ConfigError> {
    let template: ChannelTemplate = super::document(data, TEMPLATE_KEY)?;
    ensure!(
        !template.api_version.is_empty() && !template.kind.is_empty(),
        "{TEMPLATE_KEY} must name apiVersion and kind of a channel"
    );
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_may_have_channels_of_its_own() {
        let text = "\
clusterDefault: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}
namespaceDefaults: {a: {apiVersion: v1, kind: Other, spec: {parts: 3}}, b: }
";
        let defaults = ChannelDefaults::parse(&Data::from([(KEY.to_owned(), text.to_owned())])).expect("a document");
        let other = defaults.template("a").expect("its own");
        assert_eq!((other.kind.as_str(), other.spec.clone()), ("Other", Some(serde_json::json!({"parts": 3}))));
        assert_eq!(defaults.template("b").map(|found| found.kind.as_str()), Some("InMemoryChannel"));
        assert_eq!(ChannelDefaults::default().template("a"), None);
    }
}
