//! What a process takes on.

use knoll_plan::{Rows, Settings};

/// What a process takes on: its controllers, and what they were told at start.
pub struct Role {
    /// The controllers.
    pub rows: Rows,
    /// What they were told at start.
    pub settings: Settings,
}

impl Role {
    /// Everything there is for these settings.
    pub fn everything(settings: Settings) -> Role {
        Role { rows: knoll_plan::rows(&settings), settings }
    }
}
