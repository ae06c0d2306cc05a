//! Against archives of the `tar` crate's writer, and ones that no writer writes.

use super::*;

fn raw(kind: u8, name: &str, size: &[u8]) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_path(name).expect("a short name");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(7);
    let field = &mut header.as_old_mut().size;
    field.fill(0);
    field[..size.len()].copy_from_slice(size);
    header.set_cksum();
    *header.as_bytes()
}

/// A header, data, and what fills the block.
fn with_data(kind: u8, name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = raw(kind, name, format!("{:011o}", data.len()).as_bytes()).to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while length.to_string().len() + body.len() > length {
        length += 1;
    }
    format!("{length}{body}")
}

fn read_all(bytes: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut entries = Entries::new(bytes, limits);
    let mut read = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        let mut data = Vec::new();
        entries.read_to_end(&mut data).map_err(|source| TarError::Read { at: 0, source })?;
        read.push((entry, data));
    }
    Ok(read)
}

#[test]
fn what_the_common_writer_writes_is_read() {
    let long = "deep/".repeat(60) + "file";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o4755);
    header.set_uid(1000);
    header.set_gid(3_000_000);
    tar.append_pax_extensions([("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", b"5.25")]).expect("appends");
    tar.append_data(&mut header, &long, &b"data"[..]).expect("appends");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    link.set_mode(0o777);
    link.set_mtime(9);
    link.set_uid(0);
    link.set_gid(0);
    tar.append_link(&mut link, "link", format!("/{long}")).expect("appends");
    let read = read_all(&tar.into_inner().expect("finishes"), Limits::default()).expect("reads");
    let [(file, data), (link, _)] = &read[..] else { panic!("{read:?}") };
    assert_eq!((file.kind, file.path.to_str(), data.as_slice()), (EntryKind::File, Some(&*long), &b"data"[..]));
    assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o4755, 1000, 3_000_000, (5, 250_000_000)));
    assert_eq!(file.xattrs, [("user.a".into(), b"b".to_vec())]);
    assert_eq!((link.kind, link.target.to_str()), (EntryKind::Symlink, Some(&*format!("/{long}"))));
    assert_eq!((link.mtime, link.xattrs.len()), ((9, 0), 0));
}

#[test]
fn pax_records_outrank_the_header_and_the_last_of_them_counts() {
    let records = record("path", "first") + &record("path", "second") + &record("size", "3") + &record("uid", "70000");
    let mut bytes = with_data(b'x', "pax", records.as_bytes());
    let mut entry = raw(b'0', "third", b"00000000000").to_vec();
    entry.extend_from_slice(b"abc");
    entry.resize(2 * BLOCK, 0);
    bytes.extend(entry);
    let read = read_all(&bytes, Limits::default()).expect("reads");
    assert_eq!(read[0].0.path.to_str(), Some("second"));
    assert_eq!((read[0].0.uid, read[0].1.as_slice()), (70000, &b"abc"[..]));
}

#[test]
fn sparse_files_of_both_families_are_read() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(b'S'));
    header.set_path("old").expect("a short name");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(3);
    let gnu = header.as_gnu_mut().expect("is GNU");
    gnu.sparse[0].offset = *b"00000001000\0";
    gnu.sparse[0].numbytes = *b"00000000003\0";
    gnu.realsize = *b"00000002000\0";
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(b"abc");
    bytes.resize(2 * BLOCK, 0);
    let records = record("GNU.sparse.major", "1")
        + &record("GNU.sparse.minor", "0")
        + &record("GNU.sparse.name", "new")
        + &record("GNU.sparse.realsize", "1024");
    bytes.extend(with_data(b'x', "pax", records.as_bytes()));
    let mut data = b"1\n512\n3\n".to_vec();
    data.resize(BLOCK, 0);
    data.extend_from_slice(b"xyz");
    bytes.extend(with_data(b'0', "GNUSparseFile.0/new", &data));
    let read = read_all(&bytes, Limits::default()).expect("reads");
    let told = |index: usize| {
        let (entry, data) = &read[index];
        (entry.path.to_str().expect("text").to_owned(), entry.size, entry.segments.clone(), data.clone())
    };
    assert_eq!(told(0), ("old".into(), 1024, Some(vec![Segment { offset: 512, length: 3 }]), b"abc".to_vec()));
    assert_eq!(told(1), ("new".into(), 1024, Some(vec![Segment { offset: 512, length: 3 }]), b"xyz".to_vec()));
}

#[test]
fn archives_that_lie_are_refused() {
    let pax = |key: &str, value: &str| [with_data(b'x', "p", record(key, value).as_bytes()), with_data(b'0', "f", b"")];
    let huge = raw(b'L', "././@LongLink", b"77777777777");
    let mut negative = [0xff; 12];
    negative[11] = 0xfe;
    let mut zeros_within = vec![0; BLOCK];
    zeros_within.extend(with_data(b'0', "late", b""));
    let mut bad_sum = with_data(b'0', "f", b"");
    bad_sum[0] = b'g';
    let cases: [(&str, Vec<u8>); 13] = [
        ("negative size", raw(b'0', "f", &negative).to_vec()),
        ("PAX size negative", pax("size", "-1").concat()),
        ("PAX size beyond all numbers", pax("size", "99999999999999999999999").concat()),
        ("PAX size beyond the limit", pax("size", "9223372036854775807").concat()),
        ("PAX path with a zero", pax("path", "a\0b").concat()),
        ("PAX path beyond the limit", pax("path", &"a/".repeat(4096)).concat()),
        ("owner out of range", pax("uid", "99999999999").concat()),
        ("GNU long name beyond the limit", huge.to_vec()),
        ("PAX header beyond the limit", raw(b'x', "p", b"77777777777").to_vec()),
        ("global header beyond the limit", raw(b'g', "p", b"77777777777").to_vec()),
        ("ends within data", raw(b'0', "f", b"00000001000").to_vec()),
        ("header after an empty block", zeros_within),
        ("wrong sum", bad_sum),
    ];
    for (name, bytes) in cases {
        assert!(read_all(&bytes, Limits::default()).is_err(), "{name}");
    }
    assert!(read_all(&raw(b'Z', "f", b"0"), Limits::default()).is_err(), "unknown kind");
}

#[test]
fn endless_extensions_and_entries_end() {
    let limits = Limits { entries: 10, ..Limits::default() };
    let names = with_data(b'L', "././@LongLink", b"name\0").repeat(11);
    assert!(matches!(read_all(&names, limits.clone()), Err(TarError::Limit(_))));
    let files = with_data(b'0', "f", b"").repeat(11);
    assert!(matches!(read_all(&files, limits), Err(TarError::Limit(_))));
}

#[test]
fn cut_at_any_byte_an_archive_never_panics() {
    let records = record("path", "a") + &record("SCHILY.xattr.user.a", "b");
    let whole = [with_data(b'x', "p", records.as_bytes()), with_data(b'0', "f", b"abc"), vec![0; 2 * BLOCK]].concat();
    for end in 0..whole.len() {
        drop(read_all(&whole[..end], Limits::default()));
    }
    for index in 0..whole.len() {
        let mut changed = whole.clone();
        changed[index] ^= 0x85;
        drop(read_all(&changed, Limits::default()));
    }
}
