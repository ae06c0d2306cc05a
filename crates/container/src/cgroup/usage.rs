//! What a group uses, and whether the kernel had to kill in it.

use std::fs;
use std::path::Path;

use super::{Cgroups, Mode, write};
use crate::protocol::Usage;

impl Cgroups {
    /// What a group uses now. What cannot be read counts as nothing.
    pub(crate) fn usage(&self, group: &str) -> Usage {
        match self.mode {
            Mode::V2 => self.usage_v2(group),
            Mode::V1 | Mode::Hybrid => self.usage_v1(group),
        }
    }

    fn usage_v2(&self, group: &str) -> Usage {
        let Some(directory) = self.unified(group) else { return Usage::default() };
        let memory = number(&directory.join("memory.current"));
        let inactive = field(&directory.join("memory.stat"), "inactive_file");
        Usage {
            cpu_ns: field(&directory.join("cpu.stat"), "usage_usec").saturating_mul(1000),
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(inactive),
            pids: number(&directory.join("pids.current")),
        }
    }

    fn usage_v1(&self, group: &str) -> Usage {
        let read = |controller: &str, file: &str| {
            self.controller(controller, group).map_or(0, |directory| number(&directory.join(file)))
        };
        let memory = read("memory", "memory.usage_in_bytes");
        let inactive = self
            .controller("memory", group)
            .map_or(0, |directory| field(&directory.join("memory.stat"), "total_inactive_file"));
        Usage {
            cpu_ns: read("cpuacct", "cpuacct.usage"),
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(inactive),
            pids: read("pids", "pids.current"),
        }
    }

    /// How many processes of a group the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        match self.mode {
            Mode::V2 => self.unified(group).map_or(0, |d| field(&d.join("memory.events"), "oom_kill")),
            Mode::V1 | Mode::Hybrid => {
                self.controller("memory", group).map_or(0, |d| field(&d.join("memory.oom_control"), "oom_kill"))
            }
        }
    }

    /// Pushes a group's memory out, as far as the kernel gets.
    pub(crate) fn reclaim(&self, group: &str) {
        let outcome = match self.mode {
            Mode::V2 => {
                let memory = self.usage(group).memory_bytes;
                self.unified(group).map(|d| write(&d.join("memory.reclaim"), &memory.to_string()))
            }
            Mode::V1 | Mode::Hybrid => {
                self.controller("memory", group).map(|d| write(&d.join("memory.force_empty"), "0"))
            }
        };
        if let Some(Err(error)) = outcome {
            tracing::debug!(%error, group, "not all memory could be pushed out");
        }
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn field(path: &Path, name: &str) -> u64 {
    let find = |text: String| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
    };
    fs::read_to_string(path).ok().and_then(find).unwrap_or(0)
}
