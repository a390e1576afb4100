//! Numbers that look random and are the same for the same seed, so that a failure can be run again.

use xxhash_rust::xxh3::xxh3_64;

#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice { seed, thrown: 0 }
    }

    pub(crate) fn throw(&mut self) -> u64 {
        self.thrown += 1;
        xxh3_64(&[self.seed, self.thrown].map(u64::to_be_bytes).concat())
    }

    /// From 0 to below this number.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.throw() % end }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
