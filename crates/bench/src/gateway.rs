//! The warm hop: our gateway, nginx and Envoy in front of the same server, driven by the same wrk.
//!
//! Client, proxy and server share the machine, so requests a second are a measure of what a request costs, not
//! of capacity. Contestants take turns, so that a disturbance hits all; the proxy's own processor time a request
//! stands beside it and hardly feels disturbances.

mod crowd;
mod envoy;
mod nginx;
mod ours;
mod upstream;
mod wrk;

use std::error::Error;
use std::net::SocketAddr;

use wrk::Figures;

use crate::cpu::Whose;
use crate::figures::{Spread, figure};
use crate::require;

/// Data threads of each contestant.
const THREADS: usize = 2;

/// Measures all contestants and tells the ratios; raw figures follow as JSON.
pub(crate) fn run(seconds: u32, rounds: u32) -> Result<String, Box<dyn Error>> {
    require(&["wrk", "nginx"])?;
    let upstream = upstream::start(THREADS)?;
    // First, while no other gateway's threads have the same names.
    let crowd = crowd::run(upstream, THREADS)?;
    let nginx = nginx::Nginx::start(upstream, THREADS)?;
    let envoy = envoy::Envoy::start(upstream, THREADS)?;
    let unlimited = ours::start(upstream, THREADS, 0)?;
    let limited = ours::start(upstream, THREADS, 1000)?;
    let threads = Whose::OwnThreads("gateway-");
    let contestants = [
        Contestant { name: "direct", address: upstream, whose: Whose::Nobodys },
        Contestant { name: NGINX, address: nginx.address, whose: nginx.workers() },
        Contestant { name: ENVOY, address: envoy.address, whose: envoy.process() },
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
    Ok(format!("{crowd}\n{}", tell(&contestants.map(|contestant| contestant.name), &figures)))
}

/// Who is measured.
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    whose: Whose,
}

const NGINX: &str = "nginx";
const ENVOY: &str = "envoy";

fn tell(names: &[&str], figures: &[Vec<Figures>]) -> String {
    let middle =
        |at: usize, of: fn(&Figures) -> f64| Spread::of(&figures[at].iter().map(of).collect::<Vec<_>>()).at(50.0);
    let place = |wanted| names.iter().position(|name| *name == wanted).unwrap_or_default();
    let (nginx, envoy) = (place(NGINX), place(ENVOY));
    let rate = |at| middle(at, |figures| figures.requests_per_second);
    let cost = |at| middle(at, |figures| figures.cpu_micros);
    let mut text = String::from(
        "warm requests, 64 connections       req/s  x nginx  x envoy  CPU us/req  nginx / it   p50 us   p99 us\n",
    );
    for (at, name) in names.iter().enumerate() {
        let (p50, p99) = (middle(at, |figures| figures.p50_micros), middle(at, |figures| figures.p99_micros));
        text.push_str(&format!(
            "{name:<33} {:>7.0} {:>8.2} {:>8.2} {:>11} {:>11} {p50:>8.0} {p99:>8.0}\n",
            rate(at),
            rate(at) / rate(nginx),
            rate(at) / rate(envoy),
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
