//! Numbers in the text form that Prometheus reads (OpenMetrics 1.0).

use std::fmt;

use knoll_api::metrics::{MetricFamily, MetricKind};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// What the answer is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Readings of one moment.
#[derive(Debug)]
struct Readings(Vec<MetricFamily>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in &self.0 {
            let kind = match metric.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
            };
            let (name, unit) = split(metric.name);
            let mut family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
            for sample in &metric.samples {
                let one = family.encode_family(&sample.labels)?;
                match metric.kind {
                    MetricKind::Counter => ConstCounter::new(sample.value).encode(one)?,
                    MetricKind::Gauge => ConstGauge::new(sample.value).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

/// A name without its unit, and the unit, which stands last in names that have one.
fn split(name: &str) -> (&str, Option<Unit>) {
    let of = |unit: &Unit| name.strip_suffix(unit.as_str())?.strip_suffix('_');
    let found = [Unit::Bytes, Unit::Seconds].into_iter().find_map(|unit| Some((of(&unit)?, Some(unit))));
    found.unwrap_or((name, None))
}

/// The readings as text: ours below `knoll_`, those about the process under the names every exporter gives them.
pub(super) fn text(ours: Vec<MetricFamily>, process: Vec<MetricFamily>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Readings(process)));
    registry.sub_registry_with_prefix("knoll").register_collector(Box::new(Readings(ours)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_told_with_help_and_labels_escaped() {
        let ours = vec![
            MetricFamily::counter("drive_plans", "Keys planned", 3),
            MetricFamily::counter("pauses_seconds", "Time that was waited", 4),
            MetricFamily::by("queue_keys", "Keys that wait", MetricKind::Gauge, "lane", [("a\"b\n".to_owned(), 2)]),
        ];
        let process = vec![
            MetricFamily::gauge("process_open_fds", "Open files", 7),
            MetricFamily::gauge("process_size_bytes", "Size", 8),
        ];
        let text = text(ours, process);
        for line in [
            "# HELP process_open_fds Open files",
            "process_open_fds 7.0",
            "# TYPE process_size_bytes gauge",
            "# UNIT process_size_bytes bytes",
            "process_size_bytes 8.0",
            "# TYPE knoll_pauses_seconds counter",
            "# UNIT knoll_pauses_seconds seconds",
            "knoll_pauses_seconds_total 4.0",
            "# TYPE knoll_drive_plans counter",
            "knoll_drive_plans_total 3.0",
            "knoll_queue_keys{lane=\"a\\\"b\\n\"} 2.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
