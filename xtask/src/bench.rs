//! Timing this project against PyTorch, fairly.
//!
//! Two workers, each a process of its own ([`peer`]): one is this program ([`worker`]), the other a Python with PyTorch, if there is one. Both
//! are told the same [`case`]s and measured in turns ([`duel`]), so that only one of the two works at a time. The comparison is the median
//! of the ratios of neighbouring measurements: of process CPU time at one thread, which a busy machine disturbs least, of wall time at more.

pub mod case;
pub mod clock;
pub mod duel;
pub mod flops;
pub mod inventory;
pub mod machine;
pub mod peer;
pub mod stand_in;
pub mod statistics;
pub mod table;
pub mod worker;

pub mod work;
