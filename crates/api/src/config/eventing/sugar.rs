//! `config-sugar`: where Brokers are made by themselves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::config::{ConfigError, Data, read::Reader};

/// Which objects a Broker is made for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SugarConfig {
    /// Namespaces that get a Broker `default`; none without, all when it is empty.
    pub namespace_selector: Option<LabelSelector>,
    /// Triggers that get the Broker they name; none without, all when it is empty.
    pub trigger_selector: Option<LabelSelector>,
}

impl SugarConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value is no selector.
    pub fn parse(data: &Data) -> Result<SugarConfig, ConfigError> {
        let read = Reader(data);
        Ok(SugarConfig {
            namespace_selector: read.yaml("namespace-selector")?,
            trigger_selector: read.yaml("trigger-selector")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_selector_is_everything_and_an_empty_text_nothing() {
        let data = Data::from([
            ("namespace-selector".to_owned(), "{}".to_owned()),
            ("trigger-selector".to_owned(), String::new()),
        ]);
        let config = SugarConfig::parse(&data).expect("selectors");
        assert_eq!(config.namespace_selector, Some(LabelSelector::default()));
        assert_eq!(config.trigger_selector, None);
        let data = Data::from([(
            "namespace-selector".to_owned(),
            "matchExpressions:\n- key: k\n  operator: In\n  values: [enabled]\n".to_owned(),
        )]);
        let selector = SugarConfig::parse(&data).expect("a selector").namespace_selector.expect("it is set");
        assert_eq!(selector.match_expressions.expect("expressions")[0].operator, "In");
    }
}
