//! Filters: which events somebody wants.

use std::collections::BTreeMap;

use knoll_event::{
    cesql::{Expression, ParseError},
    filter::{Filter, TooComplex},
};
use serde::{Deserialize, Serialize};

/// One filter expression of the CloudEvents Subscriptions API. One dialect is set; one without any lets every event
/// through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionsApiFilter {
    /// All of these hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<SubscriptionsApiFilter>,
    /// One of these holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<SubscriptionsApiFilter>,
    /// This does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<SubscriptionsApiFilter>>,
    /// Attributes have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exact: BTreeMap<String, String>,
    /// Attributes begin so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefix: BTreeMap<String, String>,
    /// Attributes end so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub suffix: BTreeMap<String, String>,
    /// This expression in CloudEvents SQL is true.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cesql: String,
}

/// Why a filter cannot be used. Admission lets none of these pass.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FilterError {
    /// It is too deep or too large.
    #[error(transparent)]
    TooComplex(#[from] TooComplex),
    /// An expression is none.
    #[error("cesql: {0}")]
    Expression(#[from] ParseError),
}

impl SubscriptionsApiFilter {
    /// What whoever filters evaluates.
    ///
    /// # Errors
    /// When it nests too deep, holds too much, or an expression is none.
    pub fn compile(&self) -> Result<Filter, FilterError> {
        let compiled = |filters: &[Self]| filters.iter().map(Self::compile).collect::<Result<Vec<_>, _>>();
        if !self.cesql.is_empty() {
            return Ok(Filter::cesql(Expression::parse(&self.cesql)?));
        }
        if let Some(filter) = &self.not {
            return Ok(Filter::not(filter.compile()?)?);
        }
        if !self.all.is_empty() {
            return Ok(Filter::all(compiled(&self.all)?)?);
        }
        if !self.any.is_empty() {
            return Ok(Filter::any(compiled(&self.any)?)?);
        }
        let (exact, prefix, suffix) = (texts(&self.exact), texts(&self.prefix), texts(&self.suffix));
        Ok(match (self.prefix.is_empty(), self.suffix.is_empty()) {
            (true, true) => Filter::exact(exact),
            (false, _) => Filter::prefix(prefix),
            (true, false) => Filter::suffix(suffix),
        })
    }
}

fn texts(attributes: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    attributes.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The older form of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerFilter {
    /// Attributes have these values; an empty value stands for any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl TriggerFilter {
    /// The attributes that are compared, with what.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        texts(&self.attributes)
    }
}
