//! The administrator's kubeconfig.

use std::{fs, io};

use jiff::Timestamp;
use knoll_apiserver::auth::{Pki, kubeconfig};
use knoll_cli::Exit;
use serde_json::Value;

use crate::{failure::Failure, paths::Paths, private};

const USER: &str = "kubernetes-admin";

/// Writes one with a certificate made now, for the API at `server`.
pub(crate) fn write(paths: &Paths, pki: &Pki, server: &str) -> Result<(), Failure> {
    let certificate = pki.client(USER, "system:masters", Timestamp::now());
    let (certificate, key) = certificate.map_err(|e| Failure::new(Exit::System, &e))?;
    let text = kubeconfig(server, pki.ca_pem(), USER, &certificate, &key);
    let path = paths.kubeconfig();
    match private::write(&path, text.as_bytes()) {
        // The old one has to do: an instance that was killed must come back.
        Err(error) if error.kind() == io::ErrorKind::StorageFull && path.exists() => {
            tracing::warn!(%error, path = %path.display(), "write it anew; the old one stays");
            Ok(())
        }
        other => other.map_err(|e| Failure::io(format!("write {}", path.display()), &e)),
    }
}

/// The API's address in the one that is there.
pub(crate) fn server(paths: &Paths) -> Option<String> {
    let config: Value = serde_json::from_slice(&fs::read(paths.kubeconfig()).ok()?).ok()?;
    config.pointer("/clusters/0/cluster/server")?.as_str().map(str::to_owned)
}
