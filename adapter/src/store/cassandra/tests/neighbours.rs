//! Processes on one keyspace of which one counts other replicas than the rest.

use super::*;
use crate::store::StoreError;
use crate::store::rows::{MarkerRow, SealMark, Sealed, Shard};

/// What the processes on a keyspace say of themselves.
async fn said(session: &Session, keyspace: &str) -> Vec<(String, String)> {
    let cql = format!("SELECT sealer, datacenter FROM {keyspace}.sealers WHERE part = 1");
    let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
    answer.rows::<(String, String)>().unwrap().map(Result::unwrap).collect()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn who_counts_other_replicas_keeps_the_rest_from_writing() {
    let Some(node) = node().await else { return };
    let settings = settings(node, "beside");
    let store = open(settings.clone()).await;
    wait_until_ready(&store).await;
    let session = operator(node).await;
    until("it says that it is there", async || said(&session, "beside").await.len() == 1).await;
    let here = said(&session, "beside").await;
    assert_eq!(here[0].1, "datacenter1");

    // What one takes, another would find expired.
    for other in [
        CassandraSettings { retention: settings.retention / 2, ..settings.clone() },
        CassandraSettings { ledger_retention: settings.ledger_retention * 2, ..settings.clone() },
    ] {
        let error = refused(other.clone()).await;
        assert!(
            error.contains(&here[0].0) && error.contains("d and --ledger.retention="),
            "{error}"
        );
        assert!(error.contains("is counted for 100 s more"), "{error}");
        // Who keeps nothing disturbs nobody.
        let reads = CassandraSettings { reads_only: true, ..other.clone() };
        open(reads).await.close().await.unwrap();
    }

    // In one datacenter all replicas are its own.
    let quorum = CassandraSettings { consistency: Agreement::Quorum, ..settings.clone() };
    let beside = open(quorum).await;
    let counts_all = async || said(&session, "beside").await.iter().any(|(_, of)| of.is_empty());
    until("it says so too", counts_all).await;
    wait_until_ready(&beside).await;
    assert_eq!(store.trouble(), None);
    beside.close().await.unwrap();
    until("it has left", async || said(&session, "beside").await == here).await;

    // One of another datacenter, which could not be heard when this one started.
    let far = "INSERT INTO beside.sealers (part, sealer, datacenter) VALUES (1, 'far-1-ab', 'dc2')";
    session.query_unpaged(far, ()).await.unwrap();
    let error = refused(settings.clone()).await;
    assert!(error.contains("far-1-ab works on the keyspace beside"), "{error}");
    assert!(error.contains("is counted for 100 s more"), "{error}");
    let is_seen = async || store.trouble().is_some_and(|trouble| trouble.contains("far-1-ab"));
    until("it is seen", is_seen).await;
    let now_ms = Clock::system().now_ms();
    let head = vec![head_row(1, now_ms, Bytes::from_static(b"x"))];
    let rows = Rows { head, ..Rows::default() };
    let marker = MarkerRow { group: Group(1), window: Hour(5) };
    let sealed = Sealed { markers: vec![marker], ..Sealed::default() };
    for error in [
        store.append(rows.clone()).await.unwrap_err(),
        store.seal(sealed).await.unwrap_err(),
        store.begin_seal_mark(Shard(0), Hour(5)).await.unwrap_err(),
        store.set_seal_mark(SealMark::Begun, Hour(5)).await.unwrap_err(),
        StoreError::Unavailable(store.trouble().unwrap()),
    ] {
        let StoreError::Unavailable(why) = &error else { panic!("{error:?}") };
        assert!(why.contains("far-1-ab") && why.contains("--cassandra.datacenter"), "{why}");
    }

    let gone = "DELETE FROM beside.sealers WHERE part = 1 AND sealer = 'far-1-ab'";
    session.query_unpaged(gone, ()).await.unwrap();
    wait_until_ready(&store).await;
    store.append(rows).await.unwrap();
    store.close().await.unwrap();
    // One that has just stopped is no obstacle to what is changed.
    let changed = CassandraSettings { retention: settings.retention / 2, ..settings };
    open(changed).await.close().await.unwrap();
    until("all have left", async || said(&session, "beside").await.is_empty()).await;
}
