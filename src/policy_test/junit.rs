//! The report as JUnit's XML, which CI systems read.

use super::report::Report;
use std::fmt::Write;

/// The report as JUnit's XML.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing into a String does not fail.
    let _ = writeln!(
        xml,
        "<testsuites tests=\"{}\" failures=\"{}\">\n<testsuite name=\"policies\" tests=\"{0}\" failures=\"{1}\">",
        report.tests.len(),
        report.failed()
    );
    for test in &report.tests {
        let (name, file) = (escaped(&test.name), escaped(&test.file));
        let _ = write!(xml, "<testcase name=\"{name}\" classname=\"{file}\"");
        if test.failures.is_empty() {
            xml.push_str("/>\n");
            continue;
        }
        xml.push_str(">\n");
        for failure in &test.failures {
            let message = format!("{}: expected {}, is {}", failure.field, failure.expected, failure.actual);
            let text = format!("{} ({})\n{}", failure.workload, test.place, failure.explanation);
            let _ = writeln!(xml, "<failure message=\"{}\">{}</failure>", escaped(&message), escaped(&text));
        }
        xml.push_str("</testcase>\n");
    }
    xml.push_str("</testsuite>\n</testsuites>\n");
    xml
}

/// Text for content and attributes. What XML 1.0 cannot hold at all becomes the replacement character.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // In an attribute they would be read as spaces.
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
