//! A client in this process: requests are handed over as values, no socket, no TLS.

use std::{convert::Infallible, sync::Arc};

use http::Request;
use tower::service_fn;

use crate::{ApiServer, UserInfo, body};

impl ApiServer {
    /// A client that acts as `identity`. Must be called inside a tokio runtime.
    pub fn client(self: &Arc<Self>, identity: UserInfo) -> kube::Client {
        let server = self.clone();
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let (server, identity) = (server.clone(), identity.clone());
            async move { Ok::<_, Infallible>(server.handle(request.map(body::wrap), identity).await) }
        });
        kube::Client::new(service, "default")
    }
}
