use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::decode;
use crate::config::spans::{Outline, read};

fn value<T: DeserializeOwned>(yaml: &str) -> Result<T, (String, String)> {
    let (documents, fault) = read(yaml);
    assert_eq!(fault, [], "{yaml}");
    decode(&documents[0].outline, Outline::ROOT).map_err(|error| (error.field(""), error.to_string()))
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Sample {
    text: Option<String>,
    port: u16,
    ratio: Option<f64>,
    flag: bool,
    list: Vec<String>,
    map: BTreeMap<String, u8>,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    #[default]
    Off,
    On,
    Level(u8),
}

#[test]
fn scalars_are_read_as_the_core_schema_says() {
    for (yaml, json) in [
        ("a: 1", "1"),
        ("a: -7", "-7"),
        ("a: 0x1F", "31"),
        ("a: 0o17", "15"),
        ("a: 010", "\"010\""),
        ("a: 1.10", "1.1"),
        ("a: '1.10'", "\"1.10\""),
        ("a: 1e3", "1000.0"),
        ("a: yes", "\"yes\""),
        ("a: True", "true"),
        ("a: ~", "null"),
        ("a:", "null"),
        ("a: \"null\"", "\"null\""),
        ("a: +-1", "\"+-1\""),
        ("a: infinity", "\"infinity\""),
        ("a: 12:30", "\"12:30\""),
        ("a: 18446744073709551615", "18446744073709551615"),
        ("a: |\n  x\n  y\n", "\"x\\ny\\n\""),
    ] {
        let found: serde_json::Value = value(yaml).unwrap();
        assert_eq!(found["a"].to_string(), json, "{yaml}");
    }
}

#[test]
fn a_text_takes_any_scalar_as_it_was_written() {
    let found: BTreeMap<String, String> = value("a: 1.10\nb: yes\nc: 0x1F\nd: \"\"\n").unwrap();
    assert_eq!(found.into_values().collect::<Vec<_>>(), ["1.10", "yes", "0x1F", ""]);
}

#[test]
fn a_null_says_nothing() {
    assert_eq!(value("text: null\nlist: ~\nmap:\n"), Ok(Sample::default()));
    assert_eq!(value::<Sample>("a: b").unwrap(), Sample::default());
}

#[test]
fn variants_are_names_or_hold_something() {
    let mode = |yaml| value::<Sample>(yaml).map(|sample| sample.mode);
    assert_eq!(mode("mode: ON"), Ok(Mode::On));
    assert_eq!(mode("mode: {LEVEL: 3}"), Ok(Mode::Level(3)));
    assert_eq!(mode("mode: {LEVEL: x}").unwrap_err().0, "mode.LEVEL");
    assert!(mode("mode: LEVEL").unwrap_err().1.contains("needs a value"));
    assert!(mode("mode: {ON: 1}").unwrap_err().1.contains("takes no value"));
}

#[test]
fn an_error_names_the_field() {
    for (yaml, field, message) in [
        ("port: 70000", "port", "expected u16"),
        ("port: -1", "port", "expected u16"),
        ("port: '80'", "port", "expected u16"),
        ("flag: yes", "flag", "expected a boolean"),
        ("list: [a, {b: c}]", "list[1]", "expected a string"),
        ("list: a", "list", "expected a sequence"),
        ("map: {\"a.b\": 300}", "map[\"a.b\"]", "expected u8"),
        ("[1]", "", "expected struct"),
        ("mode: ODD", "mode", "unknown variant"),
    ] {
        let (at, why) = value::<Sample>(yaml).unwrap_err();
        assert_eq!(at, field, "{yaml}");
        assert!(why.contains(message), "{yaml}: {why}");
    }
}

#[test]
fn an_alias_is_what_it_stands_for() {
    let found: serde_json::Value = value("a: &x {b: [1, 2]}\nc: *x\n").unwrap();
    assert_eq!(found["a"], found["c"]);
}

proptest! {
    // The reader of before, which another project wrote: where both read a document, they read the same.
    #[test]
    fn values_are_those_of_another_reader(pieces in proptest::collection::vec(
        prop_oneof![
            Just("1"), Just("-0x10"), Just("0o7"), Just("0b11"), Just("00"), Just("1.5"), Just("-.5"), Just("1e5"), Just(".inf"), Just("null"), Just("~"),
            Just("''"), Just("'a'"), Just("\"b\\n\""), Just("true"), Just("no"), Just("[1, x]"), Just("{k: v}"), Just("a b"), Just("2026-01-02"), Just("+1"),
            Just("1_000"), Just("0x"), Just("-"), Just("1."), Just("NaN"), Just("é"),
        ],
        1..6,
    )) {
        let yaml: String = pieces.iter().enumerate().map(|(at, piece)| format!("k{at}: {piece}\n")).collect();
        if let Ok(other) = serde_yaml::from_str::<serde_json::Value>(&yaml) {
            let (documents, fault) = read(&yaml);
            prop_assert!(fault.is_empty(), "{yaml}: {fault:?}");
            let ours: serde_json::Value = decode(&documents[0].outline, Outline::ROOT).unwrap();
            prop_assert_eq!(ours, other, "{}", yaml);
        }
    }
}
