//! Removing images that nothing runs from, when the disk fills up.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

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
    match node.shared.store.collect(&in_use, |_| true).await {
        Ok(done) => tracing::info!(blobs = done.blobs, layers = done.layers, "unused images were removed"),
        Err(error) => tracing::warn!(%error, "unused images cannot be removed"),
    }
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
