//! The log of an instance in the background: a file that is put aside when it is long, so that a year of it, or a
//! tenant's noise, fills no disk.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::private;

/// Longest log, bytes. The one that was put aside last may be as long.
const LONGEST: u64 = 64 << 20;

/// A log file that does not grow for ever.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    longest: u64,
    /// Has whatever else this process prints go to a new file, too.
    redirect: fn(&File) -> io::Result<()>,
}

impl LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length > 0 && self.length.saturating_add(bytes.len() as u64) > self.longest {
            // When that cannot be done it is tried again half a log later.
            self.length = self.longest / 2;
            if let Err(error) = self.begin_anew() {
                writeln!(self.file, "cannot put {} aside: {error}", self.path.display()).ok();
            }
        }
        let written = self.file.write(bytes)?;
        self.length = self.length.saturating_add(written as u64);
        Ok(written)
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let old = self.path.with_extension("log.old");
        match fs::rename(&self.path, &old) {
            // Somebody removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let begun = private::append(&self.path).and_then(|file| (self.redirect)(&file).map(|()| file));
        let file = begun.inspect_err(|_| {
            // It goes on where it was.
            fs::rename(&old, &self.path).ok();
        })?;
        (self.file, self.length) = (file, 0);
        Ok(())
    }
}

/// Where lines of the log go.
#[derive(Clone)]
pub(crate) enum Lines {
    /// To standard error, whatever that is.
    StandardError,
    /// To the file that standard error is.
    File(Arc<Mutex<LogFile>>),
}

impl Lines {
    /// Where the lines of a process go whose log may be at `path`.
    pub(crate) fn of(path: &Path) -> Lines {
        let place = |path: &Path| fs::metadata(path).map(|at| (at.dev(), at.ino()));
        let is_stderr = place(path).is_ok_and(|ours| place(Path::new("/proc/self/fd/2")).is_ok_and(|to| to == ours));
        let ours = is_stderr.then(|| private::append(path).and_then(|file| Ok((file.metadata()?.len(), file))));
        let Some(Ok((length, file))) = ours else { return Lines::StandardError };
        let log = LogFile { path: path.to_owned(), file, length, longest: LONGEST, redirect };
        Lines::File(Arc::new(Mutex::new(log)))
    }
}

fn redirect(file: &File) -> io::Result<()> {
    nix::unistd::dup2_stdout(file)?;
    Ok(nix::unistd::dup2_stderr(file)?)
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Lines::StandardError => io::stderr().write(bytes),
            Lines::File(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_aside_when_it_is_long_and_no_line_is_torn() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("knoll.log");
        fs::write(&path, "from before\n").expect("writes");
        let file = private::append(&path).expect("opens");
        let mut log = LogFile { path: path.clone(), file, length: 12, longest: 100, redirect: |_| Ok(()) };
        for number in 0..1000 {
            let line = format!("line {number}\n");
            assert_eq!(log.write(line.as_bytes()).expect("writes"), line.len());
        }
        let mut kept = String::new();
        for path in [path.with_extension("log.old"), path] {
            let text = fs::read_to_string(path).expect("is there");
            assert!(text.len() <= 100 && text.ends_with('\n'));
            kept += &text;
        }
        assert!(kept.ends_with("line 998\nline 999\n") && kept.lines().all(|line| line.starts_with("line ")));
        assert_eq!(fs::read_dir(scratch.path()).expect("is there").count(), 2);
    }

    #[test]
    fn a_log_that_could_not_be_begun_anew_loses_no_line_and_is_begun_later() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("knoll.log");
        let file = private::append(&path).expect("opens");
        let mut log = LogFile {
            path: path.clone(),
            file,
            length: 0,
            longest: 100,
            redirect: |_| Err(io::ErrorKind::Other.into()),
        };
        for number in 0..20 {
            log.write(format!("line {number:02}\n").as_bytes()).expect("writes");
        }
        let kept = fs::read_to_string(&path).expect("is there");
        assert!(kept.contains("cannot put"), "{kept}");
        let lines: Vec<&str> = kept.lines().filter(|line| line.starts_with("line ")).collect();
        assert_eq!(lines, (0..20).map(|number| format!("line {number:02}")).collect::<Vec<_>>());
        log.redirect = |_| Ok(());
        let old = path.with_extension("log.old");
        while !old.exists() {
            log.write(b"more\n").expect("writes");
        }
        assert!(fs::read_to_string(old).expect("is there").starts_with(&kept));
    }

    #[test]
    fn a_process_whose_log_is_elsewhere_writes_to_standard_error() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("knoll.log");
        fs::write(&path, "").expect("writes");
        assert!(matches!(Lines::of(&path), Lines::StandardError));
        assert!(matches!(Lines::of(&scratch.path().join("absent/knoll.log")), Lines::StandardError));
    }
}
