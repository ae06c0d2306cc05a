//! The files beside the segments.

use std::io;

use super::{PREFIX, catalog::Catalog, index::SegmentIndex};
use crate::{Disk, LogError, log::write_new};

/// The streams and cursors are kept twice.
const COPIES: [&str; 2] = ["state-a", "state-b"];

/// The file that keeps room back.
pub(crate) const RESERVE: &str = "events.reserve";
/// Bytes of it that are written at once.
const RESERVE_PIECE: usize = 1 << 20;

fn name(segment: u64, kind: &str) -> String {
    format!("{PREFIX}-{segment:016}.{kind}")
}

/// The number of the segment that a file of this kind belongs to.
fn number(name: &str, kind: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.strip_suffix(kind)?.strip_suffix('.')?.parse().ok()
}

pub(crate) fn io_error(name: &str) -> impl FnOnce(io::Error) -> LogError {
    let name = name.to_owned();
    move |source| LogError::Io { name, source }
}

/// Writes a file under a name that nothing reads, and gives it its own once its content is durable.
fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<(), LogError> {
    let temporary = format!("{name}.new");
    let written = write_new(disk, &temporary, bytes).map(drop);
    written.and_then(|()| disk.rename(&temporary, name)).map_err(io_error(name))
}

/// The name of the index file of a segment.
pub(crate) fn index_name(segment: u64) -> String {
    name(segment, "index")
}

/// Segments that have an index file, ascending.
pub(crate) fn indexed(names: &[String]) -> Vec<u64> {
    names.iter().filter_map(|name| number(name, "index")).collect()
}

/// Keeps what stands in a closed segment. Costs a file of some kilobytes and a sync of it.
pub(crate) fn write_index(disk: &dyn Disk, segment: u64, index: &SegmentIndex) -> Result<(), LogError> {
    replace(disk, &index_name(segment), &index.encode())
}

/// Reads what stands in a closed segment; `None` when that is not kept, cannot be read, or is no more what was written.
pub(crate) fn read_index(disk: &dyn Disk, segment: u64) -> Option<SegmentIndex> {
    match disk.read(&index_name(segment)) {
        Ok(file) => SegmentIndex::decode(&file, segment),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, name = index_name(segment), "read what stands in a segment; it is made out again");
            }
            None
        }
    }
}

/// Keeps the streams and cursors as they are when segment number `segment` begins, and removes older ones.
pub(crate) fn write_state(disk: &dyn Disk, segment: u64, catalog: &[u8]) -> Result<(), LogError> {
    for copy in COPIES {
        replace(disk, &name(segment, copy), catalog)?;
    }
    disk.sync_dir().map_err(io_error(PREFIX))?;
    for old in disk.list().map_err(io_error(PREFIX))? {
        if COPIES.iter().any(|copy| number(&old, copy).is_some_and(|number| number < segment)) {
            disk.remove(&old).map_err(io_error(&old))?;
        }
    }
    Ok(())
}

/// The segments of which it is kept how streams and cursors were when they began, newest first.
pub(crate) fn states(names: &[String]) -> Vec<u64> {
    let mut found: Vec<u64> =
        names.iter().filter_map(|name| COPIES.iter().find_map(|copy| number(name, copy))).collect();
    found.sort_unstable();
    found.dedup();
    found.reverse();
    found
}

/// Reads how streams and cursors were when a segment began, and names each copy that is no more what was written.
pub(crate) fn read_state(disk: &dyn Disk, segment: u64) -> Result<(Option<Catalog>, Vec<String>), LogError> {
    let mut damaged = Vec::new();
    for copy in COPIES {
        let name = name(segment, copy);
        match disk.read(&name) {
            Ok(file) => match Catalog::decode(&file, segment) {
                Some(catalog) => return Ok((Some(catalog), damaged)),
                None => damaged.push(name),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&name)(error)),
        }
    }
    Ok((None, damaged))
}

/// Keeps so many bytes of the disk back, a piece at a time.
pub(crate) fn write_reserve(disk: &dyn Disk, bytes: usize) -> Result<(), LogError> {
    let temporary = format!("{RESERVE}.new");
    let piece = vec![0; bytes.min(RESERVE_PIECE)];
    let written = write_new(disk, &temporary, &[]).and_then(|mut file| {
        for at in (0..bytes).step_by(RESERVE_PIECE) {
            file.append(&piece[..piece.len().min(bytes - at)])?;
        }
        file.sync()
    });
    let named = written.and_then(|()| disk.rename(&temporary, RESERVE));
    if named.is_err() {
        // What was got of it is wanted.
        disk.remove(&temporary).ok();
    }
    named.map_err(io_error(RESERVE))
}

/// Gives them back.
pub(crate) fn remove_reserve(disk: &dyn Disk) -> bool {
    let removed = disk.remove(RESERVE);
    removed.inspect_err(|error| tracing::warn!(%error, "give back the room that is kept back")).is_ok()
}
