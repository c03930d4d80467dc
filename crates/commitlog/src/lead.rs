//! Who leads a group commit: whichever thread has the flusher.
//!
//! A thread that waits for its record takes it if it is free, and commits on its own account what has
//! gathered; the others wait for it, and gather the next group meanwhile. So one producer alone
//! changes no thread. The flush service leads for those who do not wait on a thread: tasks, and
//! tickets that were dropped.
//!
//! Nobody is left waiting: who lets go of the flusher tells those whose records were synced, and
//! wakes the first of the others, or the service, if something has gathered. Who waits looks once
//! more whether he can lead after he has entered the list, so that one of the two sees the other.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, TryLockError};

use mmap_core::Io;

use crate::core::Core;
use crate::durability::{Durability, GroupCommit};
use crate::flush::Flusher;
use crate::service::Next;

impl<I: Io> GroupCommit for Core<I> {
    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn lead(&self) -> bool {
        let Some(flusher) = self.try_lock_flusher() else {
            return false;
        };
        // Asked with the flusher in hand: who stops the services takes it once. And who has no space
        // left is tried again by the service, from time to time.
        let may_lead = match &*flusher {
            Flusher::Group(group) => self.has_threads() && !group.is_behind(),
            _ => false,
        };
        if !may_lead {
            return false;
        }
        let next = self.with_flusher(flusher, |flusher| match flusher {
            Flusher::Group(group) => group.lead(self),
            _ => Next::OnWake,
        });
        let has_space = !matches!(next, Next::After(_));
        if !has_space {
            self.has_work.store(true, Ordering::Relaxed);
            self.work.notify();
        }
        has_space
    }

    fn call_service(&self) {
        self.ring_if_due();
    }
}

impl<I: Io> Core<I> {
    fn try_lock_flusher(&self) -> Option<MutexGuard<'_, Flusher<I>>> {
        match self.flusher.try_lock() {
            Ok(flusher) => Some(flusher),
            // As `lock_flusher`.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Works with the flusher, lets go of it, and tells everybody whom that concerns.
    pub(crate) fn with_flusher<T>(
        &self,
        flusher: MutexGuard<'_, Flusher<I>>,
        work: impl FnOnce(&mut Flusher<I>) -> T,
    ) -> T {
        // Dropped after the flusher, however this ends.
        let _told = Telling {
            core: self,
            flushed: self.durability.flushed(),
        };
        let mut flusher = flusher;
        work(&mut flusher)
    }
}

/// Tells of what was synced since it was made.
struct Telling<'a, I: Io> {
    core: &'a Core<I>,
    flushed: u64,
}

impl<I: Io> Drop for Telling<'_, I> {
    fn drop(&mut self) {
        let core = self.core;
        if core.sync_timeout.is_none() {
            return;
        }
        if std::thread::panicking() {
            // Something may be left that was taken and not written.
            core.has_work.store(true, Ordering::Relaxed);
        }
        // The next sync begins before this one's waiters are woken, which takes a while.
        let is_led = core
            .durability
            .wake_leader(|| core.has_work.load(Ordering::Relaxed));
        if !is_led {
            core.work.notify();
        }
        if core.durability.flushed() != self.flushed {
            core.durability.tell();
            core.arrivals.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use message::{Message, RecordView};
    use mmap_core::SimIo;

    use super::*;
    use crate::clock::SystemClock;
    use crate::durability::{Durable, PutTicket};
    use crate::error::{AppendError, CallerError, FlushError};
    use crate::{
        Appended, CommitLog, CommitLogOptions, CrcCheck, DirQuarantine, FlushMode, Known,
        QueueCursor, RecoverFrom, Tail,
    };

    type Waiter = JoinHandle<Result<Durable, FlushError>>;

    /// A log in sync mode, and its device.
    fn open(timeout: Duration) -> (CommitLog<SimIo>, SimIo) {
        let io = SimIo::new(1);
        let mut options = CommitLogOptions::new("/store/commitlog");
        options.segment_len = 256 * 1024;
        options.allocate_step = options.segment_len;
        options.flush = FlushMode::Sync { timeout };
        let from = RecoverFrom {
            offset: 0,
            last_store_ms: 0,
            known: Known::NOTHING,
            crc: CrcCheck::Body,
            tail: Tail::Unknown,
        };
        let mut quarantine = DirQuarantine::new(io.clone(), "/store/quarantine");
        let mut visit = |_: &RecordView<'_>| -> Result<(), CallerError> { Ok(()) };
        let opening = CommitLog::open(io.clone(), options, Arc::new(SystemClock::new())).unwrap();
        let (log, _report) = opening.recover(&from, &mut visit, &mut quarantine).unwrap();
        (log, io)
    }

    const FAR: Duration = Duration::from_secs(3_600);
    /// Longer than anything takes, and no longer than a test that fails should.
    const LONG: Duration = Duration::from_secs(20);

    /// As [`open`], with threads that are said to run and do not: whatever happens is done by those
    /// who wait.
    fn open_alone() -> (CommitLog<SimIo>, SimIo) {
        let (log, io) = open(LONG);
        // Its segment is there then, which an append would wait for.
        drop(append(&log).unwrap().ticket);
        log.flush_now().unwrap();
        log.core.threads_started();
        (log, io)
    }

    fn append(log: &CommitLog<SimIo>) -> Result<Appended, AppendError> {
        let message = Message::new("TopicA", 0, b"body");
        log.append(&mut log.prepare(&message).unwrap(), &QueueCursor::new(0))
    }

    fn end_of(appended: &Appended) -> u64 {
        appended.physical_offset + u64::from(appended.len)
    }

    fn wait(ticket: PutTicket) -> Waiter {
        std::thread::spawn(move || ticket.wait())
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(30), "not so: {what}");
            std::thread::yield_now();
        }
    }

    /// Appends records and has threads wait for them; each is in the list when this returns.
    fn waiters(log: &CommitLog<SimIo>, count: usize) -> Vec<Waiter> {
        let before = log.core.durability.waiter_count();
        let waiters: Vec<_> = (0..count)
            .map(|_| wait(append(log).unwrap().ticket))
            .collect();
        until("all wait", || {
            log.core.durability.waiter_count() == before + count
        });
        waiters
    }

    #[test]
    fn a_thread_that_waits_commits_for_itself() {
        let (log, _io) = open_alone();
        for _ in 0..3 {
            let appended = append(&log).unwrap();
            let end = end_of(&appended);
            assert_eq!(appended.ticket.wait().unwrap(), Durable { flushed: end });
            assert_eq!(log.visible(), end);
        }
    }

    #[test]
    fn nobody_leads_where_no_services_run() {
        let (log, _io) = open(Duration::from_millis(20));
        let outcome = append(&log).unwrap().ticket.wait();
        assert!(matches!(outcome, Err(FlushError::Timeout { .. })));
        assert_eq!(log.visible(), 0);
        let services = log.start_services().unwrap();
        services.stop();
        let outcome = append(&log).unwrap().ticket.wait();
        assert!(matches!(outcome, Err(FlushError::Timeout { .. })));
    }

    #[test]
    fn followers_are_led_by_one_of_them() {
        let (log, _io) = open_alone();
        let leader = log.core.lock_flusher();
        let followers = waiters(&log, 5);
        let end = log.max_offset();
        log.core.with_flusher(leader, |_| ());
        for follower in followers {
            assert_eq!(follower.join().unwrap().unwrap(), Durable { flushed: end });
        }
        assert_eq!(log.core.durability.waiter_count(), 0);
    }

    #[test]
    fn the_failed_sync_of_a_leader_fails_all_followers() {
        for operation in ["sync_data", "write"] {
            let (log, io) = open_alone();
            let kept = append(&log).unwrap();
            let kept_end = end_of(&kept);
            kept.ticket.wait().unwrap();
            let leader = log.core.lock_flusher();
            let followers = waiters(&log, 5);
            io.fail_next(operation, std::io::ErrorKind::Other);
            log.core.with_flusher(leader, |_| ());
            for follower in followers {
                let outcome = follower.join().unwrap();
                assert!(
                    matches!(outcome, Err(FlushError::Failed(_))),
                    "{operation}: {outcome:?}"
                );
            }
            assert!(matches!(append(&log), Err(AppendError::Failed(_))));
            assert_eq!((log.flushed(), log.visible()), (kept_end, kept_end));
        }
    }

    #[test]
    fn a_leader_whose_thread_ends_leaves_nobody_waiting() {
        // Before it has taken what waits, and after.
        for has_taken in [false, true] {
            let (log, _io) = open_alone();
            let leader = log.core.lock_flusher();
            let followers = waiters(&log, 3);
            std::thread::scope(|scope| {
                let core = &log.core;
                drop(leader);
                let leader = scope.spawn(move || {
                    core.with_flusher(core.lock_flusher(), |_| {
                        core.has_work.store(!has_taken, Ordering::Relaxed);
                        panic!("the leader ends");
                    })
                });
                assert!(leader.join().is_err());
            });
            for follower in followers {
                assert!(follower.join().unwrap().is_ok());
            }
        }
    }

    #[test]
    fn each_waits_for_its_own_record() {
        let (log, _io) = open_alone();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let appended = append(&log).unwrap();
                        let end = end_of(&appended);
                        let flushed = appended.ticket.wait().unwrap().flushed;
                        assert!(flushed >= end && log.flushed() >= flushed);
                        assert!(log.visible() >= end);
                    }
                });
            }
        });
        assert_eq!(log.flushed(), log.max_offset());
    }

    #[test]
    fn records_of_tickets_that_nobody_waits_for_are_written() {
        let (log, _io) = open(FAR);
        let _services = log.start_services().unwrap();
        let dropped = append(&log).unwrap();
        let end = end_of(&dropped);
        drop(dropped.ticket);
        until("what was dropped is written", || log.visible() == end);
        let looked_at = append(&log).unwrap();
        let end = end_of(&looked_at);
        until("what is looked at is written", || {
            looked_at.ticket.try_ready().is_some()
        });
        assert_eq!(log.visible(), end);
    }

    #[test]
    fn a_ticket_that_is_held_keeps_its_record_back_for_a_while_only() {
        let (log, _io) = open(Duration::from_millis(400));
        let _services = log.start_services().unwrap();
        let held = append(&log).unwrap();
        until("what is held is written", || log.visible() == end_of(&held));
    }

    #[test]
    fn who_led_calls_the_service_if_nobody_else_can_lead() {
        let (log, _io) = open(FAR);
        let _services = log.start_services().unwrap();
        append(&log).unwrap().ticket.wait().unwrap();
        until("the service sleeps", || log.core.work.has_sleepers());
        let leader = log.core.lock_flusher();
        let held = append(&log).unwrap();
        log.core.with_flusher(leader, |_| ());
        until("what came meanwhile is written", || {
            log.visible() == end_of(&held)
        });
    }

    #[test]
    fn a_full_disk_is_left_to_the_service() {
        let (log, io) = open(FAR);
        let _services = log.start_services().unwrap();
        append(&log).unwrap().ticket.wait().unwrap();
        until("the service sleeps", || log.core.work.has_sleepers());
        io.fail_next("write", std::io::ErrorKind::StorageFull);
        let waiter = wait(append(&log).unwrap().ticket);
        until("it was tried again", || waiter.is_finished());
        assert!(waiter.join().unwrap().is_ok());
    }
}
