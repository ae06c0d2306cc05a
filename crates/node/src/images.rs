//! Removing images that nothing runs from, when the disk fills up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use knoll_container::protocol::{Listing, Rootfs};
use knoll_oci::Digest;
use nix::sys::statvfs::statvfs;

use crate::agent::Node;

/// Between two looks at the disk.
const PERIOD: Duration = Duration::from_secs(300);

/// Looks at the disk from time to time, for ever.
pub(crate) async fn run(node: Node) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let dir = node.shared.config.data_dir.clone();
        let used = tokio::task::spawn_blocking(move || used_percent(&dir)).await.ok().flatten();
        if used.is_none_or(|used| used < node.shared.config.image_gc_high_percent) {
            continue;
        }
        collect(&node).await;
    }
}

/// Removes every image that no pod of this node refers to.
pub(crate) async fn collect(node: &Node) {
    let mut references = BTreeSet::new();
    let pods: Vec<_> = node.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for spec in pods.iter().filter_map(|pod| pod.spec.as_ref()) {
        references.extend(crate::pod::containers(spec).filter_map(|(_, c)| c.image.clone()));
    }
    let mut in_use = BTreeSet::new();
    {
        let mut images = node.shared.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.retain(|reference, _| references.contains(reference));
        in_use.extend(images.values().map(|image| image.digest.clone()));
    }
    // Running containers whose image was pulled before this server started are looked up.
    for reference in &references {
        if let Ok(image) = node.shared.find(reference).await {
            in_use.insert(image.digest);
        }
    }
    // What an image's tag has moved away from still runs: by the digest that the pod's status names, and by the layers
    // that containers stand on.
    in_use.extend(pods.iter().flat_map(|pod| digests(pod)));
    let stood_on = match node.shared.monitor.get().list().await {
        Ok(listing) => lowers(&listing),
        Err(error) => {
            tracing::warn!(%error, "the monitor does not say what runs: no image is removed");
            return;
        }
    };
    match node.shared.store.collect(&in_use, &stood_on, |_| true).await {
        Ok(done) => tracing::info!(blobs = done.blobs, layers = done.layers, "unused images were removed"),
        Err(error) => tracing::warn!(%error, "unused images cannot be removed"),
    }
}

/// The images that a pod's containers were last run from, as its status names them.
fn digests(pod: &Pod) -> Vec<Digest> {
    let status = pod.status.as_ref();
    let all = status.map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    let named = all.into_iter().flatten().filter_map(|container| container.image_id.rsplit_once('@'));
    named.filter_map(|(_, digest)| digest.parse().ok()).collect()
}

/// The directories that containers stand on.
fn lowers(listing: &Listing) -> BTreeSet<PathBuf> {
    let of = |rootfs: &Rootfs| match rootfs {
        Rootfs::Overlay { lowers } => lowers.clone(),
        Rootfs::Directory(path) => vec![path.clone()],
    };
    listing.containers.iter().flat_map(|container| of(&container.spec.rootfs)).collect()
}

fn used_percent(dir: &std::path::Path) -> Option<u8> {
    let disk = statvfs(dir).ok()?;
    let total = disk.blocks();
    let free = disk.blocks_available();
    if total == 0 {
        return None;
    }
    u8::try_from(100 - (100 * free / total).min(100)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_names_the_images_it_runs_from() {
        let of = |text: &str| Digest::of(text.as_bytes());
        let pod: Pod = serde_json::from_value(json!({"status": {
            "containerStatuses": [{"name": "a", "image": "reg/a:1", "imageID": format!("reg/a@{}", of("a")),
                "ready": true, "restartCount": 0}, {"name": "b", "image": "reg/b:1", "imageID": "", "ready": false,
                "restartCount": 0}],
            "initContainerStatuses": [{"name": "i", "image": "reg/i:1", "imageID": format!("reg/i@{}", of("i")),
                "ready": true, "restartCount": 0}]}}))
        .expect("a pod");
        assert_eq!(digests(&pod), [of("a"), of("i")]);
    }
}
