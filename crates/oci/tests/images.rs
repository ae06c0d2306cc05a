//! An image's way: from a tarball or a push into the store, out of the embedded registry into another store,
//! and onto the disk in the form overlayfs stacks. Needs root, for ownership and whiteouts.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use knoll_oci::{Config, Digest, ImageStore, Keychain, Policy, Progress, PullError, Registry};
use serde_json::json;

fn header(kind: tar::EntryType, mode: u32, owner: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(0);
    header
}

fn file(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32, owner: u64) {
    let mut header = header(tar::EntryType::Regular, mode, owner);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).expect("appends");
}

fn base_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), "etc/", &[][..]).expect("appends");
    file(&mut tar, "etc/gone", b"old", 0o644, 0);
    file(&mut tar, "etc/kept", b"kept", 0o640, 1000);
    tar.append_link(&mut header(tar::EntryType::Link, 0o640, 1000), "etc/linked", "etc/kept").expect("appends");
    tar.append_pax_extensions([("SCHILY.xattr.user.note", &b"hello"[..])]).expect("appends");
    file(&mut tar, "bin/tool", b"#!", 0o4755, 0);
    tar.into_inner().expect("finishes")
}

fn upper_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    file(&mut tar, "etc/.wh.gone", b"", 0o644, 0);
    file(&mut tar, "bin/.wh..wh..opq", b"", 0o644, 0);
    file(&mut tar, "bin/other", b"#!", 0o755, 0);
    tar.into_inner().expect("finishes")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// A `docker save` archive of two layers, called `name`.
fn saved(path: &Path, name: &str) {
    let layers = [base_layer(), upper_layer()];
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/bin/tool"], "Env": ["A=b"], "User": "1000", "WorkingDir": "/etc",
                   "ExposedPorts": {"8080/tcp": {}}, "StopSignal": "SIGINT"},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| Digest::of(l).to_string()).collect::<Vec<_>>()},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["0/layer.tar", "1/layer.tar"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    file(&mut tar, "0/layer.tar", &gzip(&layers[0]), 0o644, 0);
    file(&mut tar, "1/layer.tar", &layers[1], 0o644, 0);
    file(&mut tar, "config.json", config.to_string().as_bytes(), 0o644, 0);
    file(&mut tar, "manifest.json", manifest.to_string().as_bytes(), 0o644, 0);
    fs::write(path, tar.into_inner().expect("finishes")).expect("writes");
}

fn store(root: &Path, hosts: &[&str]) -> ImageStore {
    let config = Config { registry_hosts: hosts.iter().map(ToString::to_string).collect(), ..Config::default() };
    ImageStore::open(root, config).expect("opens")
}

#[tokio::test]
async fn a_loaded_image_travels_through_the_registry_and_unpacks_for_overlayfs() {
    let scratch = tempfile::tempdir().expect("a directory");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let host = format!("127.0.0.1:{}", listener.local_addr().expect("bound").port());
    let first = store(&scratch.path().join("first"), &[&host, "registry.example"]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let registry = Registry::new(first.clone());
    let serving = tokio::spawn(async move { registry.serve(&listener, async { drop(stopped.await) }).await });

    let archive = scratch.path().join("app.tar");
    saved(&archive, &format!("{host}/team/app:v1"));
    let names = first.load_tar(&archive, None).await.expect("loads");
    assert_eq!(names, [format!("{host}/team/app:v1")]);

    let second = store(&scratch.path().join("second"), &["localhost:1"]);
    let quiet = |_| {};
    let nobody = Keychain::default();
    let reference = format!("{host}/team/app:v1");
    let digest = second.resolve_digest(&reference, &nobody).await.expect("resolves over http");
    assert_eq!(digest, first.resolve_digest("registry.example/team/app:v1", &nobody).await.expect("resolves here"));
    let told = std::sync::Mutex::new(Vec::new());
    let tell = |progress| told.lock().expect("one writer").push(progress);
    let image = second.pull(&reference, Policy::Always, &nobody, &tell).await.expect("pulls");
    let told = told.into_inner().expect("nobody writes");
    let most = told.iter().max_by_key(|progress: &&Progress| progress.done).expect("it told something");
    assert!(most.total > 0 && most.done == most.total, "{told:?}");
    assert_eq!((image.digest, image.layers.len()), (digest.clone(), 2));
    assert_eq!(image.config.entrypoint, ["/bin/tool"]);
    assert_eq!((image.config.user.as_str(), image.config.stop_signal.as_deref()), ("1000", Some("SIGINT")));

    let [base, upper] = [&image.layers[0], &image.layers[1]];
    let kept = fs::metadata(base.join("etc/kept")).expect("is there");
    assert_eq!((kept.uid(), kept.permissions().mode() & 0o7777, kept.nlink()), (1000, 0o640, 2));
    assert_eq!(kept.ino(), fs::metadata(base.join("etc/linked")).expect("is there").ino());
    let tool = base.join("bin/tool");
    assert_eq!(fs::metadata(&tool).expect("is there").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(xattr::get(&tool, "user.note").expect("reads").as_deref(), Some(&b"hello"[..]));
    let gone = fs::symlink_metadata(upper.join("etc/gone")).expect("a whiteout stands there");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr::get(upper.join("bin"), "trusted.overlay.opaque").expect("reads").as_deref(), Some(&b"y"[..]));

    stop.send(()).expect("is serving");
    serving.await.expect("ends").expect("ends well");
    let again = second.pull(&format!("{host}/team/app@{digest}"), Policy::Always, &nobody, &quiet).await;
    again.expect("a digest that is here needs no registry");
}

#[tokio::test]
async fn a_missing_image_is_not_found_and_a_policy_of_never_asks_nobody() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = store(scratch.path(), &["localhost:1"]);
    let quiet = |_| {};
    let nobody = Keychain::default();
    let missing = store.pull("localhost:1/none:v1", Policy::IfNotPresent, &nobody, &quiet).await;
    assert!(matches!(missing, Err(PullError::NotFound(_))), "{missing:?}");
    let never = store.pull("other.example/none:v1", Policy::Never, &nobody, &quiet).await;
    assert!(matches!(never, Err(PullError::Absent(_))), "{never:?}");
}

#[tokio::test]
async fn an_entry_that_leads_out_of_the_layer_is_refused() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut layer = tar::Builder::new(Vec::new());
    let mut link = header(tar::EntryType::Symlink, 0o777, 0);
    layer.append_link(&mut link, "out", scratch.path()).expect("appends");
    file(&mut layer, "out/.wh.victim", b"", 0o644, 0);
    let layer = layer.into_inner().expect("finishes");
    fs::write(scratch.path().join("victim"), b"mine").expect("writes");
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["evil:v1"], "Layers": ["l.tar"]}]);
    let mut tar = tar::Builder::new(Vec::new());
    file(&mut tar, "l.tar", &layer, 0o644, 0);
    file(&mut tar, "c.json", config.to_string().as_bytes(), 0o644, 0);
    file(&mut tar, "manifest.json", manifest.to_string().as_bytes(), 0o644, 0);
    let archive = scratch.path().join("evil.tar");
    fs::write(&archive, tar.into_inner().expect("finishes")).expect("writes");
    let store = store(&scratch.path().join("store"), &["localhost:1"]);
    store.load_tar(&archive, None).await.expect("loads without unpacking");
    let opened = store.pull("evil:v1", Policy::Never, &Keychain::default(), &|_| {}).await;
    assert!(matches!(opened, Err(PullError::Store(_))), "{opened:?}");
    assert_eq!(fs::read(scratch.path().join("victim")).expect("is untouched"), b"mine");
}
