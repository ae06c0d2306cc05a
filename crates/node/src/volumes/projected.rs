//! Several sources in one volume, service account tokens among them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, ServiceAccountTokenProjection};

use super::{Content, File, Payload, VolumeError, bits, config_map, downward_api, secret};

/// How long a token holds when nothing says so, in seconds.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// Permission bits of files when nothing says so.
const DEFAULT_MODE: i32 = 0o644;

/// A token that a volume needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    /// For whom; empty is the API server.
    pub audience: String,
    /// How long it should hold, in seconds.
    pub expiration_seconds: i64,
}

impl TokenRequest {
    fn of(source: &ServiceAccountTokenProjection) -> TokenRequest {
        TokenRequest {
            audience: source.audience.clone().unwrap_or_default(),
            expiration_seconds: source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
        }
    }
}

/// The tokens that a volume needs.
pub(super) fn tokens(volume: &ProjectedVolumeSource) -> impl Iterator<Item = TokenRequest> {
    volume.sources.iter().flatten().filter_map(|s| s.service_account_token.as_ref()).map(TokenRequest::of)
}

/// The files of all sources; a later source overrules an earlier one.
///
/// # Errors
/// When a source that is not optional is missing.
pub(super) fn payload(volume: &ProjectedVolumeSource, content: &Content<'_>) -> Result<Payload, VolumeError> {
    let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
    let mut all = Payload::new();
    for source in volume.sources.iter().flatten() {
        if let Some(source) = &source.config_map {
            let map = content.config_map(&source.name);
            let optional = source.optional.unwrap_or(false);
            all.extend(config_map::payload(&source.name, map, source.items.as_deref(), optional, mode)?);
        }
        if let Some(source) = &source.secret {
            let found = content.secret(&source.name);
            let optional = source.optional.unwrap_or(false);
            all.extend(secret::payload(&source.name, found, source.items.as_deref(), optional, mode)?);
        }
        if let Some(source) = &source.downward_api {
            all.extend(downward_api::payload(source.items.as_deref().unwrap_or_default(), mode, content.inputs)?);
        }
        if let Some(source) = &source.service_account_token {
            let token = content.tokens.get(&TokenRequest::of(source)).ok_or(VolumeError::NoToken)?;
            let owner = common_user(content.inputs.pod);
            let narrow = owner.is_some() || content.group.is_some();
            let mode = if narrow { 0o600 } else { bits(mode) };
            all.insert(PathBuf::from(&source.path), File { bytes: token.clone().into_bytes(), mode, owner });
        }
    }
    Ok(all)
}

/// The user that every container of the pod runs as, when they agree.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}
