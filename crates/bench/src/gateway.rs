//! The warm hop: our gateway and nginx in front of the same server, driven by the same wrk.
//!
//! Client, proxy and server share the machine, so requests a second are a measure of what a request costs, not
//! of capacity. Contestants take turns, so that a disturbance hits all; the proxy's own processor time a request
//! stands beside it and hardly feels disturbances.

mod cpu;
mod nginx;
mod ours;
mod upstream;
mod wrk;

use std::error::Error;
use std::net::SocketAddr;

use cpu::Whose;
use wrk::Figures;

/// Data threads of each contestant.
const THREADS: usize = 2;

/// Measures all contestants and tells the ratios; raw figures follow as JSON.
pub(crate) fn run(seconds: u32, rounds: u32) -> Result<String, Box<dyn Error>> {
    require(&["wrk", "nginx"])?;
    let upstream = upstream::start(THREADS)?;
    let nginx = nginx::Nginx::start(upstream, THREADS)?;
    let unlimited = ours::start(upstream, THREADS, 0)?;
    let limited = ours::start(upstream, THREADS, 1000)?;
    let threads = Whose::OwnThreads("gateway-");
    let contestants = [
        Contestant { name: "direct", address: upstream, whose: Whose::Nobodys },
        Contestant { name: NGINX, address: nginx.address, whose: nginx.workers() },
        Contestant { name: "knoll", address: unlimited.address, whose: threads.clone() },
        Contestant { name: "knoll, containerConcurrency 1000", address: limited.address, whose: threads },
    ];
    for contestant in &contestants {
        wrk::run(contestant.address, &contestant.whose, 1, 64)?;
    }
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for (contestant, figures) in contestants.iter().zip(&mut figures) {
            figures.push(wrk::run(contestant.address, &contestant.whose, seconds, 64)?);
        }
    }
    Ok(tell(&contestants.map(|contestant| contestant.name), &figures))
}

/// Who is measured.
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    whose: Whose,
}

const NGINX: &str = "nginx";

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

fn tell(names: &[&str], figures: &[Vec<Figures>]) -> String {
    let middle = |at: usize, of: fn(&Figures) -> f64| median(figures[at].iter().map(of).collect());
    let nginx = names.iter().position(|name| *name == NGINX).unwrap_or_default();
    let rate = |at| middle(at, |figures| figures.requests_per_second);
    let cost = |at| middle(at, |figures| figures.cpu_micros);
    let mut text =
        String::from("contestant                          req/s  x nginx  CPU us/req  nginx / it   p50 us   p99 us\n");
    for (at, name) in names.iter().enumerate() {
        let (p50, p99) = (middle(at, |figures| figures.p50_micros), middle(at, |figures| figures.p99_micros));
        text.push_str(&format!(
            "{name:<33} {:>7.0} {:>8.2} {:>11} {:>11} {p50:>8.0} {p99:>8.0}\n",
            rate(at),
            rate(at) / rate(nginx),
            figure(cost(at)),
            figure(cost(nginx) / cost(at)),
        ));
    }
    let raw: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .zip(figures)
        .map(|(name, runs)| ((*name).to_owned(), runs.iter().map(Figures::to_json).collect()))
        .collect();
    text.push_str(&serde_json::Value::Object(raw).to_string());
    text
}

/// A number, or a dash where there is nothing to measure.
fn figure(value: f64) -> String {
    if value.is_finite() && value > 0.0 { format!("{value:.2}") } else { "-".into() }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
