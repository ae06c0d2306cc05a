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
const ROLES: [(&str, Option<&str>); 5] = [
    ("controller", Some(CONTROLLER)),
    ("autoscaler", Some(AUTOSCALER)),
    ("gateway", Some(GATEWAY)),
    ("broker", Some(CONTROLLER)),
    ("node", None),
];

/// Writes the administrator's, with a certificate made now, for the API at `server`.
pub(crate) fn write(paths: &Paths, pki: &Pki, server: &str) -> Result<(), Failure> {
    old_will_do(&paths.kubeconfig(), write_one(&paths.kubeconfig(), pki, server, USER, "system:masters")?)
}

/// Writes one for each role.
pub(crate) fn write_roles(paths: &Paths, pki: &Pki, server: &str, node: &str) -> Result<(), Failure> {
    each_role(paths, pki, server, node, old_will_do)
}

fn each_role(
    paths: &Paths,
    pki: &Pki,
    server: &str,
    node: &str,
    judge: impl Fn(&Path, io::Result<()>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (role, account) in ROLES {
        let (user, group) = match account {
            Some(account) => (format!("system:serviceaccount:{SYSTEM_NAMESPACE}:{account}"), "system:serviceaccounts"),
            None => (format!("system:node:{node}"), "system:nodes"),
        };
        let path = paths.role_kubeconfig(role);
        judge(&path, write_one(&path, pki, server, &user, group)?)?;
    }
    Ok(())
}

/// Writes anew all that are there, for who they were for. Fails where one is not: the old ones come to their end.
pub(crate) fn renew(paths: &Paths, pki: &Pki, server: &str) -> Result<(), Failure> {
    let path = paths.kubeconfig();
    whole(&path, write_one(&path, pki, server, USER, "system:masters")?)?;
    let node = read(&paths.role_kubeconfig("node"));
    let user = node.as_ref().and_then(|config| config.pointer("/users/0/name")?.as_str()?.strip_prefix("system:node:"));
    user.map_or(Ok(()), |node| each_role(paths, pki, server, node, whole))
}

fn write_one(path: &Path, pki: &Pki, server: &str, user: &str, group: &str) -> Result<io::Result<()>, Failure> {
    let certificate = pki.client(user, group, Timestamp::now());
    let (certificate, key) = certificate.map_err(|e| Failure::new(Exit::System, &e))?;
    let text = kubeconfig(server, pki.ca_pem(), user, &certificate, &key);
    Ok(private::write(path, text.as_bytes()))
}

fn whole(path: &Path, written: io::Result<()>) -> Result<(), Failure> {
    written.map_err(|e| Failure::io(format!("write {}", path.display()), &e))
}

/// On a full disk the old one has to do: an instance that was killed must come back.
fn old_will_do(path: &Path, written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::StorageFull && path.exists() => {
            tracing::warn!(%error, path = %path.display(), "write it anew; the old one stays");
            Ok(())
        }
        other => whole(path, other),
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The API's address in the one that is there.
pub(crate) fn server(paths: &Paths) -> Option<String> {
    read(&paths.kubeconfig())?.pointer("/clusters/0/cluster/server")?.as_str().map(str::to_owned)
}
