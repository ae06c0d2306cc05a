//! Blobs on their way in: whole, in chunks, or taken over from another repository.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::{Answer, Body, Refusal, Registry, counts::Count, empty, query};
use crate::{Digest, LimitError, blobs::Incoming, holds::Hold, pace::Pace};

/// Uploads that may be open at once, and of them those to the repositories of one namespace.
const OPEN: usize = 128;
const OF_ONE: usize = 32;
/// An upload nobody touched for this long is dropped.
const IDLE: Duration = Duration::from_secs(600);
/// How long a blob waits for a manifest that names it.
const WAITING: Duration = Duration::from_secs(3600);
/// Blobs that wait for a manifest.
const WAITING_BLOBS: usize = 10_000;
/// Between two looks for what has been left.
const LOOK: Duration = Duration::from_secs(60);

/// An upload between its requests.
struct Upload {
    repository: String,
    touched: Instant,
    incoming: Incoming,
}

/// Uploads between their requests, and what was uploaded until a manifest names it.
#[derive(Default)]
pub(super) struct Uploads {
    open: BTreeMap<String, Upload>,
    waiting: VecDeque<(Instant, Hold)>,
}

impl Uploads {
    fn begin(&mut self, id: String, repository: &str, incoming: Incoming) -> Result<(), Refusal> {
        if !self.has_room(repository) {
            self.expire(Instant::now());
        }
        if !self.has_room(repository) {
            return Err(Refusal::too_many());
        }
        self.put_back(id, repository, incoming);
        Ok(())
    }

    fn has_room(&self, repository: &str) -> bool {
        let of_one = self.open.values().filter(|upload| namespace(&upload.repository) == namespace(repository)).count();
        self.open.len() < OPEN && of_one < OF_ONE
    }

    /// One that was begun, between its requests: whoever began meanwhile does not cost what has come of it.
    fn put_back(&mut self, id: String, repository: &str, incoming: Incoming) {
        self.open.insert(id, Upload { repository: repository.to_owned(), touched: Instant::now(), incoming });
    }

    fn find(&self, id: &str, repository: &str) -> Result<&Upload, Refusal> {
        self.open.get(id).filter(|upload| upload.repository == repository).ok_or_else(Refusal::upload_unknown)
    }

    fn take(&mut self, id: &str, repository: &str) -> Result<Incoming, Refusal> {
        self.find(id, repository)?;
        self.open.remove(id).map(|upload| upload.incoming).ok_or_else(Refusal::upload_unknown)
    }

    fn keep(&mut self, hold: Hold) {
        if self.waiting.len() >= WAITING_BLOBS {
            self.waiting.pop_front();
        }
        self.waiting.push_back((Instant::now(), hold));
    }

    /// Drops what has been left.
    fn expire(&mut self, now: Instant) {
        self.open.retain(|_, upload| now.duration_since(upload.touched) < IDLE);
        while self.waiting.front().is_some_and(|(since, _)| now.duration_since(*since) >= WAITING) {
            self.waiting.pop_front();
        }
    }
}

/// Whose a repository is: its first part.
fn namespace(repository: &str) -> &str {
    repository.split('/').next().unwrap_or_default()
}

async fn append<B>(incoming: &mut Incoming, limit: u64, mut body: B, received: &Count) -> Result<(), Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: std::fmt::Display,
{
    let mut pace = Pace::new();
    while let Some(frame) = pace.wait(body.frame()).await.map_err(|e| Refusal::upload_invalid(e.to_string()))? {
        let frame = frame.map_err(|e| Refusal::upload_invalid(e.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let length = incoming.length() + chunk.len() as u64;
        LimitError::check("bytes of a blob", length, limit).map_err(|e| Refusal::too_large(&e))?;
        // Blocking, but a page-cache write of one network chunk.
        incoming.append(&chunk).map_err(|e| Refusal::storage(&e))?;
        pace.moved(chunk.len() as u64);
        received.add(chunk.len() as u64);
    }
    Ok(())
}

fn progress(status: StatusCode, name: &str, id: &str, length: u64) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))
        .header(header::RANGE, format!("0-{}", length.saturating_sub(1)))
        .header("docker-upload-uuid", id)
        .header(header::CONTENT_LENGTH, 0)
        .body(empty())
        .expect("checked repository names and ids are valid header values")
}

fn created(name: &str, digest: &Digest) -> Response<Body> {
    Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"))
        .header("docker-content-digest", digest.to_string())
        .header(header::CONTENT_LENGTH, 0)
        .body(empty())
        .expect("checked repository names and digests are valid header values")
}

fn parse(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|e| Refusal::digest_invalid(format!("{e}")))
}

impl Registry {
    pub(super) async fn upload_begin<B>(&self, name: &str, parameters: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        self.repository(name)?;
        if let Some(mount) = query(parameters, "mount") {
            let digest = parse(&mount)?;
            // Only what anybody may read here can be taken over by its digest.
            if self.store.blobs().has(&digest) && self.store.inner.access.is_open(&digest) {
                self.uploads().keep(self.store.inner.holds.hold([digest.clone()]));
                return Ok(created(name, &digest));
            }
        }
        let mut incoming = self.store.blobs().begin().map_err(|e| Refusal::storage(&e))?;
        if let Some(digest) = query(parameters, "digest") {
            let digest = parse(&digest)?;
            append(&mut incoming, self.store.limits().blob_bytes, body, &self.counters.received).await?;
            return self.finish(name, incoming, digest).await;
        }
        let id = uuid::Uuid::new_v4().to_string();
        self.uploads().begin(id.clone(), name, incoming)?;
        Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
    }

    pub(super) async fn upload_chunk<B>(&self, name: &str, id: &str, headers: &HeaderMap, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let mut incoming = self.uploads().take(id, name)?;
        let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let start = range.and_then(|range| range.split_once('-')?.0.parse::<u64>().ok());
        if start.is_some_and(|start| start != incoming.length()) {
            let at = incoming.length();
            self.uploads().put_back(id.to_owned(), name, incoming);
            return Err(Refusal::out_of_order(at));
        }
        append(&mut incoming, self.store.limits().blob_bytes, body, &self.counters.received).await?;
        let length = incoming.length();
        self.uploads().put_back(id.to_owned(), name, incoming);
        Ok(progress(StatusCode::ACCEPTED, name, id, length))
    }

    pub(super) async fn upload_finish<B>(&self, name: &str, id: &str, parameters: &str, body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: std::fmt::Display,
    {
        let digest = query(parameters, "digest").ok_or_else(|| Refusal::digest_invalid("digest is missing"))?;
        let digest = parse(&digest)?;
        let mut incoming = self.uploads().take(id, name)?;
        append(&mut incoming, self.store.limits().blob_bytes, body, &self.counters.received).await?;
        self.finish(name, incoming, digest).await
    }

    async fn finish(&self, name: &str, incoming: Incoming, digest: Digest) -> Answer {
        let answer = created(name, &digest);
        self.uploads().keep(self.store.inner.holds.hold([digest.clone()]));
        let store = self.store.clone();
        let commit = move || incoming.commit(&digest).and_then(|()| store.inner.access.open_up(&digest));
        let committed = tokio::task::spawn_blocking(commit).await.map_err(std::io::Error::other).and_then(|done| done);
        committed.map_err(|e| Refusal::storage(&e))?;
        Ok(answer)
    }

    /// Drops uploads that have been left, for ever.
    pub(super) async fn expire_uploads(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            self.uploads().expire(Instant::now());
        }
    }

    pub(super) fn upload_status(&self, name: &str, id: &str) -> Answer {
        let uploads = self.uploads();
        let length = uploads.find(id, name)?.incoming.length();
        Ok(progress(StatusCode::NO_CONTENT, name, id, length))
    }

    pub(super) fn upload_cancel(&self, name: &str, id: &str) -> Answer {
        self.uploads().take(id, name)?;
        Ok(Response::builder().status(StatusCode::NO_CONTENT).body(empty()).expect("a constant response is valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, ImageStore};

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_was_left_goes_and_is_only_its_own_repositorys() {
        let scratch = tempfile::tempdir().expect("a directory");
        let store = ImageStore::open(scratch.path(), Config::default()).expect("opens");
        let mut uploads = Uploads::default();
        uploads.begin("id".into(), "a", store.blobs().begin().expect("begins")).ok().expect("has room");
        assert!(uploads.find("id", "b").is_err() && uploads.find("id", "a").is_ok());
        tokio::time::advance(IDLE).await;
        uploads.expire(Instant::now());
        assert!(uploads.find("id", "a").is_err());
        let left = std::fs::read_dir(scratch.path().join("incoming")).expect("reads").count();
        assert_eq!(left, 0, "its bytes went with it");
    }

    #[tokio::test(start_paused = true)]
    async fn one_namespace_leaves_others_room_and_what_was_begun_goes_on() {
        let scratch = tempfile::tempdir().expect("a directory");
        let store = ImageStore::open(scratch.path(), Config::default()).expect("opens");
        let mut uploads = Uploads::default();
        let begin = |uploads: &mut Uploads, id: &str, repository: &str| {
            uploads.begin(id.into(), repository, store.blobs().begin().expect("begins")).is_ok()
        };
        let begun = (0..100).filter(|at| begin(&mut uploads, &format!("a{at}"), &format!("team/app{at}"))).count();
        assert_eq!(begun, 32);
        assert!(begin(&mut uploads, "other", "teams/app"), "another namespace has room");
        // While a part of one comes, another takes its place among those that wait for theirs.
        let Ok(incoming) = uploads.take("a0", "team/app0") else { panic!("it is there") };
        assert!(begin(&mut uploads, "more", "team/more"));
        uploads.put_back("a0".into(), "team/app0", incoming);
        assert!(uploads.find("a0", "team/app0").is_ok());
        assert!(!begin(&mut uploads, "even-more", "team/more"));
        tokio::time::advance(IDLE).await;
        assert!(begin(&mut uploads, "late", "team/app"), "those that were left have gone");
    }
}
