//! What background work on records has in common.

use crate::{imgwire::TraceContext, telemetry::RequestId};

/// The context of calls to Imgwire that no request asks for. The id connects their log lines.
pub(super) fn context() -> TraceContext {
    TraceContext {
        request_id: RequestId::generate(),
        parent: None,
        state: None,
    }
}
