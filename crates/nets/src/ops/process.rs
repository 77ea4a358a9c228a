//! What the process as a whole should do for training to be fast: keep memory, and leave the cores to one pool.
//!
//! A step allocates and frees the same large buffers as the one before it. By default the C library of Linux returns
//! them to the system, which hands out every page anew, cleared: up to a quarter of a step's time. And Candle's own
//! pool for elementwise work waits by spinning, which takes the cores from the operators here.

// Calls into the C library that change how it allocates, and one change of the environment.
#![allow(unsafe_code)]

/// What makes Candle's tape keep the gradients of gradients.
const NESTED: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Candle's number of threads for elementwise work.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Sets the process up for training and sampling on a CPU. Call it first thing in `main`.
///
/// It changes the allocator and the environment of the whole process, so it is a program's decision and never made by
/// this library. From now on freed memory stays with the process for its next use (glibc only; another global
/// allocator is not asked), and Candle's elementwise pool has one thread, unless `CANDLE_NUM_THREADS` says otherwise
/// (Linux only, and only while there are no other threads).
pub fn prepare_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` takes two numbers by value and has no other precondition.
        unsafe {
            // One arena, so that what one thread frees another finds; it never gives memory back, and what is larger
            // than a tensor of the usual networks does not cut it into pieces.
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            // Older libraries take no more than 32 MiB.
            if libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 28) == 0 {
                libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 25);
            }
        }
    }
    if std::env::var_os(CANDLE_THREADS).is_none() && is_single_threaded() {
        // SAFETY: there is no other thread that could read the environment now.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
}

/// Makes the tape of every thread keep the gradients of gradients, for a loss that has derivatives by its input. Call it in `main`, before
/// there are threads and before the first backward pass; backward passes are slower and take more memory from then on.
///
/// Whether it is so now: false where there are threads already, or that cannot be told (only Linux tells).
pub fn keep_second_derivatives() -> bool {
    if std::env::var_os(NESTED).is_none() && is_single_threaded() {
        // SAFETY: there is no other thread that could read the environment now.
        unsafe { std::env::set_var(NESTED, "1") };
    }
    std::env::var_os(NESTED).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether this is the only thread of the process; false where that cannot be told.
fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}
