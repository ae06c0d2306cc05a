//! What ends is made anew before it does, while the instance runs: the server's certificate, and the administrator's
//! kubeconfig.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_apiserver::auth::{Pki, ServingCertificate, renewal};

use crate::{kubeconfig, paths::Paths, supervise::Tasks};

/// How often is looked. Also how long a new address of the machine waits to be in the certificate.
const EVERY: Duration = Duration::from_secs(600);

/// Keeps them valid until the tasks are told to stop. `names` are those of the server at this moment.
pub(crate) fn keep(
    tasks: &mut Tasks,
    paths: Paths,
    pki: Arc<Pki>,
    serving: ServingCertificate,
    server: String,
    names: impl Fn() -> Vec<String> + Send + Sync + 'static,
) {
    let (stop, names) = (tasks.stop(), Arc::new(names));
    tasks.restartable("certificates", move || {
        let (stop, names, paths) = (stop.clone(), names.clone(), paths.clone());
        let (pki, serving, server) = (pki.clone(), serving.clone(), server.clone());
        async move {
            let mut due = renewal(Timestamp::now());
            loop {
                tokio::select! {
                    () = stop.clone().wait() => return Ok(()),
                    () = tokio::time::sleep(EVERY) => {}
                }
                let now = Timestamp::now();
                if serving.renew(&pki, &names(), now).map_err(|e| e.to_string())? {
                    tracing::info!("the API server has a new certificate");
                }
                if now >= due {
                    kubeconfig::renew(&paths, &pki, &server).map_err(|e| e.to_string())?;
                    due = renewal(now);
                    tracing::info!(path = %paths.kubeconfig().display(), "the administrator has a new certificate");
                }
            }
        }
    });
}
