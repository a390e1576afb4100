//! Who else works on the keyspace, whose replicas each counts and how long each keeps what: where these
//! differ, one need not see or bill what another was acknowledged, and neither may write. Knows no row
//! but those that say so.

use std::sync::Arc;
use std::time::Duration;

use scylla::cluster::ClusterState;
use scylla::cluster::metadata::Strategy;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use tokio::time::{Instant, sleep};

use super::attempt::{unavailable, until};
use super::{Shared, nodes};
use crate::limits;
use crate::store::{OpenError, StoreError, chance};

/// The partition of `sealers` in which each process that has opened the store says that it is there;
/// another holds those that seal.
const PROCESSES: i32 = 1;

const DAY_SECONDS: i64 = 86_400;

/// Stands for the datacenter of one that counts the replicas of all.
const ALL: &str = "";

/// A name that no other process has, and that says to an operator which one it is.
pub(crate) fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}-{:08x}", host.trim(), std::process::id(), chance() & 0xffff_ffff)
}

/// Refuses to begin beside those that count other replicas, or keep things for another time. Asked
/// before this process says that it is there: those that work already are not to be disturbed. One that
/// has just stopped is waited for.
pub(super) async fn admit(shared: &Arc<Shared>) -> Result<(), OpenError> {
    let purpose = shared.statements.leases.processes.prepared.purpose;
    let deadline = Instant::now() + limits::WRITE_DEADLINE;
    let stopped = Instant::now() + limits::CASSANDRA_LEFT_AFTER;
    loop {
        // A start need not fail at what passes; a look comes again by itself.
        let asked = until((purpose, &shared.metrics), deadline, || processes(shared)).await;
        let trouble = asked.and_then(|answer| disagreement(shared, answer));
        let trouble = trouble.map_err(|error| OpenError(error.to_string()))?;
        let Some(trouble) = trouble else { return Ok(()) };
        if Instant::now() > stopped {
            let seconds = limits::CASSANDRA_HERE_SECONDS;
            let killed = format!("one that was killed is counted for {seconds} s more");
            return Err(OpenError(format!("{trouble}; {killed}")));
        }
        sleep(limits::CASSANDRA_PAUSE_MAX / 4).await;
    }
}

/// Says that this process is there, and why it must not write beside the others; `None` where it may.
/// Each of its statements has a statement's time, and waits for no other.
pub(super) async fn look(shared: &Arc<Shared>) -> Result<Option<String>, StoreError> {
    let saying = shared.saying.lock().await;
    if shared.writes.is_closed() {
        return Ok(None);
    }
    announce(shared, limits::CASSANDRA_HERE_SECONDS).await?;
    drop(saying);
    let purpose = shared.statements.leases.processes.prepared.purpose;
    let (answer, _) = nodes::asked(processes(shared)).await;
    let answer = answer.map_err(|error| unavailable(purpose, &error.to_string()))?;
    disagreement(shared, answer)
}

/// Says that this process has stopped, after it was closed to writes: it is counted for a second more.
pub(super) async fn leave(shared: &Shared) -> Result<(), StoreError> {
    // Behind a look that may be saying the contrary.
    let _saying = shared.saying.lock().await;
    announce(shared, 1).await
}

/// Whether it matters who else is there: where all replicas are in one datacenter, whoever counts most of
/// them shares one with everybody else.
pub(super) fn are_spread(shared: &Shared) -> bool {
    spread(&shared.session.get_cluster_state(), &shared.keyspace) == Spread::Several
}

/// Why nothing may be written when nobody has been seen for so long, or never.
pub(super) fn unseen(time: Option<Duration>) -> String {
    let time = time.map_or("yet".to_owned(), |time| format!("for {} s", time.as_secs()));
    format!(
        "who else works on the keyspace has not been known {time}, and one that counts other replicas may \
         be among them: see why the table sealers cannot be read and written (the log says it)"
    )
}

async fn announce(shared: &Shared, seconds: i32) -> Result<(), StoreError> {
    let prepared = &shared.statements.leases.be_there;
    let counted = shared.counted_datacenter().unwrap_or(ALL);
    let kept = kept_seconds(shared);
    let (samples, ledger) = (kept.map(|[samples, _]| samples), kept.map(|[_, ledger]| ledger));
    let values = (PROCESSES, shared.process.as_str(), counted, samples, ledger, seconds);
    let (written, _) =
        nodes::asked(shared.session.execute_unpaged(&prepared.statement, values)).await;
    let failed = |error: ExecutionError| unavailable(prepared.purpose, &error.to_string());
    written.map(drop).map_err(failed)
}

/// Asks for every process that says it is there. Not by way of queries' reads, which may all be under way.
async fn processes(shared: &Shared) -> Result<QueryResult, ExecutionError> {
    let prepared = &shared.statements.leases.processes.prepared;
    shared.session.execute_unpaged(&prepared.statement, (PROCESSES,)).await
}

/// Why those that said so and this process must not both write; `None` where they may.
fn disagreement(shared: &Shared, answer: QueryResult) -> Result<Option<String>, StoreError> {
    let damaged = |error: &dyn std::error::Error| {
        StoreError::Damaged(format!("a row of sealers cannot be read: {error}"))
    };
    let rows = answer.into_rows_result().map_err(|error| damaged(&error))?;
    let others = rows.rows::<Process>().map_err(|error| damaged(&error))?;
    let others: Vec<_> = others.collect::<Result<_, _>>().map_err(|error| damaged(&error))?;
    let spread = spread(&shared.session.get_cluster_state(), &shared.keyspace);
    let (ours, kept) = (shared.counted_datacenter().unwrap_or(ALL), kept_seconds(shared));
    let mut others = others.into_iter().filter(|(name, ..)| *name != shared.process);
    let keyspace = &shared.keyspace;
    Ok(others.find_map(|(name, counted, samples, ledger)| {
        let theirs = counted.unwrap_or_default();
        if differ(ours, &theirs, spread) {
            return Some(format!(
                "{name} works on the keyspace {keyspace} and counts the replicas of {}, this adapter \
                 those of {}: neither need see what the other was acknowledged, and bills would be \
                 counted from a part of the samples; give all adapters of a keyspace the same \
                 --cassandra.datacenter, or all of them --cassandra.consistency=quorum",
                named(&theirs),
                named(ours)
            ));
        }
        // One that only reads says nothing of this.
        let (theirs, kept) = ([samples?, ledger?], kept?);
        (theirs != kept).then(|| {
            format!(
                "{name} works on the keyspace {keyspace} with {}, this adapter with {}: what one of \
                 them takes the other would find expired, and not bill; give all adapters of a \
                 keyspace the same, and stop all of them first to change it",
                flags(theirs),
                flags(kept)
            )
        })
    }))
}

/// Name, datacenter whose replicas it counts, and for how many seconds it keeps samples and the ledger.
type Process = (String, Option<String>, Option<i64>, Option<i64>);

/// How long samples and the ledger are kept; `None` where this process keeps nothing.
fn kept_seconds(shared: &Shared) -> Option<[i64; 2]> {
    let kept = [shared.retention_ms, shared.ledger_ms].map(|kept_ms| kept_ms / 1000);
    (!shared.reads_only).then_some(kept)
}

/// Both retentions as flags.
fn flags(seconds: [i64; 2]) -> String {
    let [samples, ledger] = seconds.map(|seconds| match seconds {
        days if days % DAY_SECONDS == 0 => format!("{}d", days / DAY_SECONDS),
        seconds => format!("{seconds}s"),
    });
    format!("--retention={samples} and --ledger.retention={ledger}")
}

/// Whether a keyspace has replicas in several datacenters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    One,
    Several,
}

fn spread(state: &ClusterState, keyspace: &str) -> Spread {
    let replicated = match state.get_keyspace(keyspace).map(|keyspace| &keyspace.strategy) {
        Some(Strategy::NetworkTopologyStrategy { datacenter_repfactors }) => {
            datacenter_repfactors.values().filter(|copies| **copies > 0).count()
        }
        // These know of no datacenters.
        _ => state.replica_locator().datacenter_names().len(),
    };
    if replicated > 1 { Spread::Several } else { Spread::One }
}

/// Whether most of the replicas that one counts need not be among most of those that the other counts.
/// In one datacenter its replicas are all that there are.
fn differ(ours: &str, theirs: &str, spread: Spread) -> bool {
    let is_of_one = ours != ALL && theirs != ALL;
    ours != theirs && (is_of_one || spread == Spread::Several)
}

fn named(datacenter: &str) -> String {
    if datacenter == ALL {
        "all datacenters".to_owned()
    } else {
        format!("the datacenter {datacenter}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_count_other_replicas_differ() {
        use Spread::{One, Several};
        for (ours, theirs, spread, expected) in [
            ("dc1", "dc1", Several, false),
            ("dc1", "dc2", Several, true),
            // One of the two has been told of a replication that the other has not heard of yet.
            ("dc1", "dc2", One, true),
            (ALL, ALL, Several, false),
            (ALL, "dc1", Several, true),
            ("dc1", ALL, Several, true),
            (ALL, "dc1", One, false),
        ] {
            assert_eq!(differ(ours, theirs, spread), expected, "{ours:?} {theirs:?} {spread:?}");
        }
    }
}
