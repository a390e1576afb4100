//! The adapter's integration tests, in one binary.
