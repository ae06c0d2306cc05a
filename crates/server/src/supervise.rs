//! Long tasks, each with a name and a parent that notices its end.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use knoll_faults::Pauses;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::Instant,
};

/// First pause before a task is started again; doubles up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause before a task is started again.
const LONGEST: Duration = Duration::from_secs(10);
/// A task that lasted this long is started again after the first pause.
const HEALTHY: Duration = Duration::from_secs(60);

/// The long tasks of the process. The first critical one that ends, however it ends, begins shutdown.
pub(crate) struct Tasks {
    set: JoinSet<(&'static str, Result<(), String>)>,
    stop: watch::Sender<bool>,
    restarts: Vec<(&'static str, Arc<AtomicU64>)>,
}

/// How often tasks were started again, by name.
#[derive(Clone, Default)]
pub(crate) struct Restarts(Vec<(&'static str, Arc<AtomicU64>)>);

impl Restarts {
    /// The counts now.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, count.load(Relaxed)))
    }
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

/// What a task that panicked said.
pub(crate) fn panic_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", knoll_faults::said(&*panic)),
        Err(error) => error.to_string(),
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { set: JoinSet::new(), stop: watch::Sender::new(false), restarts: Vec::new() }
    }

    /// What a task waits on to leave.
    pub(crate) fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Who counts how often tasks were started again. Knows the tasks that were started before.
    pub(crate) fn restarts(&self) -> Restarts {
        Restarts(self.restarts.clone())
    }

    /// Starts a task the process cannot do without.
    pub(crate) fn critical(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        self.set.spawn(async move {
            // A task of its own, so that a panic is told with its name.
            let mut inner = JoinSet::new();
            inner.spawn(task);
            let ended = inner.join_next().await.unwrap_or(Ok(Ok(())));
            (name, ended.unwrap_or_else(|error| Err(panic_text(error))))
        });
    }

    /// Starts a task that is started again when it fails or panics, so that it never takes the others along.
    pub(crate) fn restartable<F>(&mut self, name: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let stop = self.stop();
        let count = Arc::new(AtomicU64::new(0));
        self.restarts.push((name, count.clone()));
        self.critical(name, async move {
            let mut pauses = Pauses::new(FIRST, LONGEST, HEALTHY);
            loop {
                let begun = Instant::now();
                let mut life = JoinSet::new();
                life.spawn(make());
                let ended = life.join_next().await.unwrap_or(Ok(Ok(())));
                match ended.unwrap_or_else(|error| Err(panic_text(error))) {
                    Ok(()) => {
                        stop.wait().await;
                        return Ok(());
                    }
                    Err(error) => tracing::error!(task = name, error, "the task failed and is started again"),
                }
                count.fetch_add(1, Relaxed);
                tokio::select! {
                    () = stop.clone().wait() => return Ok(()),
                    () = tokio::time::sleep(pauses.after(begun.elapsed())) => {}
                }
            }
        });
    }

    /// Waits for the first task to end: its name, and why it failed.
    pub(crate) async fn first_end(&mut self) -> (&'static str, String) {
        match self.set.join_next().await {
            Some(Ok((name, Ok(())))) => (name, "it ended".into()),
            Some(Ok((name, Err(error)))) => (name, error),
            Some(Err(error)) => ("a task", error.to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_twice_is_started_a_third_time_and_counted() {
        let mut tasks = Tasks::new();
        let lives = Arc::new(AtomicU64::new(0));
        let alive = watch::Sender::new(false);
        tasks.restartable("shaky", {
            let (lives, alive) = (lives.clone(), alive.clone());
            move || {
                let (life, alive) = (lives.fetch_add(1, Relaxed), alive.clone());
                async move {
                    assert!(life >= 2, "life {life} ends badly");
                    alive.send_replace(true);
                    std::future::pending().await
                }
            }
        });
        let (restarts, mut living) = (tasks.restarts(), alive.subscribe());
        tokio::select! {
            _ = living.wait_for(|alive| *alive) => {}
            (name, why) = tasks.first_end() => panic!("{name} took the others along: {why}"),
        }
        assert_eq!(restarts.read().collect::<Vec<_>>(), [("shaky", 2)]);
    }

    #[tokio::test]
    async fn a_critical_task_that_panics_ends_all_with_its_name_and_words() {
        let mut tasks = Tasks::new();
        tasks.critical("steady", std::future::pending());
        tasks.critical("shaky", async { panic!("at {}", "sea") });
        assert_eq!(tasks.first_end().await, ("shaky", "it panicked: at sea".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_are_called_to_leave_take_their_inner_ones_along() {
        let mut tasks = Tasks::new();
        let stop = tasks.stop();
        let inner = Arc::new(());
        let held = inner.clone();
        tasks.restartable("steady", move || {
            let (stop, held) = (stop.clone(), held.clone());
            async move {
                stop.wait().await;
                drop(held);
                Ok(())
            }
        });
        tasks.leave(Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&inner), 1);
    }
}
