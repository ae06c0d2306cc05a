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
    /// That of whatever a process has started, and of what those have: such as ended and were waited for, too.
    Descendants(u32),
    /// That of threads of this process whose names begin so.
    OwnThreads(&'static str),
}

impl Whose {
    /// Microseconds on a processor so far.
    pub(crate) fn micros(&self) -> f64 {
        if let Self::Process(process) = self {
            return ticks(*process).own * 1e6 / TICKS_PER_SECOND;
        }
        if let Self::Descendants(process) = self {
            return descendants(*process) * 1e6 / TICKS_PER_SECOND;
        }
        self.tasks().iter().map(|task| nanos(task)).sum::<f64>() / 1e3
    }

    fn tasks(&self) -> Vec<PathBuf> {
        match self {
            Self::Nobodys | Self::Process(_) | Self::Descendants(_) => Vec::new(),
            Self::ChildrenOf(parent) => {
                children(*parent).into_iter().map(|child| PathBuf::from(format!("/proc/{child}"))).collect()
            }
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

/// Ticks on a processor.
#[derive(Default)]
struct Ticks {
    own: f64,
    /// Of descendants that ended and were waited for.
    waited_for: f64,
}

/// What a process has run, in its own code and in the kernel's (`proc_pid_stat(5)`, fields 14 to 17).
fn ticks(process: u32) -> Ticks {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses that may hold anything.
    let rest = text.rsplit(')').next().unwrap_or_default();
    let mut fields = rest.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok());
    let mut two = || fields.by_ref().take(2).sum();
    Ticks { own: two(), waited_for: two() }
}

fn descendants(process: u32) -> f64 {
    let (mut sum, mut left) = (ticks(process).waited_for, children(process));
    while let Some(child) = left.pop() {
        let ticks = ticks(child);
        sum += ticks.own + ticks.waited_for;
        left.extend(children(child));
    }
    sum
}

/// The children of all threads of a process.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
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
