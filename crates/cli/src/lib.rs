//! The command line: what `knoll` takes, and the commands that speak to a running instance.
//!
//! Links no server crate, so that it cannot rely on anything another client could not see.

pub mod admin;
pub mod arguments;
pub mod down;
pub mod event;
pub mod exit;
pub mod image;
pub mod instance;

pub use arguments::{
    ApiArguments, ApiSockets, Arguments, BrokerArguments, Command, ControllerArguments, GatewayArguments,
    GatewaySockets, ImageRules, NodeArguments, RoleArguments, UpArguments,
};
pub use exit::Exit;
