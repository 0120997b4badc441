//! `log = "text"`: one short line per event for people, with colours on a terminal.

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use anstyle::{AnsiColor, Style};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// The width of the column of messages.
const MESSAGE_WIDTH: usize = 16;

/// `2026-01-01T00:00:00.000000Z WARN  config warning    warning="..."`
pub(super) struct TextFormat {
    has_colours: bool,
}

impl TextFormat {
    /// With colours if standard error is a terminal, unless `NO_COLOR` (no-color.org) says otherwise.
    pub(super) fn of_stderr() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self {
            has_colours: io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
        }
    }

    fn style(&self, style: Style) -> Style {
        if self.has_colours {
            style
        } else {
            Style::new()
        }
    }

    fn write(&self, event: &Event<'_>, line: &mut impl fmt::Write) -> fmt::Result {
        let mut fields = Fields {
            name: self.style(Style::new().dimmed()),
            message: String::new(),
            text: String::new(),
        };
        event.record(&mut fields);
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        let colour = self.style(colour(*level));
        write!(line, " {colour}{level:<5}{colour:#} ")?;
        let (message, is_own) = match fields.message.as_str() {
            // Decisions have no message.
            "" => (target, true),
            message => (
                message,
                !target.contains("::") || target.starts_with("imgwire_gate"),
            ),
        };
        let bold = self.style(Style::new().bold());
        write!(
            line,
            "{bold}{message:<MESSAGE_WIDTH$}{bold:#}{}",
            fields.text
        )?;
        if !is_own {
            let name = fields.name;
            write!(line, " {name}target={name:#}{target}")?;
        }
        writeln!(line)
    }
}

impl<S, N> FormatEvent<S, N> for TextFormat
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        self.write(event, &mut writer)
    }
}

fn colour(level: Level) -> Style {
    let colour = match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        Level::DEBUG => AnsiColor::Blue,
        Level::TRACE => AnsiColor::Magenta,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// Collects the fields of an event, and its message.
struct Fields {
    /// The style of names.
    name: Style,
    message: String,
    text: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_escaped(&mut self.message, value);
            return;
        }
        let name = self.name;
        // Writing to a String cannot fail.
        let _ = write!(self.text, " {name}{field}={name:#}");
        if needs_quotes(value) {
            self.text.push('"');
            push_escaped(&mut self.text, value);
            self.text.push('"');
        } else {
            self.text.push_str(value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Whether a value could be taken for something else: for several values, or for another field.
fn needs_quotes(value: &str) -> bool {
    let is_plain = |character: char| {
        character.is_ascii_graphic() && !['"', '\\'].contains(&character)
            || character.is_alphanumeric()
    };
    value.is_empty() || !value.chars().all(is_plain)
}

/// Escapes what could end the quotes or the line, or change the terminal.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\'' => text.push(character),
            character => text.extend(character.escape_debug()),
        }
    }
}
