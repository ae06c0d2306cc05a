//! Benchmarks against peers: `scripts/bench [name] [size]`, which prepares what `cargo run -p knoll-bench` needs.
//!
//! Every figure stands beside a peer or a measure of the machine taken in the same run, because absolute numbers of
//! a shared machine say little. A missing peer is an error, not a gap.

mod api;
mod backlog;
mod brokers;
mod client;
mod cold_start;
mod cpu;
mod delivery;
mod events;
mod fan_out;
mod figures;
mod filters;
mod gateway;
mod idle;
mod idle_brokers;
mod ingest;
mod instance;
mod memory;
mod peer;
mod plain_file;
mod ready;
mod request;
mod rest;
mod runc;
mod senders;
mod services;
mod sink;
mod up;
mod wake_burst;

use std::error::Error;
use std::process::ExitCode;

const USAGE: &str = "usage: knoll-bench cold-start [samples, default 20]
       knoll-bench gateway [seconds a run, default 3]
       knoll-bench api [seconds, default 5]
       knoll-bench up [rounds, default 5]
       knoll-bench memory
       knoll-bench idle [services, default 10000]
       knoll-bench wake-burst [services, default 100]
       knoll-bench events [thousand events of the backlog, default 1000]
       knoll-bench filters [triggers, default 10000]
       knoll-bench ingest [seconds a run, default 2]
       knoll-bench delivery [events, default 1000]
       knoll-bench fan-out [thousand deliveries a run, default 20]
       knoll-bench idle-brokers [brokers, default 1000]
       knoll-bench backlog [thousand events, default 1000]
       knoll-bench all
set KNOLL to the program, KNOLL_BENCH_IMAGE to the sample's archive, KNOLL_BENCH_ENVOY to Envoy, KNOLL_BENCH_NATS to where
nats-server and nats-flood are; scripts/bench does";

/// Rounds in which the gateway and its peers take turns.
const ROUNDS: u32 = 3;
const ALL: [&str; 14] = [
    "cold-start",
    "wake-burst",
    "gateway",
    "api",
    "up",
    "memory",
    "idle",
    "events",
    "filters",
    "ingest",
    "delivery",
    "fan-out",
    "idle-brokers",
    "backlog",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, path] = &arguments[..]
        && name == events::REOPEN
    {
        return told(name, events::reopen(path.as_ref()));
    }
    if let [name, how @ ..] = &arguments[..]
        && name == peer::PEER
    {
        return told(name, peer::run(how));
    }
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let size = match arguments.get(1).map(|text| text.parse::<u32>()) {
        None => None,
        Some(Ok(size)) if size > 0 && arguments.len() == 2 && name != "all" => Some(size),
        Some(_) => return misused(),
    };
    let names = if name == "all" { &ALL[..] } else { &[name] };
    if names.iter().any(|name| !ALL.contains(name)) {
        return misused();
    }
    for name in names {
        if told(name, measure(name, size)) == ExitCode::FAILURE {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Prints what came of a benchmark.
fn told(name: &str, report: Result<String, Box<dyn Error>>) -> ExitCode {
    match report {
        Ok(report) => {
            println!("{report}\n");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("benchmark {name} failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(64)
}

fn measure(name: &str, size: Option<u32>) -> Result<String, Box<dyn Error>> {
    match name {
        "cold-start" => cold_start::run(size.unwrap_or(20).try_into()?),
        "wake-burst" => wake_burst::run(size.unwrap_or(100).try_into()?),
        "gateway" => gateway::run(size.unwrap_or(3), ROUNDS),
        "api" => api::run(size.unwrap_or(5)),
        "up" => up::run(size.unwrap_or(5)),
        "events" => events::run(size.unwrap_or(1000).try_into()?),
        "filters" => filters::run(size.unwrap_or(10_000).into()),
        "ingest" => ingest::run(size.unwrap_or(2)),
        "delivery" => delivery::run(size.unwrap_or(1000).try_into()?),
        "fan-out" => fan_out::run(size.unwrap_or(20).try_into()?),
        "idle-brokers" => idle_brokers::run(size.unwrap_or(1000).try_into()?),
        "backlog" => backlog::run(size.unwrap_or(1000).try_into()?),
        "idle" => idle::run(size.unwrap_or(10_000).try_into()?),
        _ => memory::run(),
    }
}

/// Fails unless all of these programs are found.
fn require(programs: &[&str]) -> Result<(), Box<dyn Error>> {
    for program in programs {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
        if !found {
            return Err(format!("{program} is missing; install it with `apt-get install {program}`").into());
        }
    }
    Ok(())
}

/// Runs `work` to its end.
fn block_on<T>(work: impl Future<Output = Result<T, Box<dyn Error>>>) -> Result<T, Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}
