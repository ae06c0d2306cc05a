//! `knoll revoke`: whoever holds an old kubeconfig is no longer let in.

use jiff::Timestamp;
use knoll_apiserver::auth::Pki;
use knoll_cli::{Exit, instance::RunningInstance};

use crate::{failure::Failure, kubeconfig, paths::Paths};

/// Makes every client certificate that was given out void, and writes a new kubeconfig.
pub(crate) fn run(data: &std::path::Path) -> Result<(), Failure> {
    let paths = Paths::new(data);
    if !paths.pki().exists() {
        let text = format!("there are no keys in {}: start an instance with `knoll up`", paths.pki().display());
        return Err(Failure::text(Exit::Unavailable, text));
    }
    let now = Timestamp::now();
    let pki = Pki::open(&paths.pki(), now).map_err(|e| Failure::new(Exit::Config, &e))?;
    pki.revoke_clients(now).map_err(|e| Failure::new(Exit::System, &e))?;
    println!("Client certificates given out until now are void; a running instance refuses them within a second.");
    let server =
        RunningInstance::find(&paths.data).ok().map(|instance| instance.api).or_else(|| kubeconfig::server(&paths));
    match server {
        Some(server) => {
            kubeconfig::renew(&paths, &pki, &server)?;
            println!("A new kubeconfig is {}", paths.kubeconfig().display());
        }
        None => println!("`knoll up` writes a new kubeconfig."),
    }
    Ok(())
}
