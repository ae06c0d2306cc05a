//! Who is asking, and what they may do: certificates, tokens, RBAC.

mod authority;
mod bootstrap;
mod certificates;
mod impersonation;
mod jwt;
mod node;
mod rbac;
mod revocation;
mod serving;
mod subject;
mod tokens;

pub use authority::LocalAuthority;
pub(crate) use bootstrap::{AUTO_UPDATE, accounts, rbac_objects};
pub use bootstrap::{AUTOSCALER, CONTROLLER, GATEWAY, node_user};
pub use certificates::{Pki, PkiError, is_due, kubeconfig};
pub(crate) use node::name as node_name;
pub use revocation::ClientEpoch;
pub use serving::ServingCertificate;
pub use subject::user_of_certificate;
pub use tokens::TokenKey;

pub use crate::policy_rule::PolicyRule;
