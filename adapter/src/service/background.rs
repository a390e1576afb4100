//! What the adapter does without being asked: it seals, drops what is old, and says how far it is
//! and what is kept. Knows when, not how.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serve::clock::Clock;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::engine::Engine;
use crate::limits;
use crate::metrics::Metrics;
use crate::sealer::{Sealer, report_lag};

/// The name of the task that seals.
const SEALING: &str = "sealing";
/// How often what is old is dropped: whole days, weeks and months.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);
/// How often what is kept is counted: a few calls of the file system for each table.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// The work under way; it ends when this is dropped, which it may be at any time.
#[derive(Debug)]
pub(super) struct Background {
    engine: Arc<Engine>,
    clock: Clock,
    metrics: Metrics,
    /// Each ends with its name, which none of them should by itself.
    tasks: JoinSet<&'static str>,
    /// Asks sealing to stop, by being dropped.
    sealing: Option<oneshot::Sender<Infallible>>,
}

impl Background {
    /// Starts everything but sealing.
    pub(super) fn start(engine: &Arc<Engine>, clock: &Clock, metrics: &Metrics) -> Background {
        let mut tasks = JoinSet::new();
        tasks.spawn(expire_regularly(Arc::clone(engine), metrics.clone()));
        tasks.spawn(count_regularly(Arc::clone(engine), metrics.clone()));
        let (engine, clock, metrics) = (Arc::clone(engine), clock.clone(), metrics.clone());
        Background { engine, clock, metrics, tasks, sealing: None }
    }

    /// Starts sealing; what came late waits for so long.
    pub(super) fn seal(&mut self, late_pause: Duration) {
        let (engine, metrics) = (Arc::clone(&self.engine), self.metrics.clone());
        let sealer = Sealer::new(engine, self.clock.clone(), metrics, late_pause);
        let (asks, stop) = oneshot::channel();
        self.sealing = Some(asks);
        self.tasks.spawn(async move {
            // It is dropped, and so ends with an error.
            Box::pin(sealer.run(async { drop(stop.await) })).await;
            SEALING
        });
        let (engine, metrics) = (Arc::clone(&self.engine), self.metrics.clone());
        self.tasks.spawn(report_regularly(engine, self.clock.clone(), metrics));
    }

    /// Waits until any of it has ended, by a panic, and says why: a process that does not seal fills
    /// its disk in silence.
    pub(super) async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("{name} has ended by itself"),
            Some(Err(error)) => error.to_string(),
            None => "nothing was started".to_owned(),
        }
    }

    /// Ends all of it; sealing first leaves its shards to others.
    pub(super) async fn finish(mut self) {
        if self.sealing.take().is_some() {
            let left = async {
                while !matches!(self.tasks.join_next().await, None | Some(Ok(SEALING))) {}
            };
            if timeout(limits::SEAL_STOP_DEADLINE, left).await.is_err() {
                tracing::warn!(
                    "sealing did not stop in time; other adapters take its shards when the leases end"
                );
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn expire_regularly(engine: Arc<Engine>, metrics: Metrics) -> &'static str {
    let mut interval = every(EXPIRY_INTERVAL);
    loop {
        interval.tick().await;
        match engine.expire().await {
            Ok(dropped) => metrics.expired(dropped),
            Err(error) => {
                tracing::warn!(%error, "expired days could not be dropped; trying again later");
            }
        }
    }
}

async fn report_regularly(engine: Arc<Engine>, clock: Clock, metrics: Metrics) -> &'static str {
    let mut interval = every(limits::SEAL_INTERVAL);
    loop {
        interval.tick().await;
        if let Err(error) = report_lag(&engine, &clock, &metrics).await {
            tracing::warn!(%error, "how far sealing has come cannot be read");
        }
    }
}

async fn count_regularly(engine: Arc<Engine>, metrics: Metrics) -> &'static str {
    let mut interval = every(COUNT_INTERVAL);
    loop {
        interval.tick().await;
        match engine.inventory().await {
            Ok(Some(inventory)) => metrics.keeping().counted(&inventory),
            // This store cannot tell, now or later.
            Ok(None) => std::future::pending().await,
            Err(error) => tracing::warn!(%error, "what the store holds cannot be counted"),
        }
    }
}
