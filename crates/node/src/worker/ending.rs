//! How containers end: asked to, made to, or by themselves.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use knoll_container::protocol::ContainerId;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{tasks, uid};
use crate::config::InstanceEvent;
use crate::logs::last_lines;
use crate::pod::{LONGEST_GRACE, SandboxInfo, Terminated};
use crate::runtime;
use crate::shared::Shared;

/// Most bytes of a container's last words.
const LONGEST_WORDS: u64 = 4096;
/// Most lines and bytes of a log that stand in for them.
const LOG_LINES: usize = 80;
const LOG_BYTES: usize = 2048;
/// Time for the signal even when the hook used up the grace.
const LEAST: Duration = Duration::from_secs(2);
/// Between two looks whether a program hears signals by now: first, for one that has begun a moment ago, and later, for one that
/// may never.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A stop.
pub(super) struct Stop {
    pub(super) pod: Arc<Pod>,
    pub(super) container: Arc<Container>,
    pub(super) id: String,
    pub(super) grace: Duration,
    pub(super) stop_signal: Option<String>,
    /// Its first process, where that is known.
    pub(super) pid: Option<u32>,
    pub(super) address: Option<SandboxInfo>,
    /// Set when the pod took requests: nobody is cut off while the grace lasts.
    pub(super) instance: Option<InstanceEvent>,
}

/// Longest wait for the requests under way before an instance is asked to end; as long as Knative's queue waits. A
/// program that ends gracefully answers what is left.
const DRAIN: Duration = Duration::from_secs(30);

/// Waits until the requests under way at an instance are answered, within bounds. Whether they are; `false` for a pod
/// whose requests are not ours to know.
async fn drain(shared: &Shared, instance: InstanceEvent, deadline: Instant) -> bool {
    let Some(drained) = (shared.callbacks.drained)(instance) else { return false };
    let bound = deadline.min(Instant::now() + DRAIN);
    tokio::time::timeout_at(bound, drained).await.is_ok()
}

/// Stops a container: its hook, its requests, its signal, and when the grace is over the end. Its exit is told by
/// [`exit`].
pub(super) async fn stop(shared: &Shared, stop: Stop) {
    let Ok(id) = ContainerId::new(stop.id.as_str()) else { return };
    let deadline = Instant::now() + stop.grace.min(LONGEST_GRACE);
    let hook = stop.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(hook) = hook
        && !stop.grace.is_zero()
    {
        let run = tasks::run_hook(shared, &stop.container, &id, stop.address.as_ref(), hook, stop.grace);
        let outcome = tokio::time::timeout(stop.grace, run).await.unwrap_or_else(|_| Err("it took too long".into()));
        if let Err(why) = outcome {
            let text = format!("PreStopHook failed: {why}");
            shared.recorder.warning(&stop.pod, Some(&stop.container.name), "FailedPreStopHook", text);
        }
    }
    let drained = match stop.instance {
        Some(instance) if !stop.grace.is_zero() => drain(shared, instance, deadline).await,
        _ => false,
    };
    let left = if stop.grace.is_zero() {
        Duration::ZERO
    } else {
        deadline.duration_since(Instant::now()).max(LEAST.min(stop.grace))
    };
    if !left.is_zero() {
        let signal = signal_number(stop.stop_signal.as_deref());
        let heard = hears(stop.pid, signal).await;
        send(shared, &id, signal).await;
        // The first process of a container hears no signal that it does not ask for. One that has answered
        // everything and would only sit the grace out can go now.
        if drained && !hears(stop.pid, signal).await {
            return kill(shared, id.as_str()).await;
        }
        // One that had only just begun missed it: it is told again once it asks.
        let again = async {
            if !heard {
                asks(stop.pid, signal).await;
                send(shared, &id, signal).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = tokio::time::timeout(left, shared.monitor.wait(&id)) => {
                if ended.is_ok() {
                    return;
                }
            }
            () = again => {}
        }
    }
    kill(shared, id.as_str()).await;
}

async fn send(shared: &Shared, id: &ContainerId, signal: i32) {
    if let Err(error) = shared.monitor.get().signal(id.clone(), signal).await {
        tracing::debug!(%id, %error, "a stop signal was not delivered");
    }
}

/// Waits until a container's first process asks for a signal, or is gone.
async fn asks(pid: Option<u32>, signal: i32) {
    let mut pause = LOOK.0;
    while !hears(pid, signal).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
}

/// Whether a container's first process asks for a signal (`SigCgt` of proc_pid_status(5)); `true` when in doubt.
async fn hears(pid: Option<u32>, signal: i32) -> bool {
    let Some(pid) = pid else { return true };
    let Ok(status) = tokio::fs::read_to_string(format!("/proc/{pid}/status")).await else { return true };
    caught(&status).is_none_or(|caught| caught >> (signal - 1) & 1 == 1)
}

/// The mask of caught signals in a process status.
fn caught(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Kills a container; tries again until the monitor has heard it.
pub(super) async fn kill(shared: &Shared, id: &str) {
    let Ok(id) = ContainerId::new(id) else { return };
    let mut pause = Duration::from_millis(100);
    loop {
        match shared.monitor.get().kill(id.clone()).await {
            Ok(()) => return,
            Err(error) if error.kind() == Some(knoll_container::protocol::RefusalKind::NotFound) => return,
            Err(error) => tracing::warn!(%id, %error, "a container cannot be killed"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// A signal by name (`SIGTERM`, `term`) or number; SIGTERM when it is none.
fn signal_number(text: Option<&str>) -> i32 {
    let Some(text) = text else { return Signal::SIGTERM as i32 };
    let named = || {
        let upper = text.to_uppercase();
        let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        Signal::from_str(&name).ok().map(|s| s as i32)
    };
    text.parse().ok().filter(|n| (1..=64).contains(n)).or_else(named).unwrap_or(Signal::SIGTERM as i32)
}

/// Waits until a container has exited and reads its last words.
pub(super) async fn exit(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    id: String,
    since: Timestamp,
) -> Terminated {
    let (code, signal, oom, known, at) = match ContainerId::new(id.as_str()) {
        Ok(id) => {
            let exit = shared.monitor.wait(&id).await;
            (exit.code, exit.signal, exit.oom_killed, exit.known, shared.clock.translate(exit.at))
        }
        Err(_) => (255, None, false, false, shared.clock.now()),
    };
    let reason = match (known, oom, code) {
        (false, ..) => "ContainerStatusUnknown",
        (true, true, _) => "OOMKilled",
        (true, false, 0) => "Completed",
        (true, false, _) => "Error",
    };
    let message = last_words(shared, pod, container, &id, code).await;
    Terminated { id, code, signal, reason: reason.into(), message, started: since, finished: at }
}

async fn last_words(shared: &Shared, pod: &Pod, container: &Container, id: &str, code: i32) -> String {
    let uid = uid(pod);
    let Some((name, attempt)) = runtime::parse_container_id(id, uid) else { return String::new() };
    let words = runtime::termination_log(&shared.config, uid, name, attempt);
    let log = shared.config.log_path(uid, name, attempt);
    let from_log = code != 0 && container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    let read = tokio::task::spawn_blocking(move || {
        let words = end_of(&words, LONGEST_WORDS);
        if words.is_empty() && from_log {
            last_lines(&end_of(&log, 64 * 1024), LOG_LINES, LOG_BYTES)
        } else {
            String::from_utf8_lossy(&words).into_owned()
        }
    });
    read.await.unwrap_or_default()
}

/// The last bytes of a file; nothing when it cannot be read.
fn end_of(path: &Path, most: u64) -> Vec<u8> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_asks_for_the_signals_of_its_mask() {
        let status = "Name:\tapp\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000004002\n";
        assert_eq!(caught(status).map(|mask| mask >> 14 & 1), Some(1));
        assert_eq!(caught(status).map(|mask| mask >> 9 & 1), Some(0));
        assert_eq!(caught("Name:\tapp\n"), None);
    }

    #[test]
    fn signals_go_by_name_or_number() {
        for (text, number) in [
            (None, 15),
            (Some("SIGINT"), 2),
            (Some("quit"), 3),
            (Some("9"), 9),
            (Some("37"), 37),
            (Some("SIGWHAT"), 15),
        ] {
            assert_eq!(signal_number(text), number, "{text:?}");
        }
    }
}
