//! The filter of log lines.

use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter,
    layer::{Context, Filter},
};

/// The target of decision lines.
pub(crate) const DECISION: &str = "decision";

/// A filter in the syntax of `RUST_LOG`.
pub(super) struct LineFilter {
    pub(super) wanted: EnvFilter,
    /// Whether decision lines are always written, because they record who received a token.
    pub(super) keeps_decisions: bool,
}

impl LineFilter {
    fn keeps(&self, line: &Metadata<'_>) -> bool {
        self.keeps_decisions && line.target() == DECISION && *line.level() <= Level::INFO
    }
}

impl<S: Subscriber> Filter<S> for LineFilter {
    fn callsite_enabled(&self, line: &'static Metadata<'static>) -> Interest {
        if self.keeps(line) {
            Interest::always()
        } else {
            Filter::<S>::callsite_enabled(&self.wanted, line)
        }
    }

    fn enabled(&self, line: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.keeps(line) || Filter::enabled(&self.wanted, line, context)
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        self.keeps(event.metadata()) || Filter::event_enabled(&self.wanted, event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let wanted = Filter::<S>::max_level_hint(&self.wanted)?;
        Some(if self.keeps_decisions {
            wanted.max(LevelFilter::INFO)
        } else {
            wanted
        })
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        Filter::on_new_span(&self.wanted, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.wanted, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_enter(&self.wanted, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_exit(&self.wanted, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::on_close(&self.wanted, id, context);
    }
}
