//! What connectors to AWS take: sources and sinks alike. What is absent has the value named here.

use serde::{Deserialize, Serialize};

/// Names a Secret of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// Where credentials are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthSecret {
    /// The Secret.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub ref_: Option<SecretReference>,
}

/// As whom a connector signs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectorAuth {
    /// A Secret with the keys `aws.accessKey` and `aws.secretKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<AuthSecret>,
    /// Key of the Secret that holds the access key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub access_key: String,
    /// Key of the Secret that holds the secret key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret_key: String,
    /// A ServiceAccount with a role in AWS; instead of a Secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
}

macro_rules! connector {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident $json:literal: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Region.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub region: Option<String>,
            /// Another endpoint.
            #[serde(default, rename = "uriEndpointOverride", skip_serializing_if = "Option::is_none")]
            pub uri_endpoint_override: Option<String>,
            /// Whether the other endpoint is used; `false`.
            #[serde(default, rename = "overrideEndpoint", skip_serializing_if = "Option::is_none")]
            pub override_endpoint: Option<bool>,
            $(
                $(#[$field_doc])*
                #[serde(default, rename = $json, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$ty>,
            )*
        }
    };
}

connector!(
    /// A bucket.
    AwsS3 {
        /// Name or ARN.
        arn "arn": String,
        /// Whether objects go once they were read; `true`.
        delete_after_read "deleteAfterRead": bool,
        /// Whether objects move once they were read; `false`.
        move_after_read "moveAfterRead": bool,
        /// Bucket that they move to.
        destination_bucket "destinationBucket": String,
        /// What their keys begin with there.
        destination_bucket_prefix "destinationBucketPrefix": String,
        /// What their keys end with there.
        destination_bucket_suffix "destinationBucketSuffix": String,
        /// Whether the bucket is made; `false`.
        auto_create_bucket "autoCreateBucket": bool,
        /// Only keys that begin so.
        prefix "prefix": String,
        /// Whether objects are not read; `false`.
        ignore_body "ignoreBody": bool,
        /// Whether the bucket's name stands in the path; `false`.
        force_path_style "forcePathStyle": bool,
        /// Milliseconds between two looks; 500.
        delay "delay": i64,
        /// Most objects in one look; 10.
        max_messages_per_poll "maxMessagesPerPoll": i64,
    }
);
connector!(
    /// A queue.
    AwsSqs {
        /// Name or ARN.
        arn "arn": String,
        /// Whether messages go once they were read; `true`.
        delete_after_read "deleteAfterRead": bool,
        /// Whether the queue is made; `false`.
        auto_create_queue "autoCreateQueue": bool,
        /// Host of AWS; `amazonaws.com`.
        host "host": String,
        /// `http` or `https`; `https`.
        protocol "protocol": String,
        /// URL of the queue.
        queue_url "queueURL": String,
        /// Whether the next look follows at once on messages; `false`.
        greedy "greedy": bool,
        /// Milliseconds between two looks; 500.
        delay "delay": i64,
        /// Most messages in one look, 1 to 10; 1.
        max_messages_per_poll "maxMessagesPerPoll": i64,
        /// Seconds that a look waits for messages.
        wait_time_seconds "waitTimeSeconds": i64,
        /// Seconds for which messages that were read are hidden from others.
        visibility_timeout "visibilityTimeout": i64,
    }
);
connector!(
    /// The changes of a table.
    AwsDdbStreams {
        /// The table.
        table "table": String,
        /// Where to begin; `FROM_LATEST`.
        stream_iterator_type "streamIteratorType": String,
        /// Milliseconds between two looks; 500.
        delay "delay": i64,
    }
);
connector!(
    /// A topic.
    AwsSns {
        /// Name or ARN.
        arn "arn": String,
        /// Whether the topic is made; `false`.
        auto_create_topic "autoCreateTopic": bool,
    }
);
