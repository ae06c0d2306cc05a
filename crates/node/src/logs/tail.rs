//! Which files a log consists of, and where its last lines begin. Blocking.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Older files, oldest first.
const ROTATED: [&str; 2] = ["2", "1"];
const BLOCK: u64 = 64 * 1024;

/// Where to begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Files in the order they were written; the offset is in the first.
    pub(super) files: Vec<PathBuf>,
    /// Byte to begin with.
    pub(super) offset: u64,
}

/// The files of a log that exist, oldest first.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let rotated = ROTATED.iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    });
    rotated.chain([path.to_owned()]).filter(|p| p.is_file()).collect()
}

/// Where the last `lines` of a log begin; its very beginning without a number.
pub(super) fn start(path: &Path, lines: Option<u64>) -> io::Result<Start> {
    let files = files(path);
    let Some(mut wanted) = lines else { return Ok(Start { files, offset: 0 }) };
    if wanted == 0 {
        let offset = files.last().map_or(Ok(0), |last| last.metadata().map(|m| m.len()))?;
        return Ok(Start { files: files.into_iter().next_back().into_iter().collect(), offset });
    }
    for index in (0..files.len()).rev() {
        match back(&mut File::open(&files[index])?, wanted)? {
            Found::At(offset) => return Ok(Start { files: files[index..].to_vec(), offset }),
            Found::Only(lines) => wanted -= lines,
        }
    }
    Ok(Start { files, offset: 0 })
}

enum Found {
    At(u64),
    Only(u64),
}

/// Counts line breaks from the end.
fn back(file: &mut File, wanted: u64) -> io::Result<Found> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut end = length;
    let mut seen = 0;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin))?;
        block.clear();
        file.by_ref().take(end - begin).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            if seen == wanted {
                return Ok(Found::At(begin + index as u64 + 1));
            }
            seen += 1;
        }
        end = begin;
    }
    // The first line has no line break before it.
    Ok(if seen >= wanted { Found::At(0) } else { Found::Only(seen) })
}
