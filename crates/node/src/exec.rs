//! Programs run inside containers: for users (`kubectl exec`), for probes and for hooks.

use std::os::fd::OwnedFd;
use std::time::Duration;

use knoll_container::client::{Client, ClientError, Exec, ExecPipes, set_terminal_size};
use knoll_container::protocol::{ContainerId, ExecSpec, ExitStatus};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::streams::Turn;

/// How a program is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it may read from the caller.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No pipe could be made.
    #[error("cannot make a pipe")]
    Pipe(#[source] std::io::Error),
    /// The monitor refused or is gone.
    #[error(transparent)]
    Monitor(#[from] ClientError),
}

/// A program that runs.
pub struct Running {
    exec: Exec,
    /// What it reads; dropping it is the end of its input. Absent when it may not read, or has a terminal.
    pub stdin: Option<pipe::Sender>,
    /// What it prints. Absent with a terminal.
    pub stdout: Option<pipe::Receiver>,
    /// Its errors. Absent with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// The controlling side of its terminal.
    pub terminal: Option<Terminal>,
    /// Its place among the streams of its pod.
    turn: Option<Turn>,
}

/// The controlling side of a terminal: its output is read from it, its input written to it. Blocking reads and writes
/// are made on a thread that may block; `tokio::fs::File` does that.
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Sets its size, in characters.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) -> std::io::Result<()> {
        set_terminal_size(&self.0, rows, columns)
    }

    /// Another handle to the same terminal.
    ///
    /// # Errors
    /// When there are too many.
    pub fn file(&self) -> std::io::Result<tokio::fs::File> {
        Ok(tokio::fs::File::from_std(self.0.try_clone()?.into()))
    }
}

impl Running {
    /// Gives a place back when it is dropped.
    pub(crate) fn until_dropped(mut self, turn: Turn) -> Running {
        self.turn = Some(turn);
        self
    }

    /// Waits until it has ended. Ask once.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub async fn wait(&self) -> Result<ExitStatus, ClientError> {
        self.exec.wait().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.exec.signal(signal).await
    }
}

/// Runs a program in a container. Must be called inside a tokio runtime.
///
/// # Errors
/// When it cannot be run.
pub async fn exec(monitor: &Client, container: ContainerId, options: ExecOptions) -> Result<Running, ExecError> {
    start(monitor, container, options, None).await
}

/// Runs a program, which must have been executed `within` a time.
async fn start(
    monitor: &Client,
    container: ContainerId,
    options: ExecOptions,
    within: Option<Duration>,
) -> Result<Running, ExecError> {
    let spec = ExecSpec {
        container,
        args: options.command,
        env: Vec::new(),
        cwd: None,
        user: None,
        tty: options.tty,
        start_timeout_ms: within.map(|within| u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
    };
    if options.tty {
        let (exec, terminal) = monitor.exec_tty(spec).await?;
        return Ok(Running {
            exec,
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: Some(Terminal(terminal)),
            turn: None,
        });
    }
    let (stdin_end, stdin) = if options.stdin {
        let (theirs, ours) = new_pipe()?;
        (theirs, Some(pipe::Sender::from_owned_fd(ours).map_err(ExecError::Pipe)?))
    } else {
        (std::fs::File::open("/dev/null").map_err(ExecError::Pipe)?.into(), None)
    };
    let (stdout, stdout_end) = new_pipe()?;
    let (stderr, stderr_end) = new_pipe()?;
    let pipes = ExecPipes { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end };
    let exec = monitor.exec(spec, pipes).await?;
    let receiver = |end| pipe::Receiver::from_owned_fd(end).map_err(ExecError::Pipe);
    Ok(Running {
        exec,
        stdin,
        stdout: Some(receiver(stdout)?),
        stderr: Some(receiver(stderr)?),
        terminal: None,
        turn: None,
    })
}

/// Runs a program to its end and returns how it ended and the first `limit` bytes it printed, errors included. A
/// program that takes longer than `timeout`, its start included, is killed; `None` stands for it.
///
/// # Errors
/// When it cannot be run.
pub async fn run(
    monitor: &Client,
    container: ContainerId,
    command: Vec<String>,
    timeout: Duration,
    limit: usize,
) -> Result<Option<(ExitStatus, String)>, ExecError> {
    let begin = Instant::now();
    let options = ExecOptions { command, stdin: false, tty: false };
    let mut running = start(monitor, container, options, Some(timeout)).await?;
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    let whole = async {
        let (out, err) = tokio::join!(head(stdout, limit), head(stderr, limit));
        (running.wait().await, out + &err)
    };
    match tokio::time::timeout(timeout.saturating_sub(begin.elapsed()), whole).await {
        Ok((exit, text)) => Ok(Some((exit?, text))),
        Err(_) => {
            running.signal(nix::libc::SIGKILL).await?;
            Ok(None)
        }
    }
}

/// The first bytes that come out of a pipe; the rest is read and dropped, so that nobody blocks on it.
async fn head(pipe: Option<pipe::Receiver>, limit: usize) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    // A pipe that breaks has said all it will.
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = limit.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A pipe: what is written to the second end is read from the first.
fn new_pipe() -> Result<(OwnedFd, OwnedFd), ExecError> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| ExecError::Pipe(errno.into()))
}
