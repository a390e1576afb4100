//! Seals and commits at the same time: a row that comes while its window is sealed is read by that
//! seal, or it is still late afterwards. Else it would be in the head alone, where nobody looks.

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::sync::Notify;

use super::ROWS_MAX;
use crate::model::row_key::Group;
use crate::model::time::Hour;
use crate::store::Store;
use crate::store::rows::{HeadRow, LateRow, Rows, Sealed};

const COMMITS: i32 = 30;
/// Rows of other groups in a commit, so that it takes its time.
const OTHERS: u64 = 1_000;
const GROUP: Group = Group(5_000);

fn payload(commit: i32) -> Bytes {
    Bytes::from(format!("commit {commit}"))
}

/// Of a day of its own, because a store may keep track of the days that it holds.
fn hour_of(commit: i32, newest: Hour) -> Hour {
    Hour(newest.0 - 24 * commit)
}

fn commit(number: i32, newest: Hour) -> Rows {
    let (hour, payload) = (hour_of(number, newest), payload(number));
    // Of rows at another time each; any will do.
    let hash = u64::try_from(number).unwrap();
    let first_ms = hour.start_ms();
    let groups = (1..=OTHERS).map(|other| Group(GROUP.0 + other)).chain([GROUP]);
    let head =
        groups.map(|group| HeadRow { group, hour, first_ms, hash, payload: payload.clone() });
    let late = LateRow { group: GROUP, window: hour, arrived_ms: newest.start_ms(), hash };
    Rows { late: vec![late], head: head.collect(), ..Rows::default() }
}

/// Seals what is late until nothing is and nothing more comes; gives what it found in the head.
async fn seal(
    store: &Store,
    newest: Hour,
    (written, idle): (&Cell<bool>, &Notify),
) -> BTreeSet<Bytes> {
    let oldest = hour_of(COMMITS, newest);
    let mut sealed = BTreeSet::new();
    loop {
        let ends = written.get();
        let late = store.late(GROUP, (oldest, newest), ROWS_MAX).await.unwrap();
        for row in &late {
            let window = (row.window, row.window);
            sealed.extend(store.head(GROUP, window, ROWS_MAX).await.unwrap());
        }
        if late.is_empty() {
            if ends {
                return sealed;
            }
            idle.notify_one();
            tokio::task::yield_now().await;
        }
        store.seal(Sealed { late, ..Sealed::default() }).await.unwrap();
    }
}

pub(super) async fn nothing_slips_past_one(store: &Store, newest: Hour) {
    let (written, idle) = (Cell::new(false), Notify::new());
    let write = async {
        for number in 0..COMMITS {
            // Else the commit and a seal would wait for each other, and never meet.
            idle.notified().await;
            store.append(commit(number, newest)).await.unwrap();
        }
        written.set(true);
    };
    let ((), sealed) = tokio::join!(write, seal(store, newest, (&written, &idle)));
    let all: BTreeSet<Bytes> = (0..COMMITS).map(payload).collect();
    let lost: Vec<&Bytes> = all.difference(&sealed).collect();
    assert!(lost.is_empty(), "slipped past a seal: {lost:?}");
}
