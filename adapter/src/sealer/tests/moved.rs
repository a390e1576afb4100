//! A store is copied into another one that an adapter has worked on, at any time and more than once:
//! whatever was sent to either of them, every bill of the other one is the oracle's in the end.

use super::shared::many_labels;
use super::*;
use crate::copy::{Copy, CopyError, Known, Plan, Source};
use crate::engine::layout::{FORMAT, Layout};
use crate::engine::tests::KEEPING;
use crate::model::time::Week;
use crate::store::cassandra::Cassandra;
use crate::store::cassandra::tests::{node, settings};
use crate::store::rows::{LayoutRow, Rows};

const LABELS: &[&str] = &["uuid"];

/// Two adapters, of which one is to take over.
#[derive(Debug)]
struct Move {
    clock: Clock,
    stores: [Memory; 2],
    works: [Option<Works>; 2],
    folder: tempfile::TempDir,
}

impl Move {
    fn new(now_ms: i64) -> Move {
        Move {
            clock: Clock::fixed(now_ms),
            stores: [Memory::new(), Memory::new()],
            works: [None, None],
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// One of them; it starts when it is first asked for.
    async fn works(&mut self, which: usize) -> &Works {
        if self.works[which].is_none() {
            let store = Store::Memory(self.stores[which].clone());
            self.works[which] = Some(Works::on(store, LABELS, self.clock.clone()).await);
        }
        self.works[which].as_ref().unwrap()
    }

    /// Copies the first into the other, whose adapter has stopped for that.
    async fn copy(&mut self) {
        self.works[1] = None;
        self.begin().await.unwrap().run(&mut |_| {}).await.unwrap();
    }

    /// Begins a copy, or goes on with one that was cut off.
    async fn begin(&self) -> Result<Copy, CopyError> {
        self.begin_into(Store::Memory(self.stores[1].clone())).await
    }

    async fn begin_into(&self, to: Store) -> Result<Copy, CopyError> {
        self.begin_between(Store::Memory(self.stores[0].clone()), to).await
    }

    async fn begin_between(&self, from: Store, to: Store) -> Result<Copy, CopyError> {
        let (from, to) = (Arc::new(from), Arc::new(to));
        let layout = Layout::new(LABELS.iter().map(|label| (*label).to_owned()).collect(), 7200);
        let known = Known { file: self.folder.path().join("progress"), title: "a move".to_owned() };
        let source = Source::open(from, &layout, known, &self.clock).await.unwrap();
        let plan = Plan { source, to, keeping: KEEPING };
        Copy::begin(plan, self.clock.clone()).await
    }

    /// Everything is copied, sealed and billed by the other one.
    async fn ends(&mut self, arrived: &[Arrival]) -> Result<(), TestCaseError> {
        // The adapter that goes has a layout also where nothing was sent to it.
        self.works(0).await;
        self.copy().await;
        let now_ms = self.clock.now_ms();
        check(self.works(1).await, arrived).await?;
        self.clock.set(now_ms + DAY_MS);
        let other = self.works(1).await;
        other.pass().await;
        check(other, arrived).await?;
        all_stands(other, arrived, now_ms).await
    }
}

/// Else what was copied into the old one would be left out, and the copy would end as a whole one.
#[tokio::test]
async fn a_copy_that_was_cut_off_does_not_go_on_in_another_store() {
    let mut moved = Move::new(1_700_000_000_000);
    moved.works(0).await;
    moved.begin().await.unwrap();
    // It goes on where it began.
    moved.begin().await.unwrap();
    moved.stores[1] = Memory::new();
    let error = moved.begin().await.unwrap_err().to_string();
    assert!(error.contains("--progress=") && error.contains("a new one"), "{error}");
    let layouts = Store::Memory(moved.stores[1].clone()).layouts().await.unwrap();
    assert!(layouts.is_empty(), "something was made there");
    std::fs::remove_file(moved.folder.path().join("progress")).unwrap();
    moved.copy().await;
}

/// Labels of which one read of a cluster holds only a part, into it and out again.
#[tokio::test]
async fn a_guest_of_many_labels_is_copied() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let mut moved = Move::new(begin);
    let arrived = scrapes(begin, begin + HOUR_MS);
    send(moved.works(0).await, &arrived).await;
    let week = Week::of(begin);
    let row_keys = moved.stores[0].row_keys(week, 9).await.unwrap();
    let [(row_key, group)] = row_keys.as_slice() else { panic!("{row_keys:?}") };
    let index = many_labels(week, (row_key, *group)).collect();
    moved.stores[0].append(Rows { index, ..Rows::default() }).await.unwrap();
    let settings = settings(node, "copied_labels");
    let open = async || {
        let store = Cassandra::open(settings.clone(), moved.clock.clone()).await.unwrap();
        Store::Cassandra(Box::new(store))
    };
    let into = moved.begin_into(open().await).await.unwrap();
    into.run(&mut |_| {}).await.unwrap();
    let whole = open().await.series(week, *group, limits::QUERY_ROWS_MAX).await;
    assert!(whole.unwrap_err().is_too_much());
    let to = Store::Memory(moved.stores[1].clone());
    let out = moved.begin_between(open().await, to).await.unwrap();
    out.run(&mut |_| {}).await.unwrap();
    let copied = Store::Memory(moved.stores[1].clone());
    let copied: Vec<_> = copied.series_pages(week, *group).try_collect().await.unwrap();
    assert_eq!(copied.concat().len(), 251);
    moved.ends(&arrived).await.unwrap();
}

/// Two keyspaces stand for those of two clusters, which have one name.
#[tokio::test]
async fn a_copy_that_was_cut_off_does_not_go_on_in_another_cluster() {
    let Some(node) = node().await else { return };
    let mut moved = Move::new(NOW_MS);
    moved.works(0).await;
    let open = async |keyspace| {
        let store = Cassandra::open(settings(node, keyspace), Clock::fixed(NOW_MS)).await.unwrap();
        Store::Cassandra(Box::new(store))
    };
    moved.begin_into(open("copied_here").await).await.unwrap();
    moved.begin_into(open("copied_here").await).await.unwrap();
    let other = open("copied_there").await;
    for row in moved.stores[0].layouts().await.unwrap() {
        other.add_layout(row).await.unwrap();
    }
    let error = moved.begin_into(other).await.unwrap_err().to_string();
    assert!(error.contains("--progress=") && error.contains("other stores"), "{error}");
}

/// Who drew a turn before the copy began, and writes when it has ended, has seen what the copy has not.
#[tokio::test]
async fn what_a_sealer_counts_stands_beside_a_copy() {
    let Some(node) = node().await else { return };
    let begin = NOW_MS - NOW_MS % DAY_MS;
    let mut moved = Move::new(begin);
    let arrived = scrapes(begin, begin + HOUR_MS);
    send(moved.works(0).await, &arrived).await;
    moved.clock.set(begin + DAY_MS);
    moved.works(0).await.pass().await;
    let settings = settings(node, "counted_beside");
    let store = Cassandra::open(settings, moved.clock.clone()).await.unwrap();
    let hours = (Hour::of(begin), Hour::of(begin));
    let turn = store.turns(1).await.unwrap();
    let copy = moved.begin_into(Store::Cassandra(Box::new(store))).await.unwrap();
    let to = copy.to();
    copy.run(&mut |_| {}).await.unwrap();
    let mut rows = to.ledger("nic_incoming", "u1", hours, 9).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows[0].columns[0].minutes[7].value += 1.0;
    let ledger = vec![Projection { turn, rows: rows.clone() }];
    to.seal(Sealed { ledger, ..Sealed::default() }).await.unwrap();
    assert_eq!(to.ledger("nic_incoming", "u1", hours, 9).await.unwrap(), rows);
}

/// Who knows only the earlier format must not seal there what bills would not be counted from.
#[tokio::test]
async fn a_copy_of_an_earlier_store_is_of_this_release() {
    let mut moved = Move::new(1_700_000_000_000);
    let earlier = Layout { format: 1, ..Layout::new(vec!["uuid".to_owned()], 7200) };
    let settings = serde_json::to_string(&earlier).unwrap();
    let row = LayoutRow { from: Week(1), settings };
    moved.stores[0].add_layout(row).await.unwrap();
    moved.copy().await;
    let copied = moved.stores[1].layouts().await.unwrap();
    assert_eq!(copied.len(), 1);
    let layout: Layout = serde_json::from_str(&copied[0].settings).unwrap();
    assert_eq!(layout, Layout { format: FORMAT, ..earlier });
}

/// Which of them gets a delivery: one or both.
fn any_place() -> impl Strategy<Value = [bool; 2]> {
    select(vec![[true, false], [false, true], [true, true]])
}

/// What happens after it.
#[derive(Clone, Copy, Debug)]
enum Next {
    Nothing,
    Pass(usize),
    Copy,
}

fn any_next() -> impl Strategy<Value = Next> {
    prop_oneof![
        12 => Just(Next::Nothing),
        2 => (0..2_usize).prop_map(Next::Pass),
        1 => Just(Next::Copy),
    ]
}

/// Places are the same for a while, as when senders are moved.
fn any_moves() -> impl Strategy<Value = Vec<([bool; 2], Next)>> {
    let run = (any_place(), prop::collection::vec(any_next(), 1..60));
    let runs = prop::collection::vec(run, 1..6);
    runs.prop_map(|runs| {
        let of_run = |(place, nexts): ([bool; 2], Vec<Next>)| {
            nexts.into_iter().map(move |next| (place, next))
        };
        runs.into_iter().flat_map(of_run).collect()
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bills_are_right_wherever_samples_were_sent(
        deliveries in any_deliveries(),
        moves in any_moves(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(moved(&deliveries, &moves))?;
    }
}

async fn moved(
    deliveries: &[(Delivery, Then)],
    moves: &[([bool; 2], Next)],
) -> Result<(), TestCaseError> {
    let Some(((first_ms, _), _)) = deliveries.first() else { return Ok(()) };
    let mut stores = Move::new(*first_ms);
    let mut arrived: Vec<Arrival> = Vec::new();
    for (((comes_ms, (labels, sample)), _), (places, next)) in
        deliveries.iter().zip(moves.iter().cycle())
    {
        stores.clock.set(*comes_ms);
        for which in (0..2).filter(|which| places[*which]) {
            write(&stores.works(which).await.engine, &[(labels.clone(), vec![*sample])]).await;
        }
        arrived.push((labels.clone(), *sample));
        match next {
            Next::Nothing => {}
            Next::Pass(which) => stores.works(*which).await.pass().await,
            Next::Copy => {
                stores.works(0).await;
                stores.copy().await;
            }
        }
    }
    stores.ends(&arrived).await
}

/// The usual case: senders go to the other one at some moment, the first one is copied hours later.
#[tokio::test]
async fn senders_move_first_and_what_was_before_follows() {
    let week = NOW_MS - NOW_MS % WEEK_MS;
    // In the middle of an hour, of a window, and where a day or a week begins; and after a pause.
    for (moved, pause) in [
        (week + 90 * 60_000, 0),
        (week + HOUR_MS, 0),
        (week, 0),
        (week + DAY_MS, 0),
        (week - 3 * HOUR_MS, 100 * HOUR_MS),
    ] {
        let mut stores = Move::new(moved - 5 * HOUR_MS);
        let before = scrapes(moved - 5 * HOUR_MS, moved);
        let after = scrapes(moved + pause, moved + pause + 4 * HOUR_MS);
        for (which, arrivals) in [(0, &before), (1, &after)] {
            for part in arrivals.chunks(240) {
                stores.clock.set(part.last().unwrap().1.timestamp_ms);
                let works = stores.works(which).await;
                send(works, part).await;
                works.pass().await;
            }
        }
        stores.ends(&[before, after].concat()).await.unwrap();
    }
}

/// A copy that is made again copies what is new, and has nothing sealed or counted where nothing is.
#[tokio::test]
async fn a_copy_that_is_made_again_changes_nothing() {
    let begin = NOW_MS - NOW_MS % WEEK_MS - 40 * DAY_MS;
    let mut stores = Move::new(begin);
    let arrived = scrapes(begin, begin + 6 * HOUR_MS);
    for part in arrived.chunks(480) {
        stores.clock.set(part.last().unwrap().1.timestamp_ms);
        let works = stores.works(0).await;
        send(works, part).await;
        works.pass().await;
    }
    stores.clock.set(begin + 40 * DAY_MS);
    stores.works(0).await.pass().await;
    for _ in 0..2 {
        stores.copy().await;
        let other = stores.works(1).await;
        assert_eq!(other.engine.late_page(None, None).await.unwrap(), []);
        all_stands(other, &arrived, begin + 3 * DAY_MS).await.unwrap();
    }
}
