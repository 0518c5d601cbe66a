//! The standard `process_*` families, read from `/proc` at every scrape.

use std::fs;

use super::bundle::{Kind, Spec};
use super::scrape::{FamilyScrape, Value};

/// Ticks per second of the times in `/proc/*/stat`: `USER_HZ`, which Linux fixes at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// The families that `/proc` can tell; one that cannot be read is left out.
#[must_use]
pub fn scrape_process() -> Vec<FamilyScrape> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (status, stat, boot, limits) =
        (read("/proc/self/status"), read("/proc/self/stat"), read("/proc/stat"), read("/proc/self/limits"));
    // The descriptor of the listing itself is not counted.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    let started =
        start_ticks(&stat).zip(boot_seconds(&boot)).map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
    let families = [
        ("process_cpu_seconds_total", "User and system CPU time spent.", Kind::Counter, cpu_seconds(&stat)),
        ("process_max_fds", "Open file descriptors allowed.", Kind::Gauge, max_fds(&limits)),
        ("process_open_fds", "Open file descriptors.", Kind::Gauge, open),
        ("process_resident_memory_bytes", "Memory in RAM.", Kind::Gauge, status_bytes(&status, "VmRSS:")),
        ("process_start_time_seconds", "Start of the process since the epoch.", Kind::Gauge, started),
        ("process_virtual_memory_bytes", "Address space.", Kind::Gauge, status_bytes(&status, "VmSize:")),
    ];
    let known = families.into_iter().filter_map(|(name, help, kind, value)| {
        value.map(|value| FamilyScrape::single(Spec { name, help, kind }, Value::Float(value)))
    });
    known.collect()
}

/// A `kB` line of `/proc/self/status`, in bytes.
pub(crate) fn status_bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_ticks(stat: &str) -> Option<f64> {
    stat_field(stat, 22)
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5).
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    // The name in field 2 may hold spaces and brackets: count from its last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 12345 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_ticks(stat), Some(12_345.0));
    }

    #[test]
    fn every_standard_family_is_found_on_this_kernel() {
        let families = scrape_process();
        let names: Vec<_> = families.iter().map(|family| family.spec.name).collect();
        assert_eq!(names.len(), 6, "{names:?}");
        for family in families {
            let Value::Float(value) = family.series[0].value else { panic!("not a float: {family:?}") };
            assert!(value >= 0.0);
            assert!(family.spec.name == "process_cpu_seconds_total" || value > 0.0, "{}", family.spec.name);
        }
    }
}
