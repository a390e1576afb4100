//! Our own retries of statements: what is passing is tried again with a growing, jittered pause
//! until the caller's deadline. The driver retries at once on another node; it gives up on a
//! timeout. Every statement here is safe to repeat, but for the layout's, whose caller knows.

use std::time::Duration;

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use tokio::time::{Instant, sleep, timeout_at};

use super::nodes;
use crate::limits;
use crate::store::observed::ClusterMetrics;
use crate::store::{StoreError, chance};

/// Repeats `attempt` until it succeeds, fails for good, or `deadline` comes. `purpose` names the
/// statement in the error, as in "writing samples".
pub(super) async fn until<T, F>(
    (purpose, metrics): (&'static str, &ClusterMetrics),
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, ExecutionError>>,
{
    let mut pause = limits::CASSANDRA_PAUSE_MIN;
    let mut last_error = "no answer in time".to_owned();
    // Where the cluster works and this statement does not.
    let (mut is_refused, mut replica_failures) = (false, 0);
    loop {
        // In a box: the driver's futures are large, and each layer around them would move them.
        let attempt = nodes::asked(Box::pin(attempt()));
        let Ok((answer, node)) = timeout_at(deadline, attempt).await else { break };
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        last_error = match node {
            Some(node) => format!("node {node}: {error}"),
            None => error.to_string(),
        };
        let is_failure = is_replica_failure(&error);
        replica_failures += usize::from(is_failure);
        // What else comes after them may pass.
        is_refused = is_invalid(&error)
            || is_failure && replica_failures >= limits::CASSANDRA_REPLICA_FAILURES_MAX;
        let next = Instant::now() + jittered(pause);
        if is_refused || !is_passing(&error) || next >= deadline {
            break;
        }
        metrics.retried(purpose);
        tracing::debug!(purpose, error = last_error, "trying again");
        sleep(next - Instant::now()).await;
        pause = (pause * 2).min(limits::CASSANDRA_PAUSE_MAX);
    }
    metrics.gave_up(purpose);
    if is_refused {
        return Err(StoreError::Refused(format!("{purpose} in Cassandra: {last_error}")));
    }
    Err(unavailable(purpose, &last_error))
}

/// What a caller is told when a statement did not succeed.
pub(super) fn unavailable(purpose: &str, error: &str) -> StoreError {
    StoreError::Unavailable(format!("{purpose} in Cassandra: {error}"))
}

/// Whether the cluster says that this statement can never be done, whatever others can.
fn is_invalid(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))
            | ExecutionError::BadQuery(_)
    )
}

/// Whether replicas answered, and said that they failed: at a damaged file, or at more deleted rows
/// than they pass over.
fn is_replica_failure(error: &ExecutionError) -> bool {
    use DbError::{ReadFailure, WriteFailure};
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(
            ReadFailure { .. } | WriteFailure { .. },
            _
        ))
    )
}

/// Whether the same statement may succeed later.
fn is_passing(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) => !matches!(
            error,
            DbError::SyntaxError
                | DbError::Invalid
                | DbError::AlreadyExists { .. }
                | DbError::FunctionFailure { .. }
                | DbError::AuthenticationError
                | DbError::Unauthorized
                | DbError::ConfigError
                | DbError::ProtocolError
        ),
        ExecutionError::BadQuery(_)
        | ExecutionError::LastAttemptError(
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_),
        ) => false,
        _ => true,
    }
}

/// Between half of a pause and all of it, so that writers that failed together do not come back
/// together.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause / 2 * u32::try_from(chance() % 1000).unwrap_or_default() / 1000
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn named(purpose: &'static str) -> (&'static str, &'static ClusterMetrics) {
        (purpose, Box::leak(Box::default()))
    }

    fn database(error: DbError) -> ExecutionError {
        RequestAttemptError::DbError(error, "the node's words".to_owned()).into()
    }

    #[tokio::test(start_paused = true)]
    async fn passing_trouble_is_tried_again_until_it_has_passed() {
        let tries = AtomicUsize::new(0);
        let deadline = Instant::now() + Duration::from_secs(25);
        let answer = until(named("writing samples"), deadline, async || {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(database(DbError::Overloaded)),
                _ => Ok("stored"),
            }
        });
        assert_eq!(answer.await.unwrap(), "stored");
        assert_eq!(tries.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_it_and_names_purpose_and_error() {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(25);
        let answer: Result<(), _> = until(named("writing samples"), deadline, async || {
            Err(database(DbError::IsBootstrapping))
        })
        .await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("writing samples in Cassandra"), "{error}");
        assert!(error.contains("the node's words"), "{error}");
        assert!(start.elapsed() > Duration::from_secs(20), "gave up early");
        assert!(Instant::now() <= deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends_at_the_deadline() {
        let deadline = Instant::now() + Duration::from_secs(25);
        let answer: Result<(), _> =
            until(named("reading samples"), deadline, std::future::pending).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))));
        assert_eq!(Instant::now(), deadline);
    }

    #[tokio::test]
    async fn what_cannot_succeed_later_is_tried_once() {
        let tries = AtomicUsize::new(0);
        let deadline = Instant::now() + Duration::from_secs(25);
        let answer: Result<(), _> = until(named("writing samples"), deadline, async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(database(DbError::Unauthorized))
        })
        .await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))));
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_this_statement_meets_is_told_apart() {
        let tries = AtomicUsize::new(0);
        let deadline = Instant::now() + Duration::from_secs(50);
        let invalid: Result<(), _> = until(named("writing the ledger"), deadline, async || {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(database(DbError::Invalid))
        })
        .await;
        assert!(matches!(invalid, Err(StoreError::Refused(_))), "{invalid:?}");
        assert_eq!(tries.load(Ordering::Relaxed), 1);

        let failure = || DbError::ReadFailure {
            consistency: scylla::statement::Consistency::LocalQuorum,
            received: 0,
            required: 1,
            numfailures: 1,
            data_present: false,
        };
        let begin = Instant::now();
        let failed: Result<(), _> =
            until(named("reading samples"), deadline, async || Err(database(failure()))).await;
        assert!(matches!(failed, Err(StoreError::Refused(_))), "{failed:?}");
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        // What comes after them may pass: it is told as that.
        let tries = AtomicUsize::new(0);
        let soon = Instant::now() + Duration::from_secs(20);
        let other: Result<(), _> = until(named("reading samples"), soon, async || {
            match tries.fetch_add(1, Ordering::Relaxed) + 1 {
                ..limits::CASSANDRA_REPLICA_FAILURES_MAX => Err(database(failure())),
                _ => Err(database(DbError::Overloaded)),
            }
        })
        .await;
        assert!(matches!(other, Err(StoreError::Unavailable(_))), "{other:?}");
        // It may pass, too.
        let tries = AtomicUsize::new(0);
        let passed = until(named("reading samples"), deadline, async || {
            match tries.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(database(failure())),
                _ => Ok(()),
            }
        });
        passed.await.unwrap();
    }

    #[test]
    fn pauses_differ_and_stay_within_their_bound() {
        let pause = Duration::from_secs(2);
        let pauses: Vec<Duration> = (0..100).map(|_| jittered(pause)).collect();
        assert!(pauses.iter().all(|one| pause / 2 <= *one && *one <= pause));
        assert!(pauses.iter().any(|one| *one != pauses[0]));
    }
}
