//! Every parser that meets a stranger, as a target for fuzzing.
//!
//! A [`Target`] takes any bytes and panics when a promise does not hold: what is read stays within its bounds, what is
//! written reads back, what must not be touched is not, and where there is a second implementation both say the same.
//! Each has *seeds* in `corpus/<name>`: ordinary input, the shapes of published attacks, and whatever once broke it.
//!
//! `cargo test` runs each over its seeds and a fixed number of variations of them ([`variations`]). `scripts/fuzz` runs
//! the same functions under libFuzzer, guided by which branches of our crates the input reaches, for as long as one
//! likes.

mod targets;
pub mod variations;

use std::{fs, io, path::PathBuf};

pub use targets::TARGETS;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name; that of its folder of seeds, too.
    pub name: &'static str,
    /// Variations of its seeds that an ordinary test tries.
    pub cases: u32,
    /// Pieces that its language is made of.
    pub words: &'static [&'static str],
    /// Reads the input. Panics when a promise does not hold.
    pub check: fn(&[u8]),
}

impl Target {
    /// Where its seeds are.
    pub fn corpus(&self) -> PathBuf {
        // Cargo says it anew to what it runs: the one baked in may be another checkout's, built into the same cache.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        PathBuf::from(here).join("corpus").join(self.name)
    }

    /// Its seeds, by file name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn seeds(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut seeds = Vec::new();
        for entry in fs::read_dir(self.corpus())? {
            let entry = entry?;
            seeds.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
        seeds.sort();
        Ok(seeds)
    }

    /// Its words as a dictionary of libFuzzer.
    pub fn dictionary(&self) -> String {
        let escaped = |word: &&str| {
            let bytes = word.bytes().map(|byte| match byte {
                b'"' | b'\\' | 0..0x20 | 0x7f.. => format!("\\x{byte:02X}"),
                byte => char::from(byte).to_string(),
            });
            format!("\"{}\"\n", bytes.collect::<String>())
        };
        self.words.iter().map(escaped).collect()
    }
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
