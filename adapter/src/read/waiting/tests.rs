//! What waits comes back in order, wherever it waited, and leaves nothing behind.

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::super::room::Sizes;
use super::*;
use crate::metrics::Metrics;

/// Ample memory, or so little that nearly everything is spilled.
const AMPLE: Sizes = Sizes { step: 1 << 20, least: 4, most: 32, shared: 96, disk: 64 };
const SCARCE: Sizes = Sizes { step: 512, least: 1, most: 3, shared: 2, disk: 4096 };

fn room(sizes: Sizes) -> (tempfile::TempDir, Arc<Room>) {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let room = Room::sized(folder.path().to_owned(), metrics, sizes);
    (folder, Arc::new(room))
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(work)
}

async fn sorted(room: &Arc<Room>, pushes: &[(u32, Vec<u8>)]) -> Sorted {
    let mut waiting = Waiting::new(Arc::clone(room));
    for (place, bytes) in pushes {
        waiting.push(*place, bytes).await.unwrap();
        let used = waiting.held.bytes.len() + waiting.held.pieces.len() * size_of::<Piece>();
        assert!(used <= room.sizes.most * room.sizes.step, "{used} bytes are held");
    }
    waiting.finish().await.unwrap()
}

/// Bytes that differ from push to push, as long as a read's often are.
fn any_pushes() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    let push = (0..40u32, any::<u8>(), prop_oneof![0..40usize, 0..3000usize]);
    prop::collection::vec(push, 0..60).prop_map(|pushes| {
        let bytes = |first: u8, length: usize| {
            let steps = (0..length).map(|step| u8::try_from(step % 251).unwrap());
            steps.map(|step| first.wrapping_add(step)).collect()
        };
        pushes.into_iter().map(|(place, first, length)| (place, bytes(first, length))).collect()
    })
}

proptest! {
    #[test]
    fn spilled_equals_unspilled(pushes in any_pushes(), passed_over in 0..40u32) {
        let mut expected: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (place, bytes) in &pushes {
            expected.entry(*place).or_default().extend(bytes);
        }
        let bytes = pushes.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let fits = bytes <= SCARCE.most * SCARCE.step;
        for sizes in [AMPLE, SCARCE] {
            let (folder, room) = room(sizes);
            let mut sorted = in_runtime(sorted(&room, &pushes));
            let is_ample = sizes.step == AMPLE.step;
            prop_assert!(fits || sorted.blocks() != is_ample);
            // A place that nobody asks for is in nobody's way.
            for place in (0..40).filter(|place| *place != passed_over) {
                let bytes = expected.get(&place).cloned().unwrap_or_default();
                prop_assert_eq!(sorted.take(place).unwrap(), bytes);
            }
            drop(sorted);
            prop_assert_eq!(room.free(), (sizes.shared, sizes.disk));
            prop_assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        }
    }
}

#[test]
fn memory_is_shared_and_given_back() {
    let (_folder, room) = room(SCARCE);
    in_runtime(async {
        let mut waiting = [(); 2].map(|()| Waiting::new(Arc::clone(&room)));
        waiting[0].push(0, &[1; 1400]).await.unwrap();
        assert_eq!(room.free().0, 0, "one read has all that is shared");
        waiting[1].push(0, &[2; 400]).await.unwrap();
        assert!(waiting[1].spilled.is_none(), "what every read has is not shared");
        waiting[1].push(0, &[2; 400]).await.unwrap();
        assert!(waiting[1].spilled.is_some());
        let [one, other] = waiting;
        drop(one);
        assert_eq!(room.free().0, 2);
        let mut sorted = other.finish().await.unwrap();
        assert_eq!(sorted.take(0).unwrap(), [2; 800]);
        assert_eq!(room.free().0, 2);
    });
}

#[test]
fn a_full_disk_budget_is_passing_trouble() {
    let (_folder, room) = room(Sizes { disk: 4, ..SCARCE });
    in_runtime(async {
        let mut waiting = Waiting::new(Arc::clone(&room));
        let refused = waiting.push(0, &[1; 10_000]).await;
        assert!(matches!(refused, Err(QueryError::TryAgain(_))), "{refused:?}");
        drop(waiting);
        assert_eq!(room.free(), (2, 4));
    });
}

#[test]
fn a_folder_that_is_gone_is_passing_trouble_and_told_at_the_start() {
    let (folder, room) = room(SCARCE);
    assert_eq!(room.check(), Ok(()));
    folder.close().unwrap();
    let told = room.check().unwrap_err();
    assert!(told.contains("--read.spill-path"), "{told}");
    let refused = in_runtime(Waiting::new(Arc::clone(&room)).push(0, &[1; 10_000]));
    assert!(matches!(refused, Err(QueryError::TryAgain(_))), "{refused:?}");
    assert_eq!(room.free(), (2, 4096));
}

/// Given up while a run is being written, a read leaves neither memory nor file.
#[test]
fn a_read_that_is_given_up_leaves_nothing() {
    let (folder, room) = room(SCARCE);
    in_runtime(async {
        for polls in 0..20 {
            let mut waiting = Waiting::new(Arc::clone(&room));
            let bytes = vec![7; 100_000];
            let mut push = std::pin::pin!(waiting.push(0, &bytes));
            for _ in 0..polls {
                drop(futures_util::poll!(push.as_mut()));
                tokio::task::yield_now().await;
            }
        }
        while room.free() != (SCARCE.shared, SCARCE.disk) {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}
