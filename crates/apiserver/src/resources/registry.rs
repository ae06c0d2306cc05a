//! All rows, by where they are found.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Resource, custom};
use crate::object;

/// The resources served at one moment. Replaced as a whole when a definition comes or goes.
#[derive(Clone, Default)]
pub struct ResourceRegistry {
    rows: BTreeMap<(String, String, String), Arc<Resource>>,
    /// Grows with each change; part of discovery's ETag.
    pub generation: u64,
}

impl ResourceRegistry {
    /// The compiled-in rows.
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        let groups = [
            super::core::rows(),
            super::apps::rows(),
            super::batch::rows(),
            super::autoscaling::rows(),
            super::policy::rows(),
            super::networking::rows(),
            super::discovery::rows(),
            super::storage::rows(),
            super::rbac::rows(),
            super::admission::rows(),
            super::extensions::rows(),
            super::certificates::rows(),
            super::coordination::rows(),
            super::events::rows(),
            super::scheduling::rows(),
            super::authentication::rows(),
            super::knative::rows(),
        ];
        groups.into_iter().flatten().for_each(|row| registry.insert(row));
        registry
    }

    /// The same, counted on from what was served before.
    #[must_use]
    pub(crate) fn after(self, earlier: &ResourceRegistry) -> Self {
        Self { generation: earlier.generation + 1, ..self }
    }

    /// Adds or replaces a row.
    pub fn insert(&mut self, row: Resource) {
        self.generation += 1;
        self.rows.insert((row.group.clone(), row.version.clone(), row.plural.clone()), Arc::new(row));
    }

    /// Takes a resource's rows away, in all versions.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.generation += 1;
        self.rows.retain(|(g, _, p), _| g != group || p != plural);
    }

    /// Serves what a definition says.
    pub(crate) fn serve(&mut self, definition: &Value) {
        if self.retire(definition) {
            custom::from_definition(definition).into_iter().for_each(|row| self.insert(row));
        }
    }

    /// Stops serving what a definition says. `false` for what is compiled in, which stays.
    pub(crate) fn retire(&mut self, definition: &Value) -> bool {
        if self.is_compiled_in(definition) {
            return false;
        }
        let (group, plural) = names(definition);
        self.remove(group, plural);
        true
    }

    /// Whether a definition's resource is served without it, so that its objects stay.
    pub(crate) fn is_compiled_in(&self, definition: &Value) -> bool {
        let (group, plural) = names(definition);
        self.any_version(group, plural).is_some_and(|row| row.custom.as_ref().is_none_or(|custom| custom.knative))
    }

    /// A row by where it is in URLs.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// A row by what objects say of themselves.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.rows.values().find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    /// A row of any version.
    pub fn any_version(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows.values().find(|r| r.group == group && r.plural == plural)
    }

    /// All rows, by group, version and plural.
    pub fn rows(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.values()
    }

    /// Groups with their versions, the preferred one first; the core group has the empty name.
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for row in self.rows.values() {
            let versions = groups.entry(&row.group).or_default();
            if !versions.contains(&row.version.as_str()) {
                versions.push(&row.version);
            }
        }
        groups.values_mut().for_each(|versions| versions.sort_by_key(|v| std::cmp::Reverse(priority(v))));
        groups
    }

    /// Whether anything is served in `group` (and `version`, when given).
    pub fn has_group(&self, group: &str, version: Option<&str>) -> bool {
        self.rows.keys().any(|(g, v, _)| g == group && version.is_none_or(|wanted| v == wanted))
    }
}

/// Group and plural of a definition's resource.
pub(crate) fn names(definition: &Value) -> (&str, &str) {
    (object::text(definition, "/spec/group"), object::text(definition, "/spec/names/plural"))
}

/// Orders versions as Kubernetes does: stable before beta before alpha, then by number.
fn priority(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse().unwrap_or(0);
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    if let Some((major, beta)) = rest.split_once("beta") {
        return (2, number(major), number(beta));
    }
    if let Some((major, alpha)) = rest.split_once("alpha") {
        return (1, number(major), number(alpha));
    }
    (3, number(rest), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = vec!["v1alpha1", "v1", "v2beta2", "v2", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v2", "v1", "v2beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn every_kind_that_controllers_know_is_served() {
        let registry = ResourceRegistry::built_in();
        for kind in knoll_api::Kind::ALL {
            let row = registry
                .get(kind.group(), kind.version(), kind.plural())
                .unwrap_or_else(|| panic!("{kind:?} is not served"));
            assert_eq!(
                (row.kind.as_str(), row.namespaced),
                (kind.kind(), kind.scope() == knoll_api::kind::Scope::Namespaced)
            );
        }
    }
}
