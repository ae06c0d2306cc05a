//! Limits, written in the words of either version.

use std::io;
use std::path::Path;

use super::{Cgroups, Mode, write};
use crate::protocol::Resources;

/// The period when none is given, in microseconds; Kubernetes' default too.
const PERIOD_US: u64 = 100_000;

impl Cgroups {
    /// Sets every limit; absent ones become unlimited when `replace` is set and are left alone otherwise.
    pub(crate) fn limit(&self, group: &str, limits: &Resources, replace: bool) -> io::Result<()> {
        match self.mode {
            Mode::V2 => self.limit_v2(group, limits, replace),
            Mode::V1 | Mode::Hybrid => self.limit_v1(group, limits, replace),
        }
    }

    fn limit_v2(&self, group: &str, limits: &Resources, replace: bool) -> io::Result<()> {
        let Some(directory) = self.unified(group) else { return Ok(()) };
        let set = |file: &str, value: Option<String>, unlimited: &str| match value {
            Some(value) => named(&directory.join(file), &value),
            None if replace => named(&directory.join(file), unlimited),
            None => Ok(()),
        };
        set("cpu.weight", limits.cpu_shares.map(|shares| weight(shares).to_string()), "100")?;
        let period = limits.cpu_period_us.unwrap_or(PERIOD_US);
        set("cpu.max", limits.cpu_quota_us.map(|quota| format!("{quota} {period}")), &format!("max {period}"))?;
        set("memory.max", limits.memory_bytes.map(|bytes| bytes.to_string()), "max")?;
        if limits.memory_bytes.is_some() && directory.join("memory.swap.max").exists() {
            named(&directory.join("memory.swap.max"), "0")?;
        }
        set("pids.max", limits.pids.map(|pids| pids.to_string()), "max")
    }

    fn limit_v1(&self, group: &str, limits: &Resources, replace: bool) -> io::Result<()> {
        let set = |controller: &str, file: &str, value: Option<u64>, unlimited: &str| {
            let text = match value {
                Some(value) => value.to_string(),
                None if replace => unlimited.to_owned(),
                None => return Ok(()),
            };
            match self.controller(controller, group) {
                Some(directory) => named(&directory.join(file), &text),
                None if value.is_some() => Err(missing(controller)),
                None => Ok(()),
            }
        };
        set("cpu", "cpu.shares", limits.cpu_shares.map(|shares| shares.clamp(2, 262_144)), "1024")?;
        if limits.cpu_quota_us.is_some() {
            set("cpu", "cpu.cfs_period_us", Some(limits.cpu_period_us.unwrap_or(PERIOD_US)), "")?;
        }
        set("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us, "-1")?;
        self.limit_memory_v1(group, limits.memory_bytes, replace)?;
        set("pids", "pids.max", limits.pids, "max")
    }

    /// The limit with swap can never be below the one without, so the order depends on the direction.
    fn limit_memory_v1(&self, group: &str, bytes: Option<u64>, replace: bool) -> io::Result<()> {
        let value = match bytes {
            Some(bytes) => bytes.to_string(),
            None if replace => "-1".to_owned(),
            None => return Ok(()),
        };
        let Some(directory) = self.controller("memory", group) else {
            return if bytes.is_some() { Err(missing("memory")) } else { Ok(()) };
        };
        let memory = directory.join("memory.limit_in_bytes");
        let with_swap = directory.join("memory.memsw.limit_in_bytes");
        if !with_swap.exists() {
            return named(&memory, &value);
        }
        if named(&memory, &value).is_ok() {
            return named(&with_swap, &value);
        }
        named(&with_swap, &value)?;
        named(&memory, &value)
    }
}

/// Shares of version 1 as a weight of version 2, by the formula every runtime uses.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn named(path: &Path, text: &str) -> io::Result<()> {
    write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {text:?} to {}: {error}", path.display())))
}

fn missing(controller: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this machine has no {controller} controller"))
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn one_cpu_of_shares_is_the_known_weight() {
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }
}
