//! What earlier attempts of a container left on disk: a container that is started again and again would fill it.

use std::path::Path;

use crate::config::Config;
use crate::runtime;

/// Removes the logs and last words of attempts that nobody can ask for any more: all but `attempt` and the one before
/// it. Blocking.
pub(super) fn forget(config: &Config, uid: &str, container: &str, attempt: u32) -> std::io::Result<()> {
    let Some(oldest) = attempt.checked_sub(1).filter(|oldest| *oldest > 0) else { return Ok(()) };
    let is_old = |number: &str| number.parse::<u32>().is_ok_and(|number| number < oldest);
    // `<attempt>.log`, and its rotated predecessors.
    remove(&config.log_dir(uid, container), |name| name.split_once(".log").is_some_and(|(number, _)| is_old(number)))?;
    let words = runtime::termination_log(config, uid, container, attempt);
    let Some(words) = words.parent() else { return Ok(()) };
    remove(words, |name| name.rsplit_once('_').is_some_and(|(of, number)| of == container && is_old(number)))
}

fn remove(dir: &Path, is_old: impl Fn(&str) -> bool) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_old) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn one_ended_attempt_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config::new("n", Ipv4Addr::LOCALHOST, dir.path().into(), "/r".into());
        let logs = config.log_dir("u", "c");
        let words = dir.path().join("pods/u/termination");
        fs::create_dir_all(&logs).expect("makes");
        fs::create_dir_all(&words).expect("makes");
        for name in ["0.log", "8.log", "8.log.1", "9.log", "9.log.2", "10.log"] {
            fs::write(logs.join(name), "").expect("writes");
        }
        for name in ["c_8", "c_9", "other_1", "c_x"] {
            fs::write(words.join(name), "").expect("writes");
        }
        forget(&config, "u", "c", 1).expect("nothing to do");
        forget(&config, "u", "c", 10).expect("removes");
        forget(&config, "u", "absent", 10).expect("nothing to do");
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).expect("lists").map(|e| e.expect("entry").file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().expect("text")).collect();
            names.sort();
            names
        };
        assert_eq!(names(&logs), ["10.log", "9.log", "9.log.2"]);
        assert_eq!(names(&words), ["c_9", "c_x", "other_1"]);
    }
}
