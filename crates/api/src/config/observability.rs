//! `config-observability`.

use std::time::Duration;

use super::{ConfigError, Data, ensure, read::Reader};
use crate::template::Template;

/// How metrics leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsProtocol {
    /// They do not.
    #[default]
    None,
    /// They are fetched.
    Prometheus,
    /// OpenTelemetry over http.
    HttpProtobuf,
    /// OpenTelemetry over gRPC.
    Grpc,
}

/// How traces leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TracingProtocol {
    /// They do not.
    #[default]
    None,
    /// They are printed.
    Stdout,
    /// OpenTelemetry over http.
    HttpProtobuf,
    /// OpenTelemetry over gRPC.
    Grpc,
}

/// Where metrics go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// How they leave.
    pub protocol: MetricsProtocol,
    /// Where to; with Prometheus, where it is served.
    pub endpoint: String,
    /// Time between two exports; zero is the exporter's own.
    pub export_interval: Duration,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tracing {
    /// How they leave.
    pub protocol: TracingProtocol,
    /// Where to.
    pub endpoint: String,
    /// Share of traces that are kept, 0 to 1.
    pub sampling_rate: f64,
}

/// What is logged, measured and traced.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservabilityConfig {
    /// Metrics of the control plane.
    pub metrics: MetricsConfig,
    /// Metrics of requests.
    pub request_metrics: MetricsConfig,
    /// Traces.
    pub tracing: Tracing,
    /// Whether profiles are served.
    pub runtime_profiling: bool,
    /// Time between two looks at the runtime.
    pub runtime_export_interval: Duration,
    /// Whether user containers get a volume at `/var/log`.
    pub enable_var_log_collection: bool,
    /// `status.logUrl` with `${REVISION_UID}`; empty for none.
    pub revision_url_template: String,
    /// One line of the request log; `None` logs nothing.
    pub request_log_template: Option<Template>,
    /// Whether requests are logged.
    pub enable_request_log: bool,
    /// Whether probes are logged too.
    pub enable_probe_request_log: bool,
}

const REQUEST_LOG: &str = concat!(
    r#"{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", "#,
    r#""requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "#,
    r#""responseSize": "{{.Response.Size}}", "userAgent": "{{js .Request.UserAgent}}", "#,
    r#""remoteIp": "{{js .Request.RemoteAddr}}", "serverIp": "{{.Revision.PodIP}}", "#,
    r#""referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", "#,
    r#""protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}"#,
);

impl Default for ObservabilityConfig {
    fn default() -> Self {
        ObservabilityConfig {
            metrics: MetricsConfig::default(),
            request_metrics: MetricsConfig::default(),
            tracing: Tracing::default(),
            runtime_profiling: false,
            runtime_export_interval: Duration::from_secs(15),
            enable_var_log_collection: false,
            revision_url_template: String::new(),
            request_log_template: Some(Template::parse(REQUEST_LOG).expect("the default template parses")),
            enable_request_log: false,
            enable_probe_request_log: false,
        }
    }
}

impl ObservabilityConfig {
    /// Parses the map.
    ///
    /// # Errors
    /// When a value cannot be read or breaks a rule.
    pub fn parse(data: &Data) -> Result<ObservabilityConfig, ConfigError> {
        let read = Reader(data);
        let enable_request_log = read.bool(&["logging.enable-request-log"], false)?;
        let key = "logging.request-log-template";
        let source = read.text(&[key], REQUEST_LOG);
        ensure!(
            !(enable_request_log && source.is_empty()),
            "\"logging.enable-request-log\" was set to true, but no {key:?} was specified"
        );
        let template = Template::parse(&source).map_err(|e| ConfigError::value(key, e))?;
        Ok(ObservabilityConfig {
            metrics: metrics(&read, "")?,
            request_metrics: metrics(&read, "request-")?,
            tracing: tracing(&read)?,
            runtime_profiling: match read.raw(&["runtime-profiling"]).unwrap_or("disabled").trim() {
                "enabled" => true,
                "disabled" => false,
                other => return Err(ConfigError::Rule(format!("unsupported profile setting {other:?}"))),
            },
            runtime_export_interval: read.span(&["runtime-export-interval"], Duration::from_secs(15))?,
            enable_var_log_collection: read.bool(&["logging.enable-var-log-collection"], false)?,
            revision_url_template: read.text(&["logging.revision-url-template"], ""),
            request_log_template: (!source.is_empty()).then_some(template),
            enable_request_log,
            enable_probe_request_log: read.bool(&["logging.enable-probe-request-log"], false)?,
        })
    }
}

fn metrics(read: &Reader<'_>, prefix: &str) -> Result<MetricsConfig, ConfigError> {
    let name = read.text(&[&format!("{prefix}metrics-protocol")], "none");
    let endpoint = read.text(&[&format!("{prefix}metrics-endpoint")], "");
    let protocol = match name.as_str() {
        "none" => MetricsProtocol::None,
        "prometheus" => MetricsProtocol::Prometheus,
        "http/protobuf" => MetricsProtocol::HttpProtobuf,
        "grpc" => MetricsProtocol::Grpc,
        _ => return Err(ConfigError::Rule(format!("unsupported protocol {name:?}"))),
    };
    match protocol {
        MetricsProtocol::None => {
            ensure!(endpoint.is_empty(), "endpoint should not be set when protocol is {name:?}");
        }
        MetricsProtocol::HttpProtobuf | MetricsProtocol::Grpc => {
            ensure!(!endpoint.is_empty(), "endpoint should be set when protocol is {name:?}");
        }
        MetricsProtocol::Prometheus => {}
    }
    let export_interval = read.span(&[&format!("{prefix}metrics-export-interval")], Duration::ZERO)?;
    Ok(MetricsConfig { protocol, endpoint, export_interval })
}

fn tracing(read: &Reader<'_>) -> Result<Tracing, ConfigError> {
    let name = read.text(&["tracing-protocol"], "none");
    let endpoint = read.text(&["tracing-endpoint"], "");
    let protocol = match name.as_str() {
        "none" => TracingProtocol::None,
        "stdout" => TracingProtocol::Stdout,
        "http/protobuf" => TracingProtocol::HttpProtobuf,
        "grpc" => TracingProtocol::Grpc,
        _ => return Err(ConfigError::Rule(format!("unsupported protocol {name:?}"))),
    };
    match protocol {
        TracingProtocol::None | TracingProtocol::Stdout => {
            ensure!(endpoint.is_empty(), "endpoint should not be set when protocol is 'none'");
        }
        TracingProtocol::HttpProtobuf | TracingProtocol::Grpc => {
            ensure!(!endpoint.is_empty(), "endpoint should be set for protocol {name:?}");
        }
    }
    let sampling_rate = read.float(&["tracing-sampling-rate"], 0.0)?;
    ensure!(sampling_rate >= 0.0, "sampling rate {sampling_rate:.6} should be greater or equal to zero");
    ensure!(sampling_rate <= 1.0, "sampling rate {sampling_rate:.6} should be less than or equal to one");
    Ok(Tracing { protocol, endpoint, sampling_rate })
}
