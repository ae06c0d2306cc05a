//! Programs that live in sealed memory: nobody can change them, whatever way leads to them, and they are no file of
//! the host.
//!
//! Two of them are a few instructions each, because they stand where a container can look at them: what runs there
//! must have no memory of ours. They are written as instructions, and the file around them is made here, so that they
//! contain nothing else.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Filesystem, MountAttributes, checked, owned};

// `pause`: cannot be looked at (`PR_SET_DUMPABLE` 0), and waits for ever. Its parent has it ignore SIGCHLD, so that the
// kernel reaps what is handed to it.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.knoll_pause,\"a\",@progbits",
    ".globl knoll_pause_begin",
    "knoll_pause_begin:",
    "mov edi, 4",
    "xor esi, esi",
    "mov eax, 157",
    "syscall",
    "2:",
    "mov eax, 34",
    "syscall",
    "jmp 2b",
    ".globl knoll_pause_end",
    "knoll_pause_end:",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.knoll_pause,\"a\",@progbits",
    ".globl knoll_pause_begin",
    "knoll_pause_begin:",
    "mov x0, #4",
    "mov x1, #0",
    "mov x8, #167",
    "svc #0",
    "2:",
    "mov x0, #0",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x8, #73",
    "svc #0",
    "b 2b",
    ".globl knoll_pause_end",
    "knoll_pause_end:",
    ".popsection",
);

// `birth`: makes a sibling (`CLONE_PARENT`), which is born in the process-id namespace its parent has chosen; says the
// sibling's pid, eight bytes, on descriptor 3 and ends. The sibling begins a session, takes its stdin for a terminal
// if it is one, and becomes the program: its first argument is the file, the others are the program's. When it cannot,
// it says the negative errno on descriptor 3, which the program does not inherit, and ends with 125. Without a
// descriptor 3 it is not we who have started it (a script may name `/proc/self/exe` as its interpreter), and it ends.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.knoll_birth,\"a\",@progbits",
    ".globl knoll_birth_begin",
    "knoll_birth_begin:",
    "mov rbx, rsp",
    // fcntl(3, F_SETFD, FD_CLOEXEC)
    "mov edi, 3",
    "mov esi, 2",
    "mov edx, 1",
    "mov eax, 72",
    "syscall",
    "test rax, rax",
    "js 3f",
    // clone(CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)
    "mov edi, 0x8011",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "js 3f",
    // The parent: write(3, &pid, 8), exit_group(0)
    "push rax",
    "mov edi, 3",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    "xor edi, edi",
    "mov eax, 231",
    "syscall",
    // The sibling: setsid()
    "2:",
    "mov eax, 112",
    "syscall",
    // ioctl(0, TIOCSCTTY, 0)
    "xor edi, edi",
    "mov esi, 0x540E",
    "xor edx, edx",
    "mov eax, 16",
    "syscall",
    // execve(argv[0], &argv[1], envp)
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "lea rsi, [rbx + 16]",
    "lea rdx, [rbx + rax*8 + 16]",
    "mov eax, 59",
    "syscall",
    // write(3, &-errno, 8), exit_group(125)
    "3:",
    "push rax",
    "mov edi, 3",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    "mov edi, 125",
    "mov eax, 231",
    "syscall",
    ".globl knoll_birth_end",
    "knoll_birth_end:",
    ".popsection",
);
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.knoll_birth,\"a\",@progbits",
    ".globl knoll_birth_begin",
    "knoll_birth_begin:",
    "mov x19, sp",
    "mov x0, #3",
    "mov x1, #2",
    "mov x2, #1",
    "mov x8, #25",
    "svc #0",
    "cmp x0, #0",
    "b.lt 3f",
    "mov x0, #0x8011",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #220",
    "svc #0",
    "cmp x0, #0",
    "b.eq 2f",
    "b.lt 3f",
    "str x0, [sp, #-16]!",
    "mov x0, #3",
    "mov x1, sp",
    "mov x2, #8",
    "mov x8, #64",
    "svc #0",
    "mov x0, #0",
    "mov x8, #94",
    "svc #0",
    "2:",
    "mov x8, #157",
    "svc #0",
    "mov x0, #0",
    "mov x1, #0x540E",
    "mov x2, #0",
    "mov x8, #29",
    "svc #0",
    "ldr x9, [x19]",
    "ldr x0, [x19, #8]",
    "add x1, x19, #16",
    "add x2, x1, x9, lsl #3",
    "mov x8, #221",
    "svc #0",
    "3:",
    "str x0, [sp, #-16]!",
    "mov x0, #3",
    "mov x1, sp",
    "mov x2, #8",
    "mov x8, #64",
    "svc #0",
    "mov x0, #125",
    "mov x8, #94",
    "svc #0",
    ".globl knoll_birth_end",
    "knoll_birth_end:",
    ".popsection",
);

// SAFETY: the symbols are defined above; only their addresses are used.
unsafe extern "C" {
    static knoll_pause_begin: u8;
    static knoll_pause_end: u8;
    static knoll_birth_begin: u8;
    static knoll_birth_end: u8;
}

fn between(begin: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: both ends are labels of one read-only section of this program, in this order.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// The program that holds a process-id namespace.
pub(crate) fn pause() -> io::Result<OwnedFd> {
    tiny(c"knoll-pause", between(&raw const knoll_pause_begin, &raw const knoll_pause_end))
}

/// The program that is born in a process-id namespace and becomes another one.
pub(crate) fn birth() -> io::Result<OwnedFd> {
    tiny(c"knoll-birth", between(&raw const knoll_birth_begin, &raw const knoll_birth_end))
}

fn tiny(name: &CStr, code: &[u8]) -> io::Result<OwnedFd> {
    let mut memory = File::from(memory(name)?);
    memory.write_all(&elf(code))?;
    // Who runs it may not read it, which also keeps the kernel from letting others look at it.
    memory.set_permissions(std::fs::Permissions::from_mode(0o111))?;
    let memory = OwnedFd::from(memory);
    seal(memory.as_fd())?;
    Ok(memory)
}

/// Where the only segment of a tiny program is mapped.
const BASE: u64 = 0x40_0000;

/// An executable of one read-only segment: the headers, and the code right behind them.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADER: u16 = 64;
    const SEGMENT: u16 = 56;
    let headers = u64::from(HEADER + SEGMENT);
    let size = headers + code.len() as u64;
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&mut file, &[2, machine]);
    file.extend(1u32.to_le_bytes());
    // The entry, where the segment's header is, no sections.
    [BASE + headers, u64::from(HEADER), 0].iter().for_each(|v: &u64| file.extend(v.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    half(&mut file, &[HEADER, SEGMENT, 1, 0, 0, 0]);
    // Loaded, readable and executable.
    [1u32, 5].iter().for_each(|v| file.extend(v.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|v| file.extend(v.to_le_bytes()));
    file.extend_from_slice(code);
    file
}

/// An empty file in memory that can be executed.
fn memory(name: &CStr) -> io::Result<OwnedFd> {
    /// Since Linux 6.3; required where `vm.memfd_noexec` is 1.
    const MFD_EXEC: libc::c_uint = 0x10;
    let make = |flags: libc::c_uint| {
        // SAFETY: the name is a C string that lives across the call.
        owned(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) })
    };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match make(flags | MFD_EXEC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(flags),
        outcome => outcome,
    }
}

const SEALS: libc::c_int = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// From here on nobody changes it.
fn seal(memory: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    checked(unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, SEALS) }.into()).map(drop)
}

/// Says to the program that goes on from where nobody can write to it that it does: with the number of its process, so
/// that it means nothing to others.
const SEALED: &str = "KNOLL_SEALED_PROCESS";

/// Goes on from where nobody can write to this program, with the same arguments and environment, unless it does. Comes
/// back only when it does, or cannot.
///
/// Whoever gets hold of a running program's file through `/proc` could otherwise write to it once it has ended, and it
/// would be run by root the next time (CVE-2019-5736). An overlay file system without a writable layer shares the file's
/// memory with every other process that runs it; where there can be none, the program is copied into sealed memory.
/// `beside` is any directory that neither contains the program nor lies beside it: an overlay has at least two layers.
pub(crate) fn run_sealed(name: &CStr, beside: &Path) -> io::Result<()> {
    let process = std::process::id().to_string();
    if std::env::var_os(SEALED).is_some_and(|sealed| *sealed == *process) {
        // It would be called by the number of a descriptor.
        return Ok(nix::sys::prctl::set_name(name)?);
    }
    let program = read_only(beside).or_else(|error| {
        tracing::debug!(%error, "no overlay of the program; it is copied");
        copy_of(File::open("/proc/self/exe")?, name)
    })?;
    let args = strings(std::env::args_os())?;
    let kept = std::env::vars_os().filter(|(name, _)| name != SEALED);
    let env = kept.chain([(SEALED.into(), process.into())]).map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    Err(execute(program.as_fd(), &args, &strings(env)?))
}

/// This program by way of an overlay without a writable layer, mounted nowhere.
fn read_only(beside: &Path) -> io::Result<OwnedFd> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let (directory, name) = program.parent().zip(program.file_name()).ok_or(io::ErrorKind::NotFound)?;
    let plain = |path: &Path| path.to_str().filter(|path| !path.contains([':', ',', '\\'])).map(str::to_owned);
    let (directory, beside) = plain(directory).zip(plain(beside)).ok_or(io::ErrorKind::InvalidFilename)?;
    let filesystem = Filesystem::open(c"overlay")?;
    filesystem.set(c"lowerdir", &CString::new(format!("{directory}:{beside}"))?)?;
    let attributes = MountAttributes { read_only: true, no_suid: true, no_dev: true, ..MountAttributes::default() };
    let mounted = filesystem.mount(attributes)?;
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NOFOLLOW;
    let opened = nix::fcntl::openat(&mounted, name, flags, nix::sys::stat::Mode::empty())?;
    // It must be the file that runs here, and not one that has come in its place.
    let (there, here) = (nix::sys::stat::fstat(&opened)?, nix::sys::stat::stat("/proc/self/exe")?);
    if (there.st_ino, there.st_size) != (here.st_ino, here.st_size) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another program has come in its place"));
    }
    Ok(opened)
}

fn strings(all: impl Iterator<Item = std::ffi::OsString>) -> io::Result<Vec<CString>> {
    use std::os::unix::ffi::OsStringExt;
    all.map(|text| CString::new(text.into_vec()).map_err(io::Error::other)).collect()
}

/// A sealed copy of what is loaded when a program runs; what debuggers read besides stays behind.
fn copy_of(mut program: File, name: &CStr) -> io::Result<OwnedFd> {
    let mut memory = File::from(memory(name)?);
    let length = loaded_length(&mut program)?;
    program.seek(SeekFrom::Start(0))?;
    let copied = io::copy(&mut io::Read::take(&mut program, length), &mut memory)?;
    if copied != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // There are no section headers any more: neither their offset nor their number.
    for (offset, bytes) in [(0x28, &[0; 8][..]), (0x3c, &[0; 4][..])] {
        memory.seek(SeekFrom::Start(offset))?;
        memory.write_all(bytes)?;
    }
    let memory = OwnedFd::from(memory);
    seal(memory.as_fd())?;
    Ok(memory)
}

/// Where the last segment of a 64-bit executable ends.
fn loaded_length(program: &mut File) -> io::Result<u64> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "this program is no 64-bit ELF file");
    let mut header = [0; 64];
    io::Read::read_exact(program, &mut header)?;
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(invalid());
    }
    let table = word(&header, 0x20).ok_or_else(invalid)?;
    let entries = u16::from_le_bytes([header[0x38], header[0x39]]);
    let mut end = table + u64::from(entries) * 56;
    program.seek(SeekFrom::Start(table))?;
    for _ in 0..entries {
        let mut entry = [0; 56];
        io::Read::read_exact(program, &mut entry)?;
        let (offset, size) = (word(&entry, 8).ok_or_else(invalid)?, word(&entry, 32).ok_or_else(invalid)?);
        end = end.max(offset.checked_add(size).ok_or_else(invalid)?);
    }
    Ok(end)
}

/// Replaces this process by a program that is open. Returns only on failure.
pub(crate) fn execute(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let Err(errno) = nix::unistd::execveat(program, c"", args, env, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    errno.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a file is sealed memory.
    fn is_sealed(file: BorrowedFd<'_>) -> bool {
        // SAFETY: takes plain numbers; what is no such file answers with an error.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        seals >= 0 && seals & SEALS == SEALS
    }

    #[test]
    fn this_program_by_an_overlay_cannot_be_written() {
        let beside = tempfile::tempdir().unwrap();
        let program = read_only(beside.path()).unwrap();
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let error = File::options().write(true).open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let private = MountAttributes::default();
        drop(crate::sys::set_attributes(program.as_fd(), private, 0, false));
        assert!(File::options().write(true).open(&path).is_err());
    }

    #[test]
    fn a_program_in_memory_can_be_run_and_not_be_changed() {
        let pause = pause().unwrap();
        assert!(is_sealed(pause.as_fd()));
        let mut file = File::from(pause.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err() && file.set_len(1).is_err());
        assert!(file.metadata().unwrap().len() < 256);
        let path = format!("/proc/self/fd/{}", pause.as_raw_fd());
        let mut child = std::process::Command::new(path).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_copy_of_this_program_is_what_is_loaded_of_it() {
        let program = File::open("/proc/self/exe").unwrap();
        let whole = program.metadata().unwrap().len();
        let copy = File::from(copy_of(program, c"copy").unwrap());
        let length = copy.metadata().unwrap().len();
        assert!(is_sealed(copy.as_fd()) && length > 4096 && length <= whole);
    }
}
