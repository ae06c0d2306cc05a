//! Reviews: computed answers of `authentication.k8s.io` and `authorization.k8s.io`.

use super::Resource;

pub(super) fn rows() -> Vec<Resource> {
    let authentication = |plural, kind| Resource::new("authentication.k8s.io", "v1", plural, kind).computed();
    let authorization = |plural, kind| Resource::new("authorization.k8s.io", "v1", plural, kind).computed();
    vec![
        authentication("tokenreviews", "TokenReview").cluster(),
        authentication("selfsubjectreviews", "SelfSubjectReview").cluster(),
        authorization("subjectaccessreviews", "SubjectAccessReview").cluster(),
        authorization("selfsubjectaccessreviews", "SelfSubjectAccessReview").cluster(),
        authorization("selfsubjectrulesreviews", "SelfSubjectRulesReview").cluster(),
        authorization("localsubjectaccessreviews", "LocalSubjectAccessReview"),
    ]
}
