//! Deletes the counters of windows that are long over: page by page, between the commits.

use std::{sync::Arc, time::Duration};

use policies::Clock;

use super::database::{Database, Name};
use crate::stores::retention::Cleaning;

/// What was done, and when to go on.
pub(super) struct Cleanup {
    cleaning: Cleaning,
    /// The last row that was looked at, in a pass that is not over.
    after: Option<Name>,
}

impl Cleanup {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            cleaning: Cleaning::new(clock),
            after: None,
        }
    }

    /// How long there is nothing to do.
    pub(super) fn due_in(&self) -> Duration {
        self.cleaning.due_in()
    }

    /// Does the next page.
    pub(super) fn go_on(&mut self, database: &Database) -> rusqlite::Result<()> {
        self.after = database.delete_old(self.after.take(), self.cleaning.now())?;
        self.cleaning.did_page(self.after.is_none());
        Ok(())
    }

    /// Begins again in an hour.
    pub(super) fn put_off(&mut self) {
        self.after = None;
        self.cleaning.did_page(true);
    }
}
