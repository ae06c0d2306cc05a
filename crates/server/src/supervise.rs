//! Long tasks, each with a name and a parent that notices its end.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, task::JoinSet};

/// The long tasks of the process. The first that ends, however it ends, begins shutdown.
pub(crate) struct Tasks {
    set: JoinSet<(&'static str, Result<(), String>)>,
    stop: watch::Sender<bool>,
}

/// Tells a task when to leave.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits for the call to leave.
    pub(crate) async fn wait(mut self) {
        // An error means that the sender is gone, and with it the process.
        self.0.wait_for(|stop| *stop).await.ok();
    }

    /// The bare channel, for tasks that take one.
    pub(crate) fn channel(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { set: JoinSet::new(), stop: watch::Sender::new(false) }
    }

    /// What a task waits on to leave.
    pub(crate) fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Starts a task the process cannot do without.
    pub(crate) fn critical(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Starts a task that is started again when it fails, so that it never takes the others along.
    pub(crate) fn restartable<F>(&mut self, name: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let stop = self.stop();
        self.critical(name, async move {
            let mut wait = Duration::from_millis(100);
            loop {
                match make().await {
                    Ok(()) => {
                        stop.wait().await;
                        return Ok(());
                    }
                    Err(error) => tracing::error!(task = name, error, "the task failed and is started again"),
                }
                tokio::select! {
                    () = stop.clone().wait() => return Ok(()),
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(10)),
                }
            }
        });
    }

    /// Waits for the first task to end: its name, and why it failed.
    pub(crate) async fn first_end(&mut self) -> (&'static str, String) {
        match self.set.join_next().await {
            Some(Ok((name, Ok(())))) => (name, "it ended".into()),
            Some(Ok((name, Err(error)))) => (name, error),
            Some(Err(panic)) => ("a task", panic.to_string()),
            None => std::future::pending().await,
        }
    }

    /// Calls all tasks to leave and waits for them, at most `grace`.
    pub(crate) async fn leave(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let all = async { while self.set.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("tasks did not leave in time");
        }
    }
}
