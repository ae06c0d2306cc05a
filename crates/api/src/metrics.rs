//! What a part of the program tells about itself in numbers, for whoever exports them.

/// How a number moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Numbers of one meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricFamily {
    /// In Prometheus' form without the program's prefix, its unit last: `gateway_queue_depth`, `store_log_bytes`. A
    /// counter's `_total` is the exporter's affair.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// The numbers, told apart by their labels.
    pub samples: Vec<Sample>,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values. Bounded sets only: no object's name but a revision's, no error's text.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: f64,
}

impl MetricFamily {
    /// One number that only grows.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::plain(name, help, MetricKind::Counter, to_float(value))
    }

    /// One number that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::plain(name, help, MetricKind::Gauge, to_float(value))
    }

    /// Numbers told apart by one label.
    pub fn by(
        name: &'static str,
        help: &'static str,
        kind: MetricKind,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> Self {
        let samples = values.into_iter();
        let samples = samples.map(|(of, value)| Sample { labels: vec![(label, of)], value: to_float(value) }).collect();
        Self { name, help, kind, samples }
    }

    fn plain(name: &'static str, help: &'static str, kind: MetricKind, value: f64) -> Self {
        Self { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
    }
}

/// Exact up to 2⁵³, which no count of ours reaches.
#[expect(clippy::cast_precision_loss, reason = "counts stay below 2⁵³")]
fn to_float(value: u64) -> f64 {
    value as f64
}
