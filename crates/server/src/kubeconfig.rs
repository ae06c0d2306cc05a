//! The administrator's kubeconfig, and those of roles that are processes of their own.

use std::{fs, io, path::Path};

use jiff::Timestamp;
use knoll_api::labels::SYSTEM_NAMESPACE;
use knoll_apiserver::auth::{AUTOSCALER, CONTROLLER, GATEWAY, Pki, kubeconfig};
use knoll_cli::Exit;
use serde_json::Value;

use crate::{failure::Failure, paths::Paths, private};

const USER: &str = "kubernetes-admin";
/// Roles that are processes of their own, and the ServiceAccount of each; the node is no ServiceAccount.
const ROLES: [(&str, Option<&str>); 4] =
    [("controller", Some(CONTROLLER)), ("autoscaler", Some(AUTOSCALER)), ("gateway", Some(GATEWAY)), ("node", None)];

/// Writes the administrator's, with a certificate made now, for the API at `server`.
pub(crate) fn write(paths: &Paths, pki: &Pki, server: &str) -> Result<(), Failure> {
    write_one(&paths.kubeconfig(), pki, server, USER, "system:masters")
}

/// Writes one for each role.
pub(crate) fn write_roles(paths: &Paths, pki: &Pki, server: &str, node: &str) -> Result<(), Failure> {
    for (role, account) in ROLES {
        let (user, group) = match account {
            Some(account) => (format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{account}"), "system:serviceaccounts"),
            None => (format!("system:node:{node}"), "system:nodes"),
        };
        write_one(&paths.role_kubeconfig(role), pki, server, &user, group)?;
    }
    Ok(())
}

/// Writes anew all that are there, for who they were for.
pub(crate) fn renew(paths: &Paths, pki: &Pki, server: &str) -> Result<(), Failure> {
    write(paths, pki, server)?;
    let node = read(&paths.role_kubeconfig("node"));
    let user = node.as_ref().and_then(|config| config.pointer("/users/0/name")?.as_str()?.strip_prefix("system:node:"));
    user.map_or(Ok(()), |node| write_roles(paths, pki, server, node))
}

fn write_one(path: &Path, pki: &Pki, server: &str, user: &str, group: &str) -> Result<(), Failure> {
    let certificate = pki.client(user, group, Timestamp::now());
    let (certificate, key) = certificate.map_err(|e| Failure::new(Exit::System, &e))?;
    let text = kubeconfig(server, pki.ca_pem(), user, &certificate, &key);
    match private::write(path, text.as_bytes()) {
        // The old one has to do: an instance that was killed must come back.
        Err(error) if error.kind() == io::ErrorKind::StorageFull && path.exists() => {
            tracing::warn!(%error, path = %path.display(), "write it anew; the old one stays");
            Ok(())
        }
        other => other.map_err(|e| Failure::io(format!("write {}", path.display()), &e)),
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The API's address in the one that is there.
pub(crate) fn server(paths: &Paths) -> Option<String> {
    read(&paths.kubeconfig())?.pointer("/clusters/0/cluster/server")?.as_str().map(str::to_owned)
}
