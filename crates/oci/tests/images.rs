//! An image's way: from a tarball or a push into the store, out of the embedded registry into another store,
//! and onto the disk in the form overlayfs stacks. Needs root, for ownership and whiteouts.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use knoll_faults::chain;
use knoll_oci::{Config, Digest, ImageStore, Keychain, Progress, PullError, PullPolicy, Registry, RegistryPolicy};
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
    let registry = Registry::new(first.clone(), RegistryPolicy::default());
    let serving = tokio::spawn(async move { registry.serve(&listener, true, async { drop(stopped.await) }).await });

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
    let image = second.pull(&reference, PullPolicy::Always, &nobody, &tell).await.expect("pulls");
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
    let again = second.pull(&format!("{host}/team/app@{digest}"), PullPolicy::Always, &nobody, &quiet).await;
    again.expect("a digest that is here needs no registry");
}

#[tokio::test]
async fn a_missing_image_is_not_found_and_a_policy_of_never_asks_nobody() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = store(scratch.path(), &["localhost:1"]);
    let quiet = |_| {};
    let nobody = Keychain::default();
    let missing = store.pull("localhost:1/none:v1", PullPolicy::IfNotPresent, &nobody, &quiet).await;
    assert!(matches!(missing, Err(PullError::NotFound(_))), "{missing:?}");
    let never = store.pull("other.example/none:v1", PullPolicy::Never, &nobody, &quiet).await;
    assert!(matches!(never, Err(PullError::Absent(_))), "{never:?}");
}

/// A `docker save` archive of one image: its layers as they are, under digests as told.
fn one_image(path: &Path, name: &str, layers: &[(Vec<u8>, Digest)]) {
    let ids: Vec<String> = layers.iter().map(|(_, diff_id)| diff_id.to_string()).collect();
    let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}.tar")).collect();
    let config = json!({"rootfs": {"type": "layers", "diff_ids": ids}});
    let manifest = json!([{"Config": "c.json", "RepoTags": [name], "Layers": names}]);
    let mut tar = tar::Builder::new(Vec::new());
    for ((layer, _), name) in layers.iter().zip(&names) {
        file(&mut tar, name, layer, 0o644, 0);
    }
    file(&mut tar, "c.json", config.to_string().as_bytes(), 0o644, 0);
    file(&mut tar, "manifest.json", manifest.to_string().as_bytes(), 0o644, 0);
    fs::write(path, tar.into_inner().expect("finishes")).expect("writes");
}

async fn open(store: &ImageStore, name: &str) -> Result<knoll_oci::Image, PullError> {
    store.pull(name, PullPolicy::Never, &Keychain::default(), &|_| {}).await
}

#[tokio::test]
async fn a_refused_layer_is_told_with_its_image_and_the_bound() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut tar = tar::Builder::new(Vec::new());
    let mut climbing = header(tar::EntryType::Regular, 0o644, 0);
    climbing.as_old_mut().name[..9].copy_from_slice(b"../victim");
    climbing.set_cksum();
    tar.append(&climbing, &b""[..]).expect("appends");
    let climbing = tar.into_inner().expect("finishes");
    let base = base_layer();
    let archive = scratch.path().join("image.tar");
    let limits = knoll_oci::Limits { image_bytes: 3 << 10, layers: 3, ..Default::default() };
    let config = Config { registry_hosts: vec!["localhost:1".into()], limits, ..Config::default() };
    let store = ImageStore::open(&scratch.path().join("store"), config).expect("opens");
    let load = async |name: &str, layers: &[(Vec<u8>, Digest)]| {
        one_image(&archive, name, layers);
        store.load_tar(&archive, None).await.expect_err("is larger than the store allows");
    };
    load("large:v1", &[(base.clone(), Digest::of(&base))]).await;
    let store = self::store(&scratch.path().join("other"), &["localhost:1"]);
    one_image(&archive, "evil:v1", &[(climbing.clone(), Digest::of(&climbing))]);
    store.load_tar(&archive, None).await.expect("loads without unpacking");
    let error = chain(&open(&store, "evil:v1").await.expect_err("leads out"));
    for part in ["docker.io/library/evil@sha256:", Digest::of(&climbing).hex(), "\"../victim\" leads out of the layer"]
    {
        assert!(error.contains(part), "{error}");
    }
    assert!(!scratch.path().join("other/victim").exists());
    one_image(&archive, "tall:v1", &vec![(base.clone(), Digest::of(&base)); 128]);
    store.load_tar(&archive, None).await.expect("loads without unpacking");
    let error = chain(&open(&store, "tall:v1").await.expect_err("is too tall"));
    assert!(error.contains("128 layers: more than the 127 allowed"), "{error}");
}

#[tokio::test]
async fn a_changed_byte_in_any_record_serves_no_other_image_and_is_healed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (root, archive) = (scratch.path().join("store"), scratch.path().join("image.tar"));
    let images = [("app:v1", base_layer(), "etc/kept"), ("other:v1", upper_layer(), "bin/other")];
    let mut digests = Vec::new();
    {
        let store = store(&root, &["localhost:1"]);
        for (name, layer, _) in &images {
            one_image(&archive, name, &[(layer.clone(), Digest::of(layer))]);
            store.load_tar(&archive, None).await.expect("loads");
            digests.push(open(&store, name).await.expect("opens").digest);
        }
    }
    let kinds = ["refs", "access/images", "access/blobs", "access", "unpacked"];
    let files = |kind: &str| {
        let entries = fs::read_dir(root.join(kind)).expect("is there").map(|entry| entry.expect("reads").path());
        let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        assert!(!files.is_empty(), "nothing is kept in {kind}");
        files
    };
    for (kind, path) in kinds.iter().flat_map(|kind| files(kind).into_iter().map(move |path| (*kind, path))) {
        let whole = fs::read(&path).expect("reads");
        for at in (0..whole.len()).step_by(5) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("writes");
            let store = store(&root, &["localhost:1"]);
            for ((name, _, file), digest) in images.iter().zip(&digests) {
                let unknown = kind == "refs" && path.to_string_lossy().ends_with(name);
                match open(&store, name).await {
                    Ok(image) => {
                        assert!(!unknown, "byte {at} of {}", path.display());
                        assert_eq!(image.digest, *digest, "byte {at} of {}", path.display());
                        assert!(image.layers[0].join(file).exists(), "byte {at} of {}", path.display());
                    }
                    Err(error) => assert!(unknown, "byte {at} of {}: {error}", path.display()),
                }
            }
            drop(store);
            fs::write(&path, &whole).expect("writes");
        }
        // As an earlier version wrote it.
        let line = whole.iter().position(|byte| *byte == b'\n');
        fs::write(&path, &whole[..line.unwrap_or(whole.len())]).expect("writes");
    }
    let store = store(&root, &["localhost:1"]);
    for ((name, ..), digest) in images.iter().zip(&digests) {
        assert_eq!(open(&store, name).await.expect("opens").digest, *digest);
    }
}

#[tokio::test]
async fn naming_a_layer_is_not_having_it() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = store(&scratch.path().join("store"), &["localhost:1"]);
    let (private, other) = (base_layer(), upper_layer());
    let archive = scratch.path().join("image.tar");
    one_image(&archive, "private:v1", &[(private.clone(), Digest::of(&private))]);
    store.load_tar(&archive, None).await.expect("loads");
    open(&store, "private:v1").await.expect("opens");
    one_image(&archive, "thief:v1", &[(other, Digest::of(&private))]);
    store.load_tar(&archive, None).await.expect("loads without unpacking");
    let error = chain(&open(&store, "thief:v1").await.expect_err("its blob is not that layer"));
    assert!(error.contains("the image is damaged"), "{error}");
    // The same layer packed in another way is the same layer.
    one_image(&archive, "packed:v1", &[(gzip(&private), Digest::of(&private))]);
    store.load_tar(&archive, None).await.expect("loads");
    open(&store, "packed:v1").await.expect("opens");
}

#[tokio::test]
async fn a_torn_layer_and_a_damaged_blob_are_found_and_made_again() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("store");
    let archive = scratch.path().join("image.tar");
    let base = base_layer();
    one_image(&archive, "app:v1", &[(base.clone(), Digest::of(&base))]);
    let store = store(&root, &["localhost:1"]);
    store.load_tar(&archive, None).await.expect("loads");
    let image = open(&store, "app:v1").await.expect("opens");
    let kept = image.layers[0].join("etc/kept");
    // What a power cut leaves: names without content, and no record, which is written last.
    fs::write(&kept, b"").expect("writes");
    fs::remove_file(root.join("unpacked").join(Digest::of(&base).hex())).expect("there was a record");
    open(&store, "app:v1").await.expect("is unpacked again");
    assert_eq!(fs::read(&kept).expect("is there"), b"kept");

    // A blob that is not what its name says goes, so that it can come again.
    let upper = upper_layer();
    one_image(&archive, "app:v2", &[(upper.clone(), Digest::of(&upper))]);
    store.load_tar(&archive, None).await.expect("loads");
    let blob = root.join("blobs/sha256").join(Digest::of(&upper).hex());
    let mut damaged = fs::read(&blob).expect("is there");
    damaged[600] ^= 1;
    fs::write(&blob, damaged).expect("writes");
    open(&store, "app:v2").await.expect_err("is damaged");
    assert!(!blob.exists());
    store.load_tar(&archive, None).await.expect("loads again");
    open(&store, "app:v2").await.expect("is whole");
}

#[tokio::test]
async fn a_changed_byte_in_what_describes_an_image_is_found_and_the_file_comes_again() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("store");
    let archive = scratch.path().join("image.tar");
    let base = base_layer();
    one_image(&archive, "app:v1", &[(base.clone(), Digest::of(&base))]);
    let store = store(&root, &["localhost:1"]);
    store.load_tar(&archive, None).await.expect("loads");
    open(&store, "app:v1").await.expect("opens");
    let blobs = fs::read_dir(root.join("blobs/sha256")).expect("reads").map(|entry| entry.expect("reads").path());
    let small: Vec<_> = blobs.filter(|path| fs::metadata(path).expect("is there").len() < 2048).collect();
    assert!(small.len() >= 2, "a manifest and a configuration: {small:?}");
    for path in small {
        let whole = fs::read(&path).expect("is there");
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).expect("writes");
            // It is as if it had never been here; the log names the file.
            open(&store, "app:v1").await.expect_err("is damaged");
            assert!(!path.exists(), "{} at {at}", path.display());
            store.load_tar(&archive, None).await.expect("loads again");
            open(&store, "app:v1").await.expect("is whole");
        }
    }
}

#[tokio::test]
async fn one_process_at_a_time_has_a_store() {
    let scratch = tempfile::tempdir().expect("a directory");
    let first = store(scratch.path(), &["localhost:1"]);
    let second = ImageStore::open(scratch.path(), Config::default()).err().expect("it is in use");
    assert!(format!("{:?}", second.source).contains("give each its own --data-dir"), "{second:?}");
    drop(first);
    store(scratch.path(), &["localhost:1"]);
}

#[tokio::test]
async fn nobody_else_looks_into_the_store_and_an_old_one_is_mended() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("store");
    fs::create_dir_all(root.join("layers")).expect("makes");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("allows");
    let store = store(&root, &["localhost:1"]);
    let archive = scratch.path().join("image.tar");
    let base = base_layer();
    one_image(&archive, "app:v1", &[(base.clone(), Digest::of(&base))]);
    store.load_tar(&archive, None).await.expect("loads");
    open(&store, "app:v1").await.expect("opens");
    let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    for part in fs::read_dir(&root).expect("reads").map(|part| part.expect("reads").path()) {
        if part.is_file() {
            assert_eq!(mode(&part), 0o600, "{}", part.display());
            continue;
        }
        assert_eq!(mode(&part), 0o700, "{}", part.display());
        for inner in fs::read_dir(&part).expect("reads").map(|inner| inner.expect("reads").path()) {
            assert!(inner.is_dir() || mode(&inner) == 0o600, "{}", inner.display());
        }
    }
}

#[tokio::test]
async fn an_image_whose_name_went_to_another_still_runs_by_its_digest() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = store(&scratch.path().join("store"), &["localhost:1"]);
    let archive = scratch.path().join("image.tar");
    let name = "localhost:1/team/app:v1";
    let load = async |layer: Vec<u8>| {
        one_image(&archive, name, &[(layer.clone(), Digest::of(&layer))]);
        store.load_tar(&archive, None).await.expect("loads");
        open(&store, name).await.expect("opens").digest
    };
    let (first, second) = (load(base_layer()).await, load(upper_layer()).await);
    assert_ne!(first, second);
    let by_digest = format!("localhost:1/team/app@{first}");
    for policy in [PullPolicy::Never, PullPolicy::IfNotPresent, PullPolicy::Always] {
        let image = store.pull(&by_digest, policy, &Keychain::default(), &|_| {}).await.expect("is still here");
        assert!(image.is_for_everybody);
    }
    // A store that kept no such records knows by the names.
    fs::remove_dir_all(scratch.path().join("store/access")).expect("was there");
    drop(store);
    let store = self::store(&scratch.path().join("store"), &["localhost:1"]);
    open(&store, name).await.expect("is for everybody");
}

#[tokio::test]
async fn layers_that_something_stands_on_stay_when_their_name_went_to_another_image() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = store(&scratch.path().join("store"), &["localhost:1"]);
    let archive = scratch.path().join("image.tar");
    let name = "localhost:1/team/app:v1";
    let load = async |layer: Vec<u8>| {
        one_image(&archive, name, &[(layer.clone(), Digest::of(&layer))]);
        store.load_tar(&archive, None).await.expect("loads");
        // Nobody holds it afterwards, as after a restart.
        open(&store, name).await.expect("opens").layers.clone()
    };
    let (first, second) = (load(base_layer()).await, load(upper_layer()).await);
    let stood_on = first.iter().cloned().chain(["/elsewhere".into()]).collect();
    store.collect(&BTreeSet::new(), &stood_on, |_| true).await.expect("collects");
    assert!(first.iter().chain(&second).all(|layer| layer.is_dir()));
    store.collect(&BTreeSet::new(), &BTreeSet::new(), |_| true).await.expect("collects");
    assert!(!first.iter().any(|layer| layer.exists()) && second.iter().all(|layer| layer.is_dir()));
}
