//! Kinds that a CustomResourceDefinition declares by a structural schema.

mod defaults;
mod definition;
mod formats;
mod structural;
mod validate;

use serde_json::Value;

use crate::builtin;
use crate::conform::{TypeError, conform, prune};
use crate::limits::{Budget, Exceeded};
use crate::ty::TypeRef;
pub use definition::definition_of;
pub use validate::{Problem, Reason};

/// One version's schema, ready for use.
#[derive(Clone, Debug)]
pub struct Schema {
    ty: TypeRef,
    raw: Value,
}

impl Schema {
    /// Reads the `openAPIV3Schema` of one version. Without one (`null`) anything is accepted and kept.
    pub fn new(group: &str, version: &str, kind: &str, schema: &Value) -> Self {
        Self { ty: TypeRef::new(structural::root(group, version, kind, schema)), raw: schema.clone() }
    }

    /// The type of the kind's objects, for [`crate::apply`] and [`crate::unknown_fields`].
    pub fn ty(&self) -> &TypeRef {
        &self.ty
    }

    /// Drops the fields the schema does not declare and brings `metadata` into its form. Answers what was dropped, as
    /// [`crate::unknown_fields`] does.
    ///
    /// # Errors
    /// When `metadata` is not of its type. Other wrong types are for [`Schema::validate`] to tell.
    pub fn prune(&self, object: &mut Value) -> Result<Vec<String>, TypeError> {
        let mut unknown = match object.get_mut("metadata") {
            Some(metadata) => conform(&builtin::object_meta(), metadata)?
                .into_iter()
                .map(|text| text.replacen('"', "\"metadata.", 1))
                .collect(),
            None => Vec::new(),
        };
        unknown.extend(prune(&self.ty, object));
        Ok(unknown)
    }

    /// Fills in the schema's defaults where fields are absent, or null where null cannot be.
    ///
    /// # Errors
    /// When the defaults come to more than an object may be. The tree is then partly done and of no use.
    pub fn fill_defaults(&self, object: &mut Value) -> Result<(), Exceeded> {
        defaults::fill(&self.raw, object, &mut Budget::default())
    }

    /// Every way in which an object does not fit the schema; `metadata` is not looked at. At most
    /// [`FINDINGS`](crate::limits::FINDINGS), and one when it would take too long. Patterns and rules in CEL are not evaluated.
    pub fn validate(&self, object: &Value) -> Vec<Problem> {
        validate::object(&self.raw, object)
    }
}

#[cfg(test)]
mod tests;
