//! What is known about a type: its fields, how its lists and maps merge, and how it looks on the wire.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde_json::Value;

use crate::builtin;

/// Text that is static for the built-in kinds and owned for the kinds of a CustomResourceDefinition.
pub type Text = Cow<'static, str>;

/// One type.
#[derive(Clone, Debug)]
pub struct Type {
    /// The type's own name, such as `PodSpec`; empty for a type nobody named (a list, a map, a scalar).
    pub name: Text,
    /// The group and version it is declared in, such as `apps/v1` or `core/v1`; empty when unnamed.
    pub package: Text,
    /// Set for a type that is a kind of the API.
    pub kind: Option<GroupVersionKind>,
    /// What values of the type are.
    pub shape: Shape,
}

impl Type {
    /// A type without a name.
    pub fn unnamed(shape: Shape) -> Self {
        Self { name: Text::Borrowed(""), package: Text::Borrowed(""), kind: None, shape }
    }

    /// The fields, when values are objects with declared fields.
    pub fn object(&self) -> Option<&Object> {
        match &self.shape {
            Shape::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The declared field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.object()?.field(name)
    }

    /// Follows field names; lists and maps on the way stand for their items.
    pub fn walk<'a>(&'a self, path: &[&str]) -> Option<&'a Type> {
        let mut at = self;
        for name in path {
            while let Shape::List(List { items, .. }) = &at.shape {
                at = items;
            }
            at = match &at.shape {
                Shape::Map(map) => &map.values,
                _ => &at.field(name)?.ty,
            };
        }
        Some(at)
    }
}

/// Names a kind in one version of a group. The core group is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// Group, such as `apps`.
    pub group: Text,
    /// Version, such as `v1`.
    pub version: Text,
    /// Kind, such as `Deployment`.
    pub kind: Text,
}

/// What values of a type are.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Text.
    String,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// A number.
    Double,
    /// `true` or `false`.
    Bool,
    /// Base64 text.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with exactly six fractional digits.
    MicroTime,
    /// A Go duration, such as `1m0s`; nanoseconds on the wire.
    Duration,
    /// A quantity such as `100m`; a number is accepted too.
    Quantity,
    /// A whole number or text.
    IntOrString,
    /// A set of fields in the form of `metadata.managedFields[].fieldsV1`.
    FieldsV1,
    /// Anything, merged field by field.
    Any,
    /// Anything, owned and replaced as a whole. On the wire: JSON bytes inside a message.
    Raw,
    /// Anything. On the wire: JSON bytes inside a message, as [`Shape::Raw`]; a schema default or an enum value.
    Json,
    /// A CustomResourceDefinition's `items`: one schema, or several.
    SchemaOrArray,
    /// A CustomResourceDefinition's `additionalProperties`: a schema, or a truth value.
    SchemaOrBool,
    /// A CustomResourceDefinition's `dependencies`: a schema, or names.
    SchemaOrStrings,
    /// Declared fields.
    Object(Object),
    /// Any number of entries of one type.
    Map(Map),
    /// Items of one type.
    List(List),
}

/// Declared fields.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Owned and replaced as a whole.
    pub atomic: bool,
    /// Keeps fields that are not declared.
    pub open: bool,
    /// The protobuf message, sorted by tag; empty for kinds that have none.
    pub wire: Vec<ProtobufField>,
}

impl Object {
    /// The declared field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok().map(|at| &self.fields[at])
    }
}

/// One member of a protobuf message.
#[derive(Clone, Debug)]
pub struct ProtobufField {
    /// The protobuf tag.
    pub tag: u32,
    /// The JSON field it is; `None` when its own fields belong to the message around it.
    pub field: Option<Text>,
    /// The type behind the tag.
    pub ty: TypeRef,
}

/// When a field with its type's zero value is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Whenever it was given: zero and absent mean different things.
    Explicit,
    /// Always.
    Always,
    /// Only when it is not zero: zero means absent.
    NonZero,
}

/// One declared field.
#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name.
    pub name: Text,
    /// Its type.
    pub ty: TypeRef,
    /// Must be given.
    pub required: bool,
    /// What a zero value means.
    pub presence: Presence,
    /// Overrides whether the object or map in it is owned as a whole.
    pub atomic: Option<bool>,
    /// For a list of objects in a strategic merge: the field that tells items apart.
    pub merge_key: Option<Text>,
    /// How a strategic merge treats it.
    pub strategy: Strategy,
    /// The value it has when absent. Only some defaults are known to a schema.
    pub default: Option<Value>,
}

/// How a strategic merge treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strategy {
    /// A list is merged, not replaced.
    pub merge: bool,
    /// A map or object is replaced, not merged.
    pub replace: bool,
    /// A patch names the fields that stay.
    pub retain_keys: bool,
}

/// Any number of entries of one type.
#[derive(Clone, Debug)]
pub struct Map {
    /// The type of every value.
    pub values: TypeRef,
    /// Owned and replaced as a whole.
    pub atomic: bool,
}

/// Items of one type.
#[derive(Clone, Debug)]
pub struct List {
    /// The type of every item.
    pub items: TypeRef,
    /// What tells items apart.
    pub kind: ListKind,
    /// On the wire: a message around the items.
    pub wrapped: bool,
}

/// What tells the items of a list apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Nothing: owned and replaced as a whole.
    Atomic,
    /// Their value.
    Set,
    /// The values of these fields.
    Map(Vec<Text>),
}

/// A type, shared. Types of the built-in table may refer to each other in circles.
#[derive(Clone)]
pub enum TypeRef {
    /// One of the built-in table, by its place there.
    Table(u32),
    /// One made at run time.
    Owned(Arc<Type>),
}

impl TypeRef {
    /// Wraps a type made at run time.
    pub fn new(ty: Type) -> Self {
        Self::Owned(Arc::new(ty))
    }
}

impl Deref for TypeRef {
    type Target = Type;

    fn deref(&self) -> &Type {
        match self {
            Self::Table(at) => builtin::at(*at),
            Self::Owned(ty) => ty,
        }
    }
}

impl fmt::Debug for TypeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(at) => write!(f, "#{at}"),
            Self::Owned(ty) => ty.fmt(f),
        }
    }
}
