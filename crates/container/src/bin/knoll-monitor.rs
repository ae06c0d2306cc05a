//! The monitor as a program of its own, for tests and benchmarks: `knoll-monitor --options <json>`.

use std::process::ExitCode;

use knoll_container::launch::Options;
use knoll_container::monitor;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let options = match (args.next().as_deref(), args.next()) {
        (Some("--options"), Some(json)) => serde_json::from_str::<Options>(&json).map_err(|error| error.to_string()),
        _ => Err("usage: knoll-monitor --options <json>".to_owned()),
    };
    match options.and_then(|options| monitor::run(&options).map_err(|error| format!("{error}: {error:?}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
