//! Where an addressable object takes events.

use serde::{Deserialize, Serialize};

use crate::status::Addressable;

/// The part of a status that says where an object takes events. `addresses` go before `address` where both are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The one address, or the preferred one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
    /// All addresses, the preferred one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Addressable>,
}

/// An EventPolicy that decides who may send events here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedEventPolicy {
    /// `group/version` of the policy.
    #[serde(default)]
    pub api_version: String,
    /// Its name, in the namespace of the object.
    #[serde(default)]
    pub name: String,
}

/// The part of a status that lists the EventPolicies which apply. Only those that are ready are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedEventPoliciesStatus {
    /// The policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicy>,
}
