//! The command line: what can be typed, and what each command does with it.

pub mod store;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::store::StoreCommand;
use crate::config::Flags;

/// A message broker that RocketMQ's clients and tools use, on a store that a Java broker opens.
#[derive(Debug, Parser)]
#[command(name = "foliomq", version, args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    /// Without a command: `serve`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve` where no command is named.
    #[command(flatten)]
    pub serve: ServeFlags,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a broker, and a name server in the same process unless one is given.
    Serve(ServeFlags),
    /// Serve a name server alone.
    Namesrv(NamesrvFlags),
    /// Send one message for each BODY.
    Send(SendFlags),
    /// Print the messages of a topic as they come.
    Consume(ConsumeFlags),
    /// Look at a store that need not be served, a Java broker's too: inspect, verify, rebuild,
    /// export, plan-clean.
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Flags of `serve`; each beats the file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// Configuration: a Java broker's broker.conf, read as it is.
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the store [default: ./foliomq-data, or $HOME/store with -c].
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Where the broker listens; the fast port is the one two below.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where the embedded name server listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub namesrv_listen: Option<String>,
    /// Name servers to register with, instead of the embedded one.
    #[arg(long, value_name = "HOST:PORT;...")]
    pub namesrv: Option<String>,
    /// Host that clients are told to connect to.
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
}

/// Flags of `namesrv`.
#[derive(Debug, Clone, Args)]
pub struct NamesrvFlags {
    /// Where to listen.
    #[arg(
        long = "namesrv-listen",
        alias = "listen",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9876"
    )]
    pub listen: String,
    /// Directory of the key-value configuration [default: $HOME/namesrv].
    #[arg(long, value_name = "DIR")]
    pub kv_dir: Option<PathBuf>,
}

/// Flags of `send`.
#[derive(Debug, Clone, Args)]
pub struct SendFlags {
    /// The topic.
    pub topic: String,
    /// Bodies, one message each.
    #[arg(required = true)]
    pub bodies: Vec<String>,
    /// TAGS of the messages.
    #[arg(long)]
    pub tag: Option<String>,
    /// KEYS of the messages, separated by spaces.
    #[arg(long)]
    pub keys: Option<String>,
    /// Name server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub namesrv: String,
}

/// Flags of `consume`.
#[derive(Debug, Clone, Args)]
pub struct ConsumeFlags {
    /// The topic.
    pub topic: String,
    /// Stop after so many messages.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Name server.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9876")]
    pub namesrv: String,
}

impl From<ServeFlags> for Flags {
    fn from(flags: ServeFlags) -> Self {
        Self {
            file: flags.config,
            store: flags.store,
            listen: flags.listen,
            namesrv_listen: flags.namesrv_listen,
            namesrv: flags.namesrv,
            advertise: flags.advertise,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_what_no_command_means() {
        let line = CommandLine::try_parse_from(["foliomq", "--store", "/data"]).unwrap();
        assert!(line.command.is_none());
        assert_eq!(line.serve.store, Some(PathBuf::from("/data")));
        let line = CommandLine::try_parse_from(["foliomq", "serve", "-c", "broker.conf"]).unwrap();
        let Some(Command::Serve(flags)) = line.command else {
            panic!("{line:?}")
        };
        assert_eq!(flags.config, Some(PathBuf::from("broker.conf")));
        assert!(CommandLine::try_parse_from(["foliomq", "send", "T"]).is_err());
    }
}
