//! The message store: put, get, query, dispatch, recover. The facade that embedders use.
//!
//! A directory of the files of Apache RocketMQ 5.3.3: a Java broker opens what this crate wrote,
//! and the other way round. Messages go to one commit log; a thread, or who ends a [`Burst`] of
//! puts, follows it and builds the consume queues (by topic and queue) and the index (by key). Reads hand out slices of the
//! mapped log, which stay valid for as long as they are held.
//!
//! What it is not: no network, no replication, no topics with settings (that is a broker's), no
//! async runtime. Transactions, timers and delay levels are topics like others here; a broker
//! gives them their meaning.
//!
//! ```
//! use store::message::Message;
//! use store::{AllMessages, GetLimits, GetStatus, MessageStore, StoreOptions};
//!
//! let dir = tempfile::tempdir()?;
//! let mut options = StoreOptions::new(dir.path());
//! options.segment_len = 16 << 20; // RocketMQ's is 1 GiB
//! let (store, report) = MessageStore::open(options)?;
//! println!("{report}");
//!
//! let put = store.put(&Message {
//!     properties: b"KEYS\x01order-17\x02",
//!     ..Message::new("orders", 0, b"one coffee")
//! })?;
//! put.ticket.wait()?; // as durable as `options.flush` promises; a ticket is a `Future`, too
//!
//! while store.max_offset("orders", 0) != Some(1) {
//!     std::thread::yield_now(); // the dispatching thread is about to show it to readers
//! }
//! let limits = GetLimits { count_max: 32, bytes_max: 1 << 20 };
//! let got = store.get("orders", 0, 0, &limits, &AllMessages)?;
//! assert_eq!(got.status, GetStatus::Found);
//! let record = got.messages.records().next().ok_or("no record")?;
//! assert_eq!(record.body(), b"one coffee");
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

/// Its types stand in this crate's signatures.
pub use message;
/// Its types stand in this crate's signatures.
pub use mmap_core;

mod batches;
mod begin;
mod burst;
mod checkpoint;
mod clean;
mod collect;
mod core;
mod delay;
mod dispatch;
mod dispatched;
mod error;
mod filter;
mod get;
pub mod health;
mod load;
mod messages;
mod noted;
mod notes;
pub mod offline;
mod open;
mod options;
mod ownership;
mod place;
mod progress;
mod query;
mod queue_check;
mod queue_marks;
mod queues;
mod redispatch;
mod remember;
mod report;
mod residency;
mod services;
mod settle;
mod state;
mod store;

pub use burst::Burst;
pub use checkpoint::{CHECKPOINT_FILE, CHECKPOINT_LEN, Checkpoint, CheckpointTimes};
pub use clean::{
    CleanError, CleanFacts, CleanOptions, CleanPlan, Cleaned, DeleteWhen, DeleteWhenError,
    DerivedFile, DerivedKind, DiskUse, Gone, Kept, LogFile, PlannedFile, Pressure, Trigger,
    Verdict, plan, plan_clean,
};
pub use commitlog::{
    AppendError, Appended, AppendedBatch, CallerError, Clock, Durable, FlushError, FlushMode,
    LogWarmUp, PutTicket, RecoveryReport, StageOptions, SystemClock,
};
pub use consumequeue::{Boundary, Entry};
pub use delay::{DELAY_LEVELS_DEFAULT, DelayLevelError, DelayLevels};
pub use dispatch::{Arrival, ArrivalListener};
pub use error::{CloseError, DispatchError, OpenError, PutError, ReadError};
pub use filter::{AllMessages, Filter, TagFilter};
pub use get::{Get, GetLimits, GetStatus};
pub use indexfile::{IndexEntry, IndexHeader, IndexLayout, IndexOptions};
pub use messages::Messages;
pub use options::{ReadLimits, RecoveryPolicy, StoreOptions};
pub use ownership::{ABORT_FILE, LOCK_FILE, LastExit};
pub use progress::{NoProgress, Progress, Step};
pub use query::{KeyAnswer, KeyQuery, QUERY_COUNT_MAX};
pub use queue_check::{QueueFault, RebuiltQueue};
pub use report::{Missing, OpenReport, Phase};
pub use store::{MessageStore, PutBatch};
