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
    /// That of threads of this process whose names begin so.
    OwnThreads(&'static str),
}

impl Whose {
    /// Microseconds on a processor so far.
    pub(crate) fn micros(&self) -> f64 {
        self.tasks().iter().map(|task| nanos(task)).sum::<f64>() / 1e3
    }

    fn tasks(&self) -> Vec<PathBuf> {
        match self {
            Self::Nobodys => Vec::new(),
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
        assert_eq!(Whose::Nobodys.micros(), 0.0);
    }
}
