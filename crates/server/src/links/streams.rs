//! From the API server to the node: logs, commands and ports of containers. One connection a call.
//!
//! The first frame says what is wanted, the second whether that can be had. Then logs and ports are bytes as they are, and
//! a command's streams are frames whose first byte says which stream it is.

use std::{io, path::PathBuf, sync::Arc};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::BoxStream};
use knoll_apiserver::{
    Status,
    node_backend::{
        ContainerRef, ExecInput, ExecOutput, ExecRequest, ExecStreams, LogRequest, NodeBackend, PortStream,
    },
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::io::ReaderStream;

use super::Peer;

/// Calls at a time; more are closed at once.
const CALLS: usize = 1024;
/// Messages of a command that may wait.
const QUEUE: usize = 16;
/// Bytes of a stream in one frame.
const CHUNK: usize = 64 << 10;
/// How often a node asks a caller whether it is still there while a command says nothing.
const ASK: Duration = Duration::from_secs(30);
/// The frame it asks with, which needs no answer.
const STILL_THERE: u8 = 3;
/// How long a node may take to say whether it can.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct Target {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
}

#[derive(Debug, Serialize, Deserialize)]
enum Call {
    Logs {
        target: Target,
        follow: bool,
        previous: bool,
        timestamps: bool,
        tail_lines: Option<u64>,
        since_seconds: Option<u64>,
        since_time: Option<jiff::Timestamp>,
        limit_bytes: Option<u64>,
        stream: String,
    },
    Exec {
        target: Target,
        command: Vec<String>,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    },
    Connect {
        target: Target,
        port: u16,
    },
}

/// Whether it can be had; a Kubernetes `Status` if not.
type Opened = Result<(), serde_json::Value>;

impl From<ContainerRef> for Target {
    fn from(target: ContainerRef) -> Self {
        let ContainerRef { namespace, pod, uid, container } = target;
        Self { namespace, pod, uid, container }
    }
}

impl From<Target> for ContainerRef {
    fn from(target: Target) -> Self {
        let Target { namespace, pod, uid, container } = target;
        Self { namespace, pod, uid, container }
    }
}

/// The node of this machine, as a process of its own.
pub(crate) struct RemoteNode {
    pub(crate) path: PathBuf,
}

impl RemoteNode {
    async fn call(&self, call: Call) -> Result<Peer, Status> {
        let away = |error: io::Error| Status::unavailable(format!("the node does not answer: {error}"));
        let stream = UnixStream::connect(&self.path).await.map_err(away)?;
        let mut peer = Peer::new(stream);
        peer.send(&call).await.map_err(away)?;
        let silent = |_| Status::unavailable("the node does not answer");
        let verdict = timeout(PATIENCE, peer.next::<Opened>()).await.map_err(silent)?;
        match verdict.map_err(away)? {
            Some(Ok(())) => Ok(peer),
            Some(Err(status)) => Err(refusal(&status)),
            None => Err(away(io::ErrorKind::ConnectionAborted.into())),
        }
    }
}

fn refusal(status: &serde_json::Value) -> Status {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    // A reason is a constant word: those that a node gives, and one for all others.
    let known = ["NotFound", "BadRequest", "TooManyRequests", "ServiceUnavailable"];
    let reason = known.into_iter().find(|known| *known == text("reason")).unwrap_or("InternalError");
    Status::new(code, reason, text("message"))
}

/// What is left of a connection once nothing is framed any more: what was read ahead, then the rest.
fn bare(peer: Peer) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {
    let parts = peer.0.into_parts();
    let (read, write) = tokio::io::split(parts.io);
    tokio::io::join(tokio::io::AsyncReadExt::chain(io::Cursor::new(parts.read_buf.freeze()), read), write)
}

impl NodeBackend for RemoteNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, io::Result<Bytes>>, Status>> {
        let LogRequest {
            target,
            follow,
            previous,
            timestamps,
            tail_lines,
            since_seconds,
            since_time,
            limit_bytes,
            stream,
        } = request;
        let target = target.into();
        let call = Call::Logs {
            target,
            follow,
            previous,
            timestamps,
            tail_lines,
            since_seconds,
            since_time,
            limit_bytes,
            stream,
        };
        Box::pin(async move { Ok(ReaderStream::with_capacity(bare(self.call(call).await?), CHUNK).boxed()) })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
        let ExecRequest { target, command, stdin, stdout, stderr, tty } = request;
        let call = Call::Exec { target: target.into(), command, stdin, stdout, stderr, tty };
        Box::pin(async move {
            let peer = self.call(call).await?;
            let (input, inputs) = mpsc::channel(QUEUE);
            let (outputs, output) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                if let Err(error) = carry_from_client(peer, inputs, outputs).await {
                    tracing::debug!(%error, "a command's streams broke off");
                }
            });
            Ok(ExecStreams { input, output })
        })
    }

    fn connect(&self, pod: ContainerRef, port: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
        let call = Call::Connect { target: pod.into(), port };
        Box::pin(async move { Ok(Box::new(bare(self.call(call).await?)) as PortStream) })
    }
}

/// Between the API server's client and the node; dropping either side ends the command. Neither direction waits for the
/// other: a command may take no more input until its output is taken.
async fn carry_from_client(
    peer: Peer,
    mut inputs: mpsc::Receiver<ExecInput>,
    outputs: mpsc::Sender<ExecOutput>,
) -> io::Result<()> {
    let (mut to_node, mut from_node) = peer.0.split();
    let inward = async {
        while let Some(input) = inputs.recv().await {
            for frame in of_input(input) {
                to_node.send(frame).await?;
            }
        }
        std::future::pending().await
    };
    let outward = async {
        while let Some(frame) = from_node.next().await {
            if let Some(said) = output_of(frame?.freeze())?
                && outputs.send(said).await.is_err()
            {
                break;
            }
        }
        Ok(())
    };
    tokio::select! {
        failed = inward => failed,
        ended = outward => ended,
        () = outputs.closed() => Ok(()),
    }
}

/// Answers API servers' calls, for ever.
pub(crate) async fn serve(listener: &UnixListener, node: Arc<dyn NodeBackend>) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if calls.len() < CALLS => {
                    calls.spawn(answer(Peer::new(stream), node.clone()));
                }
                Ok(_) => tracing::warn!(most = CALLS, "too many calls; one is turned away"),
                Err(error) => {
                    tracing::warn!(%error, "a call could not be taken");
                    tokio::time::sleep(super::PAUSE.1).await;
                }
            },
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                if let Ok(Err(error)) = ended {
                    tracing::debug!(%error, "a call broke off");
                }
            }
        }
    }
}

async fn answer(mut peer: Peer, node: Arc<dyn NodeBackend>) -> io::Result<()> {
    let Some(call) = timeout(PATIENCE, peer.next()).await?? else { return Ok(()) };
    match call {
        Call::Logs {
            target,
            follow,
            previous,
            timestamps,
            tail_lines,
            since_seconds,
            since_time,
            limit_bytes,
            stream,
        } => {
            let target = target.into();
            let request = LogRequest {
                target,
                follow,
                previous,
                timestamps,
                tail_lines,
                since_seconds,
                since_time,
                limit_bytes,
                stream,
            };
            let Some(mut logs) = allowed(&mut peer, node.logs(request).await).await? else { return Ok(()) };
            let mut bare = bare(peer);
            loop {
                // A client that goes away while nothing is written must not keep the log open.
                let mut gone = [0; 1];
                tokio::select! {
                    bytes = logs.try_next() => match bytes? {
                        Some(bytes) => bare.write_all(&bytes).await?,
                        None => return bare.shutdown().await,
                    },
                    _ = tokio::io::AsyncReadExt::read(&mut bare, &mut gone) => return Ok(()),
                }
            }
        }
        Call::Exec { target, command, stdin, stdout, stderr, tty } => {
            let request = ExecRequest { target: target.into(), command, stdin, stdout, stderr, tty };
            match allowed(&mut peer, node.exec(request).await).await? {
                Some(streams) => carry_to_command(peer, streams).await,
                None => Ok(()),
            }
        }
        Call::Connect { target, port } => match allowed(&mut peer, node.connect(target.into(), port).await).await? {
            Some(mut port) => tokio::io::copy_bidirectional(&mut bare(peer), &mut port).await.map(drop),
            None => Ok(()),
        },
    }
}

/// Says whether it can be had.
async fn allowed<T>(peer: &mut Peer, outcome: Result<T, Status>) -> io::Result<Option<T>> {
    let (verdict, had): (Opened, _) = match outcome {
        Ok(had) => (Ok(()), Some(had)),
        Err(status) => (Err(status.to_json()), None),
    };
    peer.send(&verdict).await?;
    Ok(had)
}

/// Between the node's side of the socket and the command.
async fn carry_to_command(peer: Peer, streams: ExecStreams) -> io::Result<()> {
    let (mut to_client, mut from_client) = peer.0.split();
    let ExecStreams { input, mut output } = streams;
    let inward = async {
        while let Some(frame) = from_client.next().await {
            // A command that reads no more has ended, which is said next.
            input.send(input_of(frame?.freeze())?).await.ok();
        }
        // The client is gone: dropping the streams ends the command.
        Ok(())
    };
    let outward = async {
        loop {
            // A client that goes while the command takes no input is noticed by writing to it.
            let Ok(said) = timeout(ASK, output.recv()).await else {
                to_client.send(Bytes::from_static(&[STILL_THERE])).await?;
                continue;
            };
            let Some(said) = said else { return Ok(()) };
            let last = matches!(said, ExecOutput::Exit(_));
            for frame in of_output(said) {
                to_client.send(frame).await?;
            }
            if last {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

/// Frames of a piece of a stream, none too long.
fn pieces(tag: u8, mut bytes: Bytes) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(CHUNK));
        let mut frame = BytesMut::with_capacity(piece.len() + 1);
        frame.put_u8(tag);
        frame.put(piece);
        frames.push(frame.freeze());
    }
    frames
}

fn of_input(input: ExecInput) -> Vec<Bytes> {
    match input {
        ExecInput::Stdin(bytes) => pieces(0, bytes),
        ExecInput::CloseStdin => vec![Bytes::from_static(&[1])],
        ExecInput::Resize { width, height } => {
            let mut frame = BytesMut::with_capacity(5);
            frame.put_u8(2);
            frame.put_u16(width);
            frame.put_u16(height);
            vec![frame.freeze()]
        }
    }
}

fn input_of(mut frame: Bytes) -> io::Result<ExecInput> {
    let tag = frame.try_get_u8().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    match (tag, frame.len()) {
        (0, _) => Ok(ExecInput::Stdin(frame)),
        (1, 0) => Ok(ExecInput::CloseStdin),
        (2, 4) => Ok(ExecInput::Resize { width: frame.get_u16(), height: frame.get_u16() }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn of_output(output: ExecOutput) -> Vec<Bytes> {
    match output {
        ExecOutput::Stdout(bytes) => pieces(0, bytes),
        ExecOutput::Stderr(bytes) => pieces(1, bytes),
        ExecOutput::Exit(code) => {
            let mut frame = BytesMut::with_capacity(5);
            frame.put_u8(2);
            frame.put_i32(code);
            vec![frame.freeze()]
        }
    }
}

/// What a frame says; nothing, where it only asks.
fn output_of(mut frame: Bytes) -> io::Result<Option<ExecOutput>> {
    let tag = frame.try_get_u8().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    match (tag, frame.len()) {
        (0, _) => Ok(Some(ExecOutput::Stdout(frame))),
        (1, _) => Ok(Some(ExecOutput::Stderr(frame))),
        (2, 4) => Ok(Some(ExecOutput::Exit(frame.get_i32()))),
        (STILL_THERE, 0) => Ok(None),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Logs two lines, runs what it is told as an echo that says each piece once for each word of the command, and connects to an echo.
    struct Echo;

    impl NodeBackend for Echo {
        fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<BoxStream<'static, io::Result<Bytes>>, Status>> {
            Box::pin(async move {
                if request.target.container.is_empty() {
                    return Err(Status::new(404, "NotFound", "no such container"));
                }
                let lines = ["one\n", "two\n"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
                Ok(futures_util::stream::iter(lines).boxed())
            })
        }

        fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecStreams, Status>> {
            Box::pin(async move {
                let (input, mut inputs) = mpsc::channel(1);
                let (outputs, output) = mpsc::channel(1);
                tokio::spawn(async move {
                    let code = i32::try_from(request.command.len()).expect("few");
                    while let Some(ExecInput::Stdin(bytes)) = inputs.recv().await {
                        for _ in 0..request.command.len() {
                            outputs.send(ExecOutput::Stdout(bytes.clone())).await.expect("somebody listens");
                        }
                    }
                    outputs.send(ExecOutput::Exit(code)).await.ok();
                });
                Ok(ExecStreams { input, output })
            })
        }

        fn connect(&self, _pod: ContainerRef, port: u16) -> BoxFuture<'_, Result<PortStream, Status>> {
            Box::pin(async move {
                let (near, mut far) = tokio::io::duplex(64);
                tokio::spawn(async move {
                    far.write_all(&port.to_be_bytes()).await.expect("somebody reads");
                    let (mut read, mut write) = tokio::io::split(far);
                    tokio::io::copy(&mut read, &mut write).await
                });
                Ok(Box::new(near) as PortStream)
            })
        }
    }

    fn node(scratch: &tempfile::TempDir) -> RemoteNode {
        let path = scratch.path().join("run/node.sock");
        let listener = crate::links::listen(&path).expect("listens");
        tokio::spawn(async move { serve(&listener, Arc::new(Echo)).await });
        RemoteNode { path }
    }

    #[tokio::test]
    async fn logs_commands_and_ports_go_over_the_socket_and_so_does_a_refusal() {
        let scratch = tempfile::tempdir().expect("a directory");
        let node = node(&scratch);
        let target = ContainerRef { container: "c".into(), ..ContainerRef::default() };
        let logs = node.logs(LogRequest { target, ..LogRequest::default() }).await.expect("logs");
        let logs: Vec<Bytes> = logs.try_collect().await.expect("to their end");
        assert_eq!(logs.concat(), b"one\ntwo\n");
        let refused = node.logs(LogRequest::default()).await.err().expect("refused").to_json();
        assert_eq!((&refused["code"], &refused["message"]), (&404.into(), &"no such container".into()));

        let command = vec!["cat".to_owned()];
        let ExecStreams { input, mut output } =
            node.exec(ExecRequest { command, ..ExecRequest::default() }).await.expect("runs");
        let long = Bytes::from(vec![7; 3 * CHUNK]);
        input.send(ExecInput::Stdin(long.clone())).await.expect("runs");
        let mut back = BytesMut::new();
        while back.len() < long.len() {
            let Some(ExecOutput::Stdout(bytes)) = output.recv().await else { panic!("it ended early") };
            back.extend_from_slice(&bytes);
        }
        assert_eq!(back, long);
        input.send(ExecInput::CloseStdin).await.expect("runs");
        assert_eq!(output.recv().await, Some(ExecOutput::Exit(1)));

        let mut port = node.connect(ContainerRef::default(), 8080).await.expect("connects");
        port.write_all(b"hi").await.expect("goes");
        let mut back = [0; 4];
        port.read_exact(&mut back).await.expect("comes");
        assert_eq!(back[..2], 8080_u16.to_be_bytes());
        assert_eq!(&back[2..], b"hi");
    }

    #[tokio::test]
    async fn a_command_that_says_more_than_it_is_told_does_not_wait_for_its_input() {
        let scratch = tempfile::tempdir().expect("a directory");
        let node = node(&scratch);
        let command = vec!["again".to_owned(); 64];
        let ExecStreams { input, mut output } =
            node.exec(ExecRequest { command, ..ExecRequest::default() }).await.expect("runs");
        let talk = async {
            for _ in 0..64 {
                input.send(ExecInput::Stdin(Bytes::from(vec![7; CHUNK]))).await.expect("runs");
            }
            input.send(ExecInput::CloseStdin).await.expect("runs");
        };
        let listen = async {
            let mut heard = 0;
            while let Some(ExecOutput::Stdout(bytes)) = output.recv().await {
                heard += bytes.len();
            }
            heard
        };
        let both = async { tokio::join!(talk, listen) };
        let ((), heard) = timeout(Duration::from_secs(60), both).await.expect("nobody waits for another");
        assert_eq!(heard, 64 * 64 * CHUNK);
    }

    #[tokio::test]
    async fn without_a_node_there_is_a_word_instead_of_a_wait() {
        let scratch = tempfile::tempdir().expect("a directory");
        let node = RemoteNode { path: scratch.path().join("node.sock") };
        let refused = node.logs(LogRequest::default()).await.err().expect("nobody is there").to_json();
        assert_eq!(refused["code"], 503);
    }
}
