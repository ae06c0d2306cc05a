//! `config-features` of Eventing.

use std::collections::BTreeMap;

use crate::config::{ConfigError, Data, Flag};

/// Keys of node selectors begin so; what follows is the label.
const NODE_SELECTOR: &str = "apiserversources-nodeselector-";

/// Whether events travel encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransportEncryption {
    /// They do not.
    #[default]
    Disabled,
    /// Where the receiver can.
    Permissive,
    /// Between Eventing's own parts always.
    Strict,
}

/// Who may send to what no EventPolicy speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultAuthorizationMode {
    /// Everybody.
    AllowAll,
    /// Nobody.
    DenyAll,
    /// Whoever is of the same namespace.
    #[default]
    AllowSameNamespace,
}

const ENCRYPTION: &[(&str, TransportEncryption)] = &[
    ("disabled", TransportEncryption::Disabled),
    ("permissive", TransportEncryption::Permissive),
    ("strict", TransportEncryption::Strict),
];
const AUTHORIZATION: &[(&str, DefaultAuthorizationMode)] = &[
    ("allow-all", DefaultAuthorizationMode::AllowAll),
    ("deny-all", DefaultAuthorizationMode::DenyAll),
    ("allow-same-namespace", DefaultAuthorizationMode::AllowSameNamespace),
];
const FLAGS: &[(&str, Flag)] = &[("disabled", Flag::Disabled), ("allowed", Flag::Allowed), ("enabled", Flag::Enabled)];

/// What the map says from the start.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    ("kreference-group", "disabled"),
    ("delivery-retryafter", "disabled"),
    ("delivery-timeout", "enabled"),
    ("kreference-mapping", "disabled"),
    ("transport-encryption", "disabled"),
    ("eventtype-auto-create", "disabled"),
    ("authentication-oidc", "disabled"),
    ("default-authorization-mode", "allow-same-namespace"),
    ("cross-namespace-event-links", "disabled"),
    ("new-apiserversource-filters", "disabled"),
];

/// What users of Eventing may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventingFeatures {
    /// References may name a group in place of `apiVersion`.
    pub kreference_group: Flag,
    /// `retryAfterMax` of deliveries.
    pub delivery_retry_after: Flag,
    /// `timeout` of deliveries.
    pub delivery_timeout: Flag,
    /// References may be mapped to URIs.
    pub kreference_mapping: Flag,
    /// Whether events travel encrypted.
    pub transport_encryption: TransportEncryption,
    /// Types of events are noted when they are met.
    pub event_type_auto_create: Flag,
    /// Senders say who they are.
    pub oidc_authentication: Flag,
    /// Who may send to what no EventPolicy speaks of.
    pub default_authorization_mode: DefaultAuthorizationMode,
    /// Triggers and Subscriptions may be of another namespace than what they take events from.
    pub cross_namespace_event_links: Flag,
    /// `filters` of ApiServerSources.
    pub new_api_server_source_filters: Flag,
    /// Where the keys are found that tokens are signed with.
    pub oidc_discovery_base_url: String,
    /// How long a RequestReply waits that does not say, ISO 8601.
    pub request_reply_default_timeout: String,
    /// Labels of nodes that ApiServerSources' parts run on.
    pub api_server_source_node_selector: BTreeMap<String, String>,
}

impl Default for EventingFeatures {
    fn default() -> Self {
        EventingFeatures {
            kreference_group: Flag::Disabled,
            delivery_retry_after: Flag::Disabled,
            delivery_timeout: Flag::Enabled,
            kreference_mapping: Flag::Disabled,
            transport_encryption: TransportEncryption::default(),
            event_type_auto_create: Flag::Disabled,
            oidc_authentication: Flag::Disabled,
            default_authorization_mode: DefaultAuthorizationMode::default(),
            cross_namespace_event_links: Flag::Disabled,
            new_api_server_source_filters: Flag::Disabled,
            oidc_discovery_base_url: "https://kubernetes.default.svc".to_owned(),
            request_reply_default_timeout: "PT30S".to_owned(),
            api_server_source_node_selector: BTreeMap::new(),
        }
    }
}

impl EventingFeatures {
    /// Parses the map. Features that nobody knows are ignored, and so are keys that begin with `_`.
    ///
    /// # Errors
    /// When a feature has a value that it cannot have.
    pub fn parse(data: &Data) -> Result<EventingFeatures, ConfigError> {
        let mut features = EventingFeatures::default();
        for (key, raw) in data.iter().filter(|(key, _)| !key.starts_with('_')) {
            features.set(key.trim(), raw)?;
        }
        Ok(features)
    }

    fn set(&mut self, key: &str, raw: &str) -> Result<(), ConfigError> {
        match key {
            "kreference-group" => self.kreference_group = one_of(key, raw, FLAGS)?,
            "delivery-retryafter" => self.delivery_retry_after = one_of(key, raw, FLAGS)?,
            "delivery-timeout" => self.delivery_timeout = one_of(key, raw, FLAGS)?,
            "kreference-mapping" => self.kreference_mapping = one_of(key, raw, FLAGS)?,
            "transport-encryption" => self.transport_encryption = one_of(key, raw, ENCRYPTION)?,
            "eventtype-auto-create" => self.event_type_auto_create = one_of(key, raw, FLAGS)?,
            "authentication-oidc" => self.oidc_authentication = one_of(key, raw, FLAGS)?,
            "default-authorization-mode" => self.default_authorization_mode = one_of(key, raw, AUTHORIZATION)?,
            "cross-namespace-event-links" => self.cross_namespace_event_links = one_of(key, raw, FLAGS)?,
            "new-apiserversource-filters" => self.new_api_server_source_filters = one_of(key, raw, FLAGS)?,
            "oidc-discovery-base-url" => self.oidc_discovery_base_url = raw.trim().to_owned(),
            "requestreply-default-timeout" => {
                crate::iso8601::parse(raw.trim()).map_err(|error| ConfigError::value(key, error))?;
                self.request_reply_default_timeout = raw.trim().to_owned();
            }
            _ => {
                if let Some(label) = key.strip_prefix(NODE_SELECTOR) {
                    self.api_server_source_node_selector.insert(label.to_owned(), raw.trim().to_owned());
                }
            }
        }
        Ok(())
    }
}

/// The value of this name, in any case.
fn one_of<T: Copy>(key: &str, raw: &str, values: &[(&str, T)]) -> Result<T, ConfigError> {
    let found = values.iter().find(|(name, _)| raw.trim().eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        ConfigError::value(key, format!("{raw:?} is none of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_in_any_case_and_unknown_ones_are_ignored() {
        let data = Data::from(
            [
                ("Authentication-oidc", "enabled"),
                ("transport-encryption", "Strict"),
                ("delivery-timeout", "DISABLED"),
                ("default-authorization-mode", "Deny-All"),
                ("apiserversources-nodeselector-kubernetes.io/os", " linux "),
                ("new-trigger-filters", "whatever"),
                ("_example", "x"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let features = EventingFeatures::parse(&data).expect("features");
        assert!(features.oidc_authentication.is_disabled(), "names of features have their case");
        assert_eq!(features.transport_encryption, TransportEncryption::Strict);
        assert!(features.delivery_timeout.is_disabled());
        assert_eq!(features.default_authorization_mode, DefaultAuthorizationMode::DenyAll);
        assert_eq!(features.api_server_source_node_selector["kubernetes.io/os"], "linux");
    }
}
