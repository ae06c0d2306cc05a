//! Capabilities by name.

use crate::protocol::Capabilities;

/// Names in the kernel's order.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless told otherwise, as in every OCI runtime.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A set of capabilities, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CapabilitySet(u64);

impl CapabilitySet {
    /// Every one this program knows.
    pub(crate) fn all() -> CapabilitySet {
        CapabilitySet((1 << NAMES.len()) - 1)
    }

    /// What containers have unless told otherwise.
    pub(crate) fn default_container() -> CapabilitySet {
        CapabilitySet(DEFAULT.iter().filter_map(|name| number(name)).fold(0, |bits, number| bits | 1 << number))
    }

    /// The default set with changes: `drop` first, then `add`. The error is the unknown name.
    pub(crate) fn changed(changes: &Capabilities) -> Result<CapabilitySet, String> {
        let mut set = CapabilitySet::default_container();
        for name in &changes.drop {
            set.0 &= !CapabilitySet::named(name)?.0;
        }
        for name in &changes.add {
            set.0 |= CapabilitySet::named(name)?.0;
        }
        Ok(set)
    }

    fn named(name: &str) -> Result<CapabilitySet, String> {
        let plain = name.to_ascii_uppercase();
        let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
        match number(plain) {
            Some(number) => Ok(CapabilitySet(1 << number)),
            None if plain == "ALL" => Ok(CapabilitySet::all()),
            None => Err(name.to_owned()),
        }
    }

    /// What both have.
    pub(crate) fn and(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & other.0)
    }

    /// Whether it has one, by the kernel's name without `CAP_`.
    pub(crate) fn has(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.0 & (1 << number) != 0)
    }

    /// One bit each, in the kernel's order.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// What this process may have at most: from `CapBnd` of its status.
    pub(crate) fn bounding(status: &str) -> CapabilitySet {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        CapabilitySet(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// The numbers of the bits set.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |number| self.0 & (1 << number) != 0)
    }

    /// What it has and the other has not.
    pub(crate) fn without(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & !other.0)
    }
}

fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_drop_before_they_add() {
        let changes = Capabilities { add: vec!["CAP_NET_ADMIN".into()], drop: vec!["all".into()] };
        let set = CapabilitySet::changed(&changes).unwrap();
        assert_eq!(set.bits(), 1 << 12);
        assert_eq!(CapabilitySet::default_container().bits(), 0xa804_25fb);
        let wrong = Capabilities { add: vec!["NET_ADMIM".into()], drop: vec![] };
        assert_eq!(CapabilitySet::changed(&wrong), Err("NET_ADMIM".into()));
    }
}
