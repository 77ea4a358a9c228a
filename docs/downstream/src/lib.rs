//! The recipes of docs/adding.md, each a complete program: this crate runs them as tests.

/// The document.
#[cfg(doctest)]
#[doc = include_str!("../../adding.md")]
struct Adding;
