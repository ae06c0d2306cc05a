//! Who is somebody?

use serde_json::{Value, json};

use crate::{ApiServer, UserInfo, object, status::Status};

fn user(identity: &UserInfo) -> Value {
    let mut info = json!({"username": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.as_str().into();
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

/// The status of a SelfSubjectReview.
pub(super) fn myself(identity: &UserInfo) -> Value {
    json!({"userInfo": user(identity)})
}

/// The status of a TokenReview.
pub(super) fn token(server: &ApiServer, review: &Value) -> Result<Value, Status> {
    if object::text(review, "/spec/token").is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        object::list(review, "/spec/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(match server.config.authority.review(object::text(review, "/spec/token"), &audiences) {
        Some((identity, accepted)) => json!({"authenticated": true, "user": user(&identity), "audiences": accepted}),
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    })
}
