//! Asks the API server what ServiceAccounts may do: SubjectAccessReviews, one for each verb, kind and namespace.
//!
//! Rights add up, so what is allowed everywhere is allowed in each namespace: where there are several, that is asked first.

use http::Method;
use knoll_plan::{AccessOutcome, AccessRequest, Denial};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{Api, ApiError},
    execute::within,
};

const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// Most reviews for one request.
const MOST_REVIEWS: usize = 10_000;
/// Most places that are told of; what is denied after them is not asked for.
const MOST_DENIALS: usize = 32;

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

/// What came of asking.
///
/// # Errors
/// When the API server does not answer.
pub(crate) async fn review(api: &Api, request: &AccessRequest) -> Result<AccessOutcome, ApiError> {
    let most = request.verbs.len() * request.resources.len() * (request.namespaces.len() + 1);
    if most > MOST_REVIEWS {
        let (kinds, namespaces) = (request.resources.len(), request.namespaces.len());
        return Ok(Err(format!(
            "{kinds} kinds in {namespaces} namespaces may need {most} access reviews, and {MOST_REVIEWS} are made at most; \
             watch fewer of either"
        )));
    }
    let mut denials = Vec::new();
    for resource in &request.resources {
        let mut open = Vec::new();
        for verb in request.verbs {
            // In one namespace the question is the same one.
            if request.namespaces.len() < 2 || !is_allowed(api, request, verb, resource, "").await? {
                open.push(*verb);
            }
        }
        for namespace in request.namespaces.iter().filter(|_| !open.is_empty()) {
            let mut verbs = Vec::new();
            for verb in &open {
                if !is_allowed(api, request, verb, resource, namespace).await? {
                    verbs.push(*verb);
                }
            }
            if !verbs.is_empty() {
                denials.push(Denial { verbs, resource: resource.clone(), namespace: namespace.clone() });
            }
            if denials.len() >= MOST_DENIALS {
                return Ok(Ok(denials));
            }
        }
    }
    Ok(Ok(denials))
}

async fn is_allowed(
    api: &Api,
    request: &AccessRequest,
    verb: &str,
    resource: &(String, String),
    namespace: &str,
) -> Result<bool, ApiError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": request.user(), "groups": request.groups(),
            "resourceAttributes":
                {"namespace": namespace, "verb": verb, "group": resource.0, "resource": resource.1},
        },
    });
    let answer: Review = within(api.send(Method::POST, PATH, Some(("application/json", &review)))).await?;
    Ok(answer.status.allowed)
}
