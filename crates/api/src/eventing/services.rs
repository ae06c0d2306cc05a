//! Names that addresses of Eventing are made of: the Services that take events, and the Secrets of the certificates that
//! they present. Controllers write addresses with them and the data plane reads addresses by them.

/// Takes the events of every Broker: `/<namespace>/<name>`.
pub const BROKER_INGRESS: &str = "broker-ingress";
/// Certificate of [`BROKER_INGRESS`].
pub const BROKER_INGRESS_SECRET: &str = "mt-broker-ingress-server-tls";
/// Takes the events of every InMemoryChannel: `/<namespace>/<name>`, or by the name of the channel's own Service.
pub const CHANNEL_DISPATCHER: &str = "imc-dispatcher";
/// Certificate of [`CHANNEL_DISPATCHER`].
pub const CHANNEL_DISPATCHER_SECRET: &str = "imc-dispatcher-server-tls";
/// What a channel's own Service is called after the channel.
pub const CHANNEL_SUFFIX: &str = "-kn-channel";
/// Takes the events of every JobSink: `/<namespace>/<name>`.
pub const JOB_SINK: &str = "job-sink";
/// Certificate of [`JOB_SINK`].
pub const JOB_SINK_SECRET: &str = "job-sink-server-tls";
/// Takes the requests of every RequestReply, `/<namespace>/<name>`, and the answers to them, `/<namespace>/<name>/reply`.
pub const REQUEST_REPLY: &str = "request-reply";
/// Certificate of [`REQUEST_REPLY`].
pub const REQUEST_REPLY_SECRET: &str = "request-reply-server-tls";
/// Takes the events of every IntegrationSink: `/<namespace>/<name>`, or by the name of the sink's own Service. Upstream runs
/// a pod for each.
pub const INTEGRATION_SINK: &str = "integration-sink";
/// What an IntegrationSink's own Service is called after the sink.
pub const INTEGRATION_SINK_SUFFIX: &str = "-deployment";
/// Certificate of [`INTEGRATION_SINK`]. Upstream has one for each sink.
pub const INTEGRATION_SINK_SECRET: &str = "integration-sink-server-tls";

/// Services that present a certificate of their own name, and the Secret of each.
pub const CERTIFICATES: [(&str, &str); 5] = [
    (BROKER_INGRESS, BROKER_INGRESS_SECRET),
    (CHANNEL_DISPATCHER, CHANNEL_DISPATCHER_SECRET),
    (REQUEST_REPLY, REQUEST_REPLY_SECRET),
    (JOB_SINK, JOB_SINK_SECRET),
    (INTEGRATION_SINK, INTEGRATION_SINK_SECRET),
];
