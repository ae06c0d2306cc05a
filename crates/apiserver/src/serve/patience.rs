//! How long a client is waited for that does not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use knoll_bounds::Patience;

use crate::counters::Counters;

/// How long a client may let bytes wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The same on a connection that carries a command: somebody may have paused their terminal.
const PATIENCE_OF_COMMANDS: Duration = Duration::from_secs(600);

/// That of one connection.
pub(super) struct OfConnection {
    /// Whether it carries a command by now.
    pub(super) commands: Arc<AtomicBool>,
    pub(super) counters: Arc<Counters>,
}

impl Patience for OfConnection {
    fn patience(&self) -> Duration {
        if self.commands.load(Ordering::Relaxed) { PATIENCE_OF_COMMANDS } else { PATIENCE }
    }

    fn lost(&self) {
        self.counters.stalled.add();
    }
}

#[cfg(test)]
mod tests {
    use knoll_bounds::Patient;
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up_later_where_it_has_a_command() {
        for (carries, patience) in [(false, PATIENCE), (true, PATIENCE_OF_COMMANDS)] {
            let (ours, _theirs) = tokio::io::duplex(16);
            let counters = Arc::<Counters>::default();
            let commands = Arc::new(AtomicBool::new(carries));
            let mut stream = Patient::new(ours, OfConnection { commands, counters: counters.clone() });
            stream.write_all(&[0; 16]).await.unwrap();
            let begun = Instant::now();
            stream.write_all(&[0; 16]).await.unwrap_err();
            assert_eq!((begun.elapsed(), counters.stalled.get()), (patience, 1));
        }
    }
}
