//! The `knoll` program: reads its arguments and does what they say.

mod admin;
mod allocator;
mod components;
mod detach;
mod doctor;
mod failure;
mod kept;
mod kubeconfig;
mod links;
mod log_file;
mod logging;
mod machine;
mod notify;
mod paths;
mod ports;
mod private;
mod reset;
mod revoke;
mod roles;
mod store;
mod supervise;
mod up;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use knoll_apiserver::resources::portable_definitions;
use knoll_cli::{Arguments, Command, Exit, admin as look, down, event, image};
use serde_json::json;

use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not errors.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            return if error.print().is_ok() { exit.into() } else { Exit::System.into() };
        }
    };
    match run(arguments.command) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => {
            eprintln!("knoll: {failure}");
            failure.exit.into()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    if serves(&command) {
        knoll_container::launch::outlive_memory_shortage();
        // What the caller's shell has left open is not to stay open for as long as this runs.
        knoll_container::launch::close_inherited().map_err(|e| Failure::io("close inherited files", &e))?;
    }
    match command {
        // The monitor forks: it must run before any other thread does.
        Command::Monitor { options } => components::monitor::serve(&options),
        Command::Up(arguments) if arguments.detach => detach::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
        Command::Api(arguments) => roles::api::run(&arguments),
        Command::Controller(arguments) => roles::controller::run(&arguments),
        Command::Autoscaler(arguments) => roles::autoscaler::run(&arguments),
        Command::Gateway(arguments) => roles::gateway::run(&arguments),
        Command::Broker(arguments) => roles::broker::run(&arguments),
        Command::Node(arguments) => roles::node::run(&arguments),
        Command::Crds => {
            let all = json!({"apiVersion": "v1", "kind": "List", "items": portable_definitions()});
            writeln!(std::io::stdout(), "{all:#}").map_err(|e| Failure::io("print the definitions", &e))
        }
        Command::Down(arguments) => down::run(&arguments).map_err(|e| Failure::new(Exit::Unavailable, &e)),
        Command::Doctor(data) => doctor::run(&data.data_dir),
        Command::Reset(arguments) => reset::run(&arguments),
        Command::Revoke(data) => revoke::run(&data.data_dir),
        Command::Admin(arguments) => {
            print!("{}", look::run(&arguments).map_err(|e| Failure::new(Exit::Failure, &e))?);
            Ok(())
        }
        Command::Event(arguments) => {
            let mut out = std::io::stdout().lock();
            event::run(&arguments, jiff::Timestamp::now(), &mut out).map_err(|e| Failure::new(event::exit_of(&e), &e))
        }
        Command::Store(arguments) => store::run(&arguments),
        Command::Image(arguments) => {
            let lines = image::run(&arguments).map_err(|e| Failure::new(Exit::Failure, &e))?;
            lines.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
    }
}

/// Whether it goes on for as long as the instance does. The monitor sees to itself.
fn serves(command: &Command) -> bool {
    matches!(
        command,
        Command::Up(_)
            | Command::Api(_)
            | Command::Controller(_)
            | Command::Autoscaler(_)
            | Command::Gateway(_)
            | Command::Broker(_)
            | Command::Node(_)
    )
}
