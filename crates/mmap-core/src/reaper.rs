//! Unmapping of large files off the threads that drop them.
//!
//! Tearing down the page tables of a gigabyte takes milliseconds. The last holder of a mapping may
//! be a thread that serves clients, so that mappings of some size are handed to a thread of their
//! own. The queue is bounded: when it is full, the dropping thread unmaps by itself.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::map::Mapped;

/// Mappings of at least this many bytes are handed over; a smaller one is unmapped in the time
/// that the handing over takes.
pub(crate) const LEN_MIN: usize = 8 << 20;

/// How many mappings wait at most.
const QUEUE_LEN_MAX: usize = 128;

enum Job {
    Unmap(#[expect(dead_code, reason = "dropping it is the job")] Mapped),
    /// Dropped when all before it are done, which ends the other side's waiting.
    Settle(#[expect(dead_code, reason = "dropping it is the job")] SyncSender<()>),
}

/// The thread's mailbox; `None` inside if there is no thread. It lives as long as the process: it
/// holds nothing but address space, which ends with the process anyway.
static MAILBOX: OnceLock<Option<SyncSender<Job>>> = OnceLock::new();

/// Unmaps, now or soon.
pub(crate) fn unmap(mapped: Mapped) {
    let Some(mailbox) = mailbox() else { return };
    if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
        mailbox.try_send(Job::Unmap(mapped))
    {
        drop(job);
    }
}

/// Waits until every mapping dropped before is unmapped. For tests, and for those who are out of
/// address space.
pub fn settle() {
    let Some(mailbox) = MAILBOX.get().and_then(Option::as_ref) else {
        return;
    };
    let (settled, wait) = sync_channel(0);
    if mailbox.send(Job::Settle(settled)).is_ok() {
        // An error says that the sender was dropped, which is what is waited for.
        let _ = wait.recv();
    }
}

fn mailbox() -> Option<&'static SyncSender<Job>> {
    let start = || {
        let (mailbox, jobs) = sync_channel(QUEUE_LEN_MAX);
        let thread = thread::Builder::new().name("mmap-reaper".to_owned());
        thread.spawn(move || work(&jobs)).is_ok().then_some(mailbox)
    };
    MAILBOX.get_or_init(start).as_ref()
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        drop(job);
    }
}
