//! What threads share: buffers to work in, and an order among chunks that finish in any.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// Reusable memory for one chunk: what is read and what is written.
#[derive(Default)]
pub(super) struct Buffers {
    pub inputs: [Vec<u8>; 2],
    pub outputs: [Vec<u8>; 2],
}

/// A fixed number of buffers, which bounds how far chunks run ahead of the slowest.
pub(super) struct Pool {
    free: Mutex<Vec<Buffers>>,
    returned: Condvar,
    stopped: AtomicBool,
}

impl Pool {
    pub fn new(count: usize) -> Self {
        let free = (0..count).map(|_| Buffers::default()).collect();
        Self { free: Mutex::new(free), returned: Condvar::new(), stopped: AtomicBool::new(false) }
    }

    /// Waits for a buffer; `None` once the work has stopped.
    pub fn take(&self) -> Option<Buffers> {
        let mut free = lock(&self.free);
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return None;
            }
            match free.pop() {
                Some(buffers) => return Some(buffers),
                None => free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    pub fn put(&self, buffers: Buffers) {
        lock(&self.free).push(buffers);
        self.returned.notify_one();
    }

    /// Makes every present and future [`Pool::take`] return `None`.
    pub fn stop(&self) {
        // under the lock, so that no waiter misses it between its check and its wait
        let guard = lock(&self.free);
        self.stopped.store(true, Ordering::Relaxed);
        drop(guard);
        self.returned.notify_all();
    }
}

/// Lets the chunks of one task through in order.
#[derive(Default)]
pub(super) struct Turnstile {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: usize,
    waiting: BTreeMap<usize, Buffers>,
}

impl Turnstile {
    /// Hands the buffers of chunk `index`, and of all after it that wait for it, to `visit`
    /// in order; or keeps them until the chunks before it have come.
    pub fn pass(
        &self,
        index: usize,
        buffers: Buffers,
        mut visit: impl FnMut(Buffers) -> Result<()>,
    ) -> Result<()> {
        let mut state = lock(&self.state);
        state.waiting.insert(index, buffers);
        loop {
            let next = state.next;
            let Some(buffers) = state.waiting.remove(&next) else { return Ok(()) };
            state.next += 1;
            visit(buffers)?;
        }
    }
}

/// A lock whose content is valid at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Buffers, Pool, Turnstile};

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let turnstile = Turnstile::default();
            let mut seen = Vec::new();
            for index in order {
                let buffers = Buffers { inputs: [vec![index], vec![]], ..Buffers::default() };
                turnstile
                    .pass(index.into(), buffers, |buffers| {
                        seen.push(buffers.inputs[0][0]);
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(seen, [0, 1, 2], "{order:?}");
        }
    }

    #[test]
    fn stopping_wakes_who_waits() {
        let pool = Pool::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| pool.take().is_none());
            pool.stop();
            assert!(waiter.join().unwrap());
        });
    }
}
