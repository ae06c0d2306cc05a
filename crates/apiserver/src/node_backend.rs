//! What the server asks of the machine that runs a pod.

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio::sync::mpsc;

use crate::status::Status;

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// uid of the pod.
    pub uid: String,
    /// Name of the container.
    pub container: String,
}

/// Which output is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Whose.
    pub target: ContainerRef,
    /// Go on until the container ends.
    pub follow: bool,
    /// Of the container before this one.
    pub previous: bool,
    /// Put RFC 3339 time before each line.
    pub timestamps: bool,
    /// Last lines only.
    pub tail_lines: Option<u64>,
    /// Lines since that long ago, in seconds.
    pub since_seconds: Option<u64>,
    /// Lines since then.
    pub since_time: Option<jiff::Timestamp>,
    /// Stop after that many bytes.
    pub limit_bytes: Option<u64>,
    /// `All`, `Stdout` or `Stderr`.
    pub stream: String,
}

/// A command to run, or (without one) streams to attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where.
    pub target: ContainerRef,
    /// Program and arguments; empty to attach.
    pub command: Vec<String>,
    /// Whether input is sent.
    pub stdin: bool,
    /// Whether output is wanted.
    pub stdout: bool,
    /// Whether error output is wanted.
    pub stderr: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// What comes from the client of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for its input.
    Stdin(Bytes),
    /// Its input ends.
    CloseStdin,
    /// The terminal has this size now.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What comes from a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its output.
    Stdout(Bytes),
    /// Bytes of its error output.
    Stderr(Bytes),
    /// It ended; the last item.
    Exit(i32),
}

/// A running command. Dropping it ends the command.
pub struct ExecStreams {
    /// To the command.
    pub input: mpsc::Sender<ExecInput>,
    /// From the command.
    pub output: mpsc::Receiver<ExecOutput>,
}

/// A connection to a port of a pod.
pub type PortStream = Box<dyn PortIo>;

/// Bytes both ways.
pub trait PortIo: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> PortIo for T {}

/// The machine that runs pods.
pub trait NodeBackend: Send + Sync + 'static {
    /// A container's output.
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>>;

    /// Runs a command, or attaches.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>>;

    /// Connects to a port inside the pod's network; `container` is empty.
    fn connect(&self, pod: ContainerRef, port: u16) -> BoxFuture<'_, Result<PortStream, Status>>;
}

/// A server without a machine: every request is answered with 503.
pub struct NoNode;

fn absent() -> Status {
    Status::unavailable("no node serves this cluster")
}

impl NodeBackend for NoNode {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async { Err(absent()) })
    }

    fn exec(&self, _: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
        Box::pin(async { Err(absent()) })
    }

    fn connect(&self, _: ContainerRef, _: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
        Box::pin(async { Err(absent()) })
    }
}
