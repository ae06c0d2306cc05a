//! Secrets that hold a token of a ServiceAccount: the token is put in when one is made, and ends with the Secret.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::Admission;
use crate::{
    authority::TokenOrder,
    object,
    status::{Cause, Status},
    validation::core::{ACCOUNT_NAME, TOKEN_TYPE},
};

const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Life of such a token, seconds: it is meant to end with its Secret, and no token lives longer.
const LIFE: i64 = 1 << 32;

/// Fills in the token of the account that the annotation names.
pub(crate) fn admit(admission: &mut Admission<'_>, secret: &mut Value) -> Result<(), Status> {
    let account = object::annotation(secret, ACCOUNT_NAME).unwrap_or_default().to_owned();
    let has_token = !object::is_empty(secret.pointer("/data/token"));
    if secret["type"] != TOKEN_TYPE || account.is_empty() || has_token {
        return Ok(());
    }
    let name = object::name(secret).to_owned();
    let refuse = |key: &str, value: &str, why: &str| {
        let cause = Cause::invalid(format!("metadata.annotations[{key}]"), &value.into(), why);
        admission.resource.invalid(&name, vec![cause])
    };
    let stored = admission.view.core_object("serviceaccounts", admission.namespace, &account);
    let stored = stored.ok_or_else(|| refuse(ACCOUNT_NAME, &account, "there is no such ServiceAccount"))?;
    let uid = object::uid(&stored);
    match object::annotation(secret, ACCOUNT_UID) {
        Some(given) if given != uid => {
            return Err(refuse(ACCOUNT_UID, given, "the ServiceAccount has another uid"));
        }
        _ => {}
    }
    let token = admission.view.authority().issue(&TokenOrder {
        namespace: admission.namespace.into(),
        name: account.clone(),
        uid: uid.into(),
        expiration_seconds: LIFE,
        bound_to: Some(("Secret".into(), name, object::uid(secret).into())),
        ..TokenOrder::default()
    })?;
    object::map_at(&mut secret["metadata"], "annotations").insert(ACCOUNT_UID.into(), uid.into());
    let data = object::map_at(secret, "data");
    for (key, value) in
        [("token", token.token.as_str()), ("ca.crt", admission.view.root_ca()), ("namespace", admission.namespace)]
    {
        data.insert(key.into(), STANDARD.encode(value).into());
    }
    Ok(())
}
