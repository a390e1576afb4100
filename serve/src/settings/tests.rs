//! Precedence, origins and keys.
