//! The process in numbers, under the names that Prometheus' own clients give them.

use std::fs;

use knoll_api::metrics::{MetricFamily, MetricKind, Sample};
use nix::unistd::{SysconfVar, sysconf};

/// What `/proc` says about this process. What cannot be read is left out.
pub(super) fn readings() -> Vec<MetricFamily> {
    let open = fs::read_dir("/proc/self/fd").map(|files| files.count() as u64).ok();
    let open = open.map(|count| MetricFamily::gauge("process_open_fds", "Open files", count));
    open.into_iter()
        .chain(fs::read_to_string("/proc/self/stat").ok().into_iter().flat_map(|stat| of_stat(&stat)))
        .collect()
}

/// The numbers in a line of `/proc/[pid]/stat`, see proc_pid_stat(5).
fn of_stat(stat: &str) -> Vec<MetricFamily> {
    // The program's name stands in parentheses and may hold anything.
    let Some((_, fields)) = stat.rsplit_once(')') else { return Vec::new() };
    let fields: Vec<u64> = fields.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    // The first field after the name is the third of the page.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let system = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let page = system(SysconfVar::PAGE_SIZE).unwrap_or(4096);
    let ticks = system(SysconfVar::CLK_TCK).unwrap_or(100);
    #[expect(clippy::cast_precision_loss, reason = "ticks stay below 2⁵³")]
    let seconds = (field(14) + field(15)) as f64 / ticks as f64;
    vec![
        MetricFamily {
            name: "process_cpu_seconds",
            help: "User and system time, seconds",
            kind: MetricKind::Counter,
            samples: vec![Sample { labels: Vec::new(), value: seconds }],
        },
        MetricFamily::gauge("process_threads", "Threads", field(20)),
        MetricFamily::gauge("process_virtual_memory_bytes", "Address space, bytes", field(23)),
        MetricFamily::gauge("process_resident_memory_bytes", "Resident memory, bytes", field(24) * page),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_moves_no_field() {
        let numbers = (4..=13).map(|_| "0").collect::<Vec<_>>().join(" ");
        let stat = format!("42 (a) b (c) S {numbers} 150 50 0 0 20 0 9 0 1000 8192 3 0");
        let value = |name: &str| of_stat(&stat).into_iter().find(|m| m.name == name).unwrap().samples[0].value;
        assert!((value("process_cpu_seconds") - 2.0).abs() < 1e-9);
        assert!((value("process_threads") - 9.0).abs() < 1e-9);
        assert!((value("process_virtual_memory_bytes") - 8192.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_is_read() {
        let names: Vec<_> = readings().into_iter().map(|m| m.name).collect();
        assert!(names.contains(&"process_open_fds") && names.contains(&"process_resident_memory_bytes"));
    }
}
