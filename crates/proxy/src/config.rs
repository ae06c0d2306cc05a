//! Settings of a gateway, and their checks.

use std::time::Duration;

use thiserror::Error;

/// Files of a process that are not the gateway's: connections of the API server, registry and DNS, and the store's.
const OTHER_FILES: u64 = 8192;

/// Bounds and times of a gateway. Start from [`Config::default`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data threads, 1 to 1024. The default is one a core.
    pub threads: usize,
    /// Most client connections at a time; more are answered 503 and closed.
    pub max_connections: usize,
    /// Most client connections of one address at a time (of one /64 for IPv6); more are answered 503 and closed. A
    /// quarter of all by default, so that no single client takes the gateway from the others; a load balancer in
    /// front counts as one client.
    pub max_connections_per_address: usize,
    /// Most requests in the system at a time, running, waiting or upgraded; more are answered 503.
    pub max_requests: usize,
    /// Most time for a request's head to arrive, and for a kept-alive connection to stay without a request.
    pub header_read_timeout: Duration,
    /// Most time a client may take nothing while something waits for it; then its connection is closed.
    pub client_write_timeout: Duration,
    /// Most bytes of a request's head (at least 8 KiB); larger ones are answered 431.
    pub max_header_bytes: usize,
    /// Most bytes of a request's body; larger ones are answered 413. `None` is unlimited.
    pub max_body_bytes: Option<u64>,
    /// Most requests at a time on one HTTP/2 client connection.
    pub max_streams: u32,
    /// Most requests that wait for one revision; more are answered 503.
    pub queue_depth: usize,
    /// What `Retry-After` says with a 503.
    pub retry_after: Duration,
    /// Most time for a connection to an instance to open.
    pub connect_timeout: Duration,
    /// Most instances tried for a request while none could be reached, at least 1.
    pub connect_attempts: u32,
    /// Most idle HTTP/1.1 connections kept to one instance by each thread.
    pub idle_per_instance: usize,
    /// How long an idle connection to an instance is kept. Below the keep-alive time of common servers
    /// (5 s), so that they seldom close one that is about to be used.
    pub idle_timeout: Duration,
    /// Most requests at a time on one HTTP/2 connection to an instance before another is opened.
    pub streams_per_connection: usize,
    /// Capacity of the channel of revisions to wake. A full channel is tried again each stats period.
    pub wake_capacity: usize,
    /// Capacity of the channel of reports. When it is full the oldest unread reports stay and the new one is
    /// dropped.
    pub stats_capacity: usize,
    /// Length of a reporting period.
    pub stats_period: Duration,
    /// How many proxies stand between outside clients and the gateway. As many of the last entries of
    /// `X-Forwarded-For` and `Forwarded` are kept, and with any the other `X-Forwarded-*`; what comes before is the
    /// client's own word and dropped. With none all of them are replaced.
    pub trusted_hops: u32,
    /// Most requests that wait for the first table after a start, when no host is known yet; more are answered 503.
    pub early_requests: usize,
    /// Most time a request waits for the first table; then it is answered 503.
    pub early_timeout: Duration,
    /// How long a connection without a request stays open once the gateway drains: a request may be on its way to it.
    pub drain_linger: Duration,
    /// Domain of the cluster, for names like `<service>.<namespace>.svc.<domain>`.
    pub cluster_domain: String,
}

impl Config {
    /// The defaults, with no more connections than `open_files` has room for: a request may need one to an instance, too, and
    /// what else is in the process needs files of its own.
    pub fn within(open_files: u64) -> Self {
        let default = Self::default();
        let room = open_files.saturating_sub(OTHER_FILES).max(open_files / 4) / 2;
        let max_connections = default.max_connections.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1);
        Self {
            max_connections,
            max_connections_per_address: default.max_connections_per_address.min(max_connections.div_ceil(4)),
            ..default
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            max_connections: 65_536,
            max_connections_per_address: 16_384,
            max_requests: 131_072,
            header_read_timeout: Duration::from_secs(60),
            client_write_timeout: Duration::from_secs(60),
            max_header_bytes: 64 * 1024,
            max_body_bytes: None,
            max_streams: 250,
            queue_depth: knoll_scale::throttle::QUEUE_DEPTH,
            retry_after: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            connect_attempts: 6,
            idle_per_instance: 256,
            idle_timeout: Duration::from_secs(4),
            streams_per_connection: 100,
            wake_capacity: 4096,
            stats_capacity: 8,
            stats_period: Duration::from_secs(1),
            trusted_hops: 0,
            early_requests: knoll_scale::throttle::QUEUE_DEPTH,
            early_timeout: Duration::from_secs(30),
            drain_linger: Duration::from_millis(500),
            cluster_domain: "cluster.local".into(),
        }
    }
}

/// Why a [`Config`] is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field} must be {wanted}")]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// What it must be.
    pub wanted: &'static str,
}

impl Config {
    /// Checks all bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = "greater than zero";
        let rules = [
            ("threads", (1..=1024).contains(&self.threads), "1 to 1024"),
            ("max_connections", self.max_connections > 0, positive),
            ("max_connections_per_address", self.max_connections_per_address > 0, positive),
            ("max_requests", self.max_requests >= self.threads, "at least one for each thread"),
            ("client_write_timeout", !self.client_write_timeout.is_zero(), positive),
            ("early_requests", self.early_requests > 0, positive),
            ("early_timeout", !self.early_timeout.is_zero(), positive),
            ("header_read_timeout", !self.header_read_timeout.is_zero(), positive),
            (
                "max_header_bytes",
                (8192..=16 * 1024 * 1024).contains(&self.max_header_bytes),
                "between 8 KiB and 16 MiB",
            ),
            ("max_streams", self.max_streams > 0, positive),
            ("queue_depth", self.queue_depth > 0, positive),
            ("connect_timeout", !self.connect_timeout.is_zero(), positive),
            ("connect_attempts", self.connect_attempts > 0, positive),
            ("idle_timeout", !self.idle_timeout.is_zero(), positive),
            ("streams_per_connection", self.streams_per_connection > 0, positive),
            ("wake_capacity", self.wake_capacity > 0, positive),
            ("stats_capacity", self.stats_capacity > 0, positive),
            ("stats_period", self.stats_period >= Duration::from_millis(10), "at least 10 ms"),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, wanted)) => Err(ConfigError { field, wanted }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn the_default_is_valid() {
        Config::default().validate().expect("default is valid");
    }

    #[test]
    fn where_few_files_may_be_open_connections_leave_room_for_the_rest() {
        assert_eq!(Config::within(1 << 20), Config::default());
        for files in [256, 1024, 20_000, 65_536] {
            let config = Config::within(files);
            config.validate().expect("is valid");
            assert!(2 * config.max_connections as u64 <= files * 9 / 10, "{files}: {config:?}");
            assert!(config.max_connections_per_address < config.max_connections);
        }
    }

    #[test]
    fn a_zero_bound_is_named() {
        let refused = Config { queue_depth: 0, ..Config::default() }.validate().expect_err("no queue");
        assert_eq!(refused.to_string(), "queue_depth must be greater than zero");
        Config { threads: 0, ..Config::default() }.validate().expect_err("no threads");
        Config { max_header_bytes: 10, ..Config::default() }.validate().expect_err("tiny heads");
    }
}
