use proptest::prelude::*;

use super::{Base64, Duration, IntOrString, Quantity, Timestamp};
use crate::mesh::Word;

fn duration(text: &str) -> Option<u128> {
    text.parse::<Duration>().ok().map(|d| d.0.as_millis())
}

#[test]
fn durations_are_read_as_go_reads_them() {
    assert_eq!(duration("500ms"), Some(500));
    assert_eq!(duration("3s"), Some(3_000));
    assert_eq!(duration("1h30m"), Some(5_400_000));
    assert_eq!(duration("1.5s"), Some(1_500));
    assert_eq!(duration(".5s"), Some(500));
    assert_eq!(duration("0"), Some(0));
    for wrong in ["", "3", "s", "-1s", "1x", "1..5s", "1.s.", "s3", "99999999999h"] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
}

#[test]
fn a_wrong_duration_says_how_to_write_one() {
    let error = serde_yaml::from_str::<Duration>("3 seconds").unwrap_err().to_string();
    assert!(error.contains("`3 seconds`") && error.contains("`500ms`"), "{error}");
}

#[test]
fn byte_counts_are_read_in_both_systems() {
    for (text, bytes) in [("4096", 4096), ("64Ki", 65_536), ("10M", 10_000_000), ("1Gi", 1 << 30)] {
        assert_eq!(serde_yaml::from_str::<Quantity>(text).unwrap(), Quantity(bytes));
    }
    for wrong in ["-1", "1.5Gi", "Ki", "1 Ki", "99999999999Ti"] {
        assert!(wrong.parse::<Quantity>().is_err(), "{wrong}");
    }
}

#[test]
fn times_are_compared_across_offsets() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert_eq!(at("2026-01-02T03:04:05Z"), at("2026-01-02T04:04:05+01:00"));
    assert!(at("2026-01-02T03:04:05.1Z") > at("2026-01-02T03:04:05.09Z"));
    assert_eq!(at("1970-01-01T00:00:00Z").seconds(), 0);
    assert_eq!(at("2000-03-01T00:00:00Z").seconds(), 951_868_800);
    for wrong in [
        "",
        "2026-01-02",
        "2026-13-02T03:04:05Z",
        "2026-02-30T03:04:05Z",
        "2026-01-02T03:04:05",
        "é026-01-02T03:04:05Z",
    ] {
        assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
    }
}

#[test]
fn ports_are_numbers_or_names() {
    assert_eq!(serde_yaml::from_str::<IntOrString>("80").unwrap(), IntOrString::Number(80));
    assert_eq!(serde_yaml::from_str::<IntOrString>("'80'").unwrap(), IntOrString::Number(80));
    assert_eq!(serde_yaml::from_str::<IntOrString>("http").unwrap(), IntOrString::Name(Word("http".into())));
    assert!(serde_yaml::from_str::<IntOrString>("70000").is_err());
}

#[test]
fn base64_is_read_with_and_without_padding() {
    for text in ["aGVsbG8=", "aGVsbG8"] {
        assert_eq!(serde_yaml::from_str::<Base64>(text).unwrap().0, b"hello");
    }
    assert!(serde_yaml::from_str::<Base64>("'a b'").is_err());
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(nanoseconds: u64, bytes: u64, seconds in -62_135_596_800_i64..253_402_300_800, raw: Vec<u8>) {
        let duration = Duration(std::time::Duration::from_nanos(nanoseconds));
        prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
        prop_assert_eq!(Quantity(bytes).to_string().parse::<Quantity>().unwrap(), Quantity(bytes));
        let time = Timestamp::new(seconds, 120_000_000);
        prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        let yaml = serde_yaml::to_string(&Base64(raw.clone())).unwrap();
        prop_assert_eq!(serde_yaml::from_str::<Base64>(&yaml).unwrap().0, raw);
    }

    #[test]
    fn no_text_makes_a_scalar_panic(text: String) {
        let _ = (text.parse::<Duration>(), text.parse::<Quantity>(), text.parse::<Timestamp>());
    }
}
