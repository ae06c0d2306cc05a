//! Peers in a process of their own, which is this program once more: bare HTTP servers that events are posted to, and a bare
//! client that posts events to a subscriber.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::block_on;
use crate::cpu::Whose;
use crate::plain_file::{PlainFile, Told};
use crate::senders::{self, Post};

/// The argument with which this program is a peer.
pub(crate) const PEER: &str = "events-peer";
/// A server that reads what is posted, and accepts it.
const DISCARD: &str = "discard";
/// A server that accepts what is posted once it stands in a file and that is synced.
const SYNC: &str = "sync";
/// A client that posts.
const POST: &str = "post";

/// A server that runs; stops when dropped.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Peer {
    /// One that discards what it reads.
    pub(crate) fn discarding() -> Result<Self, Box<dyn Error>> {
        Self::start(Command::new(std::env::current_exe()?).args([PEER, DISCARD]))
    }

    /// One that waits until what it reads is on disk, in this file.
    pub(crate) fn syncing(path: &Path) -> Result<Self, Box<dyn Error>> {
        Self::start(Command::new(std::env::current_exe()?).args([PEER, SYNC]).arg(path))
    }

    fn start(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or("the peer has no output")?).read_line(&mut said)?;
        let Ok(address) = said.trim().parse() else {
            child.kill()?;
            return Err(format!("the peer does not say where it listens, but {said:?}").into());
        };
        Ok(Self { address, child })
    }

    /// Its process.
    pub(crate) fn process(&self) -> Whose {
        Whose::Process(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.child.kill().and_then(|()| self.child.wait()).is_err() {
            eprintln!("a peer (process {}) could not be stopped", self.child.id());
        }
    }
}

/// What a bare client came to.
pub(crate) struct Posted {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Its processor time, microseconds a request.
    pub(crate) cpu: f64,
}

/// Has a bare client of so many connections post so many events.
pub(crate) fn post(to: SocketAddr, connections: usize, count: usize) -> Result<Posted, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([PEER, POST]).args([to.to_string(), connections.to_string(), count.to_string()]);
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("the bare client: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let mut figures = said.split_whitespace().map(str::parse);
    let (Some(Ok(rate)), Some(Ok(cpu))) = (figures.next(), figures.next()) else {
        return Err(format!("the bare client says {said:?}").into());
    };
    Ok(Posted { rate, cpu })
}

/// Is the peer that these arguments say. What it came to, of one that ends by itself.
pub(crate) fn run(arguments: &[String]) -> Result<String, Box<dyn Error>> {
    match arguments {
        [how] if how == DISCARD => serve(None),
        [how, path] if how == SYNC => {
            let file = PlainFile::create(path.as_ref())?;
            serve(Some(file.asks()))
        }
        [how, to, connections, count] if how == POST => posted(to.parse()?, connections.parse()?, count.parse()?),
        _ => Err("there is no such peer".into()),
    }
}

fn posted(to: SocketAddr, connections: usize, count: usize) -> Result<String, Box<dyn Error>> {
    let own = Whose::Process(std::process::id());
    let post = Post::new("bench", "/", 1);
    let (before, begun) = (own.micros(), std::time::Instant::now());
    let sent = block_on(senders::send(to, &post, connections, count))?.values().len() as f64;
    Ok(format!("{} {}", sent / begun.elapsed().as_secs_f64(), (own.micros() - before) / sent))
}

/// Serves until whoever started this ends, which closes its input.
fn serve(file: Option<SyncSender<(Bytes, Told)>>) -> Result<String, Box<dyn Error>> {
    std::thread::spawn(|| {
        // Whatever comes: it is over.
        drop(io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0)
    });
    block_on(accept(file))
}

async fn accept(file: Option<SyncSender<(Bytes, Told)>>) -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let file = file.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| accepted(request, file.as_ref()));
            // A client that hangs up is how every run ends.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn accepted(
    request: Request<Incoming>,
    file: Option<&SyncSender<(Bytes, Told)>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let kept = async {
        let body = request.into_body().collect().await.ok()?.to_bytes();
        let Some(file) = file else { return Some(()) };
        let (answer, answered) = oneshot::channel();
        let told = Box::new(move || {
            answer.send(()).ok();
        });
        file.send((body, told)).ok()?;
        answered.await.ok()
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = if kept.await.is_some() { StatusCode::ACCEPTED } else { StatusCode::INTERNAL_SERVER_ERROR };
    Ok(answer)
}
