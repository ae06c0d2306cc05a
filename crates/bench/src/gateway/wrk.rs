//! Driving a server with wrk, and reading what it says.

use std::error::Error;
use std::net::SocketAddr;
use std::process::Command;

use crate::cpu::Whose;

/// What one run measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: f64,
    /// The proxy's own processor time a request.
    pub(crate) cpu_micros: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

impl Figures {
    /// The figures as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "requests_per_second": self.requests_per_second,
            "cpu_micros": self.cpu_micros,
            "p50_micros": self.p50_micros,
            "p99_micros": self.p99_micros,
        })
    }
}

/// Drives `address` for `seconds` over `connections`. Any failed request fails the run.
pub(crate) fn run(
    address: SocketAddr,
    whose: &Whose,
    seconds: u32,
    connections: u32,
) -> Result<Figures, Box<dyn Error>> {
    let before = whose.micros();
    let output = Command::new("wrk")
        .args(["-t2", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("http://{address}/"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("wrk ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    read(&text, whose.micros() - before).ok_or_else(|| format!("wrk against {address} said:\n{text}").into())
}

fn read(text: &str, cpu_micros: f64) -> Option<Figures> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests: f64 = text
        .lines()
        .find_map(|line| line.split_once(" requests in "))?
        .0
        .trim()
        .parse()
        .ok()
        .filter(|sum| *sum > 0.0)?;
    Some(Figures {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        cpu_micros: cpu_micros / requests,
        p50_micros: micros(after("50%")?)?,
        p99_micros: micros(after("99%")?)?,
    })
}

fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 3s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  589.00us\n     \
        99%    1.90ms\n  300000 requests in 3.00s, 30.00MB read\nRequests/sec: 101543.21\n";

    #[test]
    fn figures_are_read_in_one_unit() {
        let wanted =
            Figures { requests_per_second: 101_543.21, cpu_micros: 10.0, p50_micros: 589.0, p99_micros: 1900.0 };
        assert_eq!(read(SAID, 3e6), Some(wanted));
    }

    #[test]
    fn a_run_with_failures_has_no_figures() {
        assert_eq!(read(&format!("{SAID}  Non-2xx or 3xx responses: 3\n"), 0.0), None);
    }
}
