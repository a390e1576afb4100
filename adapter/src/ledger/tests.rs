//! The ledger held to its rules three ways: cases worked by hand, an independent naive oracle, and
//! properties of generated guests. Must not know how the production function works inside.

mod cases;
pub(crate) mod guest;
pub(crate) mod oracle;
mod property;
