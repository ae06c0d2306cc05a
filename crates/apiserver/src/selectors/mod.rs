//! Label and field selectors.

pub(crate) mod field;

use serde_json::Value;

use crate::{label_selector, query::Query, resources::Resource, status::Status};

/// Both selectors of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    /// By labels.
    pub labels: label_selector::LabelSelector,
    /// By fields.
    pub fields: field::FieldSelector,
}

impl Selectors {
    /// From `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 for a selector that cannot be parsed or names a field the resource does not offer.
    pub(crate) fn parse(query: &Query, resource: &Resource) -> Result<Self, Status> {
        let labels = label_selector::LabelSelector::parse(query.get("labelSelector"))?;
        let fields = field::FieldSelector::parse(query.get("fieldSelector"), resource)?;
        Ok(Self { labels, fields })
    }

    /// Whether everything matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object (in the resource's own form) matches.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.fields.matches(object) && self.labels.matches(&object["metadata"]["labels"])
    }
}
