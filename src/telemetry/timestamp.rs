//! UTC timestamps without a calendar library.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes `2026-11-21T10:00:00.123Z`, working the date out once per second.
#[derive(Debug, Default)]
pub struct Timestamps {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Timestamps {
    /// Appends `time` in UTC with milliseconds. A time before 1970 is shown as 1970.
    pub fn write_millis(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = since_epoch(time);
        self.write_second(since.as_secs(), out);
        let millis = since.subsec_millis();
        let digit = |value: u32| b'0' + (value % 10) as u8;
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }

    /// Appends `time` in UTC with microseconds, as the proxy's own log shows it.
    pub fn write_micros(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = since_epoch(time);
        self.write_second(since.as_secs(), out);
        out.push(b'.');
        push_padded(u64::from(since.subsec_micros()), 6, out);
        out.push(b'Z');
    }

    /// Appends `time` in UTC with nanoseconds (RFC 3339).
    pub fn write_nanos(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let since = since_epoch(time);
        self.write_second(since.as_secs(), out);
        out.push(b'.');
        push_padded(u64::from(since.subsec_nanos()), 9, out);
        out.push(b'Z');
    }

    fn write_second(&mut self, second: u64, out: &mut Vec<u8>) {
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            Civil::at(second).write_iso(&mut self.text);
        }
        out.extend_from_slice(&self.text);
    }
}

/// A second of the Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
    /// Days since 1970-01-01, a Thursday.
    pub(crate) days: u64,
}

impl Civil {
    /// The calendar second `seconds` after the epoch.
    pub(crate) fn at(seconds: u64) -> Self {
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Years counted from 1 March 0000, so that the leap day is the last of its year.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            days,
        }
    }

    fn write_iso(&self, out: &mut Vec<u8>) {
        push_padded(self.year, 4, out);
        for (mark, value) in [
            (b'-', self.month),
            (b'-', self.day),
            (b'T', self.hour),
            (b':', self.minute),
            (b':', self.second),
        ] {
            out.push(mark);
            push_padded(value, 2, out);
        }
    }
}

/// Time since 1970; zero for anything earlier.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Appends `value` in decimal, with zeros in front up to `width` digits.
pub(crate) fn push_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(seconds: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        Timestamps::default().write_millis(UNIX_EPOCH + Duration::new(seconds, nanos), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_instants_are_written_in_utc() {
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_400, 5_000_000), "2000-02-29T00:00:00.005Z");
        assert_eq!(text(1_795_255_200, 123_999_999), "2026-11-21T10:00:00.123Z");
        assert_eq!(text(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn the_cached_second_is_replaced_when_time_moves_on_or_back() {
        let mut stamps = Timestamps::default();
        for second in [10, 10, 11, 9] {
            let mut out = Vec::new();
            stamps.write_micros(UNIX_EPOCH + Duration::from_secs(second), &mut out);
            assert_eq!(out, format!("1970-01-01T00:00:{second:02}.000000Z").into_bytes());
        }
    }

    proptest! {
        #[test]
        fn days_count_up_one_by_one(day in 0_u64..100_000) {
            let (today, tomorrow) = (Civil::at(day * 86_400), Civil::at((day + 1) * 86_400));
            let next_day = (tomorrow.year, tomorrow.month, tomorrow.day) == (today.year, today.month, today.day + 1);
            let next_month = (tomorrow.year, tomorrow.month, tomorrow.day) == (today.year, today.month + 1, 1) && today.day >= 28;
            let next_year = (tomorrow.year, tomorrow.month, tomorrow.day) == (today.year + 1, 1, 1)
                && (today.month, today.day) == (12, 31);
            prop_assert!(next_day || next_month || next_year);
        }
    }
}
