//! Streams both ways inside an upgraded connection.

pub(crate) mod channels;
pub(crate) mod web_socket;
