//! One rule of a role: what it allows, and whether others cover it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::{attributes::Attributes, words::Words};

/// Most single rights that rules may come to before they are compared. A rule's lists multiply: without a bound three
/// lists of a thousand names are a thousand million rights.
const MOST_RIGHTS: usize = 20_000;
/// Most entries of lists that are looked at while rules are compared: what is held times what is wanted.
const MOST_STEPS: usize = 20_000_000;

/// A rule of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    pub(crate) verbs: Words,
    #[serde(skip_serializing_if = "Words::is_empty")]
    pub(crate) api_groups: Words,
    #[serde(skip_serializing_if = "Words::is_empty")]
    pub(crate) resources: Words,
    #[serde(skip_serializing_if = "Words::is_empty")]
    pub(crate) resource_names: Words,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Words::is_empty")]
    pub(crate) non_resource_urls: Words,
}

fn contains(list: &Words, wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// Whether a path, or a pattern of paths, is within a pattern.
fn path_within(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

impl PolicyRule {
    /// Everything there is: what aggregation asks of who sets it up.
    pub(crate) fn everything() -> Vec<Self> {
        let all = || Words::from_iter(["*"]);
        vec![
            Self { verbs: all(), api_groups: all(), resources: all(), ..Self::default() },
            Self { verbs: all(), non_resource_urls: all(), ..Self::default() },
        ]
    }

    /// Whether it allows what is asked for.
    pub(crate) fn allows(&self, wanted: &Attributes) -> bool {
        if !contains(&self.verbs, &wanted.verb) {
            return false;
        }
        if wanted.resource.is_empty() {
            return self.non_resource_urls.iter().any(|pattern| path_within(pattern, &wanted.path));
        }
        contains(&self.api_groups, &wanted.group)
            && self.names_resource(wanted)
            && (self.resource_names.is_empty() || self.resource_names.has(&wanted.name))
    }

    /// `*`, `pods`, `pods/log` and `*/scale` are the forms.
    fn names_resource(&self, wanted: &Attributes) -> bool {
        self.resources.iter().any(|resource| match resource.split_once('/') {
            _ if resource == "*" => true,
            None => wanted.subresource.is_empty() && resource == wanted.resource,
            Some((plural, part)) => part == wanted.subresource && (plural == "*" || plural == wanted.resource),
        })
    }

    /// How many bytes its lists take, and it itself.
    pub(crate) fn bytes(&self) -> usize {
        let lists = [&self.verbs, &self.api_groups, &self.resources, &self.resource_names, &self.non_resource_urls];
        64 + lists.iter().map(|list| list.bytes()).sum::<usize>()
    }

    /// How long its lists are together.
    fn length(&self) -> usize {
        let lists = [&self.verbs, &self.api_groups, &self.resources, &self.resource_names, &self.non_resource_urls];
        1 + lists.iter().map(|list| list.count()).sum::<usize>()
    }

    /// How many single rights it comes to.
    fn rights(&self) -> usize {
        let names = self.resource_names.count().max(1);
        let resources = self.api_groups.count().saturating_mul(self.resources.count()).saturating_mul(names);
        self.verbs.count().saturating_mul(resources.saturating_add(self.non_resource_urls.count()))
    }

    /// The same rights, one a rule.
    fn single_rights(&self) -> Vec<PolicyRule> {
        let mut single = Vec::with_capacity(self.rights());
        let one = |word: &str| Words::from_iter([word]);
        for verb in self.verbs.iter() {
            for group in self.api_groups.iter() {
                for resource in self.resources.iter() {
                    let right = PolicyRule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..PolicyRule::default()
                    };
                    if self.resource_names.is_empty() {
                        single.push(right);
                        continue;
                    }
                    let named = self.resource_names.iter();
                    single.extend(named.map(|name| PolicyRule { resource_names: one(name), ..right.clone() }));
                }
            }
            let paths = self.non_resource_urls.iter();
            single.extend(paths.map(|path| PolicyRule {
                verbs: one(verb),
                non_resource_urls: one(path),
                ..PolicyRule::default()
            }));
        }
        single
    }

    /// The form in which refusals name a rule.
    fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let set = parts.into_iter().filter(|(_, list)| !list.is_empty());
        let shown: Vec<String> = set.map(|(name, list)| format!("{name}:{}", quoted(list.iter()))).collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// A list as refusals show it: `["a" "b"]`.
pub(crate) fn quoted<'a>(list: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<String> = list.map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

/// Why rules cannot be granted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Uncovered {
    /// These rights are not held; each in the form of refusals.
    Missing(Vec<String>),
    /// The rules come to more single rights than are compared.
    TooMany,
}

/// A rule that somebody holds, with its lists as sets: each may be as long as a request.
struct Held<'a> {
    verbs: HashSet<&'a str>,
    api_groups: HashSet<&'a str>,
    resources: HashSet<&'a str>,
    resource_names: HashSet<&'a str>,
    non_resource_urls: &'a Words,
}

impl<'a> Held<'a> {
    fn of(rule: &'a PolicyRule) -> Self {
        let set = |list: &'a Words| list.iter().collect();
        Self {
            verbs: set(&rule.verbs),
            api_groups: set(&rule.api_groups),
            resources: set(&rule.resources),
            resource_names: set(&rule.resource_names),
            non_resource_urls: &rule.non_resource_urls,
        }
    }

    /// Whether it grants everything that `other` does.
    fn covers(&self, other: &PolicyRule, steps: &mut Steps) -> Result<bool, Uncovered> {
        let paths = other.non_resource_urls.count().saturating_mul(self.non_resource_urls.count());
        steps.take(other.length().saturating_add(paths))?;
        let within = |path: &str| self.non_resource_urls.iter().any(|own| path_within(own, path));
        Ok(holds_all(&self.verbs, &other.verbs)
            && holds_all(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(|resource| self.covers_resource(resource))
            && other.non_resource_urls.iter().all(within)
            && self.covers_names(other))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        let any_of_part = || wanted.split_once('/').map(|(_, part)| format!("*/{part}"));
        self.resources.contains("*")
            || self.resources.contains(wanted)
            || any_of_part().is_some_and(|any| self.resources.contains(any.as_str()))
    }

    fn covers_names(&self, other: &PolicyRule) -> bool {
        let mut names = other.resource_names.iter();
        self.resource_names.is_empty()
            || (!other.resource_names.is_empty() && names.all(|name| self.resource_names.contains(name)))
    }
}

fn holds_all(held: &HashSet<&str>, wanted: &Words) -> bool {
    held.contains("*") || wanted.iter().all(|one| held.contains(one))
}

/// What is left of [`MOST_STEPS`].
struct Steps(usize);

impl Steps {
    fn take(&mut self, count: usize) -> Result<(), Uncovered> {
        self.0 = self.0.checked_sub(count).ok_or(Uncovered::TooMany)?;
        Ok(())
    }
}

/// Whether `held` grants everything that `wanted` does; what is missing, when not.
pub(crate) fn cover(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Result<(), Uncovered> {
    compare(held, wanted, &mut Steps(MOST_STEPS))
}

fn compare(held: &[&PolicyRule], wanted: &[PolicyRule], steps: &mut Steps) -> Result<(), Uncovered> {
    let held: Vec<Held<'_>> = held.iter().map(|rule| Held::of(rule)).collect();
    let mut missing = Vec::new();
    let mut compared = 0_usize;
    for rule in wanted {
        if is_covered(&held, rule, steps)? {
            continue;
        }
        compared = compared.saturating_add(rule.rights());
        if compared > MOST_RIGHTS {
            return Err(Uncovered::TooMany);
        }
        for right in rule.single_rights() {
            if !is_covered(&held, &right, steps)? {
                missing.push(right);
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Uncovered::Missing(compacted(missing))) }
}

fn is_covered(held: &[Held<'_>], rule: &PolicyRule, steps: &mut Steps) -> Result<bool, Uncovered> {
    for own in held {
        if own.covers(rule, steps)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Rights that differ only by their verb become one rule.
fn compacted(rights: Vec<PolicyRule>) -> Vec<String> {
    let mut alike: BTreeMap<(Words, Words), Vec<PolicyRule>> = BTreeMap::new();
    let mut shown = BTreeSet::new();
    for right in rights {
        if !right.resource_names.is_empty() || !right.non_resource_urls.is_empty() {
            shown.insert(right.compact());
            continue;
        }
        alike.entry((right.api_groups.clone(), right.resources.clone())).or_default().push(right);
    }
    for ((api_groups, resources), rules) in alike {
        let verbs = rules.iter().flat_map(|rule| rule.verbs.iter()).collect();
        shown.insert(PolicyRule { verbs, api_groups, resources, ..PolicyRule::default() }.compact());
    }
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Words {
        text.split_terminator(',').collect()
    }

    fn rule(groups: &str, resources: &str, names: &str, verbs: &str) -> PolicyRule {
        PolicyRule {
            verbs: list(verbs),
            api_groups: if groups == "core" { Words::from_iter([""]) } else { list(groups) },
            resources: list(resources),
            resource_names: list(names),
            ..PolicyRule::default()
        }
    }

    fn urls(paths: &str, verbs: &str) -> PolicyRule {
        PolicyRule { verbs: list(verbs), non_resource_urls: list(paths), ..PolicyRule::default() }
    }

    fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<String> {
        match cover(&held.iter().collect::<Vec<_>>(), wanted) {
            Ok(()) => Vec::new(),
            Err(Uncovered::Missing(list)) => list,
            Err(Uncovered::TooMany) => vec!["too many".into()],
        }
    }

    #[test]
    fn several_rules_together_cover_one() {
        let held =
            [rule("core", "pods", "", "get,list"), rule("core", "secrets", "", "get"), rule("apps", "*", "", "*")];
        assert!(missing(&held, &[rule("core", "pods,secrets", "", "get")]).is_empty());
        assert!(missing(&held, &[rule("apps", "deployments/scale", "a", "patch")]).is_empty());
        assert_eq!(
            missing(&held, &[rule("core", "pods,secrets", "", "get,list,watch")]),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["list" "watch"]}"#,
            ]
        );
    }

    #[test]
    fn a_right_to_some_names_does_not_cover_all_names() {
        let held = [rule("core", "secrets", "a,b", "get")];
        assert!(missing(&held, &[rule("core", "secrets", "a", "get")]).is_empty());
        assert_eq!(missing(&held, &[rule("core", "secrets", "", "get")]).len(), 1);
        assert_eq!(
            missing(&held, &[rule("core", "secrets", "a,c", "get")]),
            [r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["c"], Verbs:["get"]}"#]
        );
    }

    #[test]
    fn stars_are_covered_by_stars_alone() {
        let held = [rule("core", "pods", "", "get,list,watch,create,update,patch,delete,deletecollection")];
        assert_eq!(missing(&held, &[rule("core", "pods", "", "*")]).len(), 1);
        assert_eq!(missing(&held, &[rule("core", "*", "", "get")]).len(), 1);
        assert!(
            missing(&[rule("*", "*/scale", "", "get")], &[rule("apps", "deployments/scale", "", "get")]).is_empty()
        );
        assert_eq!(missing(&[rule("*", "*/scale", "", "get")], &[rule("apps", "deployments", "", "get")]).len(), 1);
        let everything = PolicyRule::everything();
        assert!(missing(&everything, &PolicyRule::everything()).is_empty());
    }

    #[test]
    fn paths_are_covered_by_their_prefixes() {
        let held = [urls("/metrics/*,/version", "get")];
        assert!(missing(&held, &[urls("/metrics/a,/metrics/a/*,/version", "get")]).is_empty());
        assert_eq!(missing(&held, &[urls("/metric", "get")]), [r#"{NonResourceURLs:["/metric"], Verbs:["get"]}"#]);
    }

    #[test]
    fn a_name_more_costs_a_step_more() {
        let many = (0..100_000).map(|n| format!("n{n}")).collect::<Vec<_>>().join(",");
        let own = rule("core", "secrets", &many, "get");
        let mut steps = Steps(MOST_STEPS);
        assert_eq!(compare(&[&own], std::slice::from_ref(&own), &mut steps), Ok(()));
        assert!(MOST_STEPS - steps.0 < 200_000, "{} steps", MOST_STEPS - steps.0);
        // Many rules against many are given up before they keep anybody waiting.
        let rules: Vec<PolicyRule> = (0..10_000).map(|n| rule("core", &format!("r{n}"), "", "get")).collect();
        let held: Vec<&PolicyRule> = rules.iter().collect();
        assert!(matches!(cover(&held, &[rule("core", "other", "", "get")]), Err(Uncovered::Missing(_))));
        assert_eq!(compare(&held, &rules, &mut Steps(100_000)), Err(Uncovered::TooMany));
    }

    #[test]
    fn rules_that_multiply_without_end_are_refused_before_they_are_spelled_out() {
        let many = (0..1000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let bomb = rule(&many, &many, &many, "get");
        assert_eq!(missing(&[rule("core", "pods", "", "get")], std::slice::from_ref(&bomb)), ["too many"]);
        // Who holds everything need not be compared right by right.
        assert!(missing(&PolicyRule::everything(), &[bomb]).is_empty());
    }
}
