//! The system call filter: an allow-list, compiled to a classic BPF program of ranges.
//!
//! What is not allowed fails with EPERM, except `clone3` and calls newer than this list: those fail with ENOSYS, so
//! that libraries fall back to what they used before.

use std::collections::BTreeMap;

use libc::sock_filter;

use crate::capability::CapabilitySet;

mod calls;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// The namespace flags `clone` may not have.
const NEW_NAMESPACES: u32 = 0x7E02_0000;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
    Unknown,
    /// Allowed when the low word of the first argument has none of these bits.
    Without(u32),
    /// Allowed when the low word of the first argument is none of these.
    NotOneOf(&'static [u32]),
    /// Allowed when the low word of the first argument is one of these.
    OneOf(&'static [u32]),
    /// Allowed when the low word of the second argument is not this.
    SecondNot(u32),
}

/// The filter for a container with these capabilities.
pub(crate) fn compile(capabilities: CapabilitySet) -> Vec<sock_filter> {
    program(&actions(capabilities))
}

/// A filter that allows these calls and no others.
pub(crate) fn only(calls: &[libc::c_long]) -> Vec<sock_filter> {
    let allowed = calls.iter().filter_map(|call| u32::try_from(*call).ok());
    program(&allowed.map(|call| (call, Action::Allow)).collect())
}

fn actions(capabilities: CapabilitySet) -> BTreeMap<u32, Action> {
    let mut actions: BTreeMap<u32, Action> = BTreeMap::new();
    let mut put = |call: libc::c_long, action| {
        if let Ok(call) = u32::try_from(call) {
            actions.insert(call, action);
        }
    };
    calls::ALWAYS.iter().chain(calls::LEGACY).for_each(|call| put(*call, Action::Allow));
    // AF_ALG (38) and AF_VSOCK (40) reach the kernel's crypto code and the hypervisor.
    put(libc::SYS_socket, Action::NotOneOf(&[38, 40]));
    put(libc::SYS_personality, Action::OneOf(&[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]));
    // Into another project, a file counts against the limit of a volume that is another pod's.
    put(libc::SYS_ioctl, Action::SecondNot(crate::sys::SET_PROJECT));
    put(libc::SYS_clone, Action::Without(NEW_NAMESPACES));
    put(libc::SYS_clone3, Action::Unknown);
    for (capability, calls) in calls::WITH_CAPABILITY {
        if capabilities.has(capability) {
            calls.iter().for_each(|call| put(*call, Action::Allow));
        }
    }
    actions
}

/// The first call nobody knew when this list was written.
const NEWER: u32 = 470;

fn program(actions: &BTreeMap<u32, Action>) -> Vec<sock_filter> {
    let mut code = vec![
        step(LD_W_ABS, 0, 0, 4),
        step(JEQ, 1, 0, ARCH),
        step(RET, 0, 0, RET_KILL_PROCESS),
        step(LD_W_ABS, 0, 0, 0),
    ];
    // From the highest range down: `nr >= start` decides, and what falls through is lower.
    for (start, action) in ranges(actions).into_iter().rev() {
        let body = body(action);
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        code.push(step(JGE, 0, skip, start));
        code.extend(body);
    }
    code.push(step(RET, 0, 0, RET_ERRNO | libc::EPERM.cast_unsigned()));
    code
}

/// Where each run of equal actions begins, from 0 up.
fn ranges(actions: &BTreeMap<u32, Action>) -> Vec<(u32, Action)> {
    let mut ranges: Vec<(u32, Action)> = vec![(0, Action::Deny)];
    let end = actions.keys().next_back().map_or(0, |last| last + 1).max(NEWER);
    for call in 0..end {
        let default = if call < NEWER { Action::Deny } else { Action::Unknown };
        let action = actions.get(&call).copied().unwrap_or(default);
        if ranges.last().is_none_or(|(_, last)| *last != action) {
            ranges.push((call, action));
        }
    }
    // The x32 calls, marked by this bit, are not ours; nor is -1.
    ranges.push((end, Action::Unknown));
    ranges.push((0x4000_0000, Action::Deny));
    ranges
}

fn body(action: Action) -> Vec<sock_filter> {
    let deny = RET_ERRNO | libc::EPERM.cast_unsigned();
    let argument = step(LD_W_ABS, 0, 0, 16);
    match action {
        Action::Allow => vec![step(RET, 0, 0, RET_ALLOW)],
        Action::Deny => vec![step(RET, 0, 0, deny)],
        Action::Unknown => vec![step(RET, 0, 0, RET_ERRNO | libc::ENOSYS.cast_unsigned())],
        Action::Without(bits) => {
            vec![argument, step(JSET, 1, 0, bits), step(RET, 0, 0, RET_ALLOW), step(RET, 0, 0, deny)]
        }
        Action::NotOneOf(values) => choice(argument, values, deny, RET_ALLOW),
        Action::OneOf(values) => choice(argument, values, RET_ALLOW, deny),
        Action::SecondNot(value) => choice(step(LD_W_ABS, 0, 0, 24), &[value], deny, RET_ALLOW),
    }
}

fn choice(argument: sock_filter, values: &[u32], hit: u32, miss: u32) -> Vec<sock_filter> {
    let mut code = vec![argument];
    for (index, value) in values.iter().enumerate() {
        let to_hit = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        code.push(step(JEQ, to_hit, 0, *value));
    }
    code.push(step(RET, 0, 0, miss));
    code.push(step(RET, 0, 0, hit));
    code
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(code: &[sock_filter], arch: u32, call: u32, arguments: [u32; 2]) -> u32 {
        let (mut at, mut a) = (0, 0u32);
        loop {
            let s = code[at];
            at += 1;
            let taken = match s.code {
                LD_W_ABS => {
                    a = match s.k {
                        0 => call,
                        4 => arch,
                        16 => arguments[0],
                        24 => arguments[1],
                        _ => unreachable!(),
                    };
                    continue;
                }
                RET => return s.k,
                JEQ => a == s.k,
                JGE => a >= s.k,
                JSET => a & s.k != 0,
                _ => unreachable!(),
            };
            at += usize::from(if taken { s.jt } else { s.jf });
        }
    }

    fn of(call: libc::c_long, argument: u32, capabilities: CapabilitySet) -> u32 {
        run(&compile(capabilities), ARCH, u32::try_from(call).unwrap(), [argument, 0])
    }

    const EPERM: u32 = RET_ERRNO | 1;
    const ENOSYS: u32 = RET_ERRNO | 38;

    #[test]
    fn every_call_gets_the_verdict_it_was_given() {
        let set = CapabilitySet::default_container();
        let actions = actions(set);
        let code = compile(set);
        for call in 0..600 {
            let want = match actions.get(&call) {
                Some(Action::Allow) => RET_ALLOW,
                Some(Action::Unknown) => ENOSYS,
                Some(_) => continue,
                None if call >= NEWER => ENOSYS,
                None => EPERM,
            };
            assert_eq!(run(&code, ARCH, call, [7; 2]), want, "{call}");
        }
        assert!(code.len() < 400, "{}", code.len());
    }

    #[test]
    fn arguments_decide_where_they_should() {
        let plain = CapabilitySet::default_container();
        assert_eq!(of(libc::SYS_clone, 17, plain), RET_ALLOW);
        assert_eq!(of(libc::SYS_clone, 0x1000_0000, plain), EPERM);
        assert_eq!(of(libc::SYS_clone3, 0, plain), ENOSYS);
        assert_eq!(of(libc::SYS_socket, 2, plain), RET_ALLOW);
        assert_eq!(of(libc::SYS_socket, 40, plain), EPERM);
        assert_eq!(of(libc::SYS_personality, 0x2_0000, plain), RET_ALLOW);
        assert_eq!(of(libc::SYS_personality, 1, plain), EPERM);
        assert_eq!(of(libc::SYS_mount, 0, plain), EPERM);
        assert_eq!(of(libc::SYS_mount, 0, CapabilitySet::all()), RET_ALLOW);
        assert_eq!(of(libc::SYS_clone, 0x1000_0000, CapabilitySet::all()), RET_ALLOW);
    }

    #[test]
    fn no_file_goes_to_another_project() {
        let ioctl = |request| {
            let code = compile(CapabilitySet::all());
            run(&code, ARCH, u32::try_from(libc::SYS_ioctl).unwrap(), [crate::sys::SET_PROJECT, request])
        };
        assert_eq!(ioctl(crate::sys::SET_PROJECT), EPERM);
        assert_eq!(ioctl(0x5401), RET_ALLOW);
    }

    #[test]
    fn strange_architectures_die() {
        let code = compile(CapabilitySet::default_container());
        assert_eq!(run(&code, 0x4000_0003, 1, [0; 2]), RET_KILL_PROCESS);
        assert_eq!(run(&code, ARCH, 0x4000_0001, [0; 2]), EPERM);
        assert_eq!(run(&code, ARCH, u32::MAX, [0; 2]), EPERM);
    }
}
