//! An image whose layers try to write outside its root.

use std::{fs, io, path::Path};

use knoll_e2e::Namespace;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::Watchman;

/// An entry whose name is taken as it is, however hostile.
fn entry(layer: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str, content: &[u8]) {
    let mut header = Header::new_old();
    header.set_entry_type(kind);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    layer.append(&header, content).expect("memory takes it");
}

/// What `docker save` would write of one layer.
fn archive(layer: &[u8], name: &str, into: &Path) -> io::Result<()> {
    let mut whole = Builder::new(fs::File::create(into)?);
    let digest: String = Sha256::digest(layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}, "config": {"Cmd": ["/x"]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    for (file, bytes) in [
        ("config.json", config.to_string().as_bytes()),
        ("manifest.json", manifest.to_string().as_bytes()),
        ("layer.tar", layer),
    ] {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        whole.append_data(&mut header, file, bytes)?;
    }
    whole.finish()
}

#[test]
fn layers_reach_nothing_outside_their_root() {
    let space = Namespace::new("layers");
    let _watchman = Watchman::new(&space);
    let scratch = tempfile::tempdir().expect("a directory");
    let victim = scratch.path().join("victim");
    fs::create_dir(&victim).expect("a directory");
    fs::write(victim.join("x"), "untouched").expect("a file");
    let target = victim.display().to_string();
    type Shape = fn(&mut Builder<Vec<u8>>, &str);
    let shapes: &[(&str, Shape)] = &[
        ("whiteout behind two links", |layer, victim| {
            entry(layer, EntryType::Symlink, "a", ".", b"");
            entry(layer, EntryType::Symlink, "b", victim, b"");
            entry(layer, EntryType::Regular, "a/b/.wh.x", "", b"");
        }),
        ("file behind a link", |layer, victim| {
            entry(layer, EntryType::Symlink, "b", victim, b"");
            entry(layer, EntryType::Regular, "b/x", "", b"changed");
        }),
        ("hard link to the outside", |layer, victim| {
            entry(layer, EntryType::Link, "h", &format!("{victim}/x"), b"");
            entry(layer, EntryType::Regular, "h", "", b"changed");
        }),
        ("upwards", |layer, victim| {
            entry(layer, EntryType::Regular, &format!("../../../../../../../..{victim}/x"), "", b"changed");
        }),
        ("whiteout of the parent", |layer, _| {
            entry(layer, EntryType::Directory, "d/", "", b"");
            entry(layer, EntryType::Regular, "d/.wh...", "", b"");
            entry(layer, EntryType::Regular, "d/.wh..", "", b"");
        }),
    ];
    for (shape, write) in shapes {
        let mut layer = Builder::new(Vec::new());
        write(&mut layer, &target);
        let layer = layer.into_inner().expect("memory takes it");
        let path = scratch.path().join("image.tar");
        archive(&layer, "localhost:5000/hostile:1", &path).expect("it is written");
        let path = path.display().to_string();
        // Refused, or unpacked within its root: both are right.
        space.cluster.run(&space.cluster.knoll, &["image", "load", &path], "");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hostile"},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "localhost:5000/hostile:1"}]},
        });
        space.apply(&pod.to_string());
        knoll_e2e::until("the image was tried", || {
            let state = space.object("pods", "hostile")["status"]["containerStatuses"][0]["state"].clone();
            let waiting = state["waiting"]["reason"].as_str().unwrap_or_default().to_owned();
            (!state["terminated"].is_null() || waiting.contains("Err") || waiting.contains("BackOff")).then_some(())
        });
        space.kubectl(&["delete", "pod", "hostile", "--force", "--grace-period=0"]);
        assert_eq!(fs::read_to_string(victim.join("x")).expect("it is still there"), "untouched", "{shape}");
        assert_eq!(fs::read_dir(&victim).expect("it is still there").count(), 1, "{shape}");
    }
}
