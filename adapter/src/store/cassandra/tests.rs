//! The store against a real node, a keyspace a test.

mod access;
#[path = "../../../tests/parts/cassandra_node.rs"]
pub(crate) mod cassandra_node;
pub(crate) mod faults;
mod late;
mod neighbours;
mod sealed;

use std::collections::BTreeSet;
use std::time::Duration;

use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Statement;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::*;
use crate::model::series::SeriesId;
use crate::store::Store;
use crate::store::contract::{Subject, all};
use crate::store::rows::{HeadRow, IndexRow, Placed, PostingsKey};
use cassandra_node::{Node, Plan};

const RETENTION: Duration = Duration::from_secs(400 * 86_400);

/// The node that tests share.
pub(crate) async fn node() -> Option<&'static Node> {
    cassandra_node::shared().await
}

/// A node that nobody else uses meanwhile. It is there for the tests that freeze it, one after the other,
/// so that none of the others waits for them.
pub(crate) async fn node_to_freeze() -> Option<(&'static Node, MutexGuard<'static, ()>)> {
    static NODE: OnceCell<Option<Node>> = OnceCell::const_new();
    static IS_OURS: Mutex<()> = Mutex::const_new(());
    let alone = IS_OURS.lock().await;
    let plan = Plan { heap: "512M", ..Plan::alone() };
    let node = NODE.get_or_init(|| Node::start(plan)).await.as_ref()?;
    Some((node, alone))
}

/// Tests have clocks of their own: whoever wants the cluster's to count says so.
pub(crate) fn settings(node: &Node, keyspace: &str) -> CassandraSettings {
    CassandraSettings {
        nodes: vec![node.address.clone()],
        create_schema: true,
        clock_difference_max: Duration::MAX,
        ..CassandraSettings::new(keyspace, RETENTION)
    }
}

async fn open(settings: CassandraSettings) -> Cassandra {
    Cassandra::open(settings, Clock::system()).await.unwrap()
}

async fn refused(settings: CassandraSettings) -> String {
    Cassandra::open(settings, Clock::system()).await.unwrap_err().to_string()
}

/// The next look tells that the nodes answer again.
async fn wait_until_ready(store: &Cassandra) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Err(why) = store.ready() {
        assert!(Instant::now() < deadline, "{why}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A session beside the store, as an operator's cqlsh.
async fn operator(node: &Node) -> Session {
    SessionBuilder::new().known_node(&node.address).build().await.unwrap()
}

fn head_row(group: u64, ms: i64, payload: Bytes) -> HeadRow {
    let hash = xxhash_rust::xxh3::xxh3_64(&payload);
    HeadRow { group: Group(group), hour: Hour::of(ms), first_ms: ms, hash, payload }
}

fn index_row(week: Week, number: u128) -> IndexRow {
    IndexRow {
        week,
        series: SeriesId(number << 64 | number),
        group: Group(u64::try_from(number / 60).unwrap()),
        row_key: format!("guest-{}", number / 60),
        metric: format!("metric_{}", number % 7),
        postings: vec![
            ("job".to_owned(), "libvirt".to_owned()),
            ("number".to_owned(), number.to_string()),
        ],
        labels: Bytes::from(format!("the labels of {number}")),
    }
}

struct InCassandra {
    store: Store,
    settings: CassandraSettings,
}

impl Subject for InCassandra {
    fn store(&self) -> &Store {
        &self.store
    }
    fn keeps(&self) -> bool {
        true
    }
    async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        // What is there is enough.
        self.settings.create_schema = false;
        self.store = Store::Cassandra(Box::new(open(self.settings.clone()).await));
    }
    fn now_ms(&self) -> i64 {
        Clock::system().now_ms()
    }
}

#[tokio::test]
async fn keeps_the_contract_and_makes_no_tombstones() {
    let Some(node) = node().await else { return };
    let settings = settings(node, "DATA");
    let store = Store::Cassandra(Box::new(open(settings.clone()).await));
    all(&mut InCassandra { store, settings }).await;
    let session = operator(node).await;
    for table in &schema::TABLES {
        let (live, tombstones) = scanned(&session, table.name).await;
        // The contract writes rows of two families, and takes all late rows away.
        let is_used = !schema::FAMILIES.contains(&table.name);
        if table.name == "late" {
            assert_eq!(live, 0);
            assert!(tombstones > 0, "late rows are deleted");
            continue;
        }
        if ["leases", "sealers"].contains(&table.name) {
            // A handful of rows that come and go, and that only sealers read.
            continue;
        }
        assert!(live > 0 || !is_used, "{} is empty", table.name);
        assert_eq!(tombstones, 0, "{}", table.name);
    }
    for family in ["cpu", "blk_read"] {
        assert!(scanned(&session, family).await.0 >= 60, "{family}");
    }
    // That a tombstone would have been seen.
    let null = "INSERT INTO \"DATA\".head (group_id, hour, first_ms, hash, samples) \
                VALUES (1, 1, 1, 1, null)";
    session.query_unpaged(null, ()).await.unwrap();
    assert_eq!(scanned(&session, "head").await.1, 1);
}

#[tokio::test]
async fn reads_what_the_oracle_holds() {
    let Some(node) = node().await else { return };
    let lease = Duration::from_secs(3);
    let settings = CassandraSettings { lease, ..settings(node, "oracle") };
    let open = async || {
        // The time of the engine's tests, so that no row's time to live has run out.
        let clock = Clock::fixed(1_700_000_000_000);
        Store::Cassandra(Box::new(Cassandra::open(settings.clone(), clock).await.unwrap()))
    };
    crate::engine::tests::compare_with_oracle(open, 10).await;
}

/// How many live rows and tombstones the node meets when it reads a whole table of `DATA`.
async fn scanned(session: &Session, table: &str) -> (u64, u64) {
    let mut statement = Statement::new(format!("SELECT * FROM \"DATA\".{table}"));
    statement.set_tracing(true);
    let answer = session.query_unpaged(statement, ()).await.unwrap();
    let id = answer.tracing_id().unwrap();
    // The node writes down the events of a trace after it has answered.
    for _ in 0..300 {
        let trace = session.get_tracing_info(&id).await.unwrap();
        let events = trace.events.iter().filter_map(|event| event.activity.as_deref());
        let counts = events.filter_map(|event| {
            let (live, rest) = event.strip_prefix("Read ")?.split_once(" live rows and ")?;
            let (tombstones, _) = rest.split_once(" tombstone cells")?;
            Some((live.parse::<u64>().ok()?, tombstones.parse::<u64>().ok()?))
        });
        if let Some(counts) = counts.reduce(|a, b| (a.0 + b.0, a.1 + b.1)) {
            return counts;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the node never traced what it read of {table}");
}

#[tokio::test]
async fn keyspaces_differ_by_case() {
    let Some(node) = node().await else { return };
    let upper = open(settings(node, "CASES")).await;
    let lower = open(settings(node, "cases")).await;
    let now_ms = Clock::system().now_ms();
    let head = vec![head_row(1, now_ms, Bytes::from_static(b"upper"))];
    upper.append(Rows { head, ..Rows::default() }).await.unwrap();
    let hour = Hour::of(now_ms);
    assert_eq!(upper.head(Group(1), (hour, hour), 9).await.unwrap().len(), 1);
    assert!(lower.head(Group(1), (hour, hour), 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_named() {
    let Some(node) = node().await else { return };
    let wanted = CassandraSettings { create_schema: false, ..settings(node, "checked") };
    let error = refused(wanted.clone()).await;
    assert!(error.contains("keyspace \"checked\" is missing"), "{error}");
    assert!(error.contains("--cassandra.create-schema"), "{error}");

    open(CassandraSettings { create_schema: true, ..wanted.clone() }).await;
    open(wanted.clone()).await;

    let session = operator(node).await;
    session.query_unpaged("DROP TABLE checked.postings", ()).await.unwrap();
    let error = refused(wanted.clone()).await;
    assert!(error.contains("table postings is missing"), "{error}");
    assert!(error.contains("--cassandra.create-schema"), "{error}");
    session.query_unpaged("ALTER TABLE checked.head DROP samples", ()).await.unwrap();
    session.query_unpaged("DROP TABLE checked.markers", ()).await.unwrap();
    let turned = "CREATE TABLE checked.markers (group_id bigint, month int, sealed_window int, \
                  PRIMARY KEY ((group_id, month), sealed_window)) \
                  WITH CLUSTERING ORDER BY (sealed_window DESC)";
    session.query_unpaged(turned, ()).await.unwrap();
    let error = refused(wanted.clone()).await;
    assert!(error.contains("table postings is missing"), "{error}");
    assert!(error.contains("column head.samples is missing"), "{error}");
    assert!(error.contains("markers.sealed_window is not in ascending order"), "{error}");
    assert!(error.contains("not of this release") && error.contains("copy --from"), "{error}");
    // A table that is there is never altered.
    let creating = CassandraSettings { create_schema: true, ..wanted };
    let error = refused(creating.clone()).await;
    assert!(error.contains("column head.samples is missing"), "{error}");
    assert!(!error.contains("postings"), "{error}");
    // Nor is one made anew whose loss would be a bill of nothing.
    session.query_unpaged("DROP TABLE checked.ledger", ()).await.unwrap();
    for _ in 0..2 {
        let error = refused(creating.clone()).await;
        assert!(error.contains("no table ledger") && error.contains("backup"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let Some(node) = node().await else { return };
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error =
        refused(CassandraSettings { nodes: vec![nowhere.to_string()], ..settings(node, "k") })
            .await;
    assert!(error.contains(&nowhere.to_string()), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(error.contains("check that a node listens there"), "{error}");

    let datacenter = Some("elsewhere".to_owned());
    let error = refused(CassandraSettings { datacenter, ..settings(node, "k") }).await;
    assert!(error.contains("elsewhere") && error.contains("datacenter1"), "{error}");

    let replication = Some("{'class': 'SimpleStrategy', 'replication_factor': 3}".to_owned());
    let error = refused(CassandraSettings { replication, ..settings(node, "three") }).await;
    assert!(error.contains("3 replicas") && error.contains("ALTER KEYSPACE"), "{error}");

    let file = PathBuf::from("/nonexistent/password");
    let login = Some(("kanyun".to_owned(), file));
    let error = refused(CassandraSettings { login, ..settings(node, "k") }).await;
    assert!(error.contains("/nonexistent/password"), "{error}");

    let named = Some("datacenter1".to_owned());
    let store = open(CassandraSettings { datacenter: named, ..settings(node, "named") }).await;
    wait_until_ready(&store).await;
    // The only one is as good as named: one that joins later is not used.
    let store = open(settings(node, "named")).await;
    assert_eq!(store.shared.datacenter, "datacenter1");
    let profile = store.shared.session.get_default_execution_profile_handle().to_profile();
    assert!(format!("{profile:?}").contains("datacenter1"), "{profile:?}");
}

#[tokio::test]
async fn rows_expire_by_the_age_of_their_samples() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "expiring")).await;
    let now_ms = Clock::system().now_ms();
    let old_ms = now_ms - 300 * DAY_MS;
    let over_ms = now_ms - 402 * DAY_MS;
    let head = [now_ms, old_ms, over_ms].map(|ms| head_row(1, ms, Bytes::from_static(b"x")));
    let week = Week::of(old_ms);
    let index = vec![index_row(week, 1)];
    store.append(Rows { index, head: head.to_vec(), ..Rows::default() }).await.unwrap();

    let session = operator(node).await;
    let ttls = async |cql: &str| -> Vec<i64> {
        let answer = session.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();
        let ttls = answer.rows::<(Option<i32>,)>().unwrap();
        ttls.map(|row| i64::from(row.unwrap().0.expect("a time to live"))).collect()
    };
    let mut of_head = ttls("SELECT TTL(samples) FROM expiring.head").await;
    of_head.sort_unstable();
    assert_eq!(of_head.len(), 2, "what is over is not written");
    let day = DAY_MS / 1000;
    for (ttl, days) in of_head.iter().zip([7, 7]) {
        // As of their arrival; the test may take a minute.
        assert!((days * day - 60..=days * day).contains(ttl), "{ttl} for {days} days");
    }
    let expected = (week.end_ms() - now_ms) / 1000 + 401 * day;
    for cql in [
        "SELECT TTL(labels) FROM expiring.series",
        "SELECT TTL(group_id) FROM expiring.metric_series",
        "SELECT TTL(group_id) FROM expiring.postings",
    ] {
        for ttl in ttls(cql).await {
            assert!((expected - 60..=expected).contains(&ttl), "{cql}: {ttl}, not {expected}");
        }
    }
    // A row of key columns alone has no cell to ask, but an expired one is gone: 2 s are left.
    let clock = Clock::fixed(week.end_ms() + 401 * DAY_MS - 2_000);
    let late = Cassandra::open(settings(node, "expiring_soon"), clock).await.unwrap();
    late.append(Rows { index: vec![index_row(week, 1)], ..Rows::default() }).await.unwrap();
    let is_gone = async || {
        late.metrics(week, 9).await.unwrap().is_empty()
            && late.row_keys(week, 9).await.unwrap().is_empty()
    };
    assert!(!is_gone().await, "written");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_gone().await {
        assert!(Instant::now() < deadline, "rows without a time to live");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn large_commits_come_back_whole() {
    let Some(node) = node().await else { return };
    let store = open(settings(node, "large")).await;
    let now_ms = Clock::system().now_ms();
    let (week, hour) = (Week::of(now_ms), Hour::of(now_ms));
    let index: Vec<IndexRow> = (0..6_000).map(|number| index_row(week, number)).collect();
    // One partition larger than a page and than a batch, and many small ones.
    let mut head: Vec<HeadRow> = (0..1_000u64)
        .map(|n| head_row(7, hour.start_ms() + 1, Bytes::from(n.to_be_bytes().repeat(500))))
        .collect();
    head.extend((100..2_100).map(|n| head_row(n, now_ms, Bytes::from(n.to_be_bytes().to_vec()))));
    let rows = Rows { index: index.clone(), head: head.clone(), ..Rows::default() };
    let start = Instant::now();
    store.append(rows.clone()).await.unwrap();
    println!("6,000 series and 3,000 head rows in {:?}", start.elapsed());
    store.append(rows).await.unwrap();

    let read = store.head(Group(7), (hour, hour), 1_000).await.unwrap();
    let expected: BTreeSet<&Bytes> =
        head.iter().filter(|row| row.group == Group(7)).map(|row| &row.payload).collect();
    assert_eq!(read.len(), 1_000);
    assert_eq!(read.iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(store.head(Group(2_000), week.hours(), 9).await.unwrap().len(), 1);
    let too_many = store.head(Group(7), (hour, hour), 999).await;
    assert!(matches!(too_many, Err(StoreError::TooManyRows { table: "head", rows_max: 999 })));

    let key = PostingsKey { week, metric: "metric_3", label: "job" };
    let mut postings = store.postings(key, &["libvirt"], 10_000).await.unwrap();
    let mut of_metric = store.metric_series(week, "metric_3", 10_000).await.unwrap();
    let expected: BTreeSet<Placed> = index
        .iter()
        .filter(|row| row.metric == "metric_3")
        .map(|row| Placed { group: row.group, series: row.series })
        .collect();
    postings.sort_unstable();
    of_metric.sort_unstable();
    assert_eq!(postings, expected.iter().copied().collect::<Vec<_>>());
    assert_eq!(of_metric, postings);
    assert_eq!(store.row_keys(week, 1_000).await.unwrap().len(), 100);
    assert_eq!(store.series(week, Group(3), 100).await.unwrap().len(), 60);
}

#[tokio::test]
async fn of_racing_layouts_one_is_added() {
    let Some(node) = node().await else { return };
    let stores = [open(settings(node, "racing")).await, open(settings(node, "racing")).await];
    let layout = |settings: &str| LayoutRow { from: Week(2_900), settings: settings.to_owned() };
    let (one, two) =
        tokio::join!(stores[0].add_layout(layout("one")), stores[1].add_layout(layout("two")));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one != two, "{one} {two}");
    let winner = if one { "one" } else { "two" };
    assert_eq!(stores[1].layouts().await.unwrap(), [layout(winner)]);
}

#[tokio::test]
async fn a_write_outlasts_a_pause_and_says_when_it_does_not() {
    let Some((node, _alone)) = node_to_freeze().await else { return };
    let store = open(settings(node, "frozen")).await;
    let now_ms = Clock::system().now_ms();
    let rows = |payload: &'static [u8]| Rows {
        head: vec![head_row(1, now_ms, Bytes::from_static(payload))],
        ..Rows::default()
    };
    store.append(rows(b"before")).await.unwrap();

    node.pause().await;
    let start = Instant::now();
    let failed = store.append(rows(b"while")).await;
    let took = start.elapsed();
    node.resume();
    let error = failed.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("writing samples in Cassandra"), "{error}");
    assert!(error.to_string().contains(&node.address), "{error}");
    assert!(took <= limits::WRITE_DEADLINE + Duration::from_secs(1), "{took:?}");
    assert!(
        took >= limits::WRITE_DEADLINE.saturating_sub(Duration::from_secs(3)),
        "gave up after {took:?}"
    );
    let why = store.ready().unwrap_err();
    // Whichever is seen first; by then its connections may have been given up.
    let reasons = ["token ranges answer", "writing samples", "no Cassandra node is connected"];
    assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");

    store.append(rows(b"after")).await.unwrap();
    wait_until_ready(&store).await;
    let hour = Hour::of(now_ms);
    let read = store.head(Group(1), (hour, hour), 9).await.unwrap();
    assert!(read.iter().any(|payload| &payload[..] == b"before"));
    assert!(read.iter().any(|payload| &payload[..] == b"after"));

    // A pause shorter than the deadline is not noticed but by the time it takes.
    node.pause().await;
    let pausing = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        node.resume();
    };
    let (written, ()) = tokio::join!(store.append(rows(b"through")), pausing);
    written.unwrap();
    store.close().await.unwrap();
    assert!(store.append(rows(b"closed")).await.unwrap_err().to_string().contains("closed"));
    assert!(store.ready().is_err());
}
