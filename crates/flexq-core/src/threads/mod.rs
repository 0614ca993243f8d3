//! Work shared among threads, with results that do not depend on how many there are.

mod pool;

use std::num::NonZeroUsize;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use pool::Pool;

/// How many threads may work on a call, and whose.
///
/// Results never depend on it: every output element is computed by one thread, in a
/// fixed order of operations.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads {
    count: Option<NonZeroUsize>,
    team: Option<Team>,
}

/// Another library's threads: calls a function on up to so many threads at once, the calling one
/// always included, and returns when it has returned on all of them.
pub type Team = fn(usize, &(dyn Fn() + Sync));

impl Threads {
    /// As many as the process may use at once.
    pub const ALL: Self = Self { count: None, team: None };
    /// The calling thread alone.
    pub const ONE: Self = Self { count: Some(NonZeroUsize::MIN), team: None };

    /// At most `count` threads; 0 stands for [`Threads::ALL`].
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self { count: NonZeroUsize::new(count), team: None }
    }

    /// As many threads of `team` rather than of flexq.
    ///
    /// For where these are awake already, and would have to share processors with flexq's.
    #[must_use]
    pub const fn of_team(self, team: Team) -> Self {
        Self { team: Some(team), ..self }
    }

    /// The number of threads: what was asked for, or what the affinity and the control group of
    /// the process allowed at first.
    #[must_use]
    pub fn count(self) -> usize {
        static ALL: OnceLock<NonZeroUsize> = OnceLock::new();
        let all = || *ALL.get_or_init(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        self.count.unwrap_or_else(all).get()
    }
}

/// Runs `work` on every item, on at most `threads` threads, the calling one included.
///
/// Threads take items one after the other, so a thread that wakes late or is slowed
/// down delays nobody by more than an item, and one that does not wake delays nobody.
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
    let count = threads.count().min(items.len());
    if count <= 1 {
        let mut memory = M::default();
        return items.for_each(|item| work(&mut memory, item));
    }
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let drain = || {
        let mut memory = M::default();
        while let Some(item) = next() {
            work(&mut memory, item);
        }
    };
    match threads.team {
        // always of the same size: teams that change theirs make new threads
        Some(team) => team(threads.count(), &drain),
        None => Pool::of_process().run(count - 1, &drain),
    }
}

/// What `work` makes of every item, in their order.
pub(crate) fn map<T: Sync, R: Send>(threads: Threads, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for_each(threads, items.iter().zip(&mut results), |(item, result)| *result = Some(work(item)));
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::thread;

    use super::{Threads, for_each, map};

    #[test]
    fn results_keep_the_order_of_their_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(map(Threads::new(3), &items, |item| item + 1), (1..=100).collect::<Vec<_>>());
        assert!(map(Threads::new(3), &[0; 0], |&item| item).is_empty());
    }

    #[test]
    fn a_team_does_what_is_asked_of_it() {
        fn team(count: usize, work: &(dyn Fn() + Sync)) {
            assert_eq!(count, 3);
            thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(work);
                }
            });
        }
        let items = Mutex::new(HashSet::new());
        for_each(Threads::new(3).of_team(team), 0..2, |item| {
            assert!(items.lock().unwrap().insert(item), "{item} twice");
            assert_ne!(thread::current().name(), Some(super::pool::NAME));
        });
        assert_eq!(items.into_inner().unwrap(), HashSet::from([0, 1]));
    }
}
