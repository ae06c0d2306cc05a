//! The server's side of the protocol. A [`Client`] is one connection; it is cheap to clone, its requests run side by
//! side, and dropping the last clone closes it without touching what runs.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::protocol::{
    Answer, Call, Configuration, ContainerEvent, ContainerId, ContainerSpec, ContainerStatus, ExecId, ExecSpec,
    ExitStatus, ListenerName, Listing, MAX_CALL, MAX_FRAME, Message, MonitorInfo, Refusal, RefusalKind, Request,
    Resources, SandboxId, SandboxSpec, SandboxStatus, Stats, VERSION,
};
use crate::wire::{self, FrameError, Inbox, Outbox};

/// Requests that may wait to be written.
const QUEUE: usize = 256;
/// Events a slow subscriber may leave unread before its stream ends.
const EVENTS: usize = 4096;

/// How long a monitor may take to say hello. It answers in milliseconds; one that does not answer hangs.
const HELLO: Duration = Duration::from_secs(10);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The monitor said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection is gone. The monitor's state is unknown until List is asked on a new one.
    #[error("the connection to the monitor is closed")]
    Closed,
    /// The socket cannot be reached.
    #[error("cannot reach the monitor")]
    Io(#[from] io::Error),
    /// It is there, but does not answer.
    #[error(
        "the monitor behind {} does not answer (waited {} s): it hangs; look at what holds it up, or end it by its \
         process id, the next one takes over what runs", .0.display(), HELLO.as_secs()
    )]
    Silent(PathBuf),
    /// Something that is not the protocol.
    #[error("the monitor's answer cannot be understood")]
    Frame(#[from] FrameError),
    /// The monitor answers another question.
    #[error("the monitor gave an answer of the wrong kind")]
    Unexpected,
    /// The monitor speaks another version.
    #[error(
        "the monitor speaks protocol version {0}, this program {VERSION}: stop everything with the program that \
         started the monitor, or remove it with `knoll reset`"
    )]
    Version(u32),
}

impl ClientError {
    /// The kind of refusal, if it is one.
    pub fn kind(&self) -> Option<RefusalKind> {
        match self {
            ClientError::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }
}

type Outcome = Result<(Answer, Vec<OwnedFd>), ClientError>;

struct Shared {
    pending: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
    subscribers: Mutex<Vec<mpsc::Sender<ContainerEvent>>>,
}

struct Connection {
    number: AtomicU64,
    shared: Arc<Shared>,
    out: mpsc::Sender<(Vec<u8>, Vec<OwnedFd>)>,
    info: MonitorInfo,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection to the monitor.
#[derive(Clone)]
pub struct Client(Arc<Connection>);

/// What an exec without a terminal reads and writes: the ends the program gets.
#[derive(Debug)]
pub struct ExecPipes {
    /// What it reads; `/dev/null` for none.
    pub stdin: OwnedFd,
    /// Where its output goes.
    pub stdout: OwnedFd,
    /// Where its errors go; may be the same pipe.
    pub stderr: OwnedFd,
}

/// A program started by [`Client::exec`] or [`Client::exec_tty`].
pub struct Exec {
    client: Client,
    id: ExecId,
}

impl Client {
    /// Connects and says hello. Must be called inside a tokio runtime.
    pub async fn connect(socket: &Path) -> Result<Client, ClientError> {
        let greeted = tokio::time::timeout(HELLO, Client::greet(socket)).await;
        greeted.unwrap_or_else(|_| Err(ClientError::Silent(socket.to_owned())))
    }

    async fn greet(socket: &Path) -> Result<Client, ClientError> {
        let stream = Arc::new(UnixStream::connect(socket).await?);
        let shared = Arc::new(Shared { pending: Mutex::default(), subscribers: Mutex::default() });
        let (out, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(serve(stream, queue, Arc::clone(&shared)));
        let info = MonitorInfo {
            version: VERSION,
            pid: 0,
            boot_id: String::new(),
            started_at: jiff::Timestamp::now(),
            state_dir: std::path::PathBuf::new(),
        };
        let mut connection = Connection { number: AtomicU64::new(1), shared, out, info, task };
        let (answer, _) = connection.call(Request::Hello { version: VERSION }, Vec::new()).await?;
        let Answer::Hello(info) = answer else { return Err(ClientError::Unexpected) };
        if info.version != VERSION {
            return Err(ClientError::Version(info.version));
        }
        connection.info = info;
        Ok(Client(Arc::new(connection)))
    }

    /// Who answers.
    pub fn monitor(&self) -> &MonitorInfo {
        &self.0.info
    }

    /// Sets what the warm pool hands out.
    pub async fn configure(&self, configuration: Configuration) -> Result<(), ClientError> {
        self.done(Request::Configure(configuration)).await
    }

    /// Says that so many more sandboxes are about to be claimed.
    pub async fn expect_sandboxes(&self, more: u32) -> Result<(), ClientError> {
        self.done(Request::ExpectSandboxes { more }).await
    }

    /// Claims a sandbox. Needs no image; call it as soon as a pod is known.
    pub async fn prepare_sandbox(&self, spec: SandboxSpec) -> Result<SandboxStatus, ClientError> {
        match self.ask(Request::PrepareSandbox(spec)).await? {
            Answer::Sandbox(status) => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Kills and removes a sandbox and everything in it. Absent ones are fine.
    pub async fn remove_sandbox(&self, sandbox: SandboxId) -> Result<(), ClientError> {
        self.done(Request::RemoveSandbox { sandbox }).await
    }

    /// Creates and starts a container; returns when its program has been executed. [`RefusalKind::Start`] carries a
    /// message for the container's status.
    pub async fn start_container(&self, spec: ContainerSpec) -> Result<ContainerStatus, ClientError> {
        match self.ask(Request::StartContainer(Box::new(spec))).await? {
            Answer::Container(status) => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a signal to a container's first process.
    pub async fn signal(&self, container: ContainerId, signal: i32) -> Result<(), ClientError> {
        self.done(Request::Signal { container, signal }).await
    }

    /// Kills every process of a container.
    pub async fn kill(&self, container: ContainerId) -> Result<(), ClientError> {
        self.done(Request::Kill { container }).await
    }

    /// Waits until a container has exited.
    pub async fn wait(&self, container: ContainerId) -> Result<ExitStatus, ClientError> {
        match self.ask(Request::Wait { container }).await? {
            Answer::Exit(exit) => Ok(exit),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Forgets an exited container; its log stays. Absent ones are fine.
    pub async fn remove_container(&self, container: ContainerId) -> Result<(), ClientError> {
        self.done(Request::RemoveContainer { container }).await
    }

    /// Runs a program in a container with the caller's pipes. `spec.tty` is taken as false.
    pub async fn exec(&self, mut spec: ExecSpec, pipes: ExecPipes) -> Result<Exec, ClientError> {
        spec.tty = false;
        let fds = vec![pipes.stdin, pipes.stdout, pipes.stderr];
        match self.0.call(Request::Exec(spec), fds).await? {
            (Answer::Exec(id), _) => Ok(Exec { client: self.clone(), id }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Runs a program in a container on a new terminal and returns the terminal's controlling side: read its output
    /// from it, write its input to it, set its size with [`set_terminal_size`].
    pub async fn exec_tty(&self, mut spec: ExecSpec) -> Result<(Exec, OwnedFd), ClientError> {
        spec.tty = true;
        match self.0.call(Request::Exec(spec), Vec::new()).await? {
            (Answer::Exec(id), mut fds) if fds.len() == 1 => {
                Ok((Exec { client: self.clone(), id }, fds.swap_remove(0)))
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Everything the monitor holds: what a restarted server adopts.
    pub async fn list(&self) -> Result<Listing, ClientError> {
        let mut whole = Listing::default();
        let mut after = None;
        loop {
            let Answer::Listing(part) = self.ask(Request::List { after }).await? else {
                return Err(ClientError::Unexpected);
            };
            whole.sandboxes.extend(part.sandboxes);
            whole.containers.extend(part.containers);
            whole.pooled = part.pooled;
            match part.next {
                Some(next) => after = Some(next),
                None => return Ok(whole),
            }
        }
    }

    /// Leaves listening sockets with the monitor, which keeps duplicates until it ends, [`Client::drop_listeners`] is
    /// asked, or others come under the same names. While the server restarts, connections wait in them.
    pub async fn keep_listeners(&self, listeners: Vec<(ListenerName, OwnedFd)>) -> Result<(), ClientError> {
        let (names, fds) = listeners.into_iter().unzip();
        match self.0.call(Request::KeepListeners { names }, fds).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Duplicates of the sockets that were left with the monitor.
    pub async fn listeners(&self) -> Result<Vec<(ListenerName, OwnedFd)>, ClientError> {
        match self.0.call(Request::Listeners, Vec::new()).await? {
            (Answer::Listeners(names), fds) if names.len() == fds.len() => Ok(names.into_iter().zip(fds).collect()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Has the monitor let go of sockets. Absent ones are fine.
    pub async fn drop_listeners(&self, names: Vec<ListenerName>) -> Result<(), ClientError> {
        self.done(Request::DropListeners { names }).await
    }

    /// What a sandbox and its containers use.
    pub async fn stats(&self, sandbox: SandboxId) -> Result<Stats, ClientError> {
        match self.ask(Request::Stats { sandbox }).await? {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Replaces a running container's limits.
    pub async fn update(&self, container: ContainerId, resources: Resources) -> Result<(), ClientError> {
        self.done(Request::Update { container, resources }).await
    }

    /// Freezes or thaws a sandbox.
    pub async fn freeze(&self, sandbox: SandboxId, frozen: bool) -> Result<(), ClientError> {
        self.done(Request::Freeze { sandbox, frozen }).await
    }

    /// Pushes a sandbox's memory out, best effort.
    pub async fn reclaim(&self, sandbox: SandboxId) -> Result<(), ClientError> {
        self.done(Request::Reclaim { sandbox }).await
    }

    /// A TCP socket inside the sandbox's network: connect it to `127.0.0.1:port` for port forwarding.
    pub async fn socket(&self, sandbox: SandboxId) -> Result<TcpSocket, ClientError> {
        match self.0.call(Request::Socket { sandbox }, Vec::new()).await? {
            (Answer::Socket, mut fds) if fds.len() == 1 => {
                Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(fds.swap_remove(0))))
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Every exit from now on. The stream ends with the connection, or when 4096 events wait unread: list again then.
    pub async fn subscribe(&self) -> Result<mpsc::Receiver<ContainerEvent>, ClientError> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        lock(&self.0.shared.subscribers).push(sender);
        self.done(Request::Subscribe).await?;
        Ok(receiver)
    }

    /// Ends the monitor; with `remove` every sandbox first.
    pub async fn shutdown(&self, remove: bool) -> Result<(), ClientError> {
        self.done(Request::Shutdown { remove }).await
    }

    async fn ask(&self, request: Request) -> Result<Answer, ClientError> {
        self.0.call(request, Vec::new()).await.map(|(answer, _)| answer)
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.ask(request).await? {
            Answer::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }
}

impl Exec {
    /// Waits until the program has exited. Ask once.
    pub async fn wait(&self) -> Result<ExitStatus, ClientError> {
        match self.client.ask(Request::WaitExec { exec: self.id }).await? {
            Answer::Exit(exit) => Ok(exit),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a signal to the program.
    pub async fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.client.done(Request::SignalExec { exec: self.id, signal }).await
    }
}

/// Sets the size of a terminal, in characters.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    crate::sys::set_terminal_size(terminal.as_fd(), rows, columns)
}

impl Connection {
    async fn call(&self, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let frame = wire::encode(&Call { number, fds: fds.len(), request }, MAX_CALL)?;
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.pending).insert(number, sender);
        if self.out.send((frame, fds)).await.is_err() || self.task.is_finished() {
            lock(&self.shared.pending).remove(&number);
            return Err(ClientError::Closed);
        }
        receiver.await.unwrap_or(Err(ClientError::Closed))
    }
}

/// Moves frames until either side closes, then fails whatever is unanswered.
async fn serve(stream: Arc<UnixStream>, mut queue: mpsc::Receiver<(Vec<u8>, Vec<OwnedFd>)>, shared: Arc<Shared>) {
    let mut inbox = Inbox::new(MAX_FRAME);
    let mut outbox = Outbox::default();
    loop {
        let outcome = tokio::select! {
            read = stream.async_io(Interest::READABLE, || inbox.fill(stream.as_fd())) => match read {
                Ok(0) => break,
                Ok(_) => deliver(&mut inbox, &shared),
                Err(error) => Err(error.into()),
            },
            next = queue.recv(), if outbox.len() < wire::HIGH_WATER => match next {
                Some((frame, fds)) => { outbox.push(frame, fds); flush(&stream, &mut outbox) }
                None => break,
            },
            ready = stream.ready(Interest::WRITABLE), if !outbox.is_empty() => match ready {
                Ok(_) => flush(&stream, &mut outbox),
                Err(error) => Err(error.into()),
            },
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "lost the monitor");
            break;
        }
    }
    queue.close();
    lock(&shared.pending).clear();
    lock(&shared.subscribers).clear();
}

fn flush(stream: &UnixStream, outbox: &mut Outbox) -> Result<(), ClientError> {
    match stream.try_io(Interest::WRITABLE, || outbox.flush(stream.as_fd())) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(()),
    }
}

fn deliver(inbox: &mut Inbox, shared: &Shared) -> Result<(), ClientError> {
    while let Some(message) = inbox.next::<Message>()? {
        match message {
            Message::Reply { number, fds, result } => {
                let fds = inbox.take_fds(fds)?;
                let waiter = lock(&shared.pending).remove(&number);
                if let Some(waiter) = waiter {
                    // A caller that has gone away needs no answer.
                    drop(waiter.send(result.map(|answer| (answer, fds)).map_err(ClientError::Refused)));
                }
            }
            Message::Event(event) => {
                lock(&shared.subscribers).retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
            }
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_monitor_that_does_not_answer_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("monitor.sock");
        let _hangs = std::os::unix::net::UnixListener::bind(&socket).expect("listens");
        let outcome = tokio::time::timeout(HELLO * 2, Client::connect(&socket)).await.expect("it gives up");
        let Err(error) = outcome else { panic!("nobody answered") };
        assert!(error.to_string().contains(&format!("{} does not answer", socket.display())), "{error}");
    }
}
