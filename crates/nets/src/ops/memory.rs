//! What happens to memory that a step of training gives back.
//!
//! A step allocates and frees the same large buffers as the one before it. By default the C library of Linux returns
//! them to the system, which hands out every page anew, cleared: up to a quarter of a step's time.

// Three calls into the C library that change how it allocates.
#![allow(unsafe_code)]

/// From now on, memory that was freed stays with the process for its next use. Call it once, before there are threads.
///
/// It changes the allocator of the whole process, so it is a program's decision and never made by this library. Only
/// glibc is asked; elsewhere, and under another global allocator, nothing happens. The process's memory does not
/// shrink before it ends.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` takes two numbers by value and has no other precondition. A parameter that it does not
        // take leaves the allocator as it was.
        unsafe {
            // One arena, so that what one thread frees another finds; it never gives memory back, and what is larger
            // than a tensor of the usual networks does not cut it into pieces.
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 28);
        }
    }
}
