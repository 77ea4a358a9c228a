//! The recipes of docs/adding.md and the program in README.md, each complete: this crate runs them as tests. And what guidance does to
//! samples of a class ([`classes`]), and how good samples are by the features of one's own network ([`quality`]).

pub mod classes;
pub mod quality;

/// The first page; its manifest is no program.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The document.
#[cfg(doctest)]
#[doc = include_str!("../../adding.md")]
struct Adding;
