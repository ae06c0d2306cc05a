//! Processor time, which tells what a request costs even while others use the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Whose processor time counts.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    /// Nobody's.
    Nobodys,
    /// That of a process's children.
    ChildrenOf(u32),
    /// That of a process, its ended threads too, to 10 ms.
    Process(u32),
    /// That of threads of this process whose names begin so.
    OwnThreads(&'static str),
}

impl Whose {
    /// Microseconds on a processor so far.
    pub(crate) fn micros(&self) -> f64 {
        if let Self::Process(process) = self {
            return ticks(*process) * 1e6 / TICKS_PER_SECOND;
        }
        self.tasks().iter().map(|task| nanos(task)).sum::<f64>() / 1e3
    }

    fn tasks(&self) -> Vec<PathBuf> {
        match self {
            Self::Nobodys | Self::Process(_) => Vec::new(),
            Self::ChildrenOf(parent) => fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
                .unwrap_or_default()
                .split_whitespace()
                .map(|child| PathBuf::from(format!("/proc/{child}")))
                .collect(),
            Self::OwnThreads(prefix) => fs::read_dir("/proc/self/task")
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with(prefix)))
                .collect(),
        }
    }
}

/// The unit of `/proc/<process>/stat`, the same on every Linux that Rust is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Ticks that a process has run, in its own code and in the kernel's (`proc_pid_stat(5)`, fields 14 and 15).
fn ticks(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses that may hold anything.
    let rest = text.rsplit(')').next().unwrap_or_default();
    rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}

/// Nanoseconds a task has run.
fn nanos(task: &Path) -> f64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_a_named_thread_is_counted() {
        let worker = std::thread::Builder::new().name("bench-busy".into());
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let worker = worker.spawn(move || while wait.try_recv().is_err() {}).expect("a thread");
        let whose = Whose::OwnThreads("bench-busy");
        while whose.micros() < 1000.0 {
            std::thread::yield_now();
        }
        done.send(()).expect("worker runs");
        worker.join().expect("worker ends");
        while Whose::Process(std::process::id()).micros() < 1000.0 {
            std::hint::spin_loop();
        }
        assert_eq!(Whose::Nobodys.micros(), 0.0);
    }
}
