//! Chores of the repository: `xtask tidy` checks its rules, `xtask image` packs files into an image.

mod image;
mod modules;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match words.next().as_deref() {
        Some("tidy") => tidy::run(),
        Some("image") => image::run(&words.collect::<Vec<_>>()),
        _ => Err("usage: xtask tidy | xtask image --help".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
