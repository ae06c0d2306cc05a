//! Digests of images, with the credentials that a revision's pods will have.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use knoll_client::Client;
use knoll_drive::{ResolveDigest, Resolving};
use knoll_oci::{ImageStore, Keychain, Reference};
use knoll_plan::DigestRequest;

use super::typed::find;
use crate::failure::chain;

/// Asks the image store, which asks registries.
pub(crate) struct Resolver {
    pub(crate) images: ImageStore,
    pub(crate) client: Client,
    /// The machine's own credentials, tried after the pod's.
    pub(crate) docker_config: Option<PathBuf>,
}

impl Resolver {
    /// The names of the secrets that count: the revision's, then its ServiceAccount's.
    async fn secret_names(&self, request: &DigestRequest) -> knoll_client::Result<Vec<String>> {
        let mut names = request.pull_secrets.clone();
        let account = if request.service_account.is_empty() { "default" } else { &request.service_account };
        let account: Option<ServiceAccount> = find(&self.client, &request.namespace, account).await?;
        let secrets = account.and_then(|account| account.image_pull_secrets);
        names.extend(secrets.into_iter().flatten().map(|reference| reference.name));
        Ok(names)
    }

    async fn keychain(&self, request: &DigestRequest) -> Result<Keychain, String> {
        let mut keychain = Keychain::default();
        for name in self.secret_names(request).await.map_err(|e| chain(&e))? {
            // A secret that is not there yet is passed over, as kubelets do.
            let secret: Option<Secret> = find(&self.client, &request.namespace, &name).await.map_err(|e| chain(&e))?;
            let Some(secret) = secret else { continue };
            for (key, value) in secret.data.into_iter().flatten() {
                match key.as_str() {
                    ".dockerconfigjson" => keychain.add_docker_config(&value.0).map_err(|e| chain(&e))?,
                    ".dockercfg" => keychain.add_dockercfg(&value.0).map_err(|e| chain(&e))?,
                    _ => {}
                }
            }
        }
        if let Some(path) = &self.docker_config {
            let mut machine = Keychain::default();
            machine.add_file(path).map_err(|e| chain(&e))?;
            keychain.add_machine(&machine);
        }
        Ok(keychain)
    }
}

impl ResolveDigest for Resolver {
    fn resolve<'a>(&'a self, request: &'a DigestRequest) -> Resolving<'a> {
        Box::pin(async move {
            let reference: Reference = request.image.parse().map_err(|e| format!("{e}"))?;
            let keychain = self.keychain(request).await?;
            let digest = self.images.resolve_digest(&request.image, &keychain).await.map_err(|e| chain(&e))?;
            Ok(format!("{}@{digest}", named_as(&reference)))
        })
    }
}

/// The repository as clients of Knative see it: Docker's hub goes by the name of its index.
fn named_as(reference: &Reference) -> String {
    let registry = if reference.registry == "docker.io" { "index.docker.io" } else { &reference.registry };
    format!("{registry}/{}", reference.repository)
}

#[cfg(test)]
mod tests {
    use super::named_as;

    #[test]
    fn an_image_of_dockers_hub_is_named_by_its_index() {
        let named = |image: &str| named_as(&image.parse().expect("parses"));
        assert_eq!(named("busybox:1"), "index.docker.io/library/busybox");
        assert_eq!(named("localhost:5000/app:v1"), "localhost:5000/app");
        assert_eq!(named("gcr.io/team/app"), "gcr.io/team/app");
    }
}
