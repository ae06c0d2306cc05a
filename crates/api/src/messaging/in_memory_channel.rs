//! InMemoryChannel: the channel that comes with Eventing. The name is upstream's; here events are on disk.

use crate::{
    duck::{ChannelableSpec, ChannelableStatus},
    object::resource,
};

resource!(
    /// `messaging.knative.dev/v1` InMemoryChannel.
    InMemoryChannel, ChannelableSpec, ChannelableStatus
);
