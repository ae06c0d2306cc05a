//! Machines that run short of something.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Failure, IMAGE, PATIENCE, Site, ready};

/// A machine that is short of memory evicts the pod that is furthest above what it asked for, and says why.
pub(crate) async fn of_memory(site: &Site) -> Result<(), Failure> {
    let node = site.start()?;
    let pod = |request: &str| {
        json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE,
            "command": ["sleep", "600"], "resources": {"requests": {"memory": request}}}]})
    };
    site.pod("modest", pod("1Gi")).await?;
    site.pod("hungry", pod("1")).await?;
    for name in ["modest", "hungry"] {
        site.until(name, "runs", ready).await?;
    }
    node.end().await?;

    let mut config = site.config();
    config.thresholds.memory_bytes = u64::MAX;
    let node = site.start_as(config)?;
    let is_over = |pod: &Value| pod["status"]["phase"] == "Failed";
    let evicted = site.until("hungry", "is evicted", is_over).await?;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    let message = evicted["status"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("The node was low on resource: memory. The pod was using "), "{message}");
    stayed_longer(&site.get("modest").await?, &evicted);
    for name in ["hungry", "modest"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    node.end().await
}

/// A machine that is short of disk says so, removes images that nothing leads to, and evicts the pod that is furthest
/// above what it asked for.
pub(crate) async fn of_disk(site: &Site) -> Result<(), Failure> {
    let node = site.start()?;
    let pod = |request: &str| {
        json!({"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": IMAGE,
            "command": ["sh", "-c", "busybox dd if=/dev/zero of=/v/file bs=1024 count=2048 && exec sleep 600"],
            "readinessProbe": {"exec": {"command": ["ls", "/v/file"]}, "periodSeconds": 1},
            "resources": {"requests": {"ephemeral-storage": request}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]})
    };
    site.pod("modest", pod("1Gi")).await?;
    site.pod("hungry", pod("1")).await?;
    for name in ["modest", "hungry"] {
        site.until(name, "has written", ready).await?;
    }
    node.end().await?;
    let unused = image(site, "localhost:5000/moved:1", "before").await?;
    let used = image(site, "localhost:5000/moved:1", "after").await?;
    assert!(unused != used && unused.exists() && used.exists(), "{} {}", unused.display(), used.display());

    let mut config = site.config();
    config.thresholds.nodefs = (100, u64::MAX);
    let node = site.start_as(config)?;
    let is_over = |pod: &Value| pod["status"]["phase"] == "Failed";
    let evicted = site.until("hungry", "is evicted", is_over).await?;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    let message = evicted["status"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. The pod was using "), "{message}");
    stayed_longer(&site.get("modest").await?, &evicted);
    assert!(!unused.exists() && used.exists(), "what no name leads to goes, and nothing else");
    let begin = Instant::now();
    loop {
        let node = site.send("GET", "/api/v1/nodes/n1", Value::Null).await?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let tainted = node["spec"]["taints"].to_string().contains("node.kubernetes.io/disk-pressure");
        if tainted && conditions.iter().any(|c| c["type"] == "DiskPressure" && c["status"] == "True") {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the node does not say it: {:#}", node["status"]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    site.pod("late", pod("1")).await?;
    let late = site.until("late", "is not taken", is_over).await?;
    assert_eq!(late["status"]["message"], "The node had condition: [DiskPressure]. ");
    for name in ["hungry", "modest", "late"] {
        site.delete(name).await?;
        site.until_gone(name).await?;
    }
    node.end().await
}

/// Who uses what it asked for stays while others can go. Afterwards it goes, too: the shortage does not end.
fn stayed_longer(modest: &Value, hungry: &Value) {
    let ended = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"].to_string();
    assert!(modest["status"]["phase"] != "Failed" || ended(modest) > ended(hungry), "{modest:#}");
}

/// Loads an image without a layer, which `mark` tells from others, and gives the file of its manifest.
async fn image(site: &Site, tag: &str, mark: &str) -> Result<std::path::PathBuf, Failure> {
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Env": [format!("MARK={mark}")]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": []}]);
    let mut tarball = tar::Builder::new(Vec::new());
    for (name, content) in [("config.json", config), ("manifest.json", manifest)] {
        let bytes = content.to_string().into_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tarball.append_data(&mut header, name, &bytes[..])?;
    }
    let path = site.dir.path().join(format!("{mark}.tar"));
    std::fs::write(&path, tarball.into_inner()?)?;
    site.images.load_tar(&path, None).await?;
    let references = site.images.references();
    let (_, digest) = references.iter().find(|(name, _)| name == tag).ok_or("it has no name")?;
    let hex = digest.strip_prefix("sha256:").ok_or("another digest")?;
    Ok(Path::new(site.dir.path()).join("images/blobs/sha256").join(hex))
}
