//! The events of a change of a record, for the app.

use jiff::Timestamp;

use super::{record_view::ImageRecord, rules::Rules};
use crate::stores::{EventKind, NewEvent, Record};

/// The events of one change. `record` is the record after it. None, if the app gets no events, and none for images that
/// came through upload tokens.
pub(super) fn new_events(
    rules: &Rules,
    kinds: impl IntoIterator<Item = EventKind>,
    record: Record,
    at: Timestamp,
) -> Vec<NewEvent> {
    if !rules.sends_events || record.token.is_some() {
        return Vec::new();
    }
    let data: std::sync::Arc<str> = match serde_json::to_string(&ImageRecord::from(record)) {
        Ok(data) => data.into(),
        Err(error) => {
            tracing::error!(%error, "event not created");
            return Vec::new();
        }
    };
    let kinds = kinds.into_iter();
    let event = |kind| NewEvent {
        kind,
        at,
        data: data.clone(),
    };
    kinds.map(event).collect()
}
