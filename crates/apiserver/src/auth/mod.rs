//! Who is asking, and what they may do: certificates, tokens, RBAC.

mod authority;
mod bootstrap;
mod certificates;
mod jwt;
mod rbac;
mod subject;
mod tokens;

pub use authority::LocalAuthority;
pub use bootstrap::{CONTROLLER, GATEWAY, bootstrap_objects, node_identity};
pub use certificates::{Pki, PkiError, kubeconfig};
pub use subject::identity_of_certificate;
pub use tokens::TokenKey;
