//! Benchmarks against peers: `cargo run -p knoll-bench -- <name> [seconds a run] [rounds]`.
//!
//! Every figure is a ratio measured in one run on one machine, because absolute numbers of a shared machine say
//! little. A missing peer is an error, not a gap.

mod gateway;

use std::process::ExitCode;

const USAGE: &str = "usage: knoll-bench gateway [seconds a run, default 3] [rounds, default 3]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u32| match arguments.get(at) {
        Some(text) => text.parse().ok().filter(|number| *number > 0),
        None => Some(default),
    };
    let (Some("gateway"), Some(seconds), Some(rounds)) =
        (arguments.first().map(String::as_str), number(1, 3), number(2, 3))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match gateway::run(seconds, rounds) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}
