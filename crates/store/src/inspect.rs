//! Looking at a directory without changing it, and mending one that cannot be opened.

use std::{io, path::Path, sync::Arc};

use knoll_journal::{Disk, DiskFile, Log, Replay};

use crate::{
    Loss, Options, Ownership, Problem, checkpoint,
    claim::{self, claim, ownership},
    codec,
    recovery::{self, LOG, RESERVE_AHEAD},
    salvage::{Salvage, salvage},
    store::OpenError,
};

/// What files are called that were set aside, before a number and their name.
const ASIDE: &str = "damaged-";

/// What a directory holds.
#[derive(Debug)]
pub struct Inspection {
    /// Checkpoints and segments.
    pub files: Vec<String>,
    /// Files that a repair set aside.
    pub aside: Vec<String>,
    /// What is wrong with them, in order.
    pub problems: Vec<Problem>,
    /// Why a store would not open; `None` where it would, and whatever is wrong costs nothing.
    pub refusal: Option<OpenError>,
    /// Revision of what can be read.
    pub revision: u64,
    /// Entries that can be read.
    pub entries: u64,
    /// What would be lost by a repair.
    pub loss: Loss,
}

/// What a repair did.
#[derive(Debug)]
pub struct Repair {
    /// What was lost.
    pub loss: Loss,
    /// Names that the old files have now.
    pub aside: Vec<String>,
    /// Revision at which the store goes on.
    pub revision: u64,
    /// Entries that were saved.
    pub entries: u64,
}

/// Looks at the store in `directory` without changing anything.
///
/// # Errors
/// When it cannot be read, is not ours, or is in use.
pub fn inspect(directory: &Path, options: &Options) -> Result<Inspection, OpenError> {
    let path = || directory.display().to_string();
    let failed = |source| OpenError::Directory { path: path(), source };
    match ownership(directory).map_err(failed)? {
        Ownership::Ours => {}
        Ownership::Newer => return Err(OpenError::Newer),
        Ownership::Empty => return Err(failed(io::ErrorKind::NotFound.into())),
        Ownership::Foreign => return Err(OpenError::Foreign { path: path() }),
    }
    let _lock = claim::hold(directory)?;
    inspect_on(Arc::new(knoll_journal::Directory::new(directory)), options)
}

/// Looks at the store on `disk` without changing anything.
///
/// # Errors
/// When it cannot be read.
pub fn inspect_on(disk: Arc<dyn Disk>, options: &Options) -> Result<Inspection, OpenError> {
    let Salvage { mut state, mut loss, problems, files, .. } = salvage(disk.as_ref())?;
    let names = disk.list().map_err(|source| OpenError::Directory { path: "the store".into(), source })?;
    let unchanged: Arc<dyn Disk> = Arc::new(ReadOnly(disk));
    let refusal = match recovery::recover(&unchanged, options) {
        Ok(recovered) => {
            state = recovered.snapshot;
            loss = Loss::default();
            None
        }
        Err(error) => Some(error),
    };
    let aside = names.into_iter().filter(|name| name.starts_with(ASIDE)).collect();
    let entries = state.map.len() as u64;
    Ok(Inspection { files, aside, problems, refusal, revision: state.revision, entries, loss })
}

/// Makes a store that does not open one that does: what can be read is kept, and the old files are set aside under
/// other names. `None` where there is nothing to repair.
///
/// # Errors
/// When it cannot be read or written, is not ours, or is in use.
pub fn repair(directory: &Path, options: &Options) -> Result<Option<Repair>, OpenError> {
    let (disk, _lock) = claim(directory)?;
    repair_on(&(Arc::new(disk) as Arc<dyn Disk>), options)
}

/// Repairs the store on `disk`, as [`repair`] does.
///
/// # Errors
/// When it cannot be read or written.
pub fn repair_on(disk: &Arc<dyn Disk>, options: &Options) -> Result<Option<Repair>, OpenError> {
    let unchanged: Arc<dyn Disk> = Arc::new(ReadOnly(disk.clone()));
    if recovery::recover(&unchanged, options).is_ok() {
        return Ok(None);
    }
    let Salvage { mut state, unused, loss, files, last_segment, .. } = salvage(disk.as_ref())?;
    let failed = |path: &str| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    // Nobody who has seen anything of before may go on from there.
    state.revision = unused;
    let name = checkpoint::file_name(unused);
    checkpoint::write(disk.as_ref(), &state).map_err(failed(&name))?;
    // Here the directory opens again, but for the old segments, which nothing reads once there is a newer one.
    let head = codec::head(unused, unused + RESERVE_AHEAD, &options.boot_id);
    Log::open(disk.clone(), LOG, options.log, last_segment + 1, &head, &mut Nothing)?;
    let names = disk.list().map_err(failed("the store"))?;
    let number = 1 + names.iter().filter_map(|name| number_aside(name)).max().unwrap_or_default();
    let mut aside = Vec::new();
    for file in files {
        let named = format!("{ASIDE}{number}-{file}");
        disk.rename(&file, &named).map_err(failed(&file))?;
        aside.push(named);
    }
    disk.sync_dir().map_err(failed("the store"))?;
    Ok(Some(Repair { loss, aside, revision: state.revision, entries: state.map.len() as u64 }))
}

fn number_aside(name: &str) -> Option<u64> {
    name.strip_prefix(ASIDE)?.split('-').next()?.parse().ok()
}

/// A log without segments has nothing to replay.
struct Nothing;

impl Replay for Nothing {
    fn record(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn same_run(&self) -> bool {
        true
    }
}

/// A disk on which nothing changes.
struct ReadOnly(Arc<dyn Disk>);

struct NoFile;

impl DiskFile for NoFile {
    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn make_room(&mut self, _: usize) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for ReadOnly {
    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(NoFile))
    }

    fn append_to(&self, _: &str, _: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(NoFile))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.0.read(name)
    }

    fn read_at(&self, name: &str, from: u64, most: usize) -> io::Result<Vec<u8>> {
        self.0.read_at(name, from, most)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}
