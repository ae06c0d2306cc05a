//! A client in this process: requests are handed over as values, no socket, no TLS.

use std::{convert::Infallible, sync::Arc};

use knoll_client::Client;

use crate::{ApiServer, UserInfo};

impl ApiServer {
    /// A client that acts as `identity`.
    pub fn client(self: &Arc<Self>, identity: UserInfo) -> Client {
        let server = self.clone();
        Client::new(move |request| {
            let (server, identity) = (server.clone(), identity.clone());
            async move { Ok::<_, Infallible>(server.handle(request, identity).await) }
        })
    }

    /// A client for what is done in this process on behalf of `identity`, such as a user's ServiceAccount: it has the part of what
    /// is in flight that this one has on sockets, together with what comes on those, and is refused beyond it with 429. Must be
    /// called inside a tokio runtime.
    pub fn bounded_client(self: &Arc<Self>, identity: UserInfo) -> Client {
        let server = self.clone();
        Client::new(move |request| {
            let (server, identity) = (server.clone(), identity.clone());
            async move { Ok::<_, Infallible>(server.inside(request, identity).await) }
        })
    }
}
