//! Acting as somebody else: the headers that ask for it, and the rights that each of them needs.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::rbac::Rbac;
use crate::{
    attributes::{Attributes, UserInfo},
    query,
    status::Status,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// API group of the rights to take on uids and extras.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Most groups and extra values of one request: each is a question to authorization.
const MOST: usize = 256;

/// Whom the headers ask to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// `None` where nothing is asked for.
    fn read(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let mut wanted = Self::default();
        let mut count = 0;
        for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with("impersonate-")) {
            let text = value.to_str().map_err(|_| Status::bad_request(format!("the header {name} is not text")))?;
            count += 1;
            if count > MOST {
                return Err(Status::bad_request(format!("more than {MOST} impersonation headers")));
            }
            match name.as_str() {
                USER => text.clone_into(&mut wanted.user),
                UID => text.clone_into(&mut wanted.uid),
                GROUP => wanted.groups.push(text.to_owned()),
                other => {
                    // A header that nobody knows must not be taken for nothing.
                    let key = other
                        .strip_prefix(EXTRA)
                        .ok_or_else(|| Status::bad_request(format!("the header {name} is not known")))?;
                    wanted.extra.entry(query::decode(key, false).to_lowercase()).or_default().push(text.to_owned());
                }
            }
        }
        if count == 0 {
            return Ok(None);
        }
        if wanted.user.is_empty() {
            let parts = [
                (!wanted.groups.is_empty()).then(|| format!("groups {:?}", wanted.groups)),
                (!wanted.extra.is_empty()).then(|| format!("extra {:?}", wanted.extra)),
                (!wanted.uid.is_empty()).then(|| format!("uid {:?}", wanted.uid)),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            return Err(Status::internal(format!("requested {} without impersonating a user", parts.join(", "))));
        }
        Ok(Some(wanted))
    }

    /// The rights that it takes.
    fn rights(&self) -> Vec<Attributes> {
        let right = |resource: &str, name: &str| Attributes {
            verb: "impersonate".into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            ..Attributes::default()
        };
        let mut rights = Vec::new();
        rights.push(match account(&self.user) {
            Some((namespace, name)) => Attributes { namespace: namespace.into(), ..right("serviceaccounts", name) },
            None => right("users", &self.user),
        });
        rights.extend(self.groups.iter().map(|group| right("groups", group)));
        for (key, values) in &self.extra {
            let extra = |value| Attributes {
                group: AUTHENTICATION.into(),
                subresource: key.clone(),
                ..right("userextras", value)
            };
            rights.extend(values.iter().map(|value| extra(value)));
        }
        if !self.uid.is_empty() {
            rights.push(Attributes { group: AUTHENTICATION.into(), ..right("uids", &self.uid) });
        }
        rights
    }

    /// Who that is, with the groups that everybody of their kind has.
    fn identity(self) -> UserInfo {
        let mut groups = self.groups;
        if let (true, Some((namespace, name))) = (groups.is_empty(), account(&self.user)) {
            groups = UserInfo::service_account(namespace, name).groups;
        }
        let own = if self.user == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
        let said = |group: &String| group == "system:authenticated" || group == "system:unauthenticated";
        if !groups.iter().any(said) {
            groups.push(own.into());
        }
        UserInfo { user: self.user, uid: self.uid, groups, extra: self.extra, issued: None }
    }
}

/// Namespace and name, where a user is a ServiceAccount.
fn account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Acts as somebody else where the headers ask for it and RBAC allows it.
pub(super) fn impersonate(rbac: &Rbac, identity: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
    let Some(wanted) = Wanted::read(headers)? else { return Ok(identity) };
    for right in wanted.rights() {
        if !rbac.authorize(&identity, &right).is_allowed() {
            let why = right.refusal(&identity, "");
            return Err(Status::forbidden(&right.group, &right.resource, &right.name, &why));
        }
    }
    let identity = wanted.identity();
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<http::HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn every_header_needs_a_right_of_its_own() {
        let wanted = Wanted::read(&headers(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Uid", "u-1"),
            ("Impersonate-Extra-Acme.com%2Fproject", "x"),
        ]));
        let wanted = wanted.expect("is fine").expect("asks for somebody");
        let asked: Vec<String> = wanted
            .rights()
            .iter()
            .map(|r| format!("{}/{}/{}/{}", r.group, r.resource, r.subresource, r.name))
            .collect();
        assert_eq!(
            asked,
            [
                "/users//jane",
                "/groups//ops",
                "/groups//dev",
                "authentication.k8s.io/userextras/acme.com/project/x",
                "authentication.k8s.io/uids//u-1",
            ]
        );
        let identity = wanted.identity();
        assert_eq!((identity.uid.as_str(), identity.groups.len()), ("u-1", 3));
        assert_eq!(identity.extra["acme.com/project"], ["x"]);
    }

    #[test]
    fn a_service_account_comes_with_its_groups_unless_others_are_given() {
        let account = |more: &[(&str, &str)]| {
            let mut pairs = vec![("Impersonate-User", "system:serviceaccount:ns:robot")];
            pairs.extend(more);
            Wanted::read(&headers(&pairs)).expect("is fine").expect("asks for somebody")
        };
        let right = &account(&[]).rights()[0];
        assert_eq!((right.resource.as_str(), right.namespace.as_str()), ("serviceaccounts", "ns"));
        let groups = account(&[]).identity().groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        assert_eq!(account(&[("Impersonate-Group", "a")]).identity().groups, ["a", "system:authenticated"]);
    }

    #[test]
    fn groups_without_a_user_and_unknown_headers_are_refused() {
        let lonely = Wanted::read(&headers(&[("Impersonate-Group", "system:masters")])).expect_err("no user");
        assert!(lonely.message.contains("without impersonating a user"), "{}", lonely.message);
        assert_eq!(
            Wanted::read(&headers(&[("Impersonate-User", "a"), ("Impersonate-Usr", "b")])).expect_err("odd").code,
            400
        );
        let many: Vec<(&str, &str)> = (0..=MOST).map(|_| ("Impersonate-Group", "g")).collect();
        assert_eq!(Wanted::read(&headers(&many)).expect_err("too many").code, 400);
        assert_eq!(Wanted::read(&headers(&[])), Ok(None));
    }

    #[test]
    fn nobody_is_nobody() {
        let wanted = Wanted { user: "system:anonymous".into(), ..Wanted::default() };
        assert_eq!(wanted.identity().groups, ["system:unauthenticated"]);
    }
}
