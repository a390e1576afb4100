//! Billing over a store in memory: who is meant, and that no split of a range changes a sum.
