//! One float sample, and the one rule for two values at the same timestamp.
//! Knows nothing of series or of how samples are packed.

use std::cmp::Ordering;
use std::num::NonZeroI64;

/// The bits of Prometheus' stale marker (remote_write 1.0 specification, "Stale Markers").
pub const STALE_MARKER_BITS: u64 = 0x7ff0_0000_0000_0002;

/// One float sample of a series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    /// All 64 bits count: stale markers and NaN payloads survive.
    pub value: f64,
    /// Start of the counter's epoch in unix milliseconds, where the sender knows it
    /// (remote_write 2.0; 0 on the wire is unset).
    pub start_ms: Option<NonZeroI64>,
}

impl Sample {
    /// Which of two samples at one timestamp is kept: a number beats NaN, NaN beats a stale
    /// marker, else the greater in IEEE total order, else the later start time (ledger.md, "Same
    /// series, same timestamp, different value"). A maximum over a total order, and so
    /// commutative, associative and idempotent: no order of arrival can change what is read.
    #[must_use]
    pub fn merge(self, other: Sample) -> Sample {
        if self.precedence(&other) == Ordering::Less { other } else { self }
    }

    fn precedence(&self, other: &Sample) -> Ordering {
        rank(self.value)
            .cmp(&rank(other.value))
            .then_with(|| self.value.total_cmp(&other.value))
            .then_with(|| self.start_ms.cmp(&other.start_ms))
    }
}

/// Equality of all bits; `PartialEq` on floats would call a NaN different from itself.
impl PartialEq for Sample {
    fn eq(&self, other: &Sample) -> bool {
        self.timestamp_ms == other.timestamp_ms
            && self.value.to_bits() == other.value.to_bits()
            && self.start_ms == other.start_ms
    }
}

impl Eq for Sample {}

fn rank(value: f64) -> u8 {
    if value.to_bits() == STALE_MARKER_BITS {
        0
    } else if value.is_nan() {
        1
    } else {
        2
    }
}

/// Sorts samples by time and merges equal timestamps, in place.
pub fn sort_and_merge(samples: &mut Vec<Sample>) {
    samples.sort_by_key(|sample| sample.timestamp_ms);
    samples.dedup_by(|next, kept| {
        let equal = next.timestamp_ms == kept.timestamp_ms;
        if equal {
            *kept = kept.merge(*next);
        }
        equal
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at_zero(value: f64) -> Sample {
        Sample { timestamp_ms: 0, value, start_ms: None }
    }

    fn check(left: f64, right: f64, kept: f64) {
        assert_eq!(at_zero(left).merge(at_zero(right)), at_zero(kept));
        assert_eq!(at_zero(right).merge(at_zero(left)), at_zero(kept));
    }

    #[test]
    fn the_rule_of_the_ledger() {
        let stale = f64::from_bits(STALE_MARKER_BITS);
        check(1.0, 2.0, 2.0);
        check(-0.0, 0.0, 0.0);
        check(-1.0, f64::NAN, -1.0);
        check(f64::NEG_INFINITY, f64::NAN, f64::NEG_INFINITY);
        check(stale, f64::NAN, f64::NAN);
        check(stale, 0.0, 0.0);
        check(stale, stale, stale);
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let bits = prop_oneof![
            any::<u64>(),
            Just(STALE_MARKER_BITS),
            Just(f64::NAN.to_bits()),
            (0..4u8).prop_map(|small| f64::from(small).to_bits()),
        ];
        (0..3i64, bits, 0..3i64).prop_map(|(timestamp_ms, bits, start)| Sample {
            timestamp_ms,
            value: f64::from_bits(bits),
            start_ms: NonZeroI64::new(start),
        })
    }

    proptest! {
        #[test]
        fn merging_is_commutative_associative_idempotent(a in any_sample(), b in any_sample(), c in any_sample()) {
            let [a, b, c] = [a, b, c].map(|s| Sample { timestamp_ms: 0, ..s });
            prop_assert_eq!(a.merge(b), b.merge(a));
            prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
            prop_assert_eq!(a.merge(a), a);
        }

        #[test]
        fn any_order_of_arrival_reads_the_same(mut samples in prop::collection::vec(any_sample(), 0..12), seed in any::<u64>()) {
            let mut shuffled = samples.clone();
            let len = shuffled.len().max(1) as u64;
            for i in 0..shuffled.len() {
                shuffled.swap(i, usize::try_from(seed.rotate_left(u32::try_from(i).unwrap()) % len).unwrap());
            }
            sort_and_merge(&mut samples);
            sort_and_merge(&mut shuffled);
            prop_assert_eq!(samples, shuffled);
        }
    }
}
