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
}
