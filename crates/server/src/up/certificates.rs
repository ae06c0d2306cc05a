//! What ends is made anew before it does, while the instance runs: the server's certificate, and the administrator's
//! kubeconfig.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use knoll_apiserver::auth::{Pki, ServingCertificate, is_due};

use crate::{failure::chain, kubeconfig, paths::Paths, supervise::Tasks};

/// How often is looked. Also how long a new address of the machine waits to be in the certificate.
const EVERY: Duration = Duration::from_secs(600);

/// Keeps them valid until the tasks are told to stop. `names` are those of the server at this moment, `now` is the wall
/// clock.
pub(crate) fn keep(
    tasks: &mut Tasks,
    paths: Paths,
    pki: Arc<Pki>,
    serving: ServingCertificate,
    server: String,
    names: impl Fn() -> Vec<String> + Send + Sync + 'static,
    now: impl Fn() -> Timestamp + Send + Sync + 'static,
) {
    let (stop, names, clock) = (tasks.stop(), Arc::new(names), Arc::new(now));
    tasks.restartable("certificates", move || {
        let (stop, names, clock, paths) = (stop.clone(), names.clone(), clock.clone(), paths.clone());
        let (pki, serving, server) = (pki.clone(), serving.clone(), server.clone());
        async move {
            let mut made = clock();
            loop {
                tokio::select! {
                    () = stop.clone().wait() => return Ok(()),
                    () = tokio::time::sleep(EVERY) => {}
                }
                let now = clock();
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::SignedDuration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_ends_is_made_anew_before_it_does_and_the_servers_certificate_when_it_has_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path());
        let start = Timestamp::now();
        let pki = Arc::new(Pki::open(&directory.path().join("pki"), start).unwrap());
        let (names, clock) = (Arc::new(Mutex::new(vec!["one".to_owned()])), Arc::new(Mutex::new(start)));
        let serving = ServingCertificate::new(&pki, &names.lock().unwrap(), start).unwrap();
        kubeconfig::write(&paths, &pki, "https://127.0.0.1:6443").unwrap();
        let held = || std::fs::read_to_string(paths.kubeconfig()).unwrap();
        let first = held();

        let mut tasks = Tasks::new();
        let (named, told) = (names.clone(), clock.clone());
        let server = "https://127.0.0.1:6443".to_owned();
        let names_now = move || named.lock().unwrap().clone();
        keep(&mut tasks, paths.clone(), pki.clone(), serving.clone(), server, names_now, move || *told.lock().unwrap());
        let look = || tokio::time::sleep(EVERY * 2);
        // Whether the loop has left nothing to do.
        let is_new = || !serving.renew(&pki, &names.lock().unwrap(), *clock.lock().unwrap()).unwrap();

        look().await;
        assert!(is_new() && held() == first, "nothing is due");
        names.lock().unwrap().push("two".to_owned());
        look().await;
        assert!(is_new() && held() == first, "the server's has the other name");
        *clock.lock().unwrap() += SignedDuration::from_hours(300 * 24);
        look().await;
        let second = held();
        assert!(is_new() && second != first, "both are new, two months before the old ones end");
        look().await;
        assert_eq!(held(), second, "and stay");
    }
}
