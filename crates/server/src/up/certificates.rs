//! What ends is made anew before it does, while the instance runs: the server's certificate, and the administrator's
//! kubeconfig.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_apiserver::auth::{Pki, ServingCertificate, is_due};

use crate::{failure::chain, kubeconfig, paths::Paths, supervise::Tasks};

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
            let mut made = Timestamp::now();
            loop {
                tokio::select! {
                    () = stop.clone().wait() => return Ok(()),
                    () = tokio::time::sleep(EVERY) => {}
                }
                let now = Timestamp::now();
                // What fails is tried again at the next look, long before the end of what there is.
                match serving.renew(&pki, &names(), now) {
                    Ok(true) => tracing::info!("the API server has a new certificate"),
                    Ok(false) => {}
                    Err(error) => tracing::error!(error = chain(&error), "renew the API server's certificate"),
                }
                if is_due(made, now) {
                    let path = paths.kubeconfig();
                    match kubeconfig::renew(&paths, &pki, &server) {
                        Ok(()) => {
                            made = now;
                            tracing::info!(path = %path.display(), "the administrator has a new certificate");
                        }
                        Err(error) => {
                            tracing::error!(path = %path.display(), %error, "renew the administrator's certificate")
                        }
                    }
                }
            }
        }
    });
}
