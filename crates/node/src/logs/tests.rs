use std::fs;

use futures_util::StreamExt;

use super::*;

const OLD: &str = "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n";
const NEW: &str =
    "2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:02.5Z stdout F ee\n2026-01-01T00:00:03Z stdout F four\n";

fn log() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("0.log");
    fs::write(dir.path().join("0.log.1"), OLD).expect("writes");
    fs::write(&path, NEW).expect("writes");
    (dir, path)
}

async fn all(path: &Path, options: LogOptions) -> String {
    let (_ended, over) = watch::channel(true);
    let pieces: Vec<_> = read(path.to_owned(), options, over).collect().await;
    pieces.into_iter().map(|p| String::from_utf8(p.expect("reads").to_vec()).expect("text")).collect()
}

#[tokio::test]
async fn rotated_files_come_first_and_parts_are_joined() {
    let (_dir, path) = log();
    assert_eq!(all(&path, LogOptions::default()).await, "one\ntwo\nthree\nfour\n");
    let stamped = all(&path, LogOptions { timestamps: true, ..LogOptions::default() }).await;
    assert!(stamped.starts_with("2026-01-01T00:00:00.000000001Z one\n"), "{stamped}");
    assert!(stamped.contains("\n2026-01-01T00:00:02Z three\n"), "{stamped}");
}

#[tokio::test]
async fn the_last_lines_reach_into_older_files() {
    let (_dir, path) = log();
    let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    assert_eq!(all(&path, tail(0)).await, "");
    assert_eq!(all(&path, tail(1)).await, "four\n");
    assert_eq!(all(&path, tail(3)).await, "three\nfour\n");
    assert_eq!(all(&path, tail(4)).await, "two\nthree\nfour\n");
    assert_eq!(all(&path, tail(99)).await, "one\ntwo\nthree\nfour\n");
}

#[tokio::test]
async fn times_and_bytes_limit_what_is_read() {
    let (_dir, path) = log();
    let since = Some("2026-01-01T00:00:01Z".parse().expect("a time"));
    assert_eq!(all(&path, LogOptions { since, ..LogOptions::default() }).await, "two\nthree\nfour\n");
    assert_eq!(all(&path, LogOptions { limit_bytes: Some(6), ..LogOptions::default() }).await, "one\ntw");
}

#[tokio::test]
async fn a_log_that_does_not_exist_is_empty() {
    assert_eq!(all(Path::new("/nonexistent/0.log"), LogOptions::default()).await, "");
}

#[tokio::test]
async fn a_follower_sees_what_is_added_across_a_rotation_until_the_end() {
    let (dir, path) = log();
    let (ended, over) = watch::channel(false);
    let mut stream = read(path.clone(), LogOptions { follow: true, ..LogOptions::default() }, over);
    let mut seen = String::new();
    while !seen.ends_with("four\n") {
        seen += std::str::from_utf8(&stream.next().await.expect("a piece").expect("reads")).expect("text");
    }
    fs::rename(&path, dir.path().join("0.log.2")).expect("renames");
    fs::write(&path, "2026-01-01T00:00:04Z stdout F five\n").expect("writes");
    while !seen.ends_with("five\n") {
        seen += std::str::from_utf8(&stream.next().await.expect("a piece").expect("reads")).expect("text");
    }
    ended.send(true).expect("the reader lives");
    assert!(stream.next().await.is_none());
    assert_eq!(seen, "one\ntwo\nthree\nfour\nfive\n");
}

#[test]
fn last_words_are_the_last_lines() {
    assert_eq!(last_lines(NEW.as_bytes(), 80, 2048), "three\nfour\n");
    assert_eq!(last_lines(NEW.as_bytes(), 1, 2048), "four\n");
    assert_eq!(last_lines(NEW.as_bytes(), 80, 3), "ur\n");
    assert_eq!(last_lines(b"no format\n", 80, 2048), "");
}
