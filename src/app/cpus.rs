//! How many processors the container may use.

/// The CPU limit of the container, rounded up; without one, the processors that the process may run on. At least 1.
pub(super) fn available() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| quota(&text));
    limit.map_or(processors, |limit| limit.clamp(1, processors))
}

/// `max 100000` or `150000 100000`: quota and period in microseconds (cgroup v2).
fn quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::quota;

    #[test]
    fn a_quota_is_rounded_up_and_max_is_none() {
        assert_eq!(quota("150000 100000\n"), Some(2));
        assert_eq!(quota("max 100000\n"), None);
        assert_eq!(quota("1 0"), None);
    }
}
