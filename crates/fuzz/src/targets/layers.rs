//! Archives and what unpacks them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use knoll_oci::{Entries, EntryKind, Limits, decompress, parse_pax, unpack_layer};

use crate::Target;

const WORDS: &[&str] = &[
    "ustar\0",
    "ustar  \0",
    "00",
    "././@LongLink",
    ".wh.",
    ".wh..wh..opq",
    "..",
    "/",
    "../",
    "./",
    "\0",
    "path=",
    "linkpath=",
    "size=",
    "mtime=",
    "uid=",
    "gid=",
    "SCHILY.xattr.",
    "trusted.overlay.",
    "security.capability",
    "GNU.sparse.major=1",
    "GNU.sparse.minor=0",
    "GNU.sparse.name=",
    "GNU.sparse.realsize=",
    "GNU.sparse.map=",
    "GNU.sparse.size=",
    "GNU.sparse.offset=",
    "GNU.sparse.numbytes=",
    "etc/passwd",
    "victim",
];

pub(super) const ARCHIVE: Target = Target { name: "archive", cases: 3000, words: WORDS, check: archive };
pub(super) const LAYER: Target = Target { name: "layer", cases: 400, words: WORDS, check: layer };

/// Bounds that small inputs can reach.
fn small() -> Limits {
    Limits {
        layer_bytes: 1 << 20,
        entries: 200,
        path_bytes: 1024,
        path_depth: 16,
        extension_bytes: 8 << 10,
        sparse_segments: 100,
        xattr_bytes: 4 << 10,
        ..Limits::default()
    }
}

/// With sums of headers made right, so that a changed header is looked at for more than its sum.
fn with_sums(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for block in bytes.as_chunks_mut::<512>().0.iter_mut().filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

/// What an entry came to.
type Told = (PathBuf, Vec<u8>);

fn ours(bytes: &[u8]) -> Option<Vec<Told>> {
    let limits = small();
    let mut entries = Entries::new(bytes, limits.clone());
    let (mut told, mut plain) = (Vec::new(), true);
    loop {
        let entry = match entries.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) => return None,
        };
        assert!(entry.path.as_os_str().len() <= limits.path_bytes, "a path of {} bytes", entry.path.as_os_str().len());
        assert!(entry.target.as_os_str().len() <= limits.path_bytes);
        assert!(entry.size <= limits.layer_bytes, "a file of {} bytes", entry.size);
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(xattrs <= limits.xattr_bytes, "{xattrs} bytes of attributes");
        if let Some(segments) = &entry.segments {
            assert!(segments.len() <= limits.sparse_segments);
            let end = segments.iter().fold(0, |end, segment| {
                assert!(segment.offset >= end, "stretches overlap");
                segment.offset + segment.length
            });
            assert!(end <= entry.size, "a stretch leaves its file");
        }
        plain &= entry.segments.is_none() && matches!(entry.kind, EntryKind::File | EntryKind::Directory);
        let mut data = Vec::new();
        if entries.read_to_end(&mut data).is_err() {
            return None;
        }
        told.push((entry.path, data));
        assert!(told.len() as u64 <= limits.entries, "more entries than may be");
    }
    plain.then_some(told)
}

/// The same by another reader; `None` where it does not read on.
fn theirs(bytes: &[u8]) -> Option<Vec<Told>> {
    let mut archive = tar::Archive::new(bytes);
    let mut told = Vec::new();
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path().ok()?.into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).ok()?;
        told.push((path, data));
    }
    Some(told)
}

fn archive(input: &[u8]) {
    let bytes = with_sums(input);
    if let Ok(records) = parse_pax(input) {
        assert!(records.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= input.len());
    }
    // Both read it to its end: then they read the same. What stands in extended headers is left to ours, which is
    // stricter, and so is what looks like a sparse file.
    let has_extensions =
        bytes.as_chunks::<512>().0.iter().any(|block| matches!(block[156], b'x' | b'g' | b'L' | b'K' | b'S'));
    if let (Some(ours), false) = (ours(&bytes), has_extensions)
        && let Some(theirs) = theirs(&bytes)
    {
        assert_eq!(ours, theirs);
    }
}

/// A directory to unpack in, beside one that must not change.
struct Scene {
    _directory: tempfile::TempDir,
    victim: PathBuf,
    layers: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let (victim, layers) = (directory.path().join("victim"), directory.path().join("layers"));
    for made in [&victim.join("inner"), &layers] {
        fs::create_dir_all(made).expect("makes a directory");
    }
    fs::write(victim.join("file"), "mine").expect("writes");
    let before = picture(&victim);
    Scene { _directory: directory, victim, layers, before }
});

/// Everything below a directory.
fn picture(directory: &Path) -> BTreeMap<PathBuf, String> {
    let (mut picture, mut open) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("is there");
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).expect("reads").map(|entry| entry.expect("reads").path()));
        }
        let seen = (meta.mode(), meta.uid(), meta.nlink(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        picture.insert(path, format!("{seen:?}"));
    }
    picture
}

fn layer(input: &[u8]) {
    let scene = &*SCENE;
    let mut plain = Vec::new();
    if let Ok(reader) = decompress(input)
        && reader.take(4 << 20).read_to_end(&mut plain).is_err()
    {
        plain.clear();
    }
    for bytes in [input, &with_sums(&plain)] {
        let target = tempfile::tempdir_in(&scene.layers).expect("a directory");
        let root = target.path().join("root");
        fs::create_dir(&root).expect("makes a directory");
        if let Ok((unpacked, _)) = unpack_layer(bytes, &root, &small()) {
            assert!(unpacked.bytes <= small().layer_bytes);
        }
        let beside: Vec<_> = fs::read_dir(target.path()).expect("reads").collect::<io::Result<_>>().expect("reads");
        assert_eq!(beside.len(), 1, "something was made beside the layer");
        knoll_tree::remove(&root).expect("is removed");
    }
    assert_eq!(picture(&scene.victim), scene.before, "something outside of the layer changed");
}
