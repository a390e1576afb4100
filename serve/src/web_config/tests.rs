//! What the file may say, and what is refused.
