//! `eventing-transformations-images`.

use crate::config::{ConfigError, Data};

const JSONATA: &str = "transform-jsonata";
/// The image that Eventing comes with.
const SHIPPED_JSONATA: &str =
    "gcr.io/knative-nightly/transform-jsonata@sha256:2ada8311bb8b38cef29fa8f04cdcc0f08f771a6b3042c61ff005e2cad0f094c9";

/// What the map says from the start.
pub(super) const SHIPPED: &[(&str, &str)] = &[(JSONATA, SHIPPED_JSONATA)];

/// Images of the programs that transform events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransformationImages {
    /// Of the one for expressions in JSONata.
    pub jsonata: String,
}

impl Default for TransformationImages {
    fn default() -> Self {
        TransformationImages { jsonata: SHIPPED_JSONATA.to_owned() }
    }
}

impl TransformationImages {
    /// Parses the map.
    ///
    /// # Errors
    /// When an image is empty.
    pub fn parse(data: &Data) -> Result<TransformationImages, ConfigError> {
        match data.get(JSONATA).map(|image| image.trim()) {
            None => Ok(TransformationImages::default()),
            Some("") => Err(ConfigError::value(
                JSONATA,
                "name an image, or leave the key out for the one that Eventing comes with",
            )),
            Some(image) => Ok(TransformationImages { jsonata: image.to_owned() }),
        }
    }
}
