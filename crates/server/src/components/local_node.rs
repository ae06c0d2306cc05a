//! The node, as the API server asks for it.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use knoll_apiserver::{
    Status,
    node_backend::{
        ContainerRef, ExecInput, ExecOutput, ExecRequest, ExecStreams, LogRequest, NodeBackend, PortStream,
    },
};
use knoll_node::{
    Node, StreamError, Whom,
    exec::{ExecOptions, Running},
    logs::LogOptions,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use crate::failure::chain;

/// Messages between a command and its client that may wait.
const QUEUE: usize = 16;
/// Bytes read of a command's output at a time.
const CHUNK: usize = 32 << 10;
/// What a command without a client gets: `SIGKILL`.
const KILL: i32 = 9;

/// The node, once it runs.
#[derive(Clone, Default)]
pub(crate) struct LocalNode {
    node: Arc<OnceLock<Node>>,
}

impl LocalNode {
    /// From now on asks this node.
    pub(crate) fn set(&self, node: Node) {
        if self.node.set(node).is_err() {
            tracing::error!("the API server has a node already");
        }
    }

    fn node(&self) -> Result<&Node, Status> {
        self.node.get().ok_or_else(|| Status::unavailable("the node is starting"))
    }
}

fn whom(target: &ContainerRef) -> Whom {
    Whom { uid: target.uid.clone(), container: target.container.clone() }
}

fn refused(error: &StreamError) -> Status {
    match error {
        StreamError::NoPod(_) | StreamError::NotRunning(_) => Status::new(404, "NotFound", error.to_string()),
        StreamError::NoContainer { .. } | StreamError::Waiting { .. } | StreamError::NoPrevious { .. } => {
            Status::bad_request(error.to_string())
        }
        StreamError::Busy { .. } => Status::new(429, "TooManyRequests", error.to_string()),
        _ => Status::internal(chain(error)),
    }
}

impl NodeBackend for LocalNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, io::Result<Bytes>>, Status>> {
        Box::pin(async move {
            let options = LogOptions {
                follow: request.follow,
                tail_lines: request.tail_lines,
                since: Node::since(request.since_seconds, request.since_time),
                timestamps: request.timestamps,
                limit_bytes: request.limit_bytes,
            };
            let stream = self.node()?.logs(&whom(&request.target), request.previous, options).await;
            Ok(stream.map_err(|e| refused(&e))?.boxed())
        })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
        Box::pin(async move {
            if request.command.is_empty() {
                return Err(Status::bad_request("attaching to a container's own streams is not supported: use exec"));
            }
            let options = ExecOptions { command: request.command, stdin: request.stdin, tty: request.tty };
            let running = self.node()?.exec(&whom(&request.target), options).await.map_err(|e| refused(&e))?;
            let (input, inputs) = mpsc::channel(QUEUE);
            let (outputs, output) = mpsc::channel(QUEUE);
            tokio::spawn(carry(running, inputs, outputs));
            Ok(ExecStreams { input, output })
        })
    }

    fn connect(&self, pod: ContainerRef, port: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
        Box::pin(async move {
            let stream = self.node()?.connect(&pod.uid, port).await.map_err(|e| refused(&e))?;
            Ok(Box::new(stream) as PortStream)
        })
    }
}

/// Carries a command's streams until it ends, or its client goes.
async fn carry(mut running: Running, inputs: mpsc::Receiver<ExecInput>, outputs: mpsc::Sender<ExecOutput>) {
    let terminal = running.terminal.take();
    let files = terminal.as_ref().map(|terminal| (terminal.file(), terminal.file()));
    let (writer, stdout): (Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>, _) = match files {
        Some((Ok(writer), Ok(reader))) => (Some(Box::new(writer)), read(reader, outputs.clone(), ExecOutput::Stdout)),
        Some(_) => (None, tokio::spawn(async {})),
        None => {
            let writer = running.stdin.take().map(|pipe| Box::new(pipe) as Box<_>);
            (writer, read_some(running.stdout.take(), &outputs, ExecOutput::Stdout))
        }
    };
    let stderr = read_some(running.stderr.take(), &outputs, ExecOutput::Stderr);
    let feeding = tokio::spawn(feed(writer, terminal, inputs));
    let code = tokio::select! {
        exit = running.wait() => match exit {
            Ok(exit) => exit.code,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a command's end was not reported");
                -1
            }
        },
        () = outputs.closed() => {
            if let Err(error) = running.signal(KILL).await {
                tracing::debug!(error = chain(&error), "end a command whose client has gone");
            }
            -1
        }
    };
    // What it wrote before its end is still on its way; a child that keeps the pipe open must not hold the client.
    for reader in [stdout, stderr] {
        let stop = reader.abort_handle();
        if tokio::time::timeout(Duration::from_secs(2), reader).await.is_err() {
            stop.abort();
        }
    }
    feeding.abort();
    outputs.send(ExecOutput::Exit(code)).await.ok();
}

fn read_some<R: AsyncRead + Send + Unpin + 'static>(
    source: Option<R>,
    into: &mpsc::Sender<ExecOutput>,
    wrap: fn(Bytes) -> ExecOutput,
) -> tokio::task::JoinHandle<()> {
    match source {
        Some(source) => read(source, into.clone(), wrap),
        None => tokio::spawn(async {}),
    }
}

fn read<R: AsyncRead + Send + Unpin + 'static>(
    mut source: R,
    into: mpsc::Sender<ExecOutput>,
    wrap: fn(Bytes) -> ExecOutput,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK];
        // A terminal whose last user has gone reports an error: for the reader that is the end, too.
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            if into.send(wrap(Bytes::copy_from_slice(&buffer[..count]))).await.is_err() {
                return;
            }
        }
    })
}

async fn feed(
    mut writer: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    terminal: Option<knoll_node::exec::Terminal>,
    mut inputs: mpsc::Receiver<ExecInput>,
) {
    while let Some(input) = inputs.recv().await {
        match input {
            ExecInput::Stdin(bytes) => {
                let Some(open) = &mut writer else { continue };
                if open.write_all(&bytes).await.is_err() || open.flush().await.is_err() {
                    // The command does not read any more.
                    writer = None;
                }
            }
            ExecInput::CloseStdin => writer = None,
            ExecInput::Resize { width, height } => {
                if let Some(Err(error)) = terminal.as_ref().map(|terminal| terminal.resize(height, width)) {
                    tracing::debug!(%error, "resize a terminal");
                }
            }
        }
    }
}
