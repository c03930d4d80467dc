//! `foliomq store ...`: what can be typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The tools for a store, a Java broker's too.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Show a record, a queue entry, an index slot, the checkpoint: one thing at a time.
    Inspect(InspectFlags),
    /// Check log, queues, index, checkpoint and tables against each other. Changes nothing, and
    /// may be run while a broker serves.
    Verify(VerifyFlags),
    /// Build consume queues and index anew from the log. The store must not be open.
    Rebuild(RebuildFlags),
    /// Print messages, one JSON object a line.
    Export(ExportFlags),
    /// Show what cleaning would remove, and why.
    PlanClean(PlanCleanFlags),
}

/// Where the store is.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreFlags {
    /// Configuration: a Java broker's broker.conf, read as it is.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store [default: ./foliomq-data, or what the configuration says].
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// How the answer is written.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    pub output: Output,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// JSON, for programs; docs/tools.md has the fields.
    Json,
}

/// Flags of `store inspect`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct InspectFlags {
    /// A record: FILE@POSITION, or an offset of the log.
    #[arg(value_name = "FILE@POSITION|OFFSET")]
    pub record: Option<String>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreFlags,
    /// Something else than a record.
    #[command(subcommand)]
    pub what: Option<InspectCommand>,
}

/// What can be inspected.
#[derive(Debug, Clone, Subcommand)]
pub enum InspectCommand {
    /// A record: FILE@POSITION, or an offset of the log.
    Record {
        /// The place.
        #[arg(value_name = "FILE@POSITION|OFFSET")]
        place: String,
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
    /// Entries of a consume queue or batch consume queue, with their extension units.
    Queue {
        /// The topic.
        topic: String,
        /// The queue.
        queue: i32,
        /// The first queue offset.
        #[arg(allow_negative_numbers = true)]
        index: i64,
        /// How many entries.
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
    /// The index: headers of all files, or what a key, a slot or an ordinal has.
    Index {
        /// One file only [default: all].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The chain of a slot's newest entry.
        #[arg(long, conflicts_with_all = ["entry", "key"])]
        slot: Option<u32>,
        /// An entry by its ordinal.
        #[arg(long, conflicts_with = "key")]
        entry: Option<u32>,
        /// The entries of a key; needs --topic.
        #[arg(long, requires = "topic")]
        key: Option<String>,
        /// The topic of the key.
        #[arg(long)]
        topic: Option<String>,
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
    /// The checkpoint.
    Checkpoint {
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
    /// A table under config/, as standard JSON.
    Config {
        /// Its file name, such as topics.json.
        name: String,
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
    /// Sizes, lock, queues, tables, and what is our own.
    Store {
        /// Where the store is.
        #[command(flatten)]
        store: StoreFlags,
    },
}

/// Flags of `store verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyFlags {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreFlags,
    /// Leave out what is only worth knowing.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Flags of `store rebuild`.
#[derive(Debug, Clone, Args)]
pub struct RebuildFlags {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreFlags,
    /// Only the consume queues, of all kinds.
    #[arg(long, conflicts_with = "index")]
    pub queues: bool,
    /// Only the index.
    #[arg(long)]
    pub index: bool,
    /// Only the consume queues of this topic.
    #[arg(long, conflicts_with = "index")]
    pub topic: Option<String>,
}

/// Flags of `store export`.
#[derive(Debug, Clone, Args)]
pub struct ExportFlags {
    /// Where the store is. Messages are JSON lines whatever --output says.
    #[command(flatten)]
    pub store: StoreFlags,
    /// Messages of this topic.
    #[arg(long)]
    pub topic: Option<String>,
    /// Messages of this queue.
    #[arg(long, value_name = "ID")]
    pub queue: Option<i32>,
    /// Messages with this key or unique key.
    #[arg(long)]
    pub key: Option<String>,
    /// Stored at this time or later: ms since 1970, or such as 2026-11-23T02:14:24Z.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub from: Option<i64>,
    /// Stored at this time or earlier.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub until: Option<i64>,
    /// At this queue offset or a later one.
    #[arg(long, value_name = "OFFSET")]
    pub from_queue_offset: Option<i64>,
    /// At this queue offset or an earlier one.
    #[arg(long, value_name = "OFFSET")]
    pub until_queue_offset: Option<i64>,
    /// At this log offset or a later one.
    #[arg(long, value_name = "OFFSET")]
    pub from_offset: Option<u64>,
    /// At this log offset or an earlier one.
    #[arg(long, value_name = "OFFSET")]
    pub until_offset: Option<u64>,
    /// Stop after so many messages.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Inflate bodies that the producer compressed with zlib.
    #[arg(long)]
    pub decompress: bool,
    /// Read the log, also where queues or index could tell: they may be damaged.
    #[arg(long)]
    pub scan: bool,
}

/// Flags of `store plan-clean`.
#[derive(Debug, Clone, Args)]
pub struct PlanCleanFlags {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreFlags,
    /// At this time instead of now.
    #[arg(long, value_name = "TIME", value_parser = time_ms)]
    pub at: Option<i64>,
    /// As if cleaning had been asked for by hand.
    #[arg(long)]
    pub manual: bool,
}

/// Reads a time: milliseconds since 1970, or a date and time with zone.
fn time_ms(given: &str) -> Result<i64, String> {
    if let Ok(ms) = given.parse() {
        return Ok(ms);
    }
    match given.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) => Err(
            "milliseconds since 1970, or a time such as 2026-11-23T02:14:24Z are needed".to_owned(),
        ),
    }
}
