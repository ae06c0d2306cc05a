//! What `knoll event` takes.

use std::str::FromStr;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use super::{Output, since};
use crate::arguments::DataDir;

/// Options of `knoll event`.
#[derive(Debug, Args)]
pub struct EventArguments {
    /// Where the instance keeps its data.
    #[command(flatten)]
    pub data: DataDir,
    /// Namespace of the broker or channel.
    #[arg(long, short, global = true, default_value = "default")]
    pub namespace: String,
    /// What to do.
    #[command(subcommand)]
    pub command: EventCommand,
}

/// What to do with events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Every broker and channel of the namespace, who listens, and how far behind each of them is.
    List {
        /// Of every namespace.
        #[arg(long, short = 'A')]
        all_namespaces: bool,
    },
    /// Make an event and print it.
    Build {
        /// What it says.
        #[command(flatten)]
        fields: Fields,
        /// How it is printed.
        #[arg(long, short, value_enum, default_value = "human")]
        output: Output,
    },
    /// Make an event and send it.
    Send {
        /// `broker:NAME` or `channel:NAME`.
        #[arg(long, short = 'r')]
        to: Target,
        /// What it says.
        #[command(flatten)]
        fields: Fields,
    },
    /// Print events that a broker or channel keeps.
    Tail {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
        /// From when on.
        #[command(flatten)]
        since: From,
        /// Go on with new ones as they come.
        #[arg(long, short = 'F')]
        follow: bool,
        /// How they are printed.
        #[arg(long, short, value_enum, default_value = "human")]
        output: Output,
    },
    /// Deliver events that a broker or channel keeps once more, to one Trigger or Subscription.
    Replay {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
        /// Name of the Trigger or Subscription.
        #[arg(long)]
        to: String,
        /// From when on.
        #[command(flatten)]
        since: From,
    },
    /// Who sends what to whom: sources, brokers, channels, Triggers, Subscriptions, flows and sinks of the namespace.
    Graph {
        /// Of every namespace.
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// How it is printed.
        #[arg(long, short, value_enum, default_value = "human")]
        output: Output,
    },
    /// Events that nobody took, and no dead letter sink either.
    Dlq {
        /// What to do.
        #[command(subcommand)]
        command: LetterCommand,
    },
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum LetterCommand {
    /// A line for each.
    List {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
    },
    /// One of them, whole.
    Show {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
        /// Which one, as `list` shows it.
        offset: u64,
    },
    /// Deliver them again, each to whom it was for.
    Redrive {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
        /// Which ones.
        #[command(flatten)]
        which: Which,
    },
    /// Drop them for good.
    Drop {
        /// `broker:NAME` or `channel:NAME`.
        of: Target,
        /// Which ones.
        #[command(flatten)]
        which: Which,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Those that `list` shows so.
    pub offsets: Vec<u64>,
    /// All there are.
    #[arg(long)]
    pub all: bool,
}

/// From when on.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct From {
    /// A time, or a span before now such as `10m`.
    #[arg(long, value_parser = since)]
    pub since: Option<Since>,
    /// With this event, counted from 0.
    #[arg(long)]
    pub offset: Option<u64>,
}

impl From {
    /// What was said, if something was.
    pub fn given(&self) -> Option<Since> {
        self.offset.map(Since::Offset).or(self.since)
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With this event.
    Offset(u64),
    /// With what was taken from then on.
    Time(Timestamp),
    /// The same, so long ago.
    Ago(SignedDuration),
}

/// What an event says.
#[derive(Debug, Args)]
pub struct Fields {
    /// Its type.
    #[arg(long = "type", short = 't', default_value = "dev.knoll.cli.event")]
    pub kind: String,
    /// Its id; drawn when nothing is said.
    #[arg(long, short)]
    pub id: Option<String>,
    /// Its source.
    #[arg(long, short, default_value = "knoll-event")]
    pub source: String,
    /// Its subject.
    #[arg(long)]
    pub subject: Option<String>,
    /// A field of its data, `path.to.it=VALUE`; what reads as a number, `true`, `false` or `null` is one.
    #[arg(long, short, value_name = "FIELD=VALUE")]
    pub field: Vec<String>,
    /// A field of its data that is text, whatever it reads as.
    #[arg(long, value_name = "FIELD=VALUE")]
    pub raw_field: Vec<String>,
    /// An extension attribute.
    #[arg(long, value_name = "NAME=VALUE")]
    pub extension: Vec<String>,
}

/// A broker or channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `broker` or `channel`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or(("broker", text));
        let kind = match kind.to_ascii_lowercase().as_str() {
            "broker" => "broker",
            "channel" | "inmemorychannel" => "channel",
            other => return Err(format!("{other:?} is neither broker nor channel")),
        };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(format!("{name:?} is no name: lower-case letters, digits, dashes and dots"));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_broker_unless_it_says_otherwise() {
        for (text, kind, name) in
            [("default", "broker", "default"), ("Broker:b", "broker", "b"), ("channel:c.1", "channel", "c.1")]
        {
            let target: Target = text.parse().expect(text);
            assert_eq!((target.kind, target.name.as_str()), (kind, name));
        }
        for text in ["ksvc:x", "broker:", "broker:a/b", "channel:A"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
