//! A tar stream, entry by entry: ustar, GNU and PAX, every length and count of it bounded.
//!
//! Headers that extend the next one (GNU long names, PAX records) are taken in before they are applied and are never
//! larger than [`Limits::extension_bytes`]. Nothing is believed that contradicts itself.

mod header;
mod pax;
mod sparse;

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

use header::{BLOCK, Header};
pub use pax::{PaxRecord, parse_pax};
pub use sparse::Segment;

use crate::limits::{LimitError, Limits};

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream cannot be read.
    #[error("read the archive at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It is no sound archive.
    #[error("the archive is damaged before byte {at}: {reason}")]
    Damaged {
        /// Where.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// It asks for more than is allowed.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of a file of the archive.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// An entry as its headers describe it; nothing of it is checked against a file system.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Where it goes.
    pub path: PathBuf,
    /// What a link leads to; empty for others.
    pub target: PathBuf,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// Where the data lies in a sparse file; `None` when it is all of the file.
    pub segments: Option<Vec<Segment>>,
}

/// What was said before a header about it.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Vec<PaxRecord>,
}

impl Extensions {
    /// The newest record of a key; an empty one takes the key back.
    fn record(&self, key: &str) -> Option<&[u8]> {
        let record = self.records.iter().rev().find(|(name, _)| name == key);
        record.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }
}

/// The entries of a tar stream. Reading from it gives the data of the entry that came last.
pub struct Entries<R> {
    reader: R,
    limits: Limits,
    at: u64,
    count: u64,
    /// Data of the entry that was not read yet, and what fills its last block.
    left: u64,
    padding: u64,
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within an entry"));
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Read> Entries<R> {
    /// The entries of `reader`.
    pub fn new(reader: R, limits: Limits) -> Self {
        Self { reader, limits, at: 0, count: 0, left: 0, padding: 0 }
    }

    /// The stream behind the archive.
    pub fn into_inner(self) -> R {
        self.reader
    }

    fn damaged(&self, reason: impl Into<String>) -> TarError {
        TarError::Damaged { at: self.at, reason: reason.into() }
    }

    fn failed(&self, source: io::Error) -> TarError {
        match LimitError::in_io(&source) {
            Some(limit) => limit.clone().into(),
            None => TarError::Read { at: self.at, source },
        }
    }

    /// The next whole block; `None` at the stream's end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged("it ends within a block")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }

    /// The next header; `None` at the archive's end, which is two blocks of zeros or the stream's own.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        self.skip()?;
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|byte| *byte != 0) {
            self.count += 1;
            LimitError::check("entries of the archive", self.count, self.limits.entries)?;
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => {
                Err(self.damaged("a header follows an empty block"))
            }
            _ => Ok(None),
        }
    }

    /// Reads over what is left of the entry that came last.
    fn skip(&mut self) -> Result<(), TarError> {
        self.left += std::mem::take(&mut self.padding);
        io::copy(self, &mut io::sink()).map(drop).map_err(|error| self.failed(error))
    }

    /// The next entry. Its data is read from `self`.
    ///
    /// # Errors
    /// When the archive is damaged, or asks for too much.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let Some(header) = Header::checked(&block) else { return Err(self.damaged("a header's sum is wrong")) };
            match header.kind() {
                b'L' => extensions.path = Some(self.long_name(&header)?),
                b'K' => extensions.target = Some(self.long_name(&header)?),
                b'x' => {
                    let bytes = self.extension(&header)?;
                    extensions.records = parse_pax(&bytes).map_err(|reason| self.damaged(reason))?;
                }
                // What is said about all entries is a comment in practice; container engines pass it over, too.
                b'g' => drop(self.extension(&header)?),
                _ => return self.entry(&header, &extensions).map(Some),
            }
        }
    }

    /// The data of a header that extends another.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let size = header.size().and_then(|size| u64::try_from(size).ok());
        let Some(size) = size else { return Err(self.damaged("an extended header has no size")) };
        LimitError::check("bytes of an extended header", size, self.limits.extension_bytes)?;
        (self.left, self.padding) = (size, padding(size));
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    fn long_name(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        let mut bytes = self.extension(header)?;
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(length);
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header<'_>, extensions: &Extensions) -> Result<Entry, TarError> {
        let path = extensions.record("path").map(<[u8]>::to_vec).or_else(|| extensions.path.clone());
        let path = path.unwrap_or_else(|| header.path());
        let kind = self.kind(header.kind(), &path)?;
        let number = |key: &str, field: Option<i64>| match extensions.record(key) {
            None => field.and_then(|number| u64::try_from(number).ok()),
            Some(value) => str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
        };
        let id = |key: &str, field| number(key, field).and_then(|id| u32::try_from(id).ok());
        let uid = id("uid", header.uid()).ok_or_else(|| self.damaged("an owner is out of range"))?;
        let gid = id("gid", header.gid()).ok_or_else(|| self.damaged("a group is out of range"))?;
        let mtime = match extensions.record("mtime") {
            Some(value) => pax::time(value),
            None => header.mtime().map(|seconds| (seconds, 0)),
        };
        let device = if matches!(kind, EntryKind::Char | EntryKind::Block) { header.device() } else { Some((0, 0)) };
        let device = device.and_then(|(major, minor)| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?)));
        let mode = header.mode().and_then(|mode| u32::try_from(mode & 0o7777).ok());
        let target = extensions.record("linkpath").map(<[u8]>::to_vec).or_else(|| extensions.target.clone());
        let mut entry = Entry {
            kind,
            path: PathBuf::new(),
            target: self.name(target.unwrap_or_else(|| header.link().to_vec()))?,
            size: 0,
            mode: mode.ok_or_else(|| self.damaged("a mode is no number"))?,
            uid,
            gid,
            mtime: mtime.ok_or_else(|| self.damaged("a time is no number"))?,
            device: device.ok_or_else(|| self.damaged("a device has no number"))?,
            xattrs: self.xattrs(&extensions.records)?,
            segments: None,
        };
        let mut name = path;
        // Only what the header calls a file has data, whatever else it says of others.
        if kind == EntryKind::File || header.kind() == 0 {
            let stored = number("size", header.size()).ok_or_else(|| self.damaged("a size is out of range"))?;
            LimitError::check("bytes of a file", stored, self.limits.layer_bytes)?;
            (self.left, self.padding) = (stored, padding(stored));
            entry.size = stored;
        }
        if kind == EntryKind::File {
            let stored = entry.size;
            if let Some(real) = self.sparse(header, extensions, stored, &mut entry)? {
                name = real;
            }
        }
        entry.path = self.name(name)?;
        Ok(entry)
    }

    fn kind(&self, flag: u8, path: &[u8]) -> Result<EntryKind, TarError> {
        Ok(match flag {
            // Before there was a flag for directories, a slash told.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Char,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(self.damaged(format!("an entry is of the unknown kind {:?}", char::from(other)))),
        })
    }

    fn name(&self, bytes: Vec<u8>) -> Result<PathBuf, TarError> {
        LimitError::check("bytes of a path", bytes.len() as u64, self.limits.path_bytes as u64)?;
        if bytes.contains(&0) {
            return Err(self.damaged("a path holds a zero"));
        }
        Ok(OsString::from_vec(bytes).into())
    }

    fn xattrs(&self, records: &[PaxRecord]) -> Result<Vec<(OsString, Vec<u8>)>, TarError> {
        let mut xattrs = Vec::new();
        let mut bytes = 0;
        for (key, value) in records {
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                bytes += name.len() + value.len();
                LimitError::check("bytes of extended attributes", bytes as u64, self.limits.xattr_bytes as u64)?;
                xattrs.push((name.into(), value.clone()));
            }
        }
        Ok(xattrs)
    }

    /// Fills in what makes `entry` a sparse file, if it is one. Returns its name where that stands apart.
    fn sparse(
        &mut self,
        header: &Header<'_>,
        extensions: &Extensions,
        stored: u64,
        entry: &mut Entry,
    ) -> Result<Option<Vec<u8>>, TarError> {
        let unsound = "the map of a sparse file contradicts itself";
        let (segments, size, name) = if header.kind() == b'S' {
            let (segments, size) = self.gnu_sparse(header)?;
            (segments, size, None)
        } else {
            let Some(sparse) = sparse::from_pax(&extensions.records) else { return Ok(None) };
            let sparse = sparse.ok_or_else(|| self.damaged(unsound))?;
            let size = sparse.real_size.ok_or_else(|| self.damaged("a sparse file has no size"))?;
            let segments = if sparse.map_in_data { self.map_in_data()? } else { sparse.segments };
            (segments, size, sparse.name)
        };
        LimitError::check("stretches of a sparse file", segments.len() as u64, self.limits.sparse_segments as u64)?;
        LimitError::check("bytes of a file", size, self.limits.layer_bytes)?;
        let data = if header.kind() == b'S' { stored } else { self.left };
        if !sparse::is_sound(&segments, size, data) {
            return Err(self.damaged(unsound));
        }
        entry.size = size;
        entry.segments = Some(segments);
        Ok(name)
    }

    fn gnu_sparse(&mut self, header: &Header<'_>) -> Result<(Vec<Segment>, u64), TarError> {
        let broken = "the map of a sparse file is no table of numbers";
        let Some((table, mut more, size)) = header.sparse() else { return Err(self.damaged(broken)) };
        let mut segments = Vec::new();
        sparse::from_table(table, &mut segments).ok_or_else(|| self.damaged(broken))?;
        while more {
            let Some(block) = self.block()? else { return Err(self.damaged("it ends within a sparse file's map")) };
            sparse::from_table(&block[..504], &mut segments).ok_or_else(|| self.damaged(broken))?;
            LimitError::check("stretches of a sparse file", segments.len() as u64, self.limits.sparse_segments as u64)?;
            // Each block that says "more" must bring some, or the loop would be the stream's to end.
            more = block[504] != 0 && block[0] != 0;
        }
        Ok((segments, u64::try_from(size).map_err(|_| self.damaged(broken))?))
    }

    fn map_in_data(&mut self) -> Result<Vec<Segment>, TarError> {
        let limits = self.limits.clone();
        let map = sparse::from_data(&limits, || {
            let mut block = [0; BLOCK];
            self.read_exact(&mut block).map_err(|error| self.failed(error))?;
            Ok::<_, TarError>(block)
        })?;
        map.map(|(segments, _)| segments).ok_or_else(|| self.damaged("the map of a sparse file is no list of numbers"))
    }
}

#[cfg(test)]
mod tests;
