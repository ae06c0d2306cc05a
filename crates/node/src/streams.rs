//! What the outside asks of a running pod: its output, a program in it, a port of it.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use knoll_container::client::ClientError;
use knoll_container::protocol::{ContainerId, SandboxId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::agent::Node;
use crate::exec::{self, ExecError, ExecOptions, Running};
use crate::logs::{self, LogOptions, LogStream};
use crate::pod;
use crate::runtime::container_id;
use crate::shared::Attempt;

/// Logs and programs of one pod that users have open at a time.
const OPEN: usize = 64;
/// Connections to ports of one pod that are forwarded at a time: a browser alone makes a good many.
const FORWARDED: usize = 256;

/// A container, as a request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whom {
    /// uid of the pod.
    pub uid: String,
    /// The container; empty stands for the only one.
    pub container: String,
}

/// Why a request about a pod fails.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The pod is not here.
    #[error("pod {0} is not on this node")]
    NoPod(String),
    /// The pod has no such container.
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The container has not started yet.
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// Why it waits.
        reason: String,
    },
    /// There was no attempt before this one.
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The container does not run.
    #[error("container not found (\"{0}\")")]
    NotRunning(String),
    /// A program could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The monitor refused or is gone.
    #[error(transparent)]
    Monitor(#[from] ClientError),
    /// The pod has as many of them open as it may.
    #[error("pod {pod} has {open} {what} open already: close some of them first")]
    Busy {
        /// uid of the pod.
        pod: String,
        /// Of what.
        what: &'static str,
        /// How many.
        open: usize,
    },
    /// Nobody listens on the port.
    #[error("cannot connect to port {port}")]
    Connect {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// What users have open, by pod: each costs a task, files, or a process.
#[derive(Debug)]
pub(crate) struct Streams {
    what: &'static str,
    most: usize,
    open: Mutex<HashMap<String, usize>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    streams: Arc<Streams>,
    uid: String,
}

impl Streams {
    /// Logs that are read and programs that run.
    pub(crate) fn logs_and_programs() -> Arc<Streams> {
        Arc::new(Streams { what: "logs and programs", most: OPEN, open: Mutex::default() })
    }

    /// Connections that are forwarded.
    pub(crate) fn forwarded() -> Arc<Streams> {
        Arc::new(Streams { what: "forwarded connections", most: FORWARDED, open: Mutex::default() })
    }

    fn take(self: &Arc<Self>, uid: &str) -> Result<Turn, StreamError> {
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.get(uid).copied().unwrap_or(0);
        if open >= self.most {
            return Err(StreamError::Busy { pod: uid.to_owned(), what: self.what, open });
        }
        all.insert(uid.to_owned(), open + 1);
        Ok(Turn { streams: Arc::clone(self), uid: uid.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&self.uid) {
            Some(open) if *open > 1 => *open -= 1,
            _ => drop(all.remove(&self.uid)),
        }
    }
}

/// A connection to a port of a pod. It has a place among the pod's until it is dropped.
#[derive(Debug)]
pub struct Forwarded {
    stream: TcpStream,
    _turn: Turn,
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Node {
    /// The output of a container; of the attempt before the present one with `previous`. Reading runs in a task of its
    /// own that ends with the stream.
    ///
    /// # Errors
    /// When there is no such container or no such output.
    pub async fn logs(&self, whom: &Whom, previous: bool, options: LogOptions) -> Result<LogStream, StreamError> {
        let (pod, name) = self.find(whom)?;
        let turn = self.shared.streams.take(&whom.uid)?;
        let Attempt { number: restarts, started } = self.attempt(&pod, &name);
        let pod_name = || pod.metadata.name.clone().unwrap_or_default();
        let attempt = match (previous, restarts) {
            (true, 0) => return Err(StreamError::NoPrevious { pod: pod_name(), container: name }),
            (true, restarts) => restarts - 1,
            (false, restarts) => restarts,
        };
        let path = self.shared.config.log_path(&whom.uid, &name, attempt);
        if !started && !previous && !path.exists() {
            let reason = self.waiting_reason(&pod, &name);
            return Err(StreamError::Waiting { pod: pod_name(), container: name, reason });
        }
        let (ended, over) = watch::channel(!options.follow || previous);
        if options.follow && !previous {
            let Ok(id) = container_id(&whom.uid, &name, attempt) else { return Err(StreamError::NotRunning(name)) };
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                tokio::select! {
                    exit = shared.monitor.wait(&id) => {
                        tracing::trace!(code = exit.code, "a followed container has ended");
                        ended.send_replace(true);
                    }
                    () = ended.closed() => {}
                }
            });
        }
        Ok(logs::read(path, options, over).until_dropped(turn))
    }

    /// Runs a program in a container.
    ///
    /// # Errors
    /// When the container does not run or the program cannot be run.
    pub async fn exec(&self, whom: &Whom, options: ExecOptions) -> Result<Running, StreamError> {
        let turn = self.shared.streams.take(&whom.uid)?;
        let id = self.running(whom)?;
        Ok(exec::exec(&self.shared.monitor.get(), id, options).await?.until_dropped(turn))
    }

    /// Connects to a port inside the pod's network, as if from within.
    ///
    /// # Errors
    /// When the pod is not here or nobody listens.
    pub async fn connect(&self, uid: &str, port: u16) -> Result<Forwarded, StreamError> {
        let id = SandboxId::new(uid).map_err(|_| StreamError::NoPod(uid.to_owned()))?;
        let turn = self.shared.forwarded.take(uid)?;
        let socket = self.shared.monitor.get().socket(id).await?;
        let connected = tokio::time::timeout(Duration::from_secs(30), socket.connect(([127, 0, 0, 1], port).into()));
        let connected = connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|source| StreamError::Connect { port, source })?;
        Ok(Forwarded { stream, _turn: turn })
    }

    /// Options of a log request that says how long ago instead of when.
    pub fn since(seconds: Option<u64>, time: Option<Timestamp>) -> Option<Timestamp> {
        time.or_else(|| Timestamp::now().checked_sub(Duration::from_secs(seconds?)).ok())
    }

    fn find(&self, whom: &Whom) -> Result<(Arc<Pod>, String), StreamError> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pods.get(&whom.uid).cloned().ok_or_else(|| StreamError::NoPod(whom.uid.clone()))?;
        drop(pods);
        let spec = pod.spec.clone().unwrap_or_default();
        let found = match whom.container.as_str() {
            "" => spec.containers.first().map(|c| c.name.clone()),
            name => pod::containers(&spec).find(|(_, c)| c.name == name).map(|(_, c)| c.name.clone()),
        };
        let missing = || StreamError::NoContainer {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            container: whom.container.clone(),
        };
        let name = found.ok_or_else(missing)?;
        Ok((pod, name))
    }

    /// The newest attempt of a container. What its worker knows counts for more than the API, which lags behind.
    fn attempt(&self, pod: &Pod, name: &str) -> Attempt {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.shared.attempts.of(uid, name).unwrap_or_else(|| {
            let status = status_of(pod, name);
            let number = status.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0));
            Attempt { number, started: status.is_some_and(|s| s.container_id.is_some()) }
        })
    }

    fn waiting_reason(&self, pod: &Pod, name: &str) -> String {
        let waiting = status_of(pod, name).and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
        waiting.unwrap_or_else(|| "ContainerCreating".into())
    }

    fn running(&self, whom: &Whom) -> Result<ContainerId, StreamError> {
        let (pod, name) = self.find(whom)?;
        let attempt = self.attempt(&pod, &name);
        container_id(&whom.uid, &name, attempt.number).map_err(|_| StreamError::NotRunning(name))
    }
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.into_iter().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_so_many_streams_and_no_more() {
        let streams = Streams::logs_and_programs();
        let held: Vec<_> = (0..OPEN).map(|_| streams.take("a").expect("room")).collect();
        let refused = streams.take("a").map(drop).expect_err("no room");
        assert_eq!(refused.to_string(), "pod a has 64 logs and programs open already: close some of them first");
        assert!(streams.take("b").is_ok());
        drop(held);
        assert!(streams.take("a").is_ok());
        let ports = Streams::forwarded();
        let held: Vec<_> = (0..FORWARDED).map(|_| ports.take("a").expect("room")).collect();
        let refused = ports.take("a").map(drop).expect_err("no room");
        assert_eq!(refused.to_string(), "pod a has 256 forwarded connections open already: close some of them first");
        drop(held);
        assert!(streams.open.lock().expect("no panic").is_empty());
    }
}
