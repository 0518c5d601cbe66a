//! Walks the events of a file and builds one outline per document.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::outline::{Outline, Value, push_index, push_key};

/// The deepest nesting of a document.
pub const MAX_DEPTH: usize = 64;
/// The most keys and values that are written in a document: a `kind: List` of 10,000 Services has some 700,000.
pub const MAX_NODES: usize = 2_000_000;
/// The most keys and values of a document that aliases stand for, each counted as often as it is used.
pub const MAX_ALIASED: usize = 200_000;
/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 32 << 20;
/// The most syntax errors of a file; what follows the last is not looked at.
const MAX_BREAKS: usize = 100;

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// What it says, and where.
    pub outline: Outline,
    /// What is wrong with it, although it is YAML: duplicate keys and the like.
    pub faults: Vec<Fault>,
}

/// Something wrong with the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable name.
    pub code: &'static str,
    /// The field, empty where there is none.
    pub field: String,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// A document that ends in a syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The error.
    pub fault: Fault,
    /// What else is wrong with it, as far as it was read.
    pub faults: Vec<Fault>,
    /// Its line, from 1.
    pub line: u32,
    /// Its text up to the next `---`, in bytes of the file.
    pub text: Range<usize>,
}

/// Splits a file into documents. After a syntax error reading goes on behind the next `---`; what stands between is broken.
#[must_use]
pub fn read(text: &str) -> (Vec<Document>, Vec<Broken>) {
    let whole = text;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut documents, mut broken) = (Vec::new(), Vec::new());
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_FILE_BYTES}", text.len());
        let fault = fault("file-too-large", (1, 1), message, "split it into several files");
        return (documents, vec![Broken { fault, faults: Vec::new(), line: 1, text: 0..whole.len() }]);
    }
    let skipped = whole.len() - text.len();
    let mut lines = Vec::new();
    let mut first = 1;
    loop {
        let from = lines.get(first - 1).copied().unwrap_or(0);
        let Err(stop) = read_part(text, (from, first), &mut documents) else { return (documents, broken) };
        if lines.is_empty() {
            lines = line_offsets(text);
        }
        let begin = lines.get(stop.first - 1).copied().unwrap_or(0);
        let is_separator = |line: &usize| {
            lines.get(*line - 1).and_then(|at| text.get(*at..)).is_some_and(|rest| rest.starts_with("---"))
        };
        let next = (stop.first + 1..=lines.len()).find(is_separator);
        let next = next.filter(|_| broken.len() + 1 < MAX_BREAKS);
        let end = next.and_then(|line| lines.get(line - 1).copied()).unwrap_or(text.len());
        let fault = match stop.fault {
            Ok(fault) => fault,
            Err((at, what)) => syntax_fault(text, &lines, at, &what),
        };
        let text = skipped + begin..skipped + end;
        broken.push(Broken { fault, faults: stop.faults, line: number(stop.first), text });
        match next {
            Some(line) => first = line,
            None => return (documents, broken),
        }
    }
}

/// Where reading stops.
struct Stop {
    /// What is wrong, or the place and the words of the parser.
    fault: Result<Fault, ((usize, usize), String)>,
    faults: Vec<Fault>,
    /// The first line of the document that it breaks.
    first: usize,
}

/// Reads the documents from a line on, up to the first syntax error.
#[allow(clippy::result_large_err, reason = "at most once for each syntax error of a file")]
fn read_part(text: &str, (from, first): (usize, usize), documents: &mut Vec<Document>) -> Result<(), Stop> {
    let fresh = || Builder { lines_before: first - 1, ..Builder::default() };
    let mut builder = fresh();
    let mut begin = first;
    for event in Parser::new_from_str(text.get(from..).unwrap_or_default()) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = (error.marker().line().max(1) + first - 1, error.marker().col());
                let fault = Err((at, error.info().to_owned()));
                return Err(Stop { fault, faults: builder.faults, first: begin });
            }
        };
        match event {
            Event::DocumentStart(_) => {
                begin = span.start.line().max(1) + first - 1;
                builder = fresh();
            }
            Event::DocumentEnd => {
                let done = std::mem::replace(&mut builder, fresh());
                if !done.is_blank() {
                    documents.push(Document { outline: done.outline, faults: done.faults });
                }
                begin = span.end.line().max(1) + first - 1;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
            node => {
                if let Err(fault) = builder.node(node, span.start) {
                    return Err(Stop { fault: Ok(fault), faults: builder.faults, first: begin });
                }
            }
        }
    }
    Ok(())
}

fn fault(code: &'static str, (line, column): (u32, u32), message: String, hint: impl Into<String>) -> Fault {
    Fault { code, field: String::new(), line, column, message, hint: hint.into() }
}

fn too_deep(at: (u32, u32)) -> Fault {
    let message = format!("is nested deeper than {MAX_DEPTH}");
    fault("too-deep", at, message, "no object needs this depth; check the brackets")
}

/// Where each line begins; a line ends as YAML ends it, with LF, CR LF or CR.
fn line_offsets(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter_map(|(at, byte)| match byte {
        b'\n' => Some(at + 1),
        b'\r' if bytes.get(at + 1) != Some(&b'\n') => Some(at + 1),
        _ => None,
    });
    std::iter::once(0).chain(ends).collect()
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn syntax_fault(text: &str, lines: &[usize], (line, column): (usize, usize), what: &str) -> Fault {
    let line_text = |line: usize| {
        let begin = lines.get(line.checked_sub(1)?)?;
        text.get(*begin..lines.get(line).copied().unwrap_or(text.len()))
    };
    let fence = [line, line.saturating_sub(1)]
        .into_iter()
        .find(|&line| line_text(line).is_some_and(|text| text.trim_start().starts_with("```")));
    if let Some(line) = fence {
        let message = "a markdown fence (```) stands in the YAML".to_owned();
        let hint = "delete the line; where a new object begins, write `---` instead";
        return fault("markdown-fence", (number(line), 1), message, hint);
    }
    let message = format!("is not YAML: {what}");
    let hint = if line_text(line).is_some_and(|text| text.trim_start_matches(' ').starts_with('\t')) {
        "indent with spaces; YAML allows no tabs there"
    } else {
        "check indentation, colons and quotes on this line and the one before"
    };
    fault("syntax", (number(line), number(column + 1)), message, hint)
}

/// Builds the outline of one document from its events.
#[derive(Default)]
struct Builder {
    outline: Outline,
    faults: Vec<Fault>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    /// Nodes so far, aliases expanded.
    size: usize,
    /// Those of them that aliases stand for.
    aliased: usize,
    /// Lines of the file before those that the parser counts.
    lines_before: usize,
}

/// A finished node with an anchor.
struct Anchored {
    node: usize,
    /// How many nodes it has, aliases expanded.
    size: usize,
    /// How deeply it is nested, aliases expanded.
    height: usize,
}

struct Open {
    node: usize,
    /// The height of the highest part so far.
    height: usize,
    anchor: usize,
    size_before: usize,
    /// For a mapping: the key whose value comes next, and the keys so far.
    key: Option<(Box<str>, usize)>,
    keys: HashSet<Box<str>>,
}

impl Builder {
    /// A document without content, as between two `---` lines.
    fn is_blank(&self) -> bool {
        match self.outline.value(Outline::ROOT) {
            None => true,
            Some(Value::Scalar(text, plain)) => *plain && matches!(&**text, "" | "~" | "null"),
            Some(_) => false,
        }
    }

    fn node(&mut self, event: Event<'_>, at: Marker) -> Result<(), Fault> {
        let (line, column) = (number(at.line().max(1) + self.lines_before), number(at.col() + 1));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_tag(tag.as_deref(), (line, column));
                self.grow(1, (line, column))?;
                let plain = style == ScalarStyle::Plain;
                if self.expects_key() {
                    self.key(&text, (line, column));
                    return Ok(());
                }
                let node = self.outline.push(line, column, Value::Scalar(text.into(), plain));
                self.anchor(anchor, Anchored { node, size: 1, height: 0 });
                self.attach(node);
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), (line, column));
                self.open(anchor, Value::Sequence(Vec::new()), (line, column))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), (line, column));
                self.open(anchor, Value::Mapping(Vec::new()), (line, column))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(done) = self.open.pop() {
                    let height = done.height + 1;
                    let size = self.size - done.size_before;
                    self.anchor(done.anchor, Anchored { node: done.node, size, height });
                    self.attach(done.node);
                    self.raise(height);
                }
            }
            Event::Alias(anchor) => {
                let Some(&Anchored { node, size, height }) = self.anchors.get(&anchor) else {
                    let message = "an alias stands inside of its own anchor".to_owned();
                    return Err(fault("recursive-alias", (line, column), message, "write the value out"));
                };
                if self.expects_key() {
                    let message = "a key is an alias".to_owned();
                    return Err(fault("key-not-scalar", (line, column), message, "write the key out"));
                }
                self.aliased = self.aliased.saturating_add(size);
                if self.aliased > MAX_ALIASED {
                    let message = format!("aliases stand for more than {MAX_ALIASED} keys and values");
                    let hint = "write fewer aliases";
                    return Err(fault("document-too-large", (line, column), message, hint));
                }
                self.grow(size, (line, column))?;
                if self.open.len() + height > MAX_DEPTH {
                    return Err(too_deep((line, column)));
                }
                self.attach(node);
                self.raise(height);
            }
            _ => {}
        }
        Ok(())
    }

    fn grow(&mut self, by: usize, at: (u32, u32)) -> Result<(), Fault> {
        self.size = self.size.saturating_add(by);
        if self.size > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} keys and values");
            return Err(fault("document-too-large", at, message, "split it into several documents or files"));
        }
        Ok(())
    }

    /// A tag changes how a value is read, which no field here wants.
    fn check_tag(&mut self, tag: Option<&saphyr_parser::Tag>, at: (u32, u32)) {
        if let Some(tag) = tag {
            let message = format!("has the YAML tag `{tag}`");
            let field = self.path();
            self.faults.push(Fault {
                field,
                ..fault("yaml-tag", at, message, "leave the tag out; quote the value for a string")
            });
        }
    }

    fn expects_key(&self) -> bool {
        self.open.last().is_some_and(|top| {
            top.key.is_none() && matches!(self.outline.value(top.node), Some(Value::Mapping(_)))
        })
    }

    fn key(&mut self, text: &str, (line, column): (u32, u32)) {
        let place = self.outline.push(line, column, Value::Scalar(Box::default(), true));
        let depth = self.open.len();
        let mut field = self.path();
        let Some(top) = self.open.last_mut() else { return };
        top.key = Some((text.into(), place));
        if top.keys.insert(text.into()) {
            return;
        }
        let (code, hint) = if depth == 1 && matches!(text, "apiVersion" | "kind" | "metadata" | "spec") {
            (
                "missing-separator",
                "a new object begins here: write a line `---` before its `apiVersion`".to_owned(),
            )
        } else {
            ("duplicate-key", format!("keep one `{text}`; of two, one would be lost in silence"))
        };
        push_key(&mut field, text);
        let message = format!("the key `{text}` stands twice in the same mapping");
        self.faults.push(Fault { field, ..fault(code, (line, column), message, hint) });
    }

    fn open(&mut self, anchor: usize, value: Value, at: (u32, u32)) -> Result<(), Fault> {
        if self.expects_key() {
            let message = "a key is a list or a mapping".to_owned();
            return Err(fault(
                "key-not-scalar",
                at,
                message,
                "write a plain word before the colon; quote text with braces",
            ));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        let size_before = self.size;
        self.grow(1, at)?;
        let node = self.outline.push(at.0, at.1, value);
        self.open.push(Open { node, height: 0, anchor, size_before, key: None, keys: HashSet::new() });
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, anchored: Anchored) {
        // 0 is "no anchor".
        if anchor != 0 {
            self.anchors.insert(anchor, anchored);
        }
    }

    fn raise(&mut self, height: usize) {
        if let Some(top) = self.open.last_mut() {
            top.height = top.height.max(height);
        }
    }

    fn attach(&mut self, node: usize) {
        let Some(top) = self.open.last_mut() else { return };
        let key = top.key.take();
        match (self.outline.value_mut(top.node), key) {
            (Some(Value::Sequence(items)), _) => items.push(node),
            (Some(Value::Mapping(entries)), Some((key, place))) => entries.push((key, place, node)),
            _ => {}
        }
    }

    /// The path of the innermost open collection.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match (self.outline.value(open.node), &open.key) {
                (Some(Value::Sequence(items)), _) => push_index(&mut path, items.len()),
                (Some(Value::Mapping(_)), Some((key, _))) => push_key(&mut path, key),
                _ => {}
            }
        }
        path
    }
}
