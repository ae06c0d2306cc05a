//! Volumes: one source each, and files that stay inside.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{below, environment, one_of, present, set_of, steps_back};
use crate::{object, status::Cause, validation::names};

/// Every source there is.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];
const PROJECTED: &[&str] =
    &["clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"];
/// What a file may say of its pod.
const FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Rights of a file, as a number.
const MODES: std::ops::RangeInclusive<i64> = 0..=0o777;
/// Shortest and longest life of a token, seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// Every volume of a pod; they come back by name.
pub(super) fn check<'a>(volumes: &'a [Value], path: &str, causes: &mut Vec<Cause>) -> BTreeMap<&'a str, &'a Value> {
    let mut seen = BTreeMap::new();
    for (at, volume) in volumes.iter().enumerate() {
        let field = format!("{path}[{at}]");
        let name = object::name_of(volume);
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if let Err(why) = names::label(name) {
            causes.push(Cause::invalid(format!("{field}.name"), &name.into(), &why));
        } else if seen.insert(name, volume).is_some() {
            causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
        }
        source(volume, &field, causes);
    }
    seen
}

fn source(volume: &Value, field: &str, causes: &mut Vec<Cause>) {
    let set = set_of(volume, SOURCES);
    for surplus in set.iter().skip(1) {
        causes.push(Cause::forbidden(format!("{field}.{surplus}"), "may not specify more than 1 volume type"));
    }
    let Some(kind) = set.first() else {
        causes.push(Cause::required(field, "must specify a volume type"));
        return;
    };
    let (source, path) = (&volume[kind], format!("{field}.{kind}"));
    match *kind {
        "hostPath" => host_path(source, &path, causes),
        "emptyDir" => empty_dir(source, &path, causes),
        "secret" => {
            present(source, &path, "secretName", causes);
            mode(source, "defaultMode", &path, causes);
            items(source, &path, causes);
        }
        "configMap" => {
            present(source, &path, "name", causes);
            mode(source, "defaultMode", &path, causes);
            items(source, &path, causes);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &path, causes);
            downward(source, &path, causes);
        }
        "projected" => projected(source, &path, causes),
        "persistentVolumeClaim" => present(source, &path, "claimName", causes),
        _ => {}
    }
}

fn host_path(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    present(source, field, "path", causes);
    steps_back(object::text(source, "/path"), format!("{field}.path"), causes);
    let kinds = ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    one_of(source, field, "type", &kinds, causes);
}

fn empty_dir(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    let limit = &source["sizeLimit"];
    let text = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
    let fits =
        knoll_api::quantity::Quantity::parse(&text).is_ok_and(|amount| amount >= knoll_api::quantity::Quantity::ZERO);
    if !limit.is_null() && !fits {
        let why = "SizeLimit field must be a valid resource quantity";
        causes.push(Cause::forbidden(format!("{field}.sizeLimit"), why));
    }
}

fn mode(parent: &Value, name: &str, field: &str, causes: &mut Vec<Cause>) {
    if parent[name].as_i64().is_some_and(|mode| !MODES.contains(&mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.push(Cause::invalid(format!("{field}.{name}"), &parent[name], why));
    }
}

/// Keys and the files they become.
fn items(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (at, item) in object::list(source, "/items").iter().enumerate() {
        let path = format!("{field}.items[{at}]");
        present(item, &path, "key", causes);
        file(item, &path, causes);
    }
}

/// Where a file lies in its volume.
fn file(item: &Value, field: &str, causes: &mut Vec<Cause>) {
    present(item, field, "path", causes);
    let text = object::text(item, "/path");
    below(text, format!("{field}.path"), causes);
    // The node swaps whole generations of files by names that begin so.
    if text.split('/').next().is_some_and(|first| first.starts_with("..") && first != "..") {
        causes.push(Cause::invalid(format!("{field}.path"), &text.into(), "must not start with '..'"));
    }
    mode(item, "mode", field, causes);
}

fn downward(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (at, item) in object::list(source, "/items").iter().enumerate() {
        let path = format!("{field}.items[{at}]");
        file(item, &path, causes);
        match set_of(item, &["fieldRef", "resourceFieldRef"])[..] {
            [] => causes.push(Cause::required(&path, "one of fieldRef and resourceFieldRef is required")),
            ["fieldRef"] => {
                environment::of_pod(&item["fieldRef"], &format!("{path}.fieldRef"), FIELDS, causes);
            }
            ["resourceFieldRef"] => {
                let reference = &item["resourceFieldRef"];
                let path = format!("{path}.resourceFieldRef");
                present(reference, &path, "containerName", causes);
                environment::of_resources(reference, &path, causes);
            }
            _ => {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                causes.push(Cause::invalid(&path, &"resource".into(), why));
            }
        }
    }
}

fn projected(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", field, causes);
    let mut paths = BTreeSet::new();
    for (at, one) in object::list(source, "/sources").iter().enumerate() {
        let parent = format!("{field}.sources[{at}]");
        let set = set_of(one, PROJECTED);
        for surplus in set.iter().skip(1) {
            causes.push(Cause::forbidden(format!("{parent}.{surplus}"), "may not specify more than 1 volume type"));
        }
        let Some(kind) = set.first() else {
            causes.push(Cause::required(&parent, "must specify a volume type"));
            continue;
        };
        let (source, path) = (&one[kind], format!("{parent}.{kind}"));
        match *kind {
            "secret" | "configMap" => {
                present(source, &path, "name", causes);
                items(source, &path, causes);
            }
            "downwardAPI" => downward(source, &path, causes),
            "serviceAccountToken" => token(source, &path, causes),
            _ => {}
        }
        let files = object::list(source, "/items").iter().chain((*kind == "serviceAccountToken").then_some(source));
        for file in files.map(|item| object::text(item, "/path")).filter(|file| !file.is_empty()) {
            if !paths.insert(file) {
                let why = "conflicting duplicate paths";
                causes.push(Cause::invalid(format!("{path}.path"), &file.into(), why));
            }
        }
    }
}

fn token(source: &Value, field: &str, causes: &mut Vec<Cause>) {
    file(source, field, causes);
    let Some(seconds) = source["expirationSeconds"].as_i64() else { return };
    let why = if seconds < SHORTEST {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LONGEST {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return;
    };
    causes.push(Cause::invalid(format!("{field}.expirationSeconds"), &seconds.into(), why));
}
