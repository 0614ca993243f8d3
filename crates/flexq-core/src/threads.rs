//! Work shared among threads, with results that do not depend on how many there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many threads may work on a call.
///
/// Results never depend on it: every output element is computed by one thread, in a
/// fixed order of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Threads(Option<std::num::NonZeroUsize>);

impl Threads {
    /// As many as the machine offers.
    pub const ALL: Self = Self(None);
    /// The calling thread alone.
    pub const ONE: Self = Self(Some(std::num::NonZeroUsize::MIN));

    /// At most `count` threads; 0 stands for [`Threads::ALL`].
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self(std::num::NonZeroUsize::new(count))
    }

    /// The number of threads: what was asked for, or what the machine offers.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.map_or_else(rayon::current_num_threads, std::num::NonZeroUsize::get)
    }
}

/// Runs `work` on every item, on at most `threads` threads, the calling one included.
///
/// Threads take items one after the other, so a thread that wakes late or is slowed
/// down delays nobody by more than an item.
pub(crate) fn for_each<T: Send>(
    threads: Threads,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) {
    for_each_with(threads, items, |(), item| work(item));
}

/// As [`for_each`], with memory that a thread keeps from item to item.
pub(crate) fn for_each_with<T: Send, M: Default>(
    threads: Threads,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(&mut M, T) + Sync,
) {
    let helpers = threads.count().min(items.len()).saturating_sub(1);
    if helpers == 0 {
        let mut memory = M::default();
        return items.for_each(|item| work(&mut memory, item));
    }
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let drain = || {
        let mut memory = M::default();
        while let Some(item) = next() {
            work(&mut memory, item);
        }
    };
    let finished = AtomicUsize::new(0);
    rayon::in_place_scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|_| {
                drain();
                finished.fetch_add(1, Ordering::Release);
            });
        }
        drain();
        // The others are busy with their last item: to spin that long is cheaper than to sleep.
        for _ in 0..SPINS {
            if finished.load(Ordering::Acquire) == helpers {
                break;
            }
            std::hint::spin_loop();
        }
    });
}

/// About 100 microseconds, two of what it takes to sleep and wake.
const SPINS: usize = 10_000;

/// Wakes the threads that work together with this one, which takes them some 50 microseconds:
/// this one need not wait for them if it has other things to do before.
pub(crate) fn wake(threads: Threads) {
    for _ in 1..threads.count() {
        rayon::spawn(|| {});
    }
}
