//! A program for the kernel that decides which devices a control group may use.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{checked, owned};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// `BPF_DEVCG_ACC_MKNOD` and `BPF_DEVCG_DEV_CHAR`.
const MAKE: i32 = 1;
const CHARACTER: i32 = 2;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const IF_EQUAL: u8 = 0x15;
const IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Step {
    code: u8,
    /// The destination in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    value: i32,
}

fn step(code: u8, registers: u8, offset: i16, value: i32) -> Step {
    Step { code, registers, offset, value }
}

/// Leaves with an answer: 1 allows.
fn answer(value: i32) -> [Step; 2] {
    [step(SET, 0, 0, value), step(EXIT, 0, 0, 0)]
}

/// Loads a program that allows to make any node, and to use these character devices.
pub(crate) fn device_program(allowed: &[(u32, Option<u32>)]) -> io::Result<OwnedFd> {
    let number = |number: u32| i32::try_from(number).map_err(io::Error::other);
    // Register 1 points to the kind and, in the high half of that word, the access; the major and the minor number.
    let mut program = vec![
        step(LOAD_WORD, 0x12, 0, 0),
        step(MOVE, 0x23, 0, 0),
        step(AND, 0x03, 0, 0xffff),
        step(SHIFT_RIGHT, 0x02, 0, 16),
        step(LOAD_WORD, 0x14, 4, 0),
        step(LOAD_WORD, 0x15, 8, 0),
        step(IF_NOT, 0x02, 2, MAKE),
    ];
    program.extend(answer(1));
    program.push(step(IF_EQUAL, 0x03, 2, CHARACTER));
    program.extend(answer(0));
    for (major, minor) in allowed {
        match minor {
            Some(minor) => {
                program.push(step(IF_NOT, 0x04, 3, number(*major)?));
                program.push(step(IF_NOT, 0x05, 2, number(*minor)?));
            }
            None => program.push(step(IF_NOT, 0x04, 2, number(*major)?)),
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    load(&program)
}

/// The part of `union bpf_attr` that loading needs.
#[repr(C)]
struct Load {
    kind: u32,
    steps: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

fn load(program: &[Step]) -> io::Result<OwnedFd> {
    let request = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        steps: u32::try_from(program.len()).map_err(io::Error::other)?,
        program: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: the request has the given size; it, the program and the license live across the call.
    owned(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const request, size_of::<Load>()) })
}

/// The part of `union bpf_attr` that attaching needs.
#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has a program decide for a control group of the unified tree and all below it.
pub(crate) fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let request = Attach {
        group: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: CGROUP_DEVICE_ATTACH,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the request has the given size and lives across the call.
    checked(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const request, size_of::<Attach>()) }).map(drop)
}
