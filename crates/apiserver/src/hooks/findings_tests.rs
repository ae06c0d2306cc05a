//! What is told of objects that make no sense: whatever they hold, nothing panics, nothing is told twice, and fields are
//! named rather than types of this program.

use std::collections::BTreeSet;

use jiff::Timestamp;
use knoll_api::{
    Kind,
    admission::{self as rules, Context},
    config::{ConfigBundle, eventing::EventingBundle},
};
use knoll_schema::{Type, ty::Shape};
use serde_json::{Value, json};

use super::{TABLE, of};
use crate::{
    resources::{Resource, ResourceRegistry},
    validation,
};

const ROUNDS: u64 = 60;
/// Most values in one object.
const SIZE: usize = 300;

/// Text that some field cannot hold, and some that others can.
const WORDS: &[&str] = &[
    "",
    "a",
    "b",
    "A b",
    "-x",
    "a/b/c",
    "../..",
    "/",
    "/data",
    "1.2.3.4",
    "::1",
    "127.0.0.1",
    "80",
    "\u{e9}\u{e9}",
    "Always",
    "Never",
    "TCP",
    "SCTP",
    "ClusterIP",
    "NodePort",
    "ExternalName",
    "Localhost",
    "RuntimeDefault",
    "Exists",
    "In",
    "example/app",
    "a.b.example",
    "kubernetes.io/tls",
    "500m",
    "default",
    "spec",
];
const NUMBERS: &[i64] = &[-1, 0, 1, 2, 80, 1000, 65_536, 2_147_483_647];

/// Numbers that look random, the same ones for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % most
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    /// A value of a type, as senseless as its type lets it be.
    fn value(&mut self, ty: &Type, left: &mut usize) -> Value {
        *left = left.saturating_sub(1);
        match &ty.shape {
            Shape::Int32 | Shape::Int64 => NUMBERS[self.below(NUMBERS.len())].into(),
            Shape::Double => 1.5.into(),
            Shape::Bool => (self.below(2) == 0).into(),
            Shape::Bytes => "YQ==".into(),
            Shape::Time => "2026-01-01T00:00:00Z".into(),
            Shape::MicroTime => "2026-01-01T00:00:00.000000Z".into(),
            Shape::Quantity => ["-1", "0", "1", "100m", "1Gi", "540m"][self.below(6)].into(),
            Shape::IntOrString if self.below(2) == 0 => NUMBERS[self.below(NUMBERS.len())].into(),
            Shape::Object(object) => {
                let mut map = serde_json::Map::new();
                for field in &object.fields {
                    // What is long is rarely there as a whole; what holds the rest is there more often.
                    let often = field.required || matches!(&*field.name, "spec" | "template" | "containers");
                    if *left > 0 && self.below(100) < if often { 95 } else { 30 } {
                        map.insert(field.name.to_string(), self.value(&field.ty, left));
                    }
                }
                Value::Object(map)
            }
            Shape::Map(map) => (0..self.below(3))
                .map(|_| (self.word().to_owned(), self.value(&map.values, left)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Shape::List(list) => {
                let mut items = Vec::new();
                for _ in 0..self.below(4).min(*left) {
                    // The same again: whoever counts by name meets it twice.
                    let again = items.last().filter(|_| self.below(3) == 0).cloned();
                    items.push(again.unwrap_or_else(|| self.value(&list.items, left)));
                }
                Value::Array(items)
            }
            Shape::FieldsV1 | Shape::Any | Shape::Raw | Shape::Json => json!({}),
            _ => self.word().into(),
        }
    }

    fn object(&mut self, row: &Resource) -> Value {
        let ty = knoll_schema::lookup(&row.group, &row.version, &row.kind).expect("a type");
        let mut object = self.value(ty, &mut SIZE.clone());
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.as_str().into();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({"name": self.word()});
        }
        object
    }
}

/// Each finding once, none that says a thing twice, none in words of the program.
fn sensible(what: &str, findings: &[String]) {
    let mut seen = BTreeSet::new();
    for finding in findings {
        assert!(seen.insert(finding), "{what}: told twice: {finding}");
        for head in ["Invalid value: ", "Required value", "Unsupported value: ", "Forbidden", "invalid value: "] {
            assert!(finding.matches(head).count() < 2, "{what}: {head:?} twice: {finding}");
        }
        for ours in ["Some(", "None)", "Object {", "String(\"", "Number(", "Err(", "ParseIntError", "Go ", "strconv"] {
            assert!(!finding.contains(ours), "{what}: words of a program: {finding}");
        }
    }
}

#[test]
fn no_finding_of_the_validators_repeats_or_names_types() {
    let registry = ResourceRegistry::built_in();
    let mut found = 0;
    for (group, plural, _) in TABLE {
        let row = registry.any_version(group, plural).expect("served");
        let hooks = of(row);
        for seed in 1..=ROUNDS {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (mut new, mut old) = (random.object(row), random.object(row));
            (hooks.default)(&mut new);
            (hooks.default)(&mut old);
            let mut changed = old.clone();
            changed["metadata"]["labels"] = new["metadata"]["labels"].clone();
            for (new, old) in [(&new, None), (&new, Some(&old)), (&changed, Some(&old))] {
                let mut causes = validation::metadata::check(row, new);
                causes.extend((hooks.validate)(new, old));
                let status = row.invalid("x", causes);
                let told = status.details.map(|details| details.causes).unwrap_or_default();
                found += told.len();
                let findings: Vec<String> = told.iter().map(ToString::to_string).collect();
                sensible(&format!("{plural}, seed {seed}"), &findings);
            }
        }
    }
    assert!(found > 10_000, "the objects make too much sense: {found} findings");
}

#[test]
fn no_finding_about_knatives_kinds_repeats_or_names_types() {
    let registry = ResourceRegistry::built_in();
    let config = ConfigBundle::default();
    let eventing = EventingBundle::default();
    let context = Context { config: &config, eventing: &eventing, user: "u", now: Timestamp::UNIX_EPOCH };
    for kind in Kind::ALL {
        let row = registry.get(kind.group(), kind.version(), kind.plural()).expect("served");
        for seed in 1..=ROUNDS {
            let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut new = random.object(row);
            rules::default(*kind, rules::Operation::Create, &mut new, None, &context);
            let (errors, warnings) = rules::validate(*kind, rules::Operation::Create, &new, None, &context);
            let all = errors.merged().into_iter().chain(warnings.merged());
            let findings: Vec<String> = all.map(|finding| finding.to_string()).collect();
            sensible(&format!("{kind:?}, seed {seed}"), &findings);
        }
    }
}
