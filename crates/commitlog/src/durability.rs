//! Durability is a number that advances: the flushed watermark, and those who wait for it.
//!
//! A [`PutTicket`] is a target offset and a look at the watermark. A thread that waits commits what
//! waits itself, with what others have added, unless somebody is at it: a thread that is woken for
//! that costs as much as a part of the sync. Whoever has to wait for others puts a waker into a list
//! ordered by target; who has moved the watermark takes the front of the list. Tickets that are met
//! already cost one load and no allocation.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Failure, FlushError};

/// What a ticket resolves to when the flush policy is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The log was synced up to here at that moment. In sync mode this covers the record; in
    /// async mode the policy asks for nothing, and the record may still lie above it.
    pub flushed: u64,
}

/// The claim of one append on the flush policy: resolves once its bytes are as durable as the
/// mode promises.
///
/// It is a `Future` for any executor, and [`PutTicket::wait`] for threads. Dropping it gives up
/// the claim and nothing else: the record stays in the log.
///
/// In sync mode the record is written once its ticket, or one behind it, is waited for, polled, asked
/// or dropped. One that is only held keeps it back for a while: a quarter of the timeout at most.
#[derive(Debug)]
#[must_use = "in sync mode the record is not durable before its ticket resolves"]
pub struct PutTicket {
    claim: Claim,
}

#[derive(Debug)]
enum Claim {
    /// Async mode asks for nothing: no reference is counted for such a ticket.
    Met(Durable),
    Open(OpenClaim),
}

#[derive(Debug)]
struct OpenClaim {
    log: Arc<dyn GroupCommit>,
    /// The log must be flushed up to here.
    target: u64,
    /// On the clock's monotonic time.
    deadline: Duration,
    /// Its place in the list of waiters, once it has one.
    waiter: Option<WaiterId>,
}

/// The log as its tickets know it: they wait for its watermark, and see to it that it moves.
pub(crate) trait GroupCommit: fmt::Debug + Send + Sync {
    fn durability(&self) -> &Durability;

    /// Commits what waits on this thread. False when it has to wait for others, who do.
    fn lead(&self) -> bool;

    /// Has the flush service commit what waits, if anything does.
    fn call_service(&self);
}

impl PutTicket {
    /// A ticket that resolves when `log` is flushed up to `target`, or at `deadline`.
    pub(crate) fn open(log: Arc<dyn GroupCommit>, target: u64, deadline: Duration) -> Self {
        Self {
            claim: Claim::Open(OpenClaim {
                log,
                target,
                deadline,
                waiter: None,
            }),
        }
    }

    /// A ticket with nothing to wait for.
    pub(crate) fn met(flushed: u64) -> Self {
        Self {
            claim: Claim::Met(Durable { flushed }),
        }
    }

    /// The outcome, if there is one already.
    pub fn try_ready(&self) -> Option<Result<Durable, FlushError>> {
        match &self.claim {
            Claim::Met(durable) => Some(Ok(*durable)),
            Claim::Open(claim) => {
                let outcome = claim.try_ready();
                if outcome.is_none() {
                    claim.log.call_service();
                }
                outcome
            }
        }
    }

    /// Blocks the thread until the ticket resolves.
    ///
    /// Where the log's service threads run, the caller leads the group commit if nobody else does:
    /// it writes and syncs what waits, its own record and those of others. Without them somebody
    /// has to step the services meanwhile.
    ///
    /// # Errors
    ///
    /// [`FlushError::Timeout`] after the mode's timeout, [`FlushError::Failed`] when a sync
    /// failed. Who leads learns of either when his own sync is over, however long the device takes;
    /// [`try_ready`](Self::try_ready) and polling never wait for it.
    pub fn wait(self) -> Result<Durable, FlushError> {
        let mut claim = match self.claim {
            Claim::Met(durable) => return Ok(durable),
            Claim::Open(claim) => claim,
        };
        loop {
            if let Some(outcome) = claim.try_ready() {
                return outcome;
            }
            if claim.log.lead() {
                continue;
            }
            let is_waiting = claim.register(|| Wakeup::Thread(std::thread::current()));
            // Once more: whoever led may have been through before it could see the new waiter.
            if is_waiting && !claim.log.lead() {
                let now = claim.log.durability().clock.monotonic();
                std::thread::park_timeout(claim.deadline.saturating_sub(now));
            }
        }
    }
}

impl Future for PutTicket {
    type Output = Result<Durable, FlushError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let claim = match &mut self.claim {
            Claim::Met(durable) => return Poll::Ready(Ok(*durable)),
            Claim::Open(claim) => claim,
        };
        loop {
            if let Some(outcome) = claim.try_ready() {
                return Poll::Ready(outcome);
            }
            if claim.register(|| Wakeup::Task(context.waker().clone())) {
                claim.log.call_service();
                return Poll::Pending;
            }
        }
    }
}

impl OpenClaim {
    fn try_ready(&self) -> Option<Result<Durable, FlushError>> {
        let durability = self.log.durability();
        let flushed = durability.flushed();
        if flushed >= self.target {
            return Some(Ok(Durable { flushed }));
        }
        if let Some(failure) = durability.failure() {
            return Some(Err(FlushError::Failed(failure.clone())));
        }
        if durability.clock.monotonic() >= self.deadline {
            return Some(Err(FlushError::Timeout {
                target: self.target,
                flushed,
            }));
        }
        None
    }

    /// Enters the list of waiters, or renews the entry. False when there is nothing left to wait
    /// for.
    fn register(&mut self, wakeup: impl FnOnce() -> Wakeup) -> bool {
        let durability = self.log.durability();
        let mut waiters = durability.lock_waiters();
        // Under the lock: `advance` and `fail` set their state before they take it.
        if durability.flushed() >= self.target || durability.failure().is_some() {
            return false;
        }
        let id = self.waiter.unwrap_or_else(|| {
            waiters.last_ordinal += 1;
            WaiterId {
                target: self.target,
                ordinal: waiters.last_ordinal,
            }
        });
        self.waiter = Some(id);
        waiters.put(Waiter {
            id,
            deadline: self.deadline,
            wakeup: wakeup(),
        });
        true
    }
}

impl Drop for OpenClaim {
    fn drop(&mut self) {
        let durability = self.log.durability();
        if let Some(id) = self.waiter {
            durability.lock_waiters().remove(id);
        }
        if durability.flushed() < self.target {
            // Nobody may be left who would lead for this record, or was just woken to do so.
            self.log.call_service();
        }
    }
}

/// The flushed watermark of one log, its end by failure, and the list of waiters.
#[derive(Debug)]
pub(crate) struct Durability {
    // Written (Release) by who has led a commit, after a successful sync, or by recovery before
    // the log serves. Read (Acquire) by tickets and readers: everything below it is on the device.
    flushed: AtomicU64,
    failure: OnceLock<Failure>,
    on_failure: OnceLock<FailureHook>,
    waiters: Mutex<Waiters>,
    clock: Arc<dyn Clock>,
}

/// What is called first when a log fails.
struct FailureHook(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for FailureHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureHook")
    }
}

impl Durability {
    pub(crate) fn new(flushed: u64, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            flushed: AtomicU64::new(flushed),
            failure: OnceLock::new(),
            on_failure: OnceLock::new(),
            waiters: Mutex::default(),
            clock,
        })
    }

    /// Everything below this offset was synced.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// The first failed sync, which ended the log for writers.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// Moves the watermark up to `flushed`; [`tell`](Self::tell) says so.
    pub(crate) fn advance(&self, flushed: u64) {
        self.flushed.fetch_max(flushed, Ordering::Release);
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiter_count(&self) -> usize {
        self.lock_waiters().list.len()
    }

    /// How many of those who wait it has reached.
    pub(crate) fn met_count(&self) -> usize {
        let flushed = self.flushed();
        self.lock_waiters().met_count(flushed)
    }

    /// Wakes those whose target the watermark has reached.
    pub(crate) fn tell(&self) {
        let flushed = self.flushed();
        self.wake(|waiter| waiter.id.target <= flushed);
    }

    /// Ends the log for writers: every ticket above the watermark resolves to an error. The
    /// first failure stays.
    pub(crate) fn fail(&self, failure: Failure) {
        // A second failure tells nothing that the first did not.
        let _ = self.failure.set(failure);
        self.call_on_failure();
        self.wake(|_| true);
    }

    /// Sets what is called as soon as the log has failed; the first one stays.
    pub(crate) fn on_failure(&self, hook: impl Fn() + Send + Sync + 'static) {
        // Nobody sets a second one.
        let _ = self.on_failure.set(FailureHook(Box::new(hook)));
        if self.failure.get().is_some() {
            self.call_on_failure();
        }
    }

    fn call_on_failure(&self) {
        if let Some(FailureHook(hook)) = self.on_failure.get() {
            hook();
        }
    }

    /// Wakes the waiters whose deadline has passed and tells the next one.
    pub(crate) fn expire(&self, now: Duration) -> Option<Duration> {
        // Targets ascend with time and the timeout is one for all, so deadlines ascend too.
        self.wake(|waiter| waiter.deadline <= now);
        self.lock_waiters()
            .list
            .front()
            .map(|waiter| waiter.deadline)
    }

    /// If `has_work`, which is asked while no waiter comes or goes, wakes the thread that has waited
    /// for longest, to lead. False when there is work, and no thread or a task before it.
    pub(crate) fn wake_leader(&self, has_work: impl FnOnce() -> bool) -> bool {
        let flushed = self.flushed();
        let mut waiters = self.lock_waiters();
        if !has_work() {
            return true;
        }
        let met_count = waiters.met_count(flushed);
        let Some(Wakeup::Thread(first)) = waiters.list.get(met_count).map(|first| &first.wakeup)
        else {
            return false;
        };
        let first = first.clone();
        waiters.list.remove(met_count);
        drop(waiters);
        first.unpark();
        true
    }

    fn wake(&self, mut is_due: impl FnMut(&Waiter) -> bool) {
        // In portions, and without the lock: a waker may run anything, a poll of its ticket
        // included, and the list may be long.
        loop {
            let mut due: [Option<Wakeup>; 32] = [const { None }; 32];
            let mut is_last = false;
            {
                let mut waiters = self.lock_waiters();
                for slot in &mut due {
                    if !waiters.list.front().is_some_and(&mut is_due) {
                        is_last = true;
                        break;
                    }
                    *slot = waiters.list.pop_front().map(|waiter| waiter.wakeup);
                }
            }
            due.into_iter().flatten().for_each(Wakeup::wake);
            if is_last {
                return;
            }
        }
    }

    fn lock_waiters(&self) -> MutexGuard<'_, Waiters> {
        // Each method leaves the list whole before it calls out, so a panic harms nothing.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Orders waiters by target; the ordinal tells those of one target apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct WaiterId {
    target: u64,
    ordinal: u64,
}

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    deadline: Duration,
    wakeup: Wakeup,
}

#[derive(Debug)]
enum Wakeup {
    Task(Waker),
    Thread(Thread),
}

impl Wakeup {
    fn wake(self) {
        match self {
            // Foreign code: its panic, which the hook has told of, must not keep others waiting.
            Self::Task(waker) => drop(catch_unwind(AssertUnwindSafe(|| waker.wake()))),
            Self::Thread(thread) => thread.unpark(),
        }
    }
}

/// The list of waiters, ascending by id. It is as long as there are tickets waited for, which
/// the bound on pending bytes bounds.
#[derive(Debug, Default)]
struct Waiters {
    list: VecDeque<Waiter>,
    last_ordinal: u64,
}

impl Waiters {
    fn put(&mut self, waiter: Waiter) {
        let found = self.list.binary_search_by_key(&waiter.id, |other| other.id);
        if let Ok(index) = found {
            self.list.remove(index);
        }
        let (Ok(index) | Err(index)) = found;
        self.list.insert(index, waiter);
    }

    fn met_count(&self, flushed: u64) -> usize {
        self.list
            .partition_point(|waiter| waiter.id.target <= flushed)
    }

    fn remove(&mut self, id: WaiterId) {
        if let Ok(index) = self.list.binary_search_by_key(&id, |waiter| waiter.id) {
            self.list.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    const FAR: Duration = Duration::from_secs(3_600);

    fn durability() -> Arc<Durability> {
        Durability::new(0, Arc::new(SystemClock::new()))
    }

    fn ticket(durability: &Arc<Durability>, target: u64, deadline: Duration) -> PutTicket {
        PutTicket::open(durability.clone(), target, deadline)
    }

    /// A log whose watermark others move.
    impl GroupCommit for Durability {
        fn durability(&self) -> &Durability {
            self
        }

        fn lead(&self) -> bool {
            false
        }

        fn call_service(&self) {}
    }

    fn reach(durability: &Durability, flushed: u64) {
        durability.advance(flushed);
        durability.tell();
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_met_ticket_is_ready_at_once() {
        let durability = durability();
        reach(&durability, 10);
        let ticket = ticket(&durability, 10, Duration::ZERO);
        assert_eq!(
            ticket.try_ready().unwrap().unwrap(),
            Durable { flushed: 10 }
        );
        assert_eq!(ticket.wait().unwrap(), Durable { flushed: 10 });
    }

    #[test]
    fn tasks_are_woken_in_order_of_their_targets_and_once() {
        let durability = durability();
        let counts: Vec<Arc<Count>> = (0..4).map(|_| Arc::default()).collect();
        let mut tickets: Vec<PutTicket> = [30, 10, 20, 10]
            .iter()
            .map(|target| ticket(&durability, *target, FAR))
            .collect();
        for (ticket, count) in tickets.iter_mut().zip(&counts) {
            let waker = Waker::from(count.clone());
            // Twice: the second poll renews the entry and must not add one.
            for _ in 0..2 {
                let poll = Pin::new(&mut *ticket).poll(&mut Context::from_waker(&waker));
                assert!(poll.is_pending());
            }
        }
        reach(&durability, 15);
        let woken = |counts: &[Arc<Count>]| -> Vec<usize> {
            counts
                .iter()
                .map(|count| count.0.load(Ordering::Relaxed))
                .collect()
        };
        assert_eq!(woken(&counts), [0, 1, 0, 1]);
        // A dropped ticket leaves the list.
        drop(tickets.remove(2));
        reach(&durability, 40);
        assert_eq!(woken(&counts), [1, 1, 0, 1]);
        assert!(durability.lock_waiters().list.is_empty());
        for ticket in tickets {
            assert!(ticket.wait().is_ok());
        }
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_waiting() {
        struct Bad;

        impl Wake for Bad {
            fn wake(self: Arc<Self>) {
                panic!("a bad waker");
            }
        }

        let durability = durability();
        let count = Arc::new(Count::default());
        let (bad, good) = (Waker::from(Arc::new(Bad)), Waker::from(count.clone()));
        let mut tickets = [10, 20].map(|target| ticket(&durability, target, FAR));
        for (ticket, waker) in tickets.iter_mut().zip([bad, good]) {
            let poll = Pin::new(ticket).poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
        }
        reach(&durability, 20);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_thread_waits_until_the_watermark_has_come() {
        let durability = durability();
        let waiters: Vec<_> = (1..=8)
            .map(|target| {
                let ticket = ticket(&durability, target * 10, FAR);
                std::thread::spawn(move || ticket.wait().unwrap().flushed)
            })
            .collect();
        for flushed in 1..=80 {
            reach(&durability, flushed);
        }
        for (index, waiter) in waiters.into_iter().enumerate() {
            assert!(waiter.join().unwrap() >= (index as u64 + 1) * 10);
        }
    }

    #[test]
    fn a_passed_deadline_is_a_timeout_and_not_a_failure() {
        let durability = durability();
        let outcome = ticket(&durability, 10, Duration::ZERO).wait();
        assert!(matches!(
            outcome,
            Err(FlushError::Timeout {
                target: 10,
                flushed: 0
            })
        ));
    }

    #[test]
    fn the_watcher_wakes_tasks_at_their_deadline() {
        let durability = durability();
        let count = Arc::new(Count::default());
        let mut ticket = ticket(&durability, 10, FAR);
        let waker = Waker::from(count.clone());
        assert!(
            Pin::new(&mut ticket)
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        assert_eq!(durability.expire(Duration::ZERO), Some(FAR));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert_eq!(durability.expire(FAR), None);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
