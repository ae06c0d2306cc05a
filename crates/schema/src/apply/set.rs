//! Sets of fields: which parts of an object somebody owns.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map as JsonMap, Value};

use super::walk;
use crate::ty::Type;

/// One step from an object or list to a part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field, or an entry of a map.
    Field(String),
    /// The item of a list whose key fields have these values; a JSON object with sorted names.
    Key(String),
    /// The item of a list of values that has this value, as JSON.
    Value(String),
    /// The item at a place.
    Index(usize),
}

impl PathElement {
    fn from_name(name: &str) -> Option<Self> {
        let (tag, rest) = name.split_once(':')?;
        Some(match tag {
            "f" => PathElement::Field(rest.to_owned()),
            "k" => PathElement::Key(serde_json::from_str::<JsonMap<String, Value>>(rest).ok().map(canonical)?),
            "v" => PathElement::Value(serde_json::from_str::<Value>(rest).ok()?.to_string()),
            "i" => PathElement::Index(rest.parse().ok()?),
            _ => return None,
        })
    }

    fn name(&self) -> String {
        match self {
            PathElement::Field(name) => format!("f:{name}"),
            PathElement::Key(key) => format!("k:{key}"),
            PathElement::Value(value) => format!("v:{value}"),
            PathElement::Index(at) => format!("i:{at}"),
        }
    }
}

/// The form of a key in which equal keys are equal texts.
pub(super) fn canonical(key: JsonMap<String, Value>) -> String {
    Value::Object(key).to_string()
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(key) => {
                let key: JsonMap<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let parts: Vec<String> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", parts.join(","))
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A set of paths into an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    nodes: BTreeMap<PathElement, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: FieldSet,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// True when no path is in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[PathElement]) {
        if let Some((last, way)) = path.split_last() {
            let mut set = self;
            for element in way {
                set = &mut set.nodes.entry(element.clone()).or_default().below;
            }
            set.nodes.entry(last.clone()).or_default().member = true;
        }
    }

    /// Adds a path of fields alone.
    pub fn insert_fields(&mut self, names: &[&str]) {
        let path: Vec<PathElement> = names.iter().map(|name| PathElement::Field((*name).to_owned())).collect();
        self.insert(&path);
    }

    /// True when the one-step path is in it.
    pub(super) fn has(&self, element: &PathElement) -> bool {
        self.nodes.get(element).is_some_and(|node| node.member)
    }

    /// What is in it below an element.
    pub(super) fn below(&self, element: &PathElement) -> Option<&FieldSet> {
        self.nodes.get(element).map(|node| &node.below).filter(|below| !below.is_empty())
    }

    /// Adds all of another set.
    pub fn unite(&mut self, other: &FieldSet) {
        for (element, node) in &other.nodes {
            let own = self.nodes.entry(element.clone()).or_default();
            own.member |= node.member;
            own.below.unite(&node.below);
        }
    }

    /// What both hold.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |own, other| own.member && other.member, |own, other| own.intersection(other), false)
    }

    /// What the other does not hold.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.combine(other, |own, other| own.member && !other.member, |own, other| own.difference(other), true)
    }

    /// What the other holds neither itself nor by something above it.
    pub fn recursive_difference(&self, other: &FieldSet) -> FieldSet {
        let below = |own: &FieldSet, other: &FieldSet| own.recursive_difference(other);
        let mut rest = self.combine(other, |own, other| own.member && !other.member, below, true);
        rest.nodes.retain(|element, _| !other.has(element));
        rest
    }

    fn combine(
        &self,
        other: &FieldSet,
        member: impl Fn(&Node, &Node) -> bool,
        below: impl Fn(&FieldSet, &FieldSet) -> FieldSet,
        keep_own: bool,
    ) -> FieldSet {
        let mut nodes = BTreeMap::new();
        for (element, node) in &self.nodes {
            let combined = match other.nodes.get(element) {
                Some(other) => Node { member: member(node, other), below: below(&node.below, &other.below) },
                None if keep_own => node.clone(),
                None => continue,
            };
            if !combined.is_empty() {
                nodes.insert(element.clone(), combined);
            }
        }
        FieldSet { nodes }
    }

    /// All paths in it, in order.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, way: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for (element, node) in &self.nodes {
            way.push(element.clone());
            if node.member {
                paths.push(way.clone());
            }
            node.below.collect(way, paths);
            way.pop();
        }
    }

    /// The set with every declared field in it below which it holds something.
    pub(super) fn with_declared_fields(&self, ty: &Type) -> FieldSet {
        let mut nodes = BTreeMap::new();
        for (element, node) in &self.nodes {
            let declared = matches!(element, PathElement::Field(name) if ty.field(name).is_some());
            let below = match walk::child(ty, element) {
                Some(child) => node.below.with_declared_fields(child),
                None => node.below.clone(),
            };
            nodes.insert(element.clone(), Node { member: node.member || declared, below });
        }
        FieldSet { nodes }
    }

    /// Reads the form of `metadata.managedFields[].fieldsV1`. `None` when it is malformed.
    pub fn from_fields_v1(fields: &Value) -> Option<FieldSet> {
        let mut set = FieldSet::default();
        for (name, inner) in fields.as_object()? {
            if name == "." {
                continue;
            }
            let inner = inner.as_object()?;
            let member = inner.is_empty() || inner.contains_key(".");
            let below = FieldSet::from_fields_v1(&Value::Object(inner.clone()))?;
            let node = set.nodes.entry(PathElement::from_name(name)?).or_default();
            node.member |= member;
            node.below.unite(&below);
        }
        Some(set)
    }

    /// Writes the form of `metadata.managedFields[].fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        let mut fields = JsonMap::new();
        for (element, node) in &self.nodes {
            let mut inner = node.below.to_fields_v1();
            if let (true, Value::Object(inner)) = (node.member && !node.below.is_empty(), &mut inner) {
                inner.insert(".".into(), Value::Object(JsonMap::new()));
            }
            fields.insert(element.name(), inner);
        }
        Value::Object(fields)
    }
}
