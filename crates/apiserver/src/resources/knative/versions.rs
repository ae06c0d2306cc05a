//! Between the stored form and the other versions of Knative's kinds.

use std::future::ready;

use futures_util::future::BoxFuture;
use knoll_api::{Kind, conversion};
use serde_json::Value;

use super::Conversion;
use crate::status::Status;

macro_rules! between {
    ($($(#[$doc:meta])* $name:ident: $kind:ident $version:literal;)*) => {
        $(
            $(#[$doc])*
            pub(super) const $name: Conversion = {
                fn read(object: &mut Value) -> BoxFuture<'_, Result<(), Status>> {
                    conversion::read(Kind::$kind, $version, object);
                    Box::pin(ready(Ok(())))
                }
                fn write(object: &mut Value) -> BoxFuture<'_, Result<(), Status>> {
                    conversion::write(Kind::$kind, $version, object);
                    Box::pin(ready(Ok(())))
                }
                Conversion { read, write }
            };
        )*
    };
}

between! {
    /// `eventing.knative.dev/v1beta3` EventType.
    EVENT_TYPE_V1BETA3: EventType "v1beta3";
    /// `eventing.knative.dev/v1beta1` EventType.
    EVENT_TYPE_V1BETA1: EventType "v1beta1";
    /// `sources.knative.dev/v1beta2` PingSource.
    PING_SOURCE_V1BETA2: PingSource "v1beta2";
}
