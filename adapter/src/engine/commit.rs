//! Group commit: what waits is merged by group first and packed, then stored once, then every
//! request in it is answered. A sender with many shards scatters a guest's series over its
//! requests; here they come together again (DESIGN.md, "head").

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serve::clock::Clock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::batch::Placement;
use super::index::{IdHasher, KnownSeries};
use super::layout::Layouts;
use super::memo::Lesson;
use super::pack::{Point, pack};
use super::seal::Sealing;
use crate::limits;
use crate::metrics::Metrics;
use crate::model::row_key::Group;
use crate::model::time::Hour;
use crate::store::rows::{HeadRow, IndexRow, LateRow, Rows};
use crate::store::{Store, StoreError};

/// One request's part of a commit.
pub(super) struct Request {
    pub(super) placements: Vec<Placement>,
    pub(super) index: Vec<IndexRow>,
    /// What is known of its series once it is durable.
    pub(super) lessons: Vec<Lesson>,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
    /// Its share of the memory for writes, given back when the commit has ended: also where the
    /// sender did not wait for it.
    pub(super) memory: OwnedSemaphorePermit,
}

/// Requests that have been received and not yet queued: a commit waits a little for them.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    expected: AtomicUsize,
    changed: Notify,
}

/// Counts one request as arriving until it is dropped.
#[derive(Debug)]
pub(super) struct Arriving(Arc<Arrivals>);

impl Arrivals {
    pub(super) fn one(arrivals: &Arc<Arrivals>) -> Arriving {
        arrivals.expected.fetch_add(1, Ordering::SeqCst);
        Arriving(Arc::clone(arrivals))
    }

    fn none(&self) -> bool {
        self.expected.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.0.expected.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_one();
        }
    }
}

/// The task that commits.
pub(super) struct Committer {
    pub(super) store: Arc<Store>,
    pub(super) known: Arc<KnownSeries>,
    pub(super) arrivals: Arc<Arrivals>,
    pub(super) layouts: Layouts,
    pub(super) sealing: Arc<Sealing>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

impl Committer {
    /// Runs until every sender is gone and what they sent is answered.
    pub(super) async fn run(self, mut requests: mpsc::Receiver<Request>) {
        let commits_max = match *self.store {
            // One: while it syncs, the next gathers.
            Store::Local(_) | Store::Memory(_) => 1,
            Store::Cassandra(_) => limits::COMMITS_IN_FLIGHT_MAX,
        };
        let slots = Arc::new(Semaphore::new(commits_max));
        let committer = Arc::new(self);
        while let Some(first) = requests.recv().await {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let gathered = committer.gather(first, &mut requests).await;
            let committer = Arc::clone(&committer);
            // Bounded by the slots; the answer of every request says how it went.
            tokio::spawn(async move {
                committer.commit(gathered).await;
                drop(slot);
            });
        }
        // Waits for the commits under way.
        drop(slots.acquire_many(u32::try_from(commits_max).unwrap_or(1)).await);
    }

    /// Takes what waits, and for a moment also what is on its way.
    async fn gather(&self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
        let deadline = Instant::now() + limits::COMMIT_WAIT_MAX;
        let mut samples = first.placements.len();
        let mut gathered = vec![first];
        while samples < limits::COMMIT_SAMPLES_MAX {
            let next = match requests.try_recv() {
                Ok(request) => Some(request),
                Err(_) if self.arrivals.none() => None,
                Err(_) => tokio::select! {
                    biased;
                    request = timeout_at(deadline, requests.recv()) => request.ok().flatten(),
                    () = self.arrivals.changed.notified() => continue,
                },
            };
            let Some(request) = next else { break };
            samples += request.placements.len();
            gathered.push(request);
        }
        gathered
    }

    async fn commit(&self, gathered: Vec<Request>) {
        let started = Instant::now();
        let mut answers = Vec::with_capacity(gathered.len());
        let mut memory = Vec::with_capacity(gathered.len());
        let mut placements = Vec::with_capacity(gathered.len());
        let (mut index, mut lessons) = (Vec::new(), Vec::new());
        for mut request in gathered {
            placements.push(request.placements);
            index.append(&mut request.index);
            lessons.append(&mut request.lessons);
            answers.push(request.answer);
            memory.push(request.memory);
        }
        let samples = placements.iter().map(Vec::len).sum();
        let new_series: Vec<_> = index.iter().map(|row| (row.week, row.series)).collect();
        let head = head_rows(&placements);
        drop(placements);
        let head_rows = head.len();
        let result = self.store(index, head).await;
        if !new_series.is_empty() {
            self.known.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(memory);
        match &result {
            Ok(()) => {
                self.known.learn(&new_series);
                self.known.memo.learn(&lessons);
                self.metrics.committed(started.elapsed(), samples, head_rows, new_series.len());
            }
            Err(error) => {
                self.metrics.commit_failed();
                tracing::warn!(%error, samples, requests = answers.len(), "a commit failed; its senders will retry");
            }
        }
        for answer in answers {
            let outcome = match &result {
                Ok(()) => Ok(()),
                Err(StoreError::Unavailable(why)) => Err(StoreError::Unavailable(why.clone())),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            };
            // A sender that is gone has no use for its answer; it will send again.
            drop(answer.send(outcome));
        }
    }
}

/// A head row as what is late is judged by: its group, hour and hash.
type Arrived = (Group, Hour, u64);

impl Committer {
    /// Makes rows durable, with a late row for each head row whose window may have been sealed.
    async fn store(&self, index: Vec<IndexRow>, head: Vec<HeadRow>) -> Result<(), StoreError> {
        let committing = self.sealing.commit().await;
        let arrived: Vec<Arrived> =
            head.iter().map(|row| (row.group, row.hour, row.hash)).collect();
        let (in_time, late) = self.judge(arrived);
        self.metrics.sealing().late(late.len());
        self.store.append(Rows { index, late, head }).await?;
        drop(committing);
        if self.store.is_shared() {
            // Another process may have sealed a window while this one slept in the middle of a
            // commit. What is in time now was durable before any of them begins.
            let late = self.judge(in_time).1;
            if !late.is_empty() {
                self.metrics.sealing().late(late.len());
                self.store.append(Rows { late, ..Rows::default() }).await?;
            }
        }
        Ok(())
    }

    /// Which rows are in time by now, and a late row for each of the others.
    fn judge(&self, arrived: Vec<Arrived>) -> (Vec<Arrived>, Vec<LateRow>) {
        let now_ms = self.clock.now_ms();
        let mut late = Vec::new();
        let mut in_time = arrived;
        in_time.retain(|(group, hour, hash)| {
            let window = self.layouts.window(*hour);
            let is_late = self.sealing.is_late(window, now_ms);
            if is_late {
                let (group, window, hash) = (*group, window.first, *hash);
                late.push(LateRow { group, window, arrived_ms: now_ms, hash });
            }
            !is_late
        });
        (in_time, late)
    }
}

/// Packs samples by group and hour. Sorted by series and time within a row, so that the same set
/// of samples gives the same row, and a duplicate within one commit is stored once.
fn head_rows(placements: &[Vec<Placement>]) -> Vec<HeadRow> {
    let partitions = partitions(placements);
    let mut rows = Vec::with_capacity(partitions.len());
    for ((group, hour), mut points) in partitions {
        points.sort_unstable_by_key(|point| (point.series, point.sample.timestamp_ms));
        points.dedup_by(|next, kept| {
            let same =
                next.series == kept.series && next.sample.timestamp_ms == kept.sample.timestamp_ms;
            if same {
                kept.sample = kept.sample.merge(next.sample);
            }
            same
        });
        for points in points.chunks(limits::HEAD_ROW_SAMPLES_MAX) {
            let payload = pack(points);
            let first_ms = points
                .iter()
                .map(|point| point.sample.timestamp_ms)
                .min()
                .unwrap_or(hour.start_ms());
            rows.push(HeadRow {
                group,
                hour,
                first_ms,
                hash: xxh3_64(&payload),
                payload: Bytes::from(payload),
            });
        }
    }
    rows
}

/// The samples of each group and hour, in the order of the head's keys. Counted first, so that each
/// takes one piece of memory.
fn partitions(placements: &[Vec<Placement>]) -> Vec<((Group, Hour), Vec<Point>)> {
    let mut places: HashMap<(Group, Hour), usize, BuildHasherDefault<IdHasher>> =
        HashMap::default();
    let mut counts = Vec::new();
    let all = || placements.iter().flatten();
    let mut place_of_each = Vec::with_capacity(placements.iter().map(Vec::len).sum());
    for placement in all() {
        let place = *places.entry((placement.group, placement.hour)).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push(((placement.group, placement.hour), 1)),
        }
        place_of_each.push(place);
    }
    let empty = counts.into_iter().map(|(partition, count)| (partition, Vec::with_capacity(count)));
    let mut partitions: Vec<((Group, Hour), Vec<Point>)> = empty.collect();
    for (placement, place) in all().zip(place_of_each) {
        if let Some((_, points)) = partitions.get_mut(place) {
            points.push(placement.point);
        }
    }
    partitions.sort_unstable_by_key(|(partition, _)| *partition);
    partitions
}
