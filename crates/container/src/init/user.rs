//! Users and groups, looked up in the container's own files.

use std::path::Path;

use super::{Failure, Step, target};
use crate::protocol::User;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The largest id of a user or group.
const MOST: u32 = i32::MAX.cast_unsigned();

/// The most that is read of a file of users or groups.
const LONGEST: u64 = 4 << 20;

/// Looks a user up in the current root's files.
pub(super) fn resolve_here(user: &User) -> Result<ExecUser, Failure> {
    let read = |path: &str| target::read(Path::new(path), LONGEST).blame_spec(|| format!("cannot read {path}"));
    let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
    resolve(user, &String::from_utf8_lossy(&passwd), &String::from_utf8_lossy(&group))
}

/// Looks a user up in these files.
pub(crate) fn resolve(user: &User, passwd: &str, group: &str) -> Result<ExecUser, Failure> {
    let (name, group_name) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (user.name.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let (uid, entry) = match numeric(name) {
        // The image's author writes that file: a number is never made another one by it.
        Some(uid) => {
            let uid = uid.ok_or_else(|| Failure::start(format!("{name} is no user id: those are 0 to {MOST}")))?;
            (uid, find_user(passwd, |entry| entry.uid == uid))
        }
        None => {
            let entry = find_user(passwd, |entry| entry.name == name);
            let none = || Failure::start(format!("unable to find user {name}: no matching entries in passwd file"));
            (entry.as_ref().ok_or_else(none)?.uid, entry)
        }
    };
    let mut gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let mut groups = Vec::new();
    match group_name {
        Some(group_name) => gid = find_group(group_name, group)?,
        None => groups.extend(entry.iter().flat_map(|entry| memberships(entry.name, group))),
    }
    gid = user.gid.unwrap_or(gid);
    // A group that forbids something must go on forbidding it after the program has changed its primary one.
    groups.push(gid);
    groups.extend(&user.groups);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(ExecUser { uid, gid, groups, home: home.to_owned() })
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn find_user<'a>(passwd: &'a str, is_it: impl Fn(&Entry<'a>) -> bool) -> Option<Entry<'a>> {
    let mut entries = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    });
    entries.find(is_it)
}

fn find_group(wanted: &str, group: &str) -> Result<u32, Failure> {
    if let Some(gid) = numeric(wanted) {
        return gid.ok_or_else(|| Failure::start(format!("{wanted} is no group id: those are 0 to {MOST}")));
    }
    let by_name = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| number(fields.nth(1)?)).flatten()
    });
    by_name.ok_or_else(|| Failure::start(format!("unable to find group {wanted}: no matching entries in group file")))
}

fn memberships<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':');
        let gid = number(fields.nth(2)?)?;
        fields.next()?.split(',').any(|member| member == user).then_some(gid)
    })
}

/// What is written as a number, sign or not: the id, or nothing where there is no such id.
fn numeric(text: &str) -> Option<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number(text))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number <= MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwheel:x:10:app,root\naudio:x:29:app\n";

    fn found(name: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let user = User { name: name.into(), gid: None, groups: vec![] };
        match resolve(&user, PASSWD, GROUP) {
            Ok(i) => Ok((i.uid, i.gid, i.groups, i.home)),
            Err(failure) => Err(failure.message),
        }
    }

    #[test]
    fn names_and_numbers_are_looked_up() {
        assert_eq!(found(""), Ok((0, 0, vec![0, 10], "/root".into())));
        assert_eq!(found("app"), Ok((1000, 1001, vec![10, 29, 1001], "/home/app".into())));
        assert_eq!(found("1000"), Ok((1000, 1001, vec![10, 29, 1001], "/home/app".into())));
        assert_eq!(found("app:wheel"), Ok((1000, 10, vec![10], "/home/app".into())));
        assert_eq!(found("65532"), Ok((65532, 0, vec![0], "/".into())));
        assert_eq!(found("65532:7"), Ok((65532, 7, vec![7], "/".into())));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(found("bob"), Err("unable to find user bob: no matching entries in passwd file".into()));
        assert_eq!(found("app:zoo"), Err("unable to find group zoo: no matching entries in group file".into()));
    }

    #[test]
    fn a_number_is_that_number_whatever_the_image_calls_its_users() {
        let passwd = "2000:x:0:0:root:/root:/bin/sh\n-1:x:0:0::/:\n4294967296:x:0:0::/:\nb:x:2000:7::/b:\n";
        let group = "2000:x:0:\n3:x:0:2000\nc:x:9:b\n4294967296:x:0:\n";
        let of = |name: &str| {
            let user = User { name: name.into(), gid: None, groups: vec![] };
            resolve(&user, passwd, group).map(|i| (i.uid, i.gid, i.groups, i.home)).map_err(|failure| failure.message)
        };
        assert_eq!(of("2000"), Ok((2000, 7, vec![7, 9], "/b".into())));
        assert_eq!(of("2000:2000"), Ok((2000, 2000, vec![2000], "/b".into())));
        assert_eq!(of("02000"), Ok((2000, 7, vec![7, 9], "/b".into())));
        for none in ["-1", "4294967296", "4294967295", "2147483648"] {
            assert_eq!(of(none), Err(format!("{none} is no user id: those are 0 to 2147483647")));
        }
        assert_eq!(of("b:4294967296"), Err("4294967296 is no group id: those are 0 to 2147483647".into()));
    }

    #[test]
    fn the_spec_overrides_the_group_and_adds_others() {
        let user = User { name: "app".into(), gid: Some(5), groups: vec![2000, 10] };
        let found = resolve(&user, PASSWD, GROUP).unwrap();
        assert_eq!((found.gid, found.groups), (5, vec![5, 10, 29, 2000]));
    }
}
