//! A process that may open no more files. It has a limit of its own, so it is one of its own.

use std::{env, fs::File, process::Command, sync::Arc};

use bytes::Bytes;
use knoll_journal::{
    Directory,
    events::{EventLog, EventOptions, Retention, Write, Written},
};

/// Set in the process with few files.
const FEW: &str = "KNOLL_TEST_FEW_FILES";

#[test]
fn a_log_removes_what_nobody_needs_and_goes_on_where_no_more_files_may_be_open() {
    if env::var_os(FEW).is_some() {
        return remove_with_no_file_left();
    }
    let name = "a_log_removes_what_nobody_needs_and_goes_on_where_no_more_files_may_be_open";
    let this = env::current_exe().expect("is a program");
    let limited = format!("ulimit -n 48 && exec \"$0\" --exact {name} --nocapture");
    let ended = Command::new("sh").args(["-c", &limited]).arg(this).env(FEW, "1").status().expect("runs");
    assert!(ended.success(), "{ended}");
}

fn remove_with_no_file_left() {
    let scratch = tempfile::tempdir().expect("a directory");
    let options = EventOptions {
        segment_bytes: 1 << 10,
        reserve_bytes: 0,
        tail_bytes: 0,
        retention: Retention { age_ms: 1, bytes: 1 << 30 },
        ..EventOptions::default()
    };
    let disk = Directory::make(scratch.path().join("log")).expect("makes it");
    let (mut log, _) = EventLog::open(Arc::new(disk), options).expect("opens");
    let made = log.write(&[Write::CreateStream { name: Bytes::from_static(b"s") }]).remove(0);
    let Ok(Written::Stream(stream)) = made else { panic!("{made:?}") };
    let payload = Bytes::from(vec![7; 700]);
    let event = Write::Append { stream, time: 1, key: Bytes::new(), payload, decoded: None };
    for _ in 0..6 {
        log.write(std::slice::from_ref(&event)).remove(0).expect("writes");
    }
    log.sync().expect("syncs");

    let held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut removed = 0;
    loop {
        let done = log.tidy(60_000).expect("nothing is wrong with the disk");
        removed += done.removed_bytes;
        if !done.more {
            break;
        }
    }
    assert!(removed > 2000, "{removed} bytes");
    drop(held);
    log.write(&[event]).remove(0).expect("writes");
    log.sync().expect("syncs");
}
