//! Layers that try to get out: the shapes that were published against unpackers of archives, one a row. Each is
//! unpacked beside a directory that must not change, whatever becomes of the layer. Needs root: so does unpacking.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
    path::Path,
};

use knoll_oci::{LayerError, Limits, TarError, Unpacked, unpack_layer};

const BLOCK: usize = 512;

/// One header with its data, as nobody's writer would refuse to write it.
#[derive(Clone)]
struct Part {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    data: Vec<u8>,
    device: (u32, u32),
    mode: u32,
}

fn part(kind: u8, name: &str) -> Part {
    Part { kind, name: name.into(), link: Vec::new(), data: Vec::new(), device: (0, 0), mode: 0o755 }
}

fn file(name: &str) -> Part {
    Part { data: b"theirs".to_vec(), mode: 0o644, ..part(b'0', name) }
}

fn directory(name: &str) -> Part {
    part(b'5', name)
}

fn link(name: &str, target: &str) -> Part {
    Part { link: target.into(), ..part(b'2', name) }
}

fn hard(name: &str, target: &str) -> Part {
    Part { link: target.into(), ..part(b'1', name) }
}

fn device(kind: u8, name: &str, device: (u32, u32)) -> Part {
    Part { device, ..part(kind, name) }
}

/// A header that extends the next.
fn extension(kind: u8, data: &[u8]) -> Part {
    Part { data: data.to_vec(), ..part(kind, "extension") }
}

fn pax(records: &[(&str, &str)]) -> Part {
    let mut data = Vec::new();
    for (key, value) in records {
        let body = format!(" {key}={value}\n");
        let mut length = body.len() + 1;
        while length.to_string().len() + body.len() > length {
            length += 1;
        }
        data.extend(format!("{length}{body}").bytes());
    }
    extension(b'x', &data)
}

fn write(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let mut block = [0u8; BLOCK];
        let name = &part.name[..part.name.len().min(100)];
        block[..name.len()].copy_from_slice(name);
        let number = |value: u64| format!("{value:07o}");
        block[100..107].copy_from_slice(number(part.mode.into()).as_bytes());
        block[108..115].copy_from_slice(number(0).as_bytes());
        block[116..123].copy_from_slice(number(0).as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", part.data.len()).as_bytes());
        block[136..147].copy_from_slice(format!("{:011o}", 7).as_bytes());
        block[156] = part.kind;
        let target = &part.link[..part.link.len().min(100)];
        block[157..157 + target.len()].copy_from_slice(target);
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[329..336].copy_from_slice(number(part.device.0.into()).as_bytes());
        block[337..344].copy_from_slice(number(part.device.1.into()).as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&part.data);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

/// Everything below a directory: kind and permissions, owner, links to it, content or target, time of change.
fn picture(directory: &Path) -> BTreeMap<String, String> {
    let mut picture = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("is there");
        let content = match () {
            () if meta.is_dir() => {
                open.extend(fs::read_dir(&path).expect("reads").map(|entry| entry.expect("reads").path()));
                String::new()
            }
            () if meta.is_symlink() => fs::read_link(&path).expect("reads").display().to_string(),
            () => String::from_utf8_lossy(&fs::read(&path).expect("reads")).into_owned(),
        };
        let xattrs: Vec<_> = xattr::list(&path).expect("lists").collect();
        let words = (meta.mode(), meta.uid(), meta.nlink(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        picture.insert(path.display().to_string(), format!("{words:?} {xattrs:?} {content}"));
    }
    picture
}

/// What is to become of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Refused.
    Refused,
    /// Unpacked, all of it inside.
    Inside,
}
use Fate::{Inside, Refused};

struct Scene {
    _scratch: tempfile::TempDir,
    victim: std::path::PathBuf,
    root: std::path::PathBuf,
}

fn scene() -> Scene {
    let scratch = tempfile::tempdir().expect("a directory");
    let victim = scratch.path().join("victim");
    let root = scratch.path().join("layers/root");
    fs::create_dir_all(victim.join("inner")).expect("makes");
    fs::create_dir_all(&root).expect("makes");
    fs::write(victim.join("file"), b"mine").expect("writes");
    fs::write(victim.join("inner/file"), b"mine").expect("writes");
    symlink("file", victim.join("link")).expect("links");
    Scene { _scratch: scratch, victim, root }
}

fn unpack(parts: &[Part], root: &Path) -> Result<Unpacked, LayerError> {
    unpack_layer(&write(parts)[..], root, &Limits::default()).map(|(unpacked, _)| unpacked)
}

/// The table: a name, what becomes of it, and the entries given the victim's path.
fn shapes(victim: &str) -> Vec<(&'static str, Fate, Vec<Part>)> {
    let up = "../../../../../../../../../../../../../../../..";
    let outside = format!("{up}{victim}");
    let through = |name: &str, target: &str, then: &str| vec![link(name, target), file(&format!("{name}/{then}"))];
    vec![
        // Names.
        ("a name that climbs", Refused, vec![file("../../victim/file")]),
        ("a name that climbs after descending", Refused, vec![file("a/../../../victim/file")]),
        ("an absolute name", Inside, vec![file(&format!("{victim}/file"))]),
        ("a name of dots", Refused, vec![file("..")]),
        ("a file called like the root", Refused, vec![file(".")]),
        ("a link called like the root", Refused, vec![link("./", victim), file("file")]),
        ("an empty name", Refused, vec![file("")]),
        ("PAX path that climbs", Refused, vec![pax(&[("path", "../../victim/file")]), file("fine")]),
        ("GNU long name that climbs", Refused, vec![extension(b'L', b"../../victim/file\0"), file("fine")]),
        (
            "PAX path after a GNU long name",
            Refused,
            vec![extension(b'L', b"fine\0"), pax(&[("path", "../../victim/file")]), file("finer")],
        ),
        // Symbolic links as parents: CVE-2019-10743, CVE-2018-20834, CVE-2021-32803 and many more.
        ("a link to outside as a parent", Inside, through("out", victim, "file")),
        ("a link that climbs as a parent", Inside, through("out", &outside, "file")),
        ("a link chain `a -> .`, `b -> /victim`", Inside, vec![link("a", "."), link("b", victim), file("a/b/file")]),
        ("the same with a whiteout", Inside, vec![link("a", "."), link("b", victim), file("a/b/.wh.file")]),
        ("the same with an opaque whiteout", Inside, vec![link("a", "."), link("b", victim), file("a/b/.wh..wh..opq")]),
        ("a link to a link to outside", Inside, vec![link("b", victim), link("a", "b"), file("a/file")]),
        (
            "a link below a link's directory",
            Inside,
            vec![directory("d"), link("s", "d"), link("s/out", &outside), file("d/out/file")],
        ),
        (
            "a link that climbs out of a deep directory",
            Inside,
            vec![directory("a/b/c"), link("a/b/c/out", &outside), file("a/b/c/out/inner/file")],
        ),
        ("links that lead to each other", Refused, vec![link("a", "b"), link("b", "a"), file("a/file")]),
        ("a link to itself", Refused, vec![link("a", "a"), file("a/file")]),
        ("a directory entry through a link", Inside, vec![link("out", victim), directory("out/inner")]),
        ("a directory entry in a link's place", Inside, vec![link("out", victim), directory("out"), file("out/file")]),
        ("a link through a link", Inside, vec![link("out", victim), link("out/file", "/etc/passwd")]),
        ("a device through a link", Inside, vec![link("out", victim), device(b'3', "out/null", (1, 3))]),
        ("a pipe through a link", Inside, vec![link("out", victim), part(b'6', "out/pipe")]),
        (
            "times and modes through a link",
            Inside,
            vec![link("out", victim), Part { mode: 0o4777, ..directory("out/") }],
        ),
        ("a link to /proc/self/root", Inside, through("out", &format!("/proc/self/root{victim}"), "file")),
        ("a link to /proc/self/cwd", Inside, through("out", "/proc/self/cwd", "file")),
        (
            "a link through proc's descriptors",
            Inside,
            through("out", &format!("/proc/self/fd/../root{victim}"), "file"),
        ),
        // Replacing: CVE-2021-37701, CVE-2021-37712, CVE-2020-27833 and others.
        (
            "a directory replaced by a link, then written through",
            Inside,
            vec![directory("d"), file("d/file"), link("d", victim), file("d/file")],
        ),
        ("a link written over by a file", Inside, vec![link("file", &format!("{victim}/file")), file("file")]),
        (
            "a link written over twice",
            Inside,
            vec![link("a", &format!("{victim}/file")), link("a", &format!("{victim}/inner/file")), file("a")],
        ),
        (
            "a directory of links replaced by a file",
            Inside,
            vec![directory("d"), link("d/out", victim), file("d/out/file"), file("d")],
        ),
        (
            "each kind in the place of each other",
            Inside,
            vec![
                file("x"),
                directory("x"),
                link("x", victim),
                part(b'6', "x"),
                device(b'3', "x", (1, 3)),
                file("x"),
                link("x", victim),
                directory("x"),
                file("x/file"),
            ],
        ),
        ("a file with a slash in a link's place", Refused, vec![link("x", victim), file("x/"), file("x/file")]),
        (
            "an old directory in a link's place",
            Inside,
            vec![link("x", victim), Part { kind: 0, ..file("x/") }, file("x/file")],
        ),
        // Hard links: CVE-2021-20206, CVE-2021-35937 and the tar unpackers' own.
        ("a hard link to outside", Refused, vec![hard("mine", &format!("{victim}/file"))]),
        ("a hard link that climbs", Refused, vec![hard("mine", "../../victim/file")]),
        ("a hard link through a link", Refused, vec![link("out", victim), hard("mine", "out/file"), file("mine")]),
        ("a hard link through a climbing link", Refused, vec![link("out", &outside), hard("mine", "out/file")]),
        (
            "a hard link to a link to outside",
            Inside,
            vec![link("s", &format!("{victim}/file")), hard("h", "s"), file("h")],
        ),
        (
            "a hard link to a link, written through as a directory",
            Inside,
            vec![link("s", victim), hard("h", "s"), file("h/file")],
        ),
        ("a hard link to a directory", Refused, vec![directory("d"), hard("h", "d")]),
        ("a hard link to the root", Refused, vec![hard("h", "/")]),
        ("a hard link to itself", Inside, vec![file("f"), hard("f", "f")]),
        ("a hard link to nothing", Refused, vec![hard("h", "nowhere")]),
        ("PAX linkpath that climbs", Refused, vec![pax(&[("linkpath", "../../victim/file")]), hard("h", "fine")]),
        ("GNU long link that climbs", Refused, vec![extension(b'K', b"../../victim/file\0"), hard("h", "fine")]),
        // Whiteouts.
        ("a whiteout of nothing", Refused, vec![file(".wh.")]),
        ("a whiteout of this directory", Refused, vec![file("d/.wh..")]),
        ("a whiteout of the directory above", Refused, vec![file("d/.wh...")]),
        ("a whiteout of the directory above the root", Refused, vec![file(".wh...")]),
        ("a whiteout with a slash in a PAX path", Inside, vec![pax(&[("path", ".wh.a/file")]), file("fine")]),
        (
            "a whiteout that climbs by a PAX path",
            Refused,
            vec![pax(&[("path", ".wh.x/../../.wh.victim")]), file("fine")],
        ),
        ("a whiteout through a link", Inside, vec![link("out", victim), file("out/.wh.file")]),
        ("a whiteout through a climbing link", Inside, vec![link("out", &outside), file("out/.wh.inner")]),
        ("an opaque directory through a link", Inside, vec![link("out", victim), file("out/.wh..wh..opq")]),
        ("a whiteout of a link", Inside, vec![link("out", victim), file(".wh.out")]),
        ("a directory in a whiteout's place", Inside, vec![file(".wh.d"), file("d/file"), file(".wh.d")]),
        ("a whiteout's name as a link", Inside, vec![link(".wh.x", victim), file("x/file")]),
        // Devices and what else speaks to the host.
        ("a disk", Inside, vec![device(b'4', "dev/sda", (8, 0))]),
        ("the machine's memory", Inside, vec![device(b'3', "dev/mem", (1, 1))]),
        ("a whiteout by its device number", Inside, vec![device(b'3', "gone", (0, 0))]),
        (
            "overlay's own attributes",
            Inside,
            vec![
                pax(&[
                    ("SCHILY.xattr.trusted.overlay.redirect", "/../../victim"),
                    ("SCHILY.xattr.security.selinux", "x"),
                ]),
                directory("d"),
            ],
        ),
        // Lengths and counts.
        ("PAX size negative", Refused, vec![pax(&[("size", "-1")]), file("f")]),
        ("PAX size huge", Refused, vec![pax(&[("size", "9223372036854775807")]), file("f")]),
        ("PAX size beyond numbers", Refused, vec![pax(&[("size", "99999999999999999999")]), file("f")]),
        ("a path deeper than allowed", Refused, vec![pax(&[("path", &"d/".repeat(300))]), directory("d")]),
        ("a path longer than allowed", Refused, vec![pax(&[("path", &"dd/".repeat(2000))]), directory("d")]),
        ("a name longer than file systems take", Refused, vec![pax(&[("path", &"n".repeat(300))]), file("f")]),
        ("a target longer than allowed", Refused, vec![pax(&[("linkpath", &"n".repeat(5000))]), link("l", "x")]),
        (
            "a GNU long name of a mebibyte and more",
            Refused,
            vec![extension(b'L', &vec![b'a'; (1 << 20) + 1]), file("f")],
        ),
        (
            "attributes larger than allowed",
            Refused,
            vec![
                pax(&[("SCHILY.xattr.user.a", &"a".repeat(40_000)), ("SCHILY.xattr.user.b", &"b".repeat(40_000))]),
                file("f"),
            ],
        ),
        ("an unknown kind of entry", Refused, vec![part(b'Z', "f")]),
    ]
}

#[test]
fn no_published_shape_of_archive_reaches_what_is_beside_the_root() {
    for index in 0..shapes("").len() {
        let scene = scene();
        let (name, fate, parts) = shapes(scene.victim.to_str().expect("text")).swap_remove(index);
        let before = picture(&scene.victim);
        let beside: Vec<_> =
            fs::read_dir(scene.root.join("../..")).expect("reads").map(|e| e.unwrap().path()).collect();
        let outcome = unpack(&parts, &scene.root);
        assert_eq!(picture(&scene.victim), before, "{name}");
        let now: Vec<_> = fs::read_dir(scene.root.join("../..")).expect("reads").map(|e| e.unwrap().path()).collect();
        assert_eq!(now, beside, "{name}");
        let became = if outcome.is_ok() { Inside } else { Refused };
        assert_eq!(became, fate, "{name}: {outcome:?}");
    }
}

#[test]
fn what_leads_outside_lands_at_the_same_place_inside() {
    let scene = scene();
    let victim = scene.victim.to_str().expect("text");
    unpack(&[link("out", victim), file("out/new"), link("up", "../../.."), file("up/top")], &scene.root)
        .expect("unpacks");
    assert_eq!(fs::read(scene.root.join(victim.trim_start_matches('/')).join("new")).expect("is inside"), b"theirs");
    assert_eq!(fs::read(scene.root.join("top")).expect("is inside"), b"theirs");
}

#[test]
fn devices_that_every_container_has_are_made_and_others_are_left_out_by_name() {
    let scene = scene();
    let overlay = pax(&[("SCHILY.xattr.trusted.overlay.opaque", "y"), ("SCHILY.xattr.user.note", "kept")]);
    let parts = [
        device(b'3', "dev/null", (1, 3)),
        device(b'4', "dev/sda", (8, 0)),
        device(b'3', "dev/kvm", (10, 232)),
        overlay,
        file("plain"),
    ];
    let unpacked = unpack(&parts, &scene.root).expect("unpacks");
    let null = fs::metadata(scene.root.join("dev/null")).expect("is there");
    assert!(null.file_type().is_char_device() && null.mode() & 0o7777 == 0o755);
    assert!(!scene.root.join("dev/sda").exists() && !scene.root.join("dev/kvm").exists());
    let attributes: Vec<_> = xattr::list(scene.root.join("plain")).expect("lists").collect();
    assert_eq!(attributes, ["user.note"]);
    let skipped = unpacked.skipped;
    assert_eq!((skipped.devices, skipped.xattrs, skipped.first.as_deref()), (2, 1, Some("device 8:0 dev/sda")));
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let scene = scene();
    let parts =
        [file("kept/file"), file(".wh.kept"), file("plain"), file(".wh.plain"), file(".wh.gone"), file("gone/new")];
    unpack(&parts, &scene.root).expect("unpacks");
    let opaque = |name: &str| xattr::get(scene.root.join(name), "trusted.overlay.opaque").expect("reads");
    assert_eq!(fs::read(scene.root.join("kept/file")).expect("stays"), b"theirs");
    assert_eq!(fs::read(scene.root.join("plain")).expect("stays"), b"theirs");
    assert_eq!(fs::read(scene.root.join("gone/new")).expect("is there"), b"theirs");
    assert_eq!((opaque("kept").as_deref(), opaque("gone").as_deref()), (Some(&b"y"[..]), Some(&b"y"[..])));
}

#[test]
fn a_directory_keeps_its_time_whatever_comes_into_it() {
    let scene = scene();
    unpack(&[directory("d"), file("d/file"), directory("."), file("late")], &scene.root).expect("unpacks");
    assert_eq!(fs::metadata(scene.root.join("d")).expect("is there").mtime(), 7);
    assert_eq!(fs::metadata(&scene.root).expect("is there").mtime(), 7);
}

/// Zeros, without end.
struct Zeros;

impl std::io::Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

#[test]
fn bombs_are_refused_by_the_bound_they_break() {
    use std::io::Read as _;
    let limits = Limits { layer_bytes: 1 << 20, entries: 100, ..Limits::default() };
    let limit = |outcome: Result<_, LayerError>| match outcome {
        Err(LayerError::Archive(TarError::Limit(limit))) => limit.what,
        other => panic!("{other:?}"),
    };
    let scene = scene();
    // What follows an archive's end, for ever.
    let endless = unpack_layer((&write(&[])[..]).chain(Zeros), &scene.root, &limits);
    assert_eq!(limit(endless.map(drop)), "bytes of an unpacked layer");
    // A little gzip and zstd of a lot.
    let big = vec![0; 8 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &write(&[Part { data: big.clone(), ..file("big") }])).expect("compresses");
    let gzip = gzip.finish().expect("compresses");
    assert!(gzip.len() < 16 << 10);
    assert_eq!(limit(unpack_layer(&gzip[..], &scene.root, &limits).map(drop)), "bytes of a file");
    let many: Vec<Part> = (0..200).map(|index| Part { data: vec![0; 100_000], ..file(&index.to_string()) }).collect();
    let zstd = zstd::encode_all(&write(&many[..50])[..], 19).expect("compresses");
    assert_eq!(limit(unpack_layer(&zstd[..], &scene.root, &limits).map(drop)), "bytes of an unpacked layer");
    let many: Vec<Part> = (0..200).map(|index| file(&index.to_string())).collect();
    assert_eq!(limit(unpack_layer(&write(&many)[..], &scene.root, &limits).map(drop)), "entries of the archive");
    // A file of holes.
    let mut sparse = Vec::new();
    for (key, value) in [("major", "0"), ("size", "1000000000000"), ("map", "0,6")] {
        sparse.push((format!("GNU.sparse.{key}"), value));
    }
    let records: Vec<(&str, &str)> = sparse.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(
        limit(unpack_layer(&write(&[pax(&records), file("f")])[..], &scene.root, &limits).map(drop)),
        "bytes of a file"
    );
}
