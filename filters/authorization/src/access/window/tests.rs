#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::Window;
use crate::access::{Day, Within};
use jiff::civil::DateTime;
use jiff::{Span, Zoned};
use proptest::prelude::*;
use std::time::SystemTime;

const DAYS: [Day; 7] = super::DAYS;

fn window(days: &[Day], from: &str, to: &str, zone: &str) -> Window {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let written = Within { days: days.to_vec(), from: text(from), to: text(to), zone: text(zone) };
    Window::new(&written).unwrap()
}

/// `2026-03-29T02:30:00+01:00[Europe/Berlin]` and the like.
fn at(text: &str) -> SystemTime {
    text.parse::<Zoned>().unwrap().timestamp().into()
}

fn office() -> Window {
    window(&[Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri], "08:00", "18:00", "Europe/Berlin")
}

#[test]
fn office_hours_are_those_of_their_zone() {
    let office = office();
    for (time, open) in [
        ("2026-11-20T07:59:59[Europe/Berlin]", false),
        ("2026-11-20T08:00:00[Europe/Berlin]", true),
        ("2026-11-20T17:59:59[Europe/Berlin]", true),
        ("2026-11-20T18:00:00[Europe/Berlin]", false),
        // A Saturday.
        ("2026-11-21T12:00:00[Europe/Berlin]", false),
        // Friday 07:30 in New York is 13:30 in Berlin; 13:00 is 19:00.
        ("2026-11-20T07:30:00[America/New_York]", true),
        ("2026-11-20T13:00:00[America/New_York]", false),
    ] {
        assert_eq!(office.holds(at(time)), open, "{time}");
    }
    assert_eq!(office.to_string(), "Mon, Tue, Wed, Thu, Fri 08:00-18:00 Europe/Berlin");
    assert_eq!(office.shown(at("2026-11-21T09:12:00[Europe/Berlin]")), "Sat 09:12 Europe/Berlin");
}

#[test]
fn a_window_follows_summer_time() {
    let office = office();
    // 06:30 UTC is 07:30 in winter and 08:30 in summer.
    assert!(!office.holds(at("2026-03-27T06:30:00[UTC]")));
    assert!(office.holds(at("2026-03-30T06:30:00[UTC]")));
    let night = window(&[Day::Sun], "02:00", "03:00", "Europe/Berlin");
    // On 2026-03-29 this hour is left out, on 2026-10-25 it comes twice.
    let before = at("2026-03-29T01:59:59[Europe/Berlin]");
    assert!(!night.holds(before) && !night.holds(before + std::time::Duration::from_secs(1)));
    assert!(night.holds(at("2026-10-25T02:30:00+02:00[Europe/Berlin]")));
    assert!(night.holds(at("2026-10-25T02:30:00+01:00[Europe/Berlin]")));
    assert!(!night.holds(at("2026-10-25T03:00:00+01:00[Europe/Berlin]")));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let night = window(&[Day::Fri], "22:00", "06:00", "");
    for (time, open) in [
        ("2026-11-20T21:59:59[UTC]", false),
        ("2026-11-20T22:00:00[UTC]", true),
        ("2026-11-21T05:59:59[UTC]", true),
        ("2026-11-21T06:00:00[UTC]", false),
        // The night that began on Thursday, and the one that begins on Saturday.
        ("2026-11-20T03:00:00[UTC]", false),
        ("2026-11-21T23:00:00[UTC]", false),
    ] {
        assert_eq!(night.holds(at(time)), open, "{time}");
    }
    let sunday = window(&[Day::Sun], "23:00", "01:00", "");
    assert!(sunday.holds(at("2026-11-23T00:30:00[UTC]")), "the week begins anew");
}

#[test]
fn what_is_no_window_is_refused_with_what_to_write() {
    let wrong = |from: &str, to: &str, zone: &str| {
        let text = |text: &str| Some(text.to_owned());
        let written = Within { from: text(from), to: text(to), zone: text(zone), ..Within::default() };
        let (field, message, _) = Window::new(&written).unwrap_err();
        (field, message)
    };
    for from in ["8:00", "08.00", "24:00", "25:00", "08:60", "+8:00", "", "08:00:00"] {
        assert_eq!(wrong(from, "18:00", "UTC").0, "from", "{from}");
    }
    assert_eq!(wrong("08:00", "24:01", "UTC").0, "to");
    assert_eq!(
        wrong("08:00", "08:00", "UTC"),
        ("to", "is `from`: nothing lies between 08:00 and itself".into())
    );
    for zone in ["Berlin", "CEST+2", "", "../UTC"] {
        assert_eq!(wrong("08:00", "18:00", zone).0, "zone", "{zone}");
    }
    assert!(window(&[], "08:00", "24:00", "").holds(at("2026-11-20T23:59:59[UTC]")));
}

proptest! {
    /// The same as asking of each day whether a window that begins on it holds, by the calendar.
    #[test]
    fn a_window_is_open_as_the_calendar_says(
        seconds in 1_700_000_000_u64..1_900_000_000,
        days in prop::sample::subsequence(DAYS.to_vec(), 1..=7),
        from in 0_u16..1440,
        to in 1_u16..=1440,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    ) {
        prop_assume!(from != to);
        let window = window(&days, &super::clock(from), &super::clock(to), zone);
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let wall: DateTime = Zoned::try_from(now).unwrap().in_tz(zone).unwrap().datetime();
        let open = [0_i64, 1].into_iter().any(|back| {
            let day = wall.date().checked_sub(Span::new().days(back)).unwrap();
            let begins = days.contains(&DAYS[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap()]);
            let start = day.to_datetime(jiff::civil::Time::midnight());
            let over = if to > from { i64::from(to) } else { i64::from(to) + 1440 };
            let minute = |minutes| start.checked_add(Span::new().minutes(minutes)).unwrap();
            begins && wall >= minute(i64::from(from)) && wall < minute(over)
        });
        prop_assert_eq!(window.holds(now), open, "{} at {}", window, wall);
    }
}
