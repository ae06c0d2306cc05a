//! Work on many objects, in between which others get the thread: what one client asks for may read everything a tenant has
//! stored, and the threads are everybody's.

/// Bytes that are read or copied at a time.
const AT_ONCE: usize = 256 << 10;

/// How much was done since others had the thread.
#[derive(Default)]
pub(crate) struct Breath(usize);

impl Breath {
    /// So many bytes were read or copied.
    pub(crate) async fn after(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add(bytes);
        if self.0 >= AT_ONCE {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
