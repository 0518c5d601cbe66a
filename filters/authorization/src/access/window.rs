//! Hours of the wall clock of a zone: `Mon-Fri 08:00-18:00 Europe/Berlin`.

use super::settings::{Day, Within};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A window that comes back with the days of the week.
///
/// It is compared with what a clock on the wall shows. An hour that summer time leaves out is in no window, one that winter time repeats is in it
/// twice. A window over midnight belongs to the day on which it begins.
#[derive(Debug)]
pub(crate) struct Window {
    /// One bit for each day, Monday first.
    days: u8,
    /// Minutes after midnight; the first that is in it.
    from: u16,
    /// The first that is not; up to [`MIDNIGHT`].
    to: u16,
    zone: TimeZone,
    zone_name: Box<str>,
}

/// The end of a day, in minutes.
const MIDNIGHT: u16 = 24 * 60;
const EVERY_DAY: u8 = 0b111_1111;
const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

/// What is wrong with a window: the field, what about it, and what to write.
pub(crate) type Wrong = (&'static str, String, &'static str);

impl Window {
    /// Reads a window as it was written.
    pub(crate) fn new(written: &Within) -> Result<Self, Wrong> {
        let time = |field, text: &Option<String>, absent, most| match text {
            None => Ok(absent),
            Some(text) => minutes(text).filter(|minutes| *minutes <= most).ok_or_else(|| {
                (field, format!("`{text}` is no time of day"), "write hours and minutes, as in \"08:00\"")
            }),
        };
        let from = time("from", &written.from, 0, MIDNIGHT - 1)?;
        let to = time("to", &written.to, MIDNIGHT, MIDNIGHT)?;
        if from == to {
            let hint = "leave both out for the whole day";
            return Err(("to", format!("is `from`: nothing lies between {} and itself", clock(from)), hint));
        }
        let zone_name = written.zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(zone_name).map_err(|_| {
            let hint = "write a name of the IANA database, as in `Europe/Berlin`, or `UTC`";
            ("zone", format!("`{zone_name}` is no time zone"), hint)
        })?;
        let days = written.days.iter().fold(0, |days, day| days | 1 << *day as u8);
        let days = if days == 0 { EVERY_DAY } else { days };
        Ok(Self { days, from, to, zone, zone_name: zone_name.into() })
    }

    /// Whether it is open.
    pub(crate) fn holds(&self, now: SystemTime) -> bool {
        self.wall(now).is_some_and(|wall| self.is_open(&wall))
    }

    /// What the clock on the wall shows: `Sat 09:12 Europe/Berlin`.
    pub(crate) fn shown(&self, now: SystemTime) -> String {
        match self.wall(now) {
            None => "a time that no calendar has".to_owned(),
            Some(wall) => {
                let day = DAYS.get(day(&wall)).copied().unwrap_or(Day::Mon);
                format!("{day:?} {:02}:{:02} {}", wall.hour(), wall.minute(), self.zone_name)
            }
        }
    }

    fn wall(&self, now: SystemTime) -> Option<DateTime> {
        let seconds = match now.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).ok()?,
            Err(before) => i64::try_from(before.duration().as_secs()).ok()?.checked_neg()?,
        };
        Some(self.zone.to_datetime(Timestamp::from_second(seconds).ok()?))
    }

    pub(super) fn is_open(&self, wall: &DateTime) -> bool {
        let today = day(wall);
        let begins = |day: usize| self.days & (1 << day) != 0;
        let minute = u16::from(wall.hour().unsigned_abs()) * 60 + u16::from(wall.minute().unsigned_abs());
        if self.from < self.to {
            return begins(today) && (self.from..self.to).contains(&minute);
        }
        (begins(today) && minute >= self.from) || (begins((today + 6) % 7) && minute < self.to)
    }
}

/// Monday is 0.
fn day(wall: &DateTime) -> usize {
    usize::from(wall.weekday().to_monday_zero_offset().unsigned_abs())
}

/// `HH:MM`, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60).then_some(hours * 60 + minutes).filter(|all| *all <= MIDNIGHT)
}

fn clock(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            let days = DAYS.iter().filter(|day| self.days & (1 << **day as u8) != 0);
            for (at, day) in days.enumerate() {
                write!(f, "{}{day:?}", if at == 0 { "" } else { ", " })?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}-{} {}", clock(self.from), clock(self.to), self.zone_name)
    }
}

#[cfg(test)]
mod tests;
