//! The runner as its users meet it: the built program, called in an empty directory, judged by its files, its output and its exit code.

mod bench;
mod commands;
mod compare;
mod eval_score;
mod events;
mod exit_codes;
mod fid;
mod import;
mod likelihood;
mod mishaps;
mod oracle;
mod path_integral;
mod processes;
mod report;
mod resume;
mod support;
mod target;
mod velocities;
