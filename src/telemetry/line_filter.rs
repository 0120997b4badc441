//! Which lines are written.

use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest,
};
use tracing_subscriber::{EnvFilter, Layer, layer::Context};

use super::decision;

/// A filter as `RUST_LOG` writes one, with or without the power over the lines that tell of decisions.
pub(super) struct LineFilter {
    /// Which lines are wanted.
    pub(super) wanted: EnvFilter,
    /// Whether decisions are written, whatever is wanted: they are the record of who was given what.
    pub(super) keeps_decisions: bool,
}

impl LineFilter {
    fn keeps(&self, line: &Metadata<'_>) -> bool {
        self.keeps_decisions && line.target() == decision::TARGET && *line.level() <= Level::INFO
    }
}

impl<S: Subscriber> Layer<S> for LineFilter {
    fn register_callsite(&self, line: &'static Metadata<'static>) -> Interest {
        if self.keeps(line) {
            Interest::always()
        } else {
            Layer::<S>::register_callsite(&self.wanted, line)
        }
    }

    fn enabled(&self, line: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.keeps(line) || self.wanted.enabled(line, context)
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        self.keeps(event.metadata()) || Layer::<S>::event_enabled(&self.wanted, event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let wanted = self.wanted.max_level_hint()?;
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
        self.wanted.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        self.wanted.on_record(id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        self.wanted.on_enter(id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        self.wanted.on_exit(id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        self.wanted.on_close(id, context);
    }
}
