//! The repository's own rules, where the compiler does not hold them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::modules;

/// Where the table stands that says which of our crates a crate may use.
const MAP: &str = "ARCHITECTURE.md";

/// Crates that decide and never act, and what they must never depend on, however indirectly.
const PURE: &[&str] = &["event", "api", "faults", "scale", "plan", "schema"];
const IMPURE: &[&str] = &["tokio", "hyper", "hyper-util", "mio", "socket2"];
/// Crates to which the wall clock may do what it likes, because they do not look at it.
const CLOCKLESS: &[&str] = &["journal", "store"];
/// Crates whose modules need each other in no circle.
const LAYERED: &[&str] = &["apiserver"];
/// The one crate that may say `unsafe`.
const UNSAFE: &[&str] = &["container"];
/// Names that say nothing.
const HOLLOW: &[&str] = &["common", "util", "utils", "helpers", "misc", "types"];
/// A source file longer than this has become a hub.
const LONGEST_FILE: usize = 800;

pub(crate) fn run() -> Result<(), String> {
    let mut findings = Vec::new();
    let metadata = metadata()?;
    edges(&metadata, &fs::read_to_string(MAP).map_err(|e| format!("read {MAP}: {e}"))?, &mut findings);
    pure(&metadata, &mut findings);
    for root in ["crates", "tools", "docs", "examples"] {
        files(Path::new(root), &mut findings)?;
    }
    orphans(&mut findings)?;
    layers(&mut findings)?;
    if findings.is_empty() {
        println!("tidy: nothing to complain about");
        return Ok(());
    }
    Err(format!("tidy:\n  {}", findings.join("\n  ")))
}

fn metadata() -> Result<Value, String> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .map_err(|e| format!("run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("read cargo metadata: {e}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What the table of crates in the map says: each crate, and what of ours it uses.
fn table(map: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let rows = map.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, _, uses] = cells[..] else { return None };
            let uses = uses.split(',').map(str::trim).filter(|name| *name != "–").collect();
            Some((name.trim_matches('`'), uses))
        })
        .collect()
}

/// Our crates depend on each other as the table says, and in no other way.
fn edges(metadata: &Value, map: &str, findings: &mut Vec<String>) {
    let mut table = table(map);
    for package in list(&metadata["packages"]) {
        let Some(folder) = text(package, "name").strip_prefix("knoll-") else { continue };
        let Some(said) = table.remove(folder) else {
            findings.push(format!("crate {folder} is not in the table of {MAP}"));
            continue;
        };
        let dependencies = list(&package["dependencies"]).filter(|dependency| dependency["kind"] != "dev");
        let used: BTreeSet<&str> =
            dependencies.filter_map(|dependency| text(dependency, "name").strip_prefix("knoll-")).collect();
        if used != said {
            findings.push(format!("crate {folder} uses {used:?} of our crates; the table of {MAP} says {said:?}"));
        }
    }
    findings.extend(table.into_keys().map(|folder| format!("{MAP} tells of a crate {folder}, which is not there")));
}

/// Nothing that acts is reachable from a pure crate.
fn pure(metadata: &Value, findings: &mut Vec<String>) {
    let names: BTreeMap<&str, &str> =
        list(&metadata["packages"]).map(|package| (text(package, "id"), text(package, "name"))).collect();
    let uses: BTreeMap<&str, Vec<&str>> = list(&metadata["resolve"]["nodes"])
        .map(|node| {
            let normal = |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
            (text(node, "id"), list(&node["deps"]).filter(normal).map(|dependency| text(dependency, "pkg")).collect())
        })
        .collect();
    for folder in PURE {
        let start = names.iter().find(|(_, name)| name.strip_prefix("knoll-") == Some(folder));
        let mut open: Vec<&str> = start.map(|(id, _)| *id).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(uses.get(id).into_iter().flatten());
            }
        }
        for name in seen.iter().filter_map(|id| names.get(id)).filter(|name| IMPURE.contains(name)) {
            findings.push(format!("crate {folder} decides purely and must not depend on {name}"));
        }
    }
}

fn walk(at: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = match fs::read_dir(at) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("read {}: {error}", at.display())),
    };
    for entry in entries {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.is_dir() { walk(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

/// What every text file must be.
fn files(root: &Path, findings: &mut Vec<String>) -> Result<(), String> {
    let mut found = Vec::new();
    walk(root, &mut found)?;
    for path in found {
        let Ok(content) = fs::read_to_string(&path) else { continue };
        let shown = path.display();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if content.lines().any(|line| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ")) {
            findings.push(format!("{shown}: a conflict mark is left"));
        }
        if path.extension().is_some_and(|extension| extension == "rs") {
            if HOLLOW.contains(&stem) {
                findings.push(format!("{shown}: name the file for what it holds"));
            }
            if content.lines().count() > LONGEST_FILE {
                findings.push(format!("{shown}: over {LONGEST_FILE} lines; split it by variant"));
            }
            let in_crate = path.components().nth(1).and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
            if CLOCKLESS.contains(&in_crate) && content.contains("SystemTime") {
                findings.push(format!("{shown}: the wall clock jumps; use Instant, or take the time as an argument"));
            }
            if !UNSAFE.contains(&in_crate) && content.lines().any(|line| line.contains(concat!("unsafe", " {"))) {
                findings.push(format!("{shown}: only {UNSAFE:?} may say unsafe"));
            }
        }
    }
    Ok(())
}

/// The modules of some crates stand in layers.
fn layers(findings: &mut Vec<String>) -> Result<(), String> {
    for folder in LAYERED {
        let mut found = Vec::new();
        walk(&Path::new("crates").join(folder).join("src"), &mut found)?;
        let sources: Result<Vec<_>, String> = found
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| match fs::read_to_string(&path) {
                Ok(text) => Ok((path, text)),
                Err(error) => Err(format!("read {}: {error}", path.display())),
            })
            .collect();
        findings.extend(modules::circles(&sources?).into_iter().map(|circle| format!("crate {folder}: {circle}")));
    }
    Ok(())
}

/// A source file that no `mod` names is never compiled.
fn orphans(findings: &mut Vec<String>) -> Result<(), String> {
    let mut found = Vec::new();
    walk(Path::new("crates"), &mut found)?;
    let sources: Vec<_> = found
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs") && path.components().any(|c| c.as_os_str() == "src"))
        .collect();
    for path in &sources {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let directory = path.parent().unwrap_or(Path::new(""));
        if ["lib", "main"].contains(&stem) || directory.ends_with("bin") {
            continue;
        }
        let (name, parents) = if stem == "mod" {
            let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            (name, parents_of(directory.parent().unwrap_or(Path::new(""))))
        } else {
            (stem, parents_of(directory))
        };
        let line = format!("mod {name};");
        let named = parents.iter().any(|parent| {
            fs::read_to_string(parent).is_ok_and(|content| {
                content.lines().any(|l| {
                    l.trim()
                        .trim_start_matches("pub(crate) ")
                        .trim_start_matches("pub(super) ")
                        .trim_start_matches("pub ")
                        == line
                })
            })
        });
        if !named {
            findings.push(format!("{}: no mod line names it", path.display()));
        }
    }
    Ok(())
}

/// Files that may declare the modules of a directory.
fn parents_of(directory: &Path) -> Vec<PathBuf> {
    let mut parents: Vec<PathBuf> = ["lib.rs", "main.rs", "mod.rs"].map(|name| directory.join(name)).into();
    if let (Some(up), Some(name)) = (directory.parent(), directory.file_name()) {
        parents.push(up.join(name).with_extension("rs"));
    }
    parents
}
