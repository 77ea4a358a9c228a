//! Batches prepared ahead of their use by one background thread, in order, through a bounded channel.
//!
//! What is prepared is a function of the step alone, so prefetching changes no result. The first error ends
//! the sequence, in its place; a panic of the thread is the panic of whoever asks for the next item; dropping
//! the [`Prefetch`] stops and joins the thread after the item in work.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// An iterator over `make(step)` for the steps of a range, made ahead.
#[derive(Debug)]
pub struct Prefetch<T, E> {
    items: Option<Receiver<Result<T, E>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static, E: Send + 'static> Prefetch<T, E> {
    /// Starts preparing; at most `depth` finished items wait, beside the one in work.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn spawn(
        steps: Range<u64>,
        depth: usize,
        mut make: impl FnMut(u64) -> Result<T, E> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, items) = sync_channel(depth);
        let work = move || {
            for step in steps {
                let item = make(step);
                let last = item.is_err();
                // A send fails once the iterator is dropped.
                if sender.send(item).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("prefetch".into()).spawn(work)?;
        Ok(Self { items: Some(items), thread: Some(thread) })
    }
}

impl<T, E> Iterator for Prefetch<T, E> {
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.items.as_ref().and_then(|items| items.recv().ok());
        if item.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        item
    }
}

impl<T, E> Drop for Prefetch<T, E> {
    fn drop(&mut self) {
        self.items.take();
        if let Some(thread) = self.thread.take() {
            // A panic that nobody asked about any more is not raised inside a drop.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn items_and_errors_come_in_order() -> std::io::Result<()> {
        let make = |step: u64| if step == 7 { Err("no batch 7") } else { Ok(step * step) };
        let got: Vec<_> = Prefetch::spawn(3..100, 2, make)?.collect();
        assert_eq!(got, [Ok(9), Ok(16), Ok(25), Ok(36), Err("no batch 7")]);
        let none: Vec<Result<u64, ()>> = Prefetch::spawn(5..5, 1, Ok)?.collect();
        assert!(none.is_empty());
        Ok(())
    }

    #[test]
    fn dropping_stops_the_thread() -> std::io::Result<()> {
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let make = move |step| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<u64, ()>(step)
        };
        let mut ahead = Prefetch::spawn(0..u64::MAX, 2, make)?;
        assert_eq!(ahead.next(), Some(Ok(0)));
        drop(ahead);
        // The thread is joined, and its closure with it: one taken, two waiting, at most one in work.
        assert_eq!(Arc::strong_count(&made), 1);
        assert!(made.load(Ordering::SeqCst) <= 4);
        Ok(())
    }

    #[test]
    fn a_panic_is_not_the_end_of_the_data() -> std::io::Result<()> {
        let make = |step: u64| if step < 2 { Ok::<u64, ()>(step) } else { std::panic::panic_any("lost") };
        let mut ahead = Prefetch::spawn(0..9, 1, make)?;
        assert_eq!((ahead.next(), ahead.next()), (Some(Ok(0)), Some(Ok(1))));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ahead.next()));
        assert!(outcome.is_err());
        Ok(())
    }
}
