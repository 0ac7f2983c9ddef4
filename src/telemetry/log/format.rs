//! The forms of a log line: the seed's JSON, and one for people.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::clock::Clock;
use crate::telemetry::untrusted::write_escaped;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object, members and order as in the seed, every member once.
    Json,
    /// For people, with date, time and offset.
    Plain,
    /// For people at a terminal, with the time of day.
    Console,
}

/// Writes every event as one line to each of its outputs.
///
/// The JSON line has, in this order: `@timestamp`, `@version`, `message`, `logger_name`,
/// `thread_name`, `severity`, `level_value`, `authenticatedUser`, `correlationId`, `eventId`, the
/// event's own members, `application`. `message` is composed: `eventId=<id> k=v, k=v,
/// message=<text>`; an event without `eventId` has its own text there. Every text is kept on one
/// line: control and bidi characters are escaped, and what passes 8192 characters is cut.
pub struct LogLayer {
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    outputs: Vec<(Format, Output)>,
}

type Output = Box<dyn Fn(&str) + Send + Sync>;

impl LogLayer {
    /// Makes a layer without outputs that writes the time of `clock` in `zone`.
    pub fn new(clock: Arc<dyn Clock>, zone: TimeZone) -> Self {
        Self {
            clock,
            zone,
            outputs: Vec::new(),
        }
    }

    /// Adds an output: `write` gets each line, without a line end.
    #[must_use]
    pub fn with_output(
        mut self,
        format: Format,
        write: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        self.outputs.push((format, Box::new(write)));
        self
    }
}

impl fmt::Debug for LogLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLayer").finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        let now = Timestamp::try_from(self.clock.now())
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .to_zoned(self.zone.clone());
        for (format, write) in &self.outputs {
            let line = match format {
                Format::Json => record.json(&now, event.metadata()),
                Format::Plain => record.plain(&now, DATE_TIME, event.metadata()),
                Format::Console => record.plain(&now, "%H:%M:%S%.3f", event.metadata()),
            };
            write(&line);
        }
    }
}

const DATE_TIME: &str = "%Y-%m-%dT%H:%M:%S%.3f%:z";

/// An event's members, in the order in which it gave them.
#[derive(Default)]
struct Record {
    user: Option<String>,
    correlation: Option<String>,
    event_id: Option<String>,
    members: Vec<(&'static str, Value)>,
    message: Option<String>,
}

impl Record {
    fn json(&self, now: &Zoned, metadata: &Metadata<'_>) -> String {
        let thread = std::thread::current();
        let ours = [
            (
                "@timestamp",
                Some(now.strftime(DATE_TIME).to_string().into()),
            ),
            ("@version", Some("1".into())),
            ("message", Some(self.composed().into())),
            ("logger_name", Some(metadata.target().into())),
            (
                "thread_name",
                Some(thread.name().unwrap_or("unnamed").into()),
            ),
            ("severity", Some(metadata.level().as_str().into())),
            ("level_value", Some(level_value(*metadata.level()).into())),
            ("authenticatedUser", self.user.clone().map(Value::from)),
            ("correlationId", self.correlation.clone().map(Value::from)),
            ("eventId", self.event_id.clone().map(Value::from)),
        ];
        let mut line = String::from("{");
        let mut taken = vec!["application".to_owned()];
        // Writing to a `String` cannot fail.
        for (name, value) in ours {
            if let Some(value) = value {
                let _ = write!(line, "\"{name}\":{value},");
            }
            taken.push(name.to_owned());
        }
        for (name, value) in &self.members {
            let mut free = (*name).to_owned();
            while taken.contains(&free) {
                free.push('_');
            }
            let _ = write!(line, "{}:{value},", Value::from(&*free));
            taken.push(free);
        }
        line + r#""application":"oneApplication"}"#
    }

    /// `eventId=<id> k=v, k=v, message=<text>`, or the bare text of an event that has no id.
    fn composed(&self) -> String {
        let Some(id) = &self.event_id else {
            return self.message.clone().unwrap_or_default();
        };
        let mut text = format!("eventId={id}");
        let mut before = " ";
        for (name, value) in &self.members {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{before}{name}={}", shown(value));
            before = ", ";
        }
        if let Some(message) = &self.message {
            let _ = write!(text, "{before}message={message}");
        }
        text
    }

    fn plain(&self, now: &Zoned, time: &str, metadata: &Metadata<'_>) -> String {
        let level = metadata.level().as_str();
        let source = match &self.event_id {
            Some(id) => id,
            None => metadata.target(),
        };
        let mut line = format!("{} {level:<5} {source:<17}", now.strftime(time));
        // Writing to a `String` cannot fail.
        if let Some(message) = &self.message {
            let _ = write!(line, " {message}");
        }
        for (name, value) in &self.members {
            let _ = write!(line, " {name}={}", shown(value));
        }
        if let Some(user) = &self.user {
            let _ = write!(line, " by={user}");
        }
        line
    }
}

impl Visit for Record {
    #[expect(clippy::use_debug, reason = "tracing hands out no other form")]
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = OneLine::default();
        // An error says that the text was cut.
        let _ = write!(text, "{value:?}");
        match field.name() {
            "message" => self.message = Some(text.0),
            "authenticatedUser" => self.user = Some(text.0),
            "correlationId" => self.correlation = Some(text.0),
            "eventId" => self.event_id = Some(text.0),
            name => self.members.push((name, text.0.into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.members.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.members.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.members.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.members.push((field.name(), value.into()));
    }
}

/// A text on one line, of bounded length.
#[derive(Default)]
struct OneLine(String);

const MAX_TEXT_BYTES: usize = 8192;

impl fmt::Write for OneLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() >= MAX_TEXT_BYTES {
                return Err(fmt::Error);
            }
            write_escaped(&mut self.0, c)?;
        }
        Ok(())
    }
}

/// Returns a value without JSON's quotes.
fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        value => Cow::Owned(value.to_string()),
    }
}

fn level_value(level: Level) -> u32 {
    // Logback's numbers.
    match level {
        Level::ERROR => 40_000,
        Level::WARN => 30_000,
        Level::INFO => 20_000,
        Level::DEBUG => 10_000,
        Level::TRACE => 5_000,
    }
}

#[cfg(test)]
mod tests;
