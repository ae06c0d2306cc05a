//! What a namespace's labels ask of its pods.

use serde_json::Value;

use crate::status::Cause;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The version of Kubernetes whose rules `latest` means here: 1.35.
const LATEST: u32 = 35;

/// How much pods may do, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    /// The minor version; `None` for the latest.
    pub(super) minor: Option<u32>,
}

impl Standard {
    const FREE: Self = Self { level: Level::Privileged, minor: None };

    /// The minor version whose rules hold.
    pub(super) fn version(self) -> u32 {
        self.minor.unwrap_or(LATEST).min(LATEST)
    }
}

impl std::fmt::Display for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What is refused, what is noted in the log, and what the writer is warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

impl Policy {
    /// From a namespace's labels, and what is wrong with them. An `enforce` that cannot be read is `restricted`, the
    /// others are then nothing.
    pub(super) fn of(labels: &Value) -> (Self, Vec<Cause>) {
        let mut causes = Vec::new();
        let mut read = |mode: &str, otherwise: Level| {
            let label = |name: &str| labels.get(format!("{PREFIX}{name}")).and_then(Value::as_str);
            let mut standard = Standard::FREE;
            let mut known = false;
            if let Some(text) = label(mode) {
                let level = level(text);
                known = level.is_some();
                standard.level = level.unwrap_or(otherwise);
                if level.is_none() {
                    causes.push(wrong(mode, text, "must be one of privileged, baseline, restricted"));
                }
            }
            let name = format!("{mode}-version");
            let pinned = label(&name);
            match pinned.map(version) {
                Some(Some(minor)) => standard.minor = minor,
                Some(None) => causes.push(wrong(&name, pinned.unwrap_or_default(), "must be \"latest\" or \"v1.x\"")),
                None => {}
            }
            (standard, known, pinned.is_some())
        };
        let (enforce, enforced, _) = read("enforce", Level::Restricted);
        let (audit, ..) = read("audit", Level::Privileged);
        let (mut warn, _, warn_pinned) = read("warn", Level::Privileged);
        let unset = labels.get(format!("{PREFIX}warn")).is_none();
        if unset && enforced && enforce.level > warn.level {
            warn.level = enforce.level;
            if !warn_pinned {
                warn.minor = enforce.minor;
            }
        }
        (Self { enforce, audit, warn }, causes)
    }
}

fn wrong(name: &str, value: &str, why: &str) -> Cause {
    Cause::invalid(format!("metadata.labels[{PREFIX}{name}]"), &value.into(), why)
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// `latest` or `v1.x`.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten().map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(labels: Value) -> (String, usize) {
        let mut prefixed = json!({});
        for (name, value) in labels.as_object().expect("labels") {
            prefixed[format!("{PREFIX}{name}")] = value.clone();
        }
        let (policy, causes) = Policy::of(&prefixed);
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), causes.len())
    }

    #[test]
    fn labels_say_what_is_refused_and_what_is_told() {
        let free = "privileged:latest";
        assert_eq!(of(json!({})), (format!("{free} {free} {free}"), 0));
        assert_eq!(
            of(json!({"enforce": "baseline"})),
            (format!("baseline:latest {free} baseline:latest"), 0),
            "what is refused to pods is told to those who make templates"
        );
        assert_eq!(
            of(json!({"enforce": "baseline", "enforce-version": "v1.30", "warn": "restricted"})),
            (format!("baseline:v1.30 {free} restricted:latest"), 0)
        );
        assert_eq!(of(json!({"enforce": "strict"})), (format!("restricted:latest {free} {free}"), 1));
        assert_eq!(of(json!({"warn": "strict", "audit-version": "v1.07"})).1, 2);
    }
}
