//! Numbers in the text form that Prometheus reads (OpenMetrics 1.0).

use std::fmt;

use knoll_api::metrics::{MetricFamily, MetricKind};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
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
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
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
            MetricFamily::by("queue_keys", "Keys that wait", MetricKind::Gauge, "lane", [("a\"b\n".to_owned(), 2)]),
        ];
        let text = text(ours, vec![MetricFamily::gauge("process_open_fds", "Open files", 7)]);
        for line in [
            "# HELP process_open_fds Open files",
            "process_open_fds 7.0",
            "# TYPE knoll_drive_plans counter",
            "knoll_drive_plans_total 3.0",
            "knoll_queue_keys{lane=\"a\\\"b\\n\"} 2.0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
