//! `knoll store`: looks at the objects' files, and mends them.

use std::{io, path::Path};

use knoll_api::metrics::MetricFamily;
use knoll_cli::{
    Exit,
    arguments::{StoreArguments, StoreCommand},
};
use knoll_container::doctor::Check;
use knoll_store::{Figures, Inspection, Loss, OpenError, Options, Repair, Store, inspect, repair};

use crate::{
    admin::Sources,
    failure::{Failure, chain},
    paths::Paths,
};

/// Most lost keys that are told one by one.
const TOLD: usize = 100;

/// What is wrong with a store, as an exit code.
pub(crate) fn exit_of(error: &OpenError) -> Exit {
    match error {
        OpenError::InUse { .. } => Exit::Unavailable,
        OpenError::Directory { .. } | OpenError::Checkpoint { .. } => Exit::System,
        OpenError::Foreign { .. }
        | OpenError::Newer
        | OpenError::Log(_)
        | OpenError::DamagedCheckpoint { .. }
        | OpenError::Behind { .. } => Exit::Config,
    }
}

fn failure(error: &OpenError) -> Failure {
    let text = match error {
        OpenError::InUse { path } => format!("{path} is in use: stop the instance with `knoll down` first"),
        _ => chain(error),
    };
    Failure::text(exit_of(error), text)
}

/// Shows how the store fares to whoever asks the admin endpoint.
pub(crate) fn tell(store: &Store, sources: &mut Sources) {
    let (counted, checked) = (store.clone(), store.clone());
    sources.metrics(move || {
        // Every figure by name: one that is added must be told.
        let Figures {
            revision,
            entries,
            transactions,
            refused_full,
            checkpoints,
            checkpoint_failures,
            packed,
            pack_panics,
            history_bytes,
            watches,
            watches_dropped,
            stopped: _,
        } = counted.figures();
        vec![
            MetricFamily::gauge("store_revision", "Newest revision", revision),
            MetricFamily::gauge("store_entries", "Objects stored", entries),
            MetricFamily::counter("store_transactions", "Transactions committed", transactions),
            MetricFamily::counter("store_refused_full", "Transactions refused because the disk was full", refused_full),
            MetricFamily::counter("store_checkpoints", "Checkpoints written", checkpoints),
            MetricFamily::counter(
                "store_checkpoint_failures",
                "Checkpoints that could not be written",
                checkpoint_failures,
            ),
            MetricFamily::counter("store_packed", "Cold values packed", packed),
            MetricFamily::counter("store_pack_panics", "Rounds of packing that panicked", pack_panics),
            MetricFamily::gauge("store_history_bytes", "Recent changes kept for watches", history_bytes),
            MetricFamily::gauge("store_watches", "Open watches", watches),
            MetricFamily::counter("store_watches_dropped", "Watches ended because they were too slow", watches_dropped),
        ]
    });
    sources.check("store", move || match checked.figures().stopped {
        Some(reason) => Err(format!("it takes no more writes: {reason}")),
        None => Ok(()),
    });
}

/// Looks at the objects' files for `knoll doctor`; `None` where there are none, or an instance holds them.
pub(crate) fn check(paths: &Paths) -> Option<Check> {
    let store = paths.store();
    let name = "store";
    match inspect(&store, &Options::default()) {
        Err(OpenError::InUse { .. }) => None,
        Err(OpenError::Directory { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let fix = if nix::unistd::geteuid().is_root() { "" } else { "run as root" };
            Some(Check { name, ok: false, found: chain(&error), fix: fix.to_owned() })
        }
        Ok(Inspection { refusal: Some(refusal), .. }) => {
            let data = paths.data.display();
            let fix = format!("knoll store verify --data-dir {data}, then knoll store repair --yes --data-dir {data}");
            Some(Check { name, ok: false, found: chain(&refusal), fix })
        }
        Ok(found) => {
            let harmless = match found.problems.first() {
                None => String::new(),
                Some(p) => format!("; {} is damaged at byte {}, which costs nothing: {}", p.file, p.offset, p.reason),
            };
            let found = format!("{} objects at revision {}{harmless}", found.entries, found.revision);
            Some(Check { name, ok: true, found, fix: String::new() })
        }
    }
}

pub(crate) fn run(arguments: &StoreArguments) -> Result<(), Failure> {
    let store = Paths::new(&arguments.data.data_dir).store();
    let found = inspect(&store, &Options::default()).map_err(|e| failure(&e))?;
    for line in describe(&found, &store) {
        println!("{line}");
    }
    match (&arguments.command, &found.refusal) {
        (_, None) => Ok(()),
        (StoreCommand::Verify, Some(_)) => {
            let text =
                "the store does not open: `knoll store repair --yes` keeps what can be read, with the loss above";
            Err(Failure::text(Exit::Failure, text))
        }
        (StoreCommand::Repair { yes: false }, Some(_)) => {
            Err(Failure::text(Exit::Failure, "nothing was changed: repeat with --yes to accept the loss above"))
        }
        (StoreCommand::Repair { yes: true }, Some(_)) => {
            if let Some(done) = repair(&store, &Options::default()).map_err(|e| failure(&e))? {
                println!("{}", repaired(&done, &store));
            }
            Ok(())
        }
    }
}

fn repaired(done: &Repair, store: &Path) -> String {
    format!(
        "repaired: {} objects at revision {}; the old files are kept in {} as {}: remove them when nothing is missed",
        done.entries,
        done.revision,
        store.display(),
        done.aside.join(", ")
    )
}

/// What was found, in lines.
fn describe(found: &Inspection, store: &Path) -> Vec<String> {
    let mut lines = vec![format!("{}: {} files", store.display(), found.files.len())];
    for problem in &found.problems {
        lines.push(format!("  {} byte {}: {}", problem.file, problem.offset, problem.reason));
    }
    match &found.refusal {
        None => {
            let entries = found.entries;
            lines.push(format!("whole: {entries} objects at revision {}; nothing is lost", found.revision));
        }
        Some(refusal) => {
            lines.push(format!("does not open: {}", chain(refusal)));
            lines.push(format!("can be saved: {} objects, up to revision {}", found.entries, found.revision));
            lines.extend(lost(&found.loss));
        }
    }
    if !found.aside.is_empty() {
        lines.push(format!("set aside by an earlier repair: {}", found.aside.join(", ")));
    }
    lines
}

fn lost(loss: &Loss) -> Vec<String> {
    let mut lines = Vec::new();
    if loss.is_nothing() {
        lines.push("lost: nothing".to_owned());
        return lines;
    }
    for range in &loss.revisions {
        lines.push(match range.end() - range.start() {
            0 => format!("lost: the write of revision {}", range.start()),
            _ => format!("lost: the writes of revisions {} to {}", range.start(), range.end()),
        });
    }
    if loss.entries > 0 {
        lines.push(format!("lost: {} objects of the checkpoint", loss.entries));
    }
    lines.extend(loss.keys.iter().take(TOLD).map(|(key, revision)| format!("  {} of revision {revision}", named(key))));
    if let Some(more @ 1..) = loss.keys.len().checked_sub(TOLD) {
        lines.push(format!("  and {more} more"));
    }
    if loss.keys.is_empty() {
        lines.push(format!("  in {} bytes that tell no names", loss.bytes));
    }
    lines
}

/// A key as kubectl names it: `services.serving.knative.dev default/hello`.
fn named(key: &str) -> String {
    let mut parts = key.trim_start_matches('/').splitn(3, '/');
    let (group, plural, name) = (parts.next(), parts.next(), parts.next());
    match (group, plural, name) {
        // What has no namespace has an empty one in its key.
        (Some("core"), Some(plural), Some(name)) => format!("{plural} {}", name.trim_start_matches('/')),
        (Some(group), Some(plural), Some(name)) => format!("{plural}.{group} {}", name.trim_start_matches('/')),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_as_people_call_it() {
        let loss = Loss {
            revisions: vec![7..=7, 9..=12],
            keys: vec![("/core/secrets/ns/a".into(), 7), ("/serving.knative.dev/services/default/hello".into(), 9)],
            entries: 0,
            bytes: 80,
        };
        let expected = [
            "lost: the write of revision 7",
            "lost: the writes of revisions 9 to 12",
            "  secrets ns/a of revision 7",
            "  services.serving.knative.dev default/hello of revision 9",
        ];
        assert_eq!(lost(&loss), expected);
    }
}
