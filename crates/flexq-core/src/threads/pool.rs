//! Threads of flexq that help a calling thread, and sleep in between.
//!
//! The calling thread begins at once. Helpers join when they wake, and the call returns when the
//! calling thread has nothing left to do and no helper is still busy: it never waits for one that
//! has not begun, since on a busy machine that may take milliseconds.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{hint, mem, process, thread};

/// What threads do together: each call takes pieces until none is left.
type Work<'a> = dyn Fn() + Sync + 'a;

type Panic = Box<dyn Any + Send>;

/// How threads of the pool are called.
pub(super) const NAME: &str = "flexq";

/// How long a thread looks out before it sleeps: about what it takes to wake one. Longer would cost others
/// more than it saves; shorter would make a chain of products wait for every one.
const PATIENCE: Duration = Duration::from_micros(50);

/// A call, as long as it runs.
struct Job {
    number: u64,
    work: &'static Work<'static>,
    /// Helpers that may still begin.
    places: usize,
    /// Helpers that have begun and not ended.
    busy: usize,
    panic: Option<Panic>,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    /// Of the next job.
    number: u64,
    /// Helpers, awake or asleep.
    threads: usize,
}

impl State {
    /// Takes a place for a helper.
    fn begin(&mut self) -> Option<(u64, &'static Work<'static>)> {
        let job = self.jobs.iter_mut().find(|job| job.places > 0)?;
        job.places -= 1;
        job.busy += 1;
        Some((job.number, job.work))
    }

    /// Counts a helper as gone, and tells whether it was the last.
    fn end(&mut self, number: u64, panic: Option<Panic>) -> bool {
        let Some(job) = self.jobs.iter_mut().find(|job| job.number == number) else { return false };
        job.busy -= 1;
        job.panic = job.panic.take().or(panic);
        job.busy == 0 && job.places == 0
    }

    /// Keeps helpers from beginning, and removes the job once none is busy.
    fn retire(&mut self, number: u64) -> Option<Job> {
        let index = self.jobs.iter().position(|job| job.number == number)?;
        self.jobs[index].places = 0;
        (self.jobs[index].busy == 0).then(|| self.jobs.swap_remove(index))
    }
}

/// Tells threads that the state has changed; they look out for a while, then sleep.
#[derive(Default)]
struct Signal {
    /// Counts what was told, under the lock of the state.
    told: AtomicU32,
    /// Threads that sleep, or are about to; also under the lock.
    asleep: AtomicU32,
    condition: Condvar,
}

impl Signal {
    /// Tells all who look out and wakes up to `count` who sleep.
    fn tell(&self, state: MutexGuard<'_, State>, count: usize) {
        self.told.fetch_add(1, Ordering::Release);
        let asleep = self.asleep.load(Ordering::Relaxed) as usize;
        // who is woken wants the lock first
        drop(state);
        if count < asleep {
            (0..count).for_each(|_| self.condition.notify_one());
        } else if asleep > 0 {
            self.condition.notify_all();
        }
    }

    /// Waits until the state holds what is looked for.
    fn wait<T>(&self, state: &Mutex<State>, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut guard = lock(state);
        loop {
            if let Some(found) = look(&mut guard) {
                return found;
            }
            let known = self.told.load(Ordering::Relaxed);
            drop(guard);
            let news = self.look_out(known);
            guard = lock(state);
            if !news && self.told.load(Ordering::Relaxed) == known {
                self.asleep.fetch_add(1, Ordering::Relaxed);
                guard = self.condition.wait(guard).unwrap_or_else(PoisonError::into_inner);
                self.asleep.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether something was told meanwhile.
    fn look_out(&self, known: u32) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            for _ in 0..16 {
                if self.told.load(Ordering::Acquire) != known {
                    return true;
                }
                hint::spin_loop();
            }
        }
        false
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Helpers, as many as a call ever asked for.
pub(super) struct Pool {
    process: u32,
    state: Mutex<State>,
    /// Jobs arrive, which helpers wait for.
    arrivals: Signal,
    /// Helpers depart, which callers wait for.
    departures: Signal,
    /// The pool of a forked process.
    child: OnceLock<Box<Self>>,
}

impl Pool {
    fn new(process: u32) -> Self {
        Self {
            process,
            state: Mutex::default(),
            arrivals: Signal::default(),
            departures: Signal::default(),
            child: OnceLock::new(),
        }
    }

    /// The pool of this process, which after a fork is a new one: threads do not survive it, and
    /// one may have held the lock.
    pub fn of_process() -> &'static Self {
        static FIRST: OnceLock<Pool> = OnceLock::new();
        let process = process::id();
        let mut pool = FIRST.get_or_init(|| Self::new(process));
        while pool.process != process {
            pool = pool.child.get_or_init(|| Box::new(Self::new(process)));
        }
        pool
    }

    /// Calls `work` here and on up to `helpers` other threads, those that come before it returns
    /// here. Returns when it has returned everywhere; a panic, wherever it was, goes on here.
    pub fn run(&'static self, helpers: usize, work: &Work<'_>) {
        // SAFETY: `work` must outlive every use of this reference. Only the state holds it, in a job,
        // and helpers copy it from there under the lock, counted in `busy` until they let go of it.
        // This function, which borrows `work`, does not end before `retire` has removed the job, which
        // it does under the same lock while `busy` is 0: then no helper has a copy, and none finds one.
        // Nothing in between unwinds, as the one call of foreign code is caught.
        let work_of_helpers = unsafe { mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let number = self.publish(helpers, work_of_helpers);
        let here = catch_unwind(AssertUnwindSafe(work));
        let job = self.departures.wait(&self.state, |state| state.retire(number));
        if let Some(panic) = here.err().or(job.panic) {
            resume_unwind(panic);
        }
    }

    fn publish(&'static self, helpers: usize, work: &'static Work<'static>) -> u64 {
        let mut state = lock(&self.state);
        self.recruit(&mut state, helpers);
        let number = state.number;
        state.number += 1;
        state.jobs.push(Job { number, work, places: helpers, busy: 0, panic: None });
        self.arrivals.tell(state, helpers);
        number
    }

    /// Sees to it that there are so many threads, if the system allows.
    fn recruit(&'static self, state: &mut State, helpers: usize) {
        while state.threads < helpers {
            let thread = thread::Builder::new().name(NAME.to_owned());
            if thread.spawn(|| self.help()).is_err() {
                break;
            }
            state.threads += 1;
        }
    }

    fn help(&self) {
        loop {
            let (number, work) = self.arrivals.wait(&self.state, State::begin);
            let panic = catch_unwind(AssertUnwindSafe(work)).err();
            let mut state = lock(&self.state);
            if state.end(number, panic) {
                self.departures.tell(state, usize::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex};
    use std::thread::{self, ThreadId};

    use super::Pool;

    fn pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new(0)))
    }

    #[test]
    fn a_helper_joins_and_is_waited_for() {
        let (both, ended) = (Barrier::new(2), AtomicUsize::new(0));
        pool().run(1, &|| {
            // neither passes without the other
            both.wait();
            ended.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ended.into_inner(), 2);
    }

    #[test]
    fn a_helper_that_has_not_begun_is_not_waited_for() {
        let pool = pool();
        let (entered, second_done) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|scope| {
            // keeps the only helper until the second call is done
            scope.spawn(|| {
                pool.run(1, &|| {
                    entered.wait();
                    second_done.wait();
                });
            });
            entered.wait();
            let calls = AtomicUsize::new(0);
            pool.run(1, &|| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(calls.into_inner(), 1);
            second_done.wait();
        });
    }

    #[test]
    fn what_a_call_borrows_is_left_alone_after_it() {
        let pool = pool();
        for round in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let open = AtomicBool::new(true);
            pool.run(2, &|| assert!(open.load(Ordering::Relaxed), "round {round}"));
            open.store(false, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_panic_of_a_helper_goes_on_in_the_caller() {
        let pool = pool();
        let (caller, both) = (thread::current().id(), Barrier::new(2));
        let panics_where = |wanted: fn(ThreadId, ThreadId) -> bool| {
            catch_unwind(AssertUnwindSafe(|| {
                pool.run(1, &|| {
                    both.wait();
                    assert!(!wanted(thread::current().id(), caller), "planned");
                });
            }))
        };
        for wanted in [|thread, caller| thread != caller, |thread, caller| thread == caller] {
            let panic = panics_where(wanted).expect_err("a panic");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"planned"));
        }
        assert!(panics_where(|_, _| false).is_ok(), "the helper is there as before");
    }

    #[test]
    fn many_callers_and_calls_within_calls_end() {
        const CALLERS: usize = 4;
        const ROUNDS: usize = if cfg!(miri) { 3 } else { 300 };
        let pool = pool();
        let count = |next: &Mutex<usize>, each: &(dyn Fn() + Sync)| {
            pool.run(3, &|| {
                loop {
                    let mut rest = next.lock().unwrap();
                    if *rest == 0 {
                        break;
                    }
                    *rest -= 1;
                    drop(rest);
                    each();
                }
            });
        };
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        count(&Mutex::new(5), &|| {
                            count(&Mutex::new(7), &|| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), CALLERS * ROUNDS * 5 * 7);
    }
}
