//! Reads, conditions, snapshots and watches.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use knoll_journal::MemoryDisk;
use knoll_store::{Durability::Durable, Expect, Lagged, OpenError, Options, Store, Write, WriteError};

async fn store() -> Store {
    Store::open_on(Arc::new(MemoryDisk::default()), Options::default()).expect("opens")
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_condition_that_does_not_hold_writes_nothing_and_shows_what_is_there() {
    let store = store().await;
    let revision = store.put("/g/p/ns/a", value("1"), Expect::Absent, Durable).await.expect("writes");
    let refused = store.put("/g/p/ns/a", value("2"), Expect::Absent, Durable).await;
    let Err(WriteError::Conflict { current: Some(current), .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((current.revision, current.value), (revision, value("1")));
    store.put("/g/p/ns/a", value("2"), Expect::Revision(revision), Durable).await.expect("writes");
    let stale = store.delete("/g/p/ns/a", Expect::Revision(revision), Durable).await;
    assert!(matches!(stale, Err(WriteError::Conflict { .. })));
    let gone = store.delete("/g/p/ns/a", Expect::Any, Durable).await.expect("deletes");
    assert_eq!(gone.previous.as_ref().expect("was there").value, value("2"));
    assert!(gone.revision > revision + 1);
    assert!(store.delete("/g/p/ns/a", Expect::Any, Durable).await.is_err());
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let store = store().await;
    store.put("/g/p/ns/b", value("x"), Expect::Absent, Durable).await.expect("writes");
    let write = |key: &str| Write { key: key.into(), value: Some(value("1")), expect: Expect::Absent };
    let refused = store.commit(vec![write("/g/p/ns/a"), write("/g/p/ns/b")], Durable).await;
    assert!(matches!(refused, Err(WriteError::Conflict { .. })));
    assert!(store.get("/g/p/ns/a").is_none());
    store.commit(vec![write("/g/p/ns/a"), write("/g/p/ns/c")], Durable).await.expect("writes");
    assert_eq!(store.snapshot().count("/g/p/ns/"), 3);
}

#[tokio::test]
async fn an_older_revision_can_be_read_page_by_page() {
    let store = store().await;
    for n in 0..10 {
        store.put(format!("/g/p/ns/{n}"), value("old"), Expect::Any, Durable).await.expect("writes");
    }
    let then = store.revision();
    store.delete("/g/p/ns/3", Expect::Any, Durable).await.expect("deletes");
    store.put("/g/p/ns/4", value("new"), Expect::Any, Durable).await.expect("writes");
    store.put("/g/p/ns/99", value("new"), Expect::Any, Durable).await.expect("writes");
    let snapshot = store.snapshot_at(then).expect("is kept");
    let page: Vec<_> = snapshot.range("/g/p/", Some("/g/p/ns/2")).take(3).collect();
    assert_eq!(page.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["/g/p/ns/3", "/g/p/ns/4", "/g/p/ns/5"]);
    assert!(page.iter().all(|e| e.value == value("old")));
    assert_eq!(snapshot.count("/g/p/"), 10);
}

#[tokio::test]
async fn a_watch_sees_each_change_under_its_prefix_once_and_in_order() {
    let store = store().await;
    let start = store.revision();
    store.put("/g/p/ns/a", value("1"), Expect::Any, Durable).await.expect("writes");
    let mut early = store.watch("/g/p/", start).expect("watches");
    let mut other = store.watch("/g/q/", start).expect("watches");
    let mut all = store.watch("/", start).expect("watches");
    store.put("/g/q/ns/a", value("1"), Expect::Any, Durable).await.expect("writes");
    store.delete("/g/p/ns/a", Expect::Any, Durable).await.expect("deletes");
    let first = early.next().await.expect("keeps up").expect("a change");
    let second = early.next().await.expect("keeps up").expect("a change");
    assert!(first.value.is_some() && second.value.is_none() && first.revision < second.revision);
    assert_eq!(&*other.next().await.expect("keeps up").expect("a change").key, "/g/q/ns/a");
    for _ in 0..3 {
        all.next().await.expect("keeps up").expect("a change");
    }
    assert_eq!(early.try_next(), Ok(None));
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_so() {
    let store = store().await;
    let mut watch = store.watch("/g/p/", store.revision()).expect("watches");
    let writes = (0..100).map(|n| Write { key: format!("/g/p/ns/{n}"), value: Some(value("1")), expect: Expect::Any });
    let writes: Vec<_> = writes.collect();
    for _ in 0..100 {
        store.commit(writes.clone(), Durable).await.expect("writes");
    }
    let mut seen = 0;
    let end = loop {
        match watch.next().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("the store is open"),
            Err(lagged) => break lagged,
        }
    };
    assert_eq!(end, Lagged);
    assert!(seen < 10_000);
}

#[tokio::test]
async fn waiting_for_a_revision_ends_when_it_comes_or_the_time_is_up() {
    let store = store().await;
    let next = store.revision() + 1;
    assert!(!store.wait_for(next, Duration::from_millis(1)).await);
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(next, Duration::from_secs(60)).await }
    });
    store.put("/g/p/ns/a", value("1"), Expect::Any, Durable).await.expect("writes");
    assert!(waiting.await.expect("waits"));
}

#[tokio::test]
async fn a_directory_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("photo.jpg"), b"mine").expect("writes");
    assert!(matches!(Store::open(directory.path(), Options::default()), Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn a_directory_opens_once_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data");
    let store = Store::open(&path, Options::default()).expect("opens");
    assert!(matches!(Store::open(&path, Options::default()), Err(OpenError::InUse { .. })));
    store.close().await;
    Store::open(&path, Options::default()).expect("opens once the other is closed");
}
