//! Reads the tables of types.
//!
//! A table is text. `package <group>/<version>` opens it (`core/v1` for the core group), with `custom` after it when
//! the kinds have no protobuf form and their zero values count as given. Then, a blank line apart:
//!
//! ```text
//! kind Pod                      a kind: has apiVersion and kind as well
//! type PodSpec map=atomic       a type; atomic: owned as a whole; open: keeps undeclared fields
//! list ExtraValue [string]      a named list, a message of its own on the wire
//!   name 1 string ! =           field, protobuf tag (or -), type, flags
//!   + 2 VolumeSource            a message whose fields belong to the type around it
//! ```
//!
//! A type is a scalar, `[items]`, `map<values>`, or a name, with its package before it when that is another one.
//! Flags: `!` required; `*` zero counts as given; `=` always written; `list=atomic|set|map:keys`; `map=atomic|granular`;
//! `merge=key` and `patch=merge,replace,retainKeys` for strategic merges; `default=json`.

use std::collections::BTreeMap;

use crate::ty::{Field, GroupVersionKind, List, ListKind, Map, Object, Presence, Shape, Strategy, Text, Type};
use crate::ty::{ProtobufField, TypeRef};

/// All built-in types, and where each kind is.
pub(crate) struct TypeTable {
    pub(crate) types: Vec<Type>,
    pub(crate) kinds: BTreeMap<(&'static str, &'static str, &'static str), u32>,
    /// By `package.Name`.
    names: BTreeMap<(&'static str, &'static str), u32>,
    scalars: BTreeMap<&'static str, u32>,
}

const SCALARS: [(&str, Shape); 19] = [
    ("string", Shape::String),
    ("int32", Shape::Int32),
    ("int64", Shape::Int64),
    ("double", Shape::Double),
    ("bool", Shape::Bool),
    ("bytes", Shape::Bytes),
    ("time", Shape::Time),
    ("microtime", Shape::MicroTime),
    ("duration", Shape::Duration),
    ("quantity", Shape::Quantity),
    ("int-or-string", Shape::IntOrString),
    ("fields", Shape::FieldsV1),
    ("any", Shape::Any),
    ("object", Shape::Any),
    ("raw", Shape::Raw),
    ("json", Shape::Json),
    ("schema-or-array", Shape::SchemaOrArray),
    ("schema-or-bool", Shape::SchemaOrBool),
    ("schema-or-strings", Shape::SchemaOrStrings),
];

impl TypeTable {
    pub(crate) fn named(&self, package: &str, name: &str) -> Option<u32> {
        self.names.get(&(package, name)).copied()
    }
}

struct Package {
    name: &'static str,
    custom: bool,
    lines: Vec<&'static str>,
}

/// Reads all tables.
///
/// # Panics
/// On a malformed table: the tables are part of the program.
pub(crate) fn parse(sources: &[&'static str]) -> TypeTable {
    let packages: Vec<Package> = sources.iter().map(|source| package(source)).collect();
    let mut table =
        TypeTable { types: Vec::new(), kinds: BTreeMap::new(), names: BTreeMap::new(), scalars: BTreeMap::new() };
    for (name, shape) in SCALARS {
        table.scalars.insert(name, table.types.len() as u32);
        table.types.push(Type::unnamed(shape));
    }
    for package in &packages {
        declare(&mut table, package);
    }
    let mut inlined = Vec::new();
    for package in &packages {
        define(&mut table, package, &mut inlined);
    }
    for at in inlined {
        flatten(&mut table, at);
    }
    table.types.shrink_to_fit();
    table
}

fn package(source: &'static str) -> Package {
    let mut lines = source.lines().filter(|line| !line.trim().is_empty());
    let head = lines.next().and_then(|line| line.strip_prefix("package ")).expect("a table opens with its package");
    let (name, custom) = head.strip_suffix(" custom").map_or((head, false), |name| (name, true));
    Package { name, custom, lines: lines.collect() }
}

/// First pass: gives every named type its place, so that types can refer to each other in any order.
fn declare(table: &mut TypeTable, package: &Package) {
    let (group, version) = package.name.split_once('/').expect("group/version");
    let group = if group == "core" { "" } else { group };
    for line in package.lines.iter().filter(|line| !line.starts_with(' ')) {
        let mut words = line.split(' ');
        let what = words.next();
        let name = words.next().expect("a declaration has a name");
        let at = table.types.len() as u32;
        let mut ty = Type::unnamed(Shape::Any);
        ty.name = Text::Borrowed(name);
        ty.package = Text::Borrowed(package.name);
        if what == Some("kind") {
            table.kinds.insert((group, version, name), at);
            let [group, version, kind] = [group, version, name].map(Text::Borrowed);
            ty.kind = Some(GroupVersionKind { group, version, kind });
        }
        table.types.push(ty);
        assert!(table.names.insert((package.name, name), at).is_none(), "{name} is declared twice");
    }
}

/// Second pass: fills in the declared types.
fn define(table: &mut TypeTable, package: &Package, inlined: &mut Vec<u32>) {
    let mut lines = package.lines.iter().peekable();
    while let Some(head) = lines.next() {
        let mut words = head.split(' ');
        let what = words.next();
        let name = words.next().expect("a declaration has a name");
        let at = table.names[&(package.name, name)];
        if what == Some("list") {
            let items =
                words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']')).expect("a list has items");
            let items = resolve(table, package.name, items);
            table.types[at as usize].shape = Shape::List(List { items, kind: ListKind::Atomic, wrapped: true });
            continue;
        }
        let mut object = Object::default();
        for flag in words {
            match flag {
                "open" => object.open = true,
                "map=atomic" => object.atomic = true,
                other => panic!("{name} has an unknown flag {other}"),
            }
        }
        if what == Some("kind") {
            object.fields.push(plain("apiVersion", TypeRef::Table(table.scalars["string"])));
            object.fields.push(plain("kind", TypeRef::Table(table.scalars["string"])));
        }
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            member(table, package, &mut object, line.trim_start());
        }
        object.fields.sort_by(|a, b| a.name.cmp(&b.name));
        object.wire.sort_by_key(|wire| wire.tag);
        // Kept for ever, and there are thousands.
        object.fields.shrink_to_fit();
        object.wire.shrink_to_fit();
        if object.wire.iter().any(|wire| wire.field.is_none()) {
            inlined.push(at);
        }
        table.types[at as usize].shape = Shape::Object(object);
    }
}

fn plain(name: &'static str, ty: TypeRef) -> Field {
    Field {
        name: Text::Borrowed(name),
        ty,
        required: false,
        presence: Presence::NonZero,
        atomic: None,
        merge_key: None,
        strategy: Strategy::default(),
        default: None,
    }
}

fn member(table: &mut TypeTable, package: &Package, object: &mut Object, line: &'static str) {
    let mut words = line.split(' ');
    let (name, tag, expression) = match (words.next(), words.next(), words.next()) {
        (Some(name), Some(tag), Some(expression)) => (name, tag, expression),
        _ => panic!("a field needs a name, a tag and a type: {line}"),
    };
    let tag = (tag != "-").then(|| tag.parse::<u32>().expect("a tag is a number"));
    let ty = resolve(table, package.name, expression);
    if name == "+" {
        object.wire.push(ProtobufField { tag: tag.expect("an inlined message has a tag"), field: None, ty });
        return;
    }
    let mut field = plain(name, ty);
    if package.custom {
        field.presence = Presence::Explicit;
    }
    for flag in words {
        read_flag(table, &mut field, flag);
    }
    if let Some(tag) = tag {
        object.wire.push(ProtobufField { tag, field: Some(Text::Borrowed(name)), ty: field.ty.clone() });
    }
    object.fields.push(field);
}

fn read_flag(table: &mut TypeTable, field: &mut Field, flag: &'static str) {
    match flag.split_once('=') {
        None if flag == "!" => field.required = true,
        None if flag == "*" => field.presence = Presence::Explicit,
        Some(("", "")) if field.presence == Presence::NonZero => field.presence = Presence::Always,
        Some(("", "")) => {}
        Some(("list", kind)) => field.ty = with_list_kind(table, &field.ty, kind),
        Some(("map", kind)) => field.atomic = Some(kind == "atomic"),
        Some(("merge", key)) => {
            field.merge_key = Some(Text::Borrowed(key));
            field.strategy.merge = true;
        }
        Some(("patch", strategies)) => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.strategy.merge = true,
                    "replace" => field.strategy.replace = true,
                    "retainKeys" => field.strategy.retain_keys = true,
                    other => panic!("unknown strategy {other}"),
                }
            }
        }
        Some(("default", json)) => field.default = Some(serde_json::from_str(json).expect("a default is JSON")),
        _ => panic!("{} has an unknown flag {flag}", field.name),
    }
}

fn with_list_kind(table: &mut TypeTable, ty: &TypeRef, kind: &'static str) -> TypeRef {
    let TypeRef::Table(at) = ty else { panic!("tables hold no other types") };
    let Shape::List(list) = &table.types[*at as usize].shape else { panic!("list= is for lists") };
    let mut list = list.clone();
    list.kind = match kind.split_once(':') {
        None if kind == "atomic" => ListKind::Atomic,
        None if kind == "set" => ListKind::Set,
        Some(("map", keys)) => ListKind::Map(keys.split(',').map(Text::Borrowed).collect()),
        _ => panic!("unknown kind of list {kind}"),
    };
    push(table, Shape::List(list))
}

fn push(table: &mut TypeTable, shape: Shape) -> TypeRef {
    table.types.push(Type::unnamed(shape));
    TypeRef::Table(table.types.len() as u32 - 1)
}

fn resolve(table: &mut TypeTable, package: &'static str, expression: &'static str) -> TypeRef {
    if let Some(items) = expression.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let items = resolve(table, package, items);
        return push(table, Shape::List(List { items, kind: ListKind::Atomic, wrapped: false }));
    }
    if let Some(values) = expression.strip_prefix("map<").and_then(|rest| rest.strip_suffix('>')) {
        let values = resolve(table, package, values);
        return push(table, Shape::Map(Map { values, atomic: false }));
    }
    if let Some(at) = table.scalars.get(expression) {
        return TypeRef::Table(*at);
    }
    let (package, name) = match expression.rsplit_once('.') {
        Some((package, name)) => (package, name),
        None => (package, expression),
    };
    match table.names.get(&(package, name)) {
        Some(at) => TypeRef::Table(*at),
        None => panic!("{package} has no type {name}"),
    }
}

/// Gives a type the fields of the messages inlined in it.
fn flatten(table: &mut TypeTable, at: u32) {
    let Shape::Object(object) = &table.types[at as usize].shape else { return };
    let inner: Vec<u32> = object
        .wire
        .iter()
        .filter_map(|wire| match (&wire.field, &wire.ty) {
            (None, TypeRef::Table(inner)) => Some(*inner),
            _ => None,
        })
        .collect();
    for inner in inner {
        flatten(table, inner);
        let Shape::Object(source) = &table.types[inner as usize].shape else { panic!("only objects can be inlined") };
        let fields = source.fields.clone();
        let Shape::Object(object) = &mut table.types[at as usize].shape else { return };
        for field in fields {
            if object.field(&field.name).is_none() {
                object.fields.push(field);
                object.fields.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
    }
}
