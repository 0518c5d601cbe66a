//! How an event becomes a line.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::telemetry::timestamp::Timestamps;

/// `2026-11-21T10:00:00.123456Z<tab>info<tab>scope<tab>message<tab>key=value`.
#[derive(Debug, Default)]
pub(super) struct Text {
    clock: Clock,
}

/// `{"level":"info","time":"...","scope":"...","msg":"...","key":"value"}`.
#[derive(Debug, Default)]
pub(super) struct Json {
    clock: Clock,
}

#[derive(Debug, Default)]
struct Clock(Mutex<Timestamps>);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let time = self.clock.now();
        write!(writer, "{time}\t{}\t{}\t", level(*meta.level()), meta.target())?;
        write!(Escaping(&mut writer), "{}", fields.message)?;
        for (index, (name, value)) in fields.others.iter().enumerate() {
            let mark = if index == 0 { '\t' } else { ' ' };
            write!(writer, "{mark}{name}=")?;
            write!(Escaping(&mut writer), "{}", value.text())?;
        }
        writeln!(writer)
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        let mut line = serde_json::Map::new();
        // Fields first, so that none can take the place of what is always there.
        for (name, value) in fields.others {
            line.insert(name.to_owned(), value.into());
        }
        let fixed = [
            ("level", level(*meta.level()).to_owned()),
            ("time", self.clock.now()),
            ("scope", meta.target().to_owned()),
            ("msg", fields.message),
        ];
        for (name, value) in fixed.into_iter().rev() {
            line.shift_insert(0, name.to_owned(), value.into());
        }
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

impl Clock {
    fn now(&self) -> String {
        let mut out = Vec::with_capacity(27);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_micros(SystemTime::now(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Istio's names of levels.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// An event's message and other fields.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Recorded)>,
}

#[derive(Debug)]
enum Recorded {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Recorded::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Recorded::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Recorded::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Recorded::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Recorded::Bool(value));
    }
}

impl Fields {
    fn push(&mut self, field: &Field, value: Recorded) {
        if field.name() == "message" {
            self.message = value.text();
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Recorded {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Signed(number) => number.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
        }
    }
}

impl From<Recorded> for serde_json::Value {
    fn from(value: Recorded) -> Self {
        match value {
            Recorded::Text(text) => text.into(),
            Recorded::Signed(number) => number.into(),
            Recorded::Unsigned(number) => number.into(),
            Recorded::Bool(flag) => flag.into(),
        }
    }
}

/// Shows control characters as `\u{a}`: a value from outside must not begin a line or move the cursor.
struct Escaping<'a, 'w>(&'a mut Writer<'w>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            let (plain, tail) = rest.split_at(at);
            let mut chars = tail.chars();
            self.0.write_str(plain)?;
            chars.next().map_or(Ok(()), |c| write!(self.0, "{}", c.escape_unicode()))?;
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}
