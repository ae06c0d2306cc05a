//! An object of any kind that controllers know, typed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Key, Kind, json};

/// A kind's Rust type.
pub trait Resource: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// The kind whose type this is.
    const KIND: Kind;

    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;

    /// Its metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;

    /// Its JSON, without `apiVersion` and `kind`.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads its JSON.
    ///
    /// # Errors
    /// When it is not JSON, or a known field has the wrong type.
    fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error>;

    /// Namespace and name.
    fn key(&self) -> Key {
        Key::of(self.meta())
    }

    /// Name; empty when unset.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// Namespace; empty for cluster-scoped objects.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// uid; empty when it has not been stored yet.
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// A label's value.
    fn label(&self, key: &str) -> Option<&str> {
        self.meta().labels.as_ref()?.get(key).map(String::as_str)
    }

    /// An annotation's value.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether deletion was asked for and finalizers hold it.
    fn is_deleting(&self) -> bool {
        self.meta().deletion_timestamp.is_some()
    }

    /// The owner reference that marks its controller.
    fn controller(&self) -> Option<&OwnerReference> {
        self.meta().owner_references.as_ref()?.iter().find(|r| r.controller == Some(true))
    }

    /// Whether `owner` controls it.
    fn is_controlled_by<O: Resource>(&self, owner: &O) -> bool {
        self.controller().is_some_and(|r| r.uid == owner.uid())
    }

    /// A controller reference to this object (`controller` and `blockOwnerDeletion` set).
    fn controller_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: Self::KIND.api_version(),
            kind: Self::KIND.kind().to_owned(),
            name: self.name().to_owned(),
            uid: self.uid().to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// Declares the struct of a kind with `metadata`, `spec` and `status`, and its [`Resource`] impl.
/// `apiVersion` and `kind` are not fields: [`Object::to_json`] writes them.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident, $spec:ty $(, $status:ty)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            /// Object metadata.
            #[serde(default)]
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            #[serde(default)]
            pub spec: $spec,
            $(
                /// What was observed.
                #[serde(default)]
                pub status: $status,
            )?
        }

        impl $crate::object::Resource for $name {
            const KIND: $crate::Kind = $crate::Kind::$name;
            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { &mut self.metadata }
            fn to_bytes(&self) -> Vec<u8> { $crate::json::bytes_of(self) }
            fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> { serde_json::from_slice(bytes) }
        }
    };
}
pub(crate) use resource;

macro_rules! foreign_resources {
    ($($kind:ident => $ty:path),* $(,)?) => {
        $(
            impl Resource for $ty {
                const KIND: Kind = Kind::$kind;
                fn meta(&self) -> &ObjectMeta { &self.metadata }
                fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
                fn to_bytes(&self) -> Vec<u8> { json::bytes_of(self) }
                fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> { serde_json::from_slice(bytes) }
            }
        )*
    };
}
foreign_resources! {
    Namespace => k8s_openapi::api::core::v1::Namespace,
    Node => k8s_openapi::api::core::v1::Node,
    ServiceAccount => k8s_openapi::api::core::v1::ServiceAccount,
    ConfigMap => k8s_openapi::api::core::v1::ConfigMap,
    Secret => k8s_openapi::api::core::v1::Secret,
    Pod => k8s_openapi::api::core::v1::Pod,
    CoreService => k8s_openapi::api::core::v1::Service,
    Endpoints => k8s_openapi::api::core::v1::Endpoints,
    EndpointSlice => k8s_openapi::api::discovery::v1::EndpointSlice,
    Role => k8s_openapi::api::rbac::v1::Role,
    RoleBinding => k8s_openapi::api::rbac::v1::RoleBinding,
    ClusterRole => k8s_openapi::api::rbac::v1::ClusterRole,
    ClusterRoleBinding => k8s_openapi::api::rbac::v1::ClusterRoleBinding,
    Deployment => k8s_openapi::api::apps::v1::Deployment,
    ReplicaSet => k8s_openapi::api::apps::v1::ReplicaSet,
    Job => k8s_openapi::api::batch::v1::Job,
    CronJob => k8s_openapi::api::batch::v1::CronJob,
}

/// The JSON form of a typed object, with `apiVersion` and `kind`.
pub fn to_json<R: Resource>(object: &R) -> Value {
    let mut value = json::value(&object.to_bytes());
    let map = value.as_object_mut().expect("an object serializes to a JSON object");
    map.insert("apiVersion".into(), R::KIND.api_version().into());
    map.insert("kind".into(), R::KIND.kind().into());
    value
}

macro_rules! object_enum {
    ($($variant:ident, $field:ident, $group:literal, $version:literal, $plural:literal, $kind:literal, $scope:ident, $ty:ty;)*) => {
        /// A typed object of any known kind. Cheap to clone.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $(
                #[doc = concat!("A `", $kind, "`.")]
                $variant(std::sync::Arc<$ty>),
            )*
        }

        impl Object {
            /// Reads the JSON form of an object of `kind`.
            ///
            /// # Errors
            /// When a known field has the wrong type.
            pub fn from_json(kind: Kind, value: Value) -> Result<Object, serde_json::Error> {
                let bytes = json::bytes_of(&value);
                let read = match kind { $(Kind::$variant => <$ty>::from_bytes(&bytes).map(Object::from),)* };
                read.map_err(|error| json::without_place(&error))
            }

            /// Its JSON form, with `apiVersion` and `kind`.
            pub fn to_json(&self) -> Value {
                match self { $(Object::$variant(object) => to_json(object.as_ref()),)* }
            }

            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Object::$variant(_) => Kind::$variant,)* }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Object::$variant(object) => object.meta(),)* }
            }
        }

        $(
            impl From<$ty> for Object {
                fn from(object: $ty) -> Object { Object::$variant(std::sync::Arc::new(object)) }
            }
        )*
    };
}
crate::for_each_kind!(object_enum);

impl Object {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::of(self.meta())
    }
}
