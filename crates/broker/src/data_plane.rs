//! The parts of the data plane, put together.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use knoll_api::metrics::{MetricFamily, MetricKind};
use knoll_journal::events::StreamId;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    Adopted, AskError, Config, ConfigError, Ingress, Log, OperationError, Page, Sender, SubscriptionStatus, Tokens,
    Transport,
    client::{MachineAddresses, Resolve, resolve_as_the_machine_does},
    dead_letters::{Letters, Redriven, Undeliverable},
    dispatch::{Command, Context, Room, Supervisor, UnderWay},
    history::{self, History, Start},
    ingress::Authorize,
    intake::{Intake, Taken},
    metrics::Metrics,
    request_reply::Waiting,
    sinks::{self, Jobs, Sinks},
    streams,
    topology::{Addressable, Name, Snapshots},
};

/// Requests to workers that wait.
const ASKED: usize = 64;
/// Dead letters that are delivered again together, at most.
const REDRIVEN_TOGETHER: usize = 100;
/// Namespaces that are told apart in metrics.
const NAMESPACES: usize = 32;

/// What others do for the data plane.
#[derive(Clone)]
pub struct Hooks {
    /// Finds subscribers.
    pub resolve: Resolve,
    /// Lists the machine's own addresses, which are not sent to unless [`Config::loopback`] is set; without it all but those
    /// of its loopback and links are taken for others'.
    pub machine: Option<MachineAddresses>,
    /// Makes tokens; without it nobody can be sent to who asks for one.
    pub tokens: Option<Tokens>,
    /// Lets senders in; without it everybody may post.
    pub authorize: Option<Authorize>,
    /// Makes the Jobs of JobSinks; without it they take no event.
    pub jobs: Option<Arc<dyn Jobs>>,
    /// Is told which brokers and channels are acted on.
    pub adopted: Adopted,
    /// Is told of the events that are taken, such as who makes EventTypes of them.
    pub taken: Option<Taken>,
    /// How events travel.
    pub transport: Transport,
    /// What events are sent over, shared with others in this process; without it one is made of the above.
    pub sender: Option<Sender>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            resolve: resolve_as_the_machine_does(),
            machine: None,
            tokens: None,
            authorize: None,
            jobs: None,
            adopted: Adopted::default(),
            taken: None,
            transport: Transport::default(),
            sender: None,
        }
    }
}

/// The data plane of a process. Cheap to clone.
#[derive(Clone)]
pub struct DataPlane {
    context: Arc<Context>,
    ingress: Ingress,
    asks: mpsc::Sender<(Name, Command)>,
    /// Held by whoever delivers.
    asked: Arc<Mutex<mpsc::Receiver<(Name, Command)>>>,
}

impl DataPlane {
    /// Puts it together. It acts on the newest of `snapshots`, and answers "not yet" before the first one.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(log: Log, snapshots: Snapshots, config: Config, hooks: Hooks) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let metrics = Arc::new(Metrics::default());
        let Sender { client, tokens, .. } = hooks.sender.clone().unwrap_or_else(|| Sender::new(&config, hooks.clone()));
        let Hooks { authorize, jobs, adopted, taken, transport, .. } = hooks;
        let intake = Intake { log: log.clone(), metrics: metrics.clone(), max_hops: config.max_hops, taken };
        let waiting = Waiting::new(config.max_waiting, config.part(config.max_waiting), metrics.clone());
        let lines = sinks::lines(config.max_log_bytes, config.parts);
        let sinks = Sinks { jobs, authorize, metrics: metrics.clone(), lines };
        let ingress =
            Ingress::new(intake.clone(), snapshots.clone(), sinks.clone(), config.clone(), waiting.clone(), transport);
        let letters = Letters { log: log.clone() };
        let (views, room, under_way) = (Arc::default(), Room::default(), UnderWay::new(&config));
        let context = Context {
            log,
            metrics,
            client,
            intake,
            snapshots,
            config,
            tokens,
            sinks,
            letters,
            views,
            adopted,
            room,
            under_way,
            waiting,
        };
        let (asks, asked) = mpsc::channel(ASKED);
        Ok(Self { context: Arc::new(context), ingress, asks, asked: Arc::new(Mutex::new(asked)) })
    }

    /// What answers senders; served by [`serve`](crate::serve()), or asked by whoever has their requests.
    pub fn ingress(&self) -> Ingress {
        self.ingress.clone()
    }

    /// Delivers until `end`, then finishes what is under way within [`Config::grace`]. Dropped, it ends at once, and loses
    /// nothing; it may be called again then. While one is there another waits for it.
    ///
    /// # Errors
    /// When the event log has stopped: nothing is delivered or acknowledged until it is opened again.
    //
    // Boxed, as `serve` is, and for the same reason.
    pub fn deliver(&self, end: BoxFuture<'static, ()>) -> BoxFuture<'_, Result<(), AskError>> {
        Box::pin(async move {
            let mut asked = self.asked.lock().await;
            Supervisor::new(self.context.clone()).run(&mut asked, end).await
        })
    }

    /// Brokers and channels of the newest snapshot, of one namespace or of all, behind this one, or from the first on, at most
    /// `most`.
    pub fn addressables(&self, namespace: Option<&str>, after: Option<&Name>, most: usize) -> Vec<Arc<Addressable>> {
        let snapshot = self.context.snapshots.borrow();
        let Some(topology) = snapshot.as_ref() else { return Vec::new() };
        match namespace {
            Some(namespace) => topology.addressables_of(namespace, after).take(most).cloned().collect(),
            None => topology.addressables_after(after).take(most).cloned().collect(),
        }
    }

    /// A broker or channel of the newest snapshot.
    pub fn addressable(&self, name: &Name) -> Option<Arc<Addressable>> {
        self.context.snapshots.borrow().as_ref()?.get(name).cloned()
    }

    /// How a Trigger or Subscription is doing, by its uid; nothing before it gets every event that is taken.
    pub fn status(&self, uid: &str) -> Option<SubscriptionStatus> {
        self.context.views.of(uid)
    }

    /// Events that a broker or channel keeps, at most `most`.
    ///
    /// # Errors
    /// When there is no such broker or channel, or the log cannot be read.
    pub async fn history(&self, name: &Name, start: Start, most: usize) -> Result<History, OperationError> {
        let stream = self.stream(name)?;
        let from = history::offset(&self.context.log, stream, start).await?;
        history::read(&self.context.log, stream, from, most).await
    }

    /// Delivers events that a broker or channel keeps once more, to one Trigger or Subscription: those that its filter
    /// lets through now, of the ones that were taken before this was asked. How many they are.
    ///
    /// # Errors
    /// When there is no such broker, channel or subscription, the log cannot be read or written, or the namespace has the part
    /// of it that senders may have; what was read before is delivered then.
    pub async fn replay(&self, name: &Name, subscription: &str, start: Start) -> Result<u64, OperationError> {
        let stream = self.stream(name)?;
        let to = self.context.log.reader().end(stream).unwrap_or_default();
        let (mut from, mut count) = (history::offset(&self.context.log, stream, start).await?, 0);
        loop {
            let (answer, answered) = oneshot::channel();
            let command = Command::Replay { subscription: subscription.into(), from, to, answer };
            let (more, next) = self.ask(name, command, answered).await?;
            count += more;
            if next >= to || next == from {
                return Ok(count);
            }
            from = next;
        }
    }

    async fn ask<T>(
        &self,
        name: &Name,
        command: Command,
        answered: oneshot::Receiver<Result<T, OperationError>>,
    ) -> Result<T, OperationError> {
        self.asks.send((name.clone(), command)).await.map_err(|_| OperationError::NoAddressable)?;
        answered.await.map_err(|_| OperationError::NoAddressable)?
    }

    fn stream(&self, name: &Name) -> Result<StreamId, OperationError> {
        let of = self.find(name)?;
        let stream = self.context.log.reader().stream(streams::events(&of).as_bytes());
        stream.ok_or(OperationError::NoAddressable)
    }

    /// How many built-in dead letters a broker or channel has.
    pub fn dead_letter_count(&self, name: &Name) -> u64 {
        self.find(name).map_or(0, |of| self.context.letters.count(of.uid()))
    }

    /// Built-in dead letters of a broker or channel, from offset `from` on, at most `most`.
    ///
    /// # Errors
    /// When there is no such broker or channel, or the log cannot be read.
    pub async fn dead_letters(&self, name: &Name, from: u64, most: usize) -> Result<Page, OperationError> {
        let of = self.find(name)?;
        self.context.letters.page(of.uid(), from, most).await
    }

    /// Delivers dead letters again, each to the Trigger or Subscription it was for, with all its attempts: a batch at a time,
    /// between which others are delivered. What became of them.
    ///
    /// # Errors
    /// When one is not there, or whom it was for, unless such a one [stays](Undeliverable::Stays). Those before the first that
    /// fails are under way.
    pub async fn redrive(
        &self,
        name: &Name,
        offsets: Vec<u64>,
        undeliverable: Undeliverable,
    ) -> Result<Redriven, OperationError> {
        let (mut left, mut all) = (&offsets[..], Redriven::default());
        while !left.is_empty() {
            let (answer, answered) = oneshot::channel();
            let offsets = left[..left.len().min(REDRIVEN_TOGETHER)].to_vec();
            let command = Command::Redrive { offsets, undeliverable, answer };
            let (through, done) = self.ask(name, command, answered).await?;
            all.add(done);
            left = &left[through.min(left.len())..];
        }
        Ok(all)
    }

    /// Drops dead letters for good.
    ///
    /// # Errors
    /// When one is not there.
    pub async fn drop_dead_letters(&self, name: &Name, offsets: &[u64]) -> Result<(), OperationError> {
        let of = self.find(name)?;
        self.context.letters.forget(of.uid(), offsets).await?;
        self.context.metrics.dropped.add(offsets.len() as u64);
        Ok(())
    }

    fn find(&self, name: &Name) -> Result<Arc<Addressable>, OperationError> {
        let snapshot = self.context.snapshots.borrow();
        let found = snapshot.as_ref().and_then(|topology| topology.get(name));
        found.cloned().ok_or(OperationError::NoAddressable)
    }

    /// What it counts.
    pub fn metrics(&self) -> Vec<MetricFamily> {
        let mut families = self.context.metrics.read();
        let help = "Bytes of the event log's segments";
        families.push(MetricFamily::gauge("broker_log_bytes", help, self.context.log.bytes()));
        let help = "Bytes of events that wait in the event log: not delivered to everybody, put aside, or dead letters";
        families.push(MetricFamily::gauge("broker_log_waiting_bytes", help, self.context.log.budget().all_waiting()));
        let help = "The same of each of the namespaces that have most, up to 32";
        let largest = self.context.log.budget().largest(NAMESPACES);
        let name = "broker_log_waiting_bytes_by_namespace";
        families.push(MetricFamily::by(name, help, MetricKind::Gauge, "namespace", largest));
        let help = "Requests to RequestReplies that wait for an answer";
        families.push(MetricFamily::gauge("broker_requests_waiting", help, self.context.waiting.count()));
        let (subscriptions, lag) = self.context.views.sums();
        let help = "Triggers and Subscriptions that are delivered to";
        families.push(MetricFamily::gauge("broker_subscriptions", help, subscriptions));
        let help = "Events that a Trigger or Subscription is not done with, counted for each";
        families.push(MetricFamily::gauge("broker_lag", help, lag));
        families
    }
}
