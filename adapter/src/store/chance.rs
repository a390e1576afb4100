//! Chance for those who share a store: names that nobody else has, and turns that do not fall together.
//! Nothing that is secret hangs on it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that another process, or the next call, does not get.
pub(crate) fn chance() -> u64 {
    // A hasher's random keys are the standard library's only source of chance.
    RandomState::new().build_hasher().finish()
}
