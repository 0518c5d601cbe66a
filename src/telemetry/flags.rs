//! Envoy's response flags: why a response is not what the upstream would have sent.

/// A set of Envoy response flags, as `%RESPONSE_FLAGS%` and the `response_flags` label show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $short:literal, $doc:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
        }
        /// Every flag with its short name, in the order Envoy prints them.
        const NAMES: &[(ResponseFlags, &str)] = &[$((ResponseFlags::$name, $short)),*];
    };
}

flags! {
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "The local service failed its health check.";
    NO_HEALTHY_UPSTREAM = 1, "UH", "No healthy endpoint in the cluster.";
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "The upstream did not answer in time.";
    LOCAL_RESET = 3, "LR", "The stream was reset by us.";
    UPSTREAM_REMOTE_RESET = 4, "UR", "The stream was reset by the upstream.";
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "No connection to the upstream could be made.";
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "The upstream closed the connection.";
    UPSTREAM_OVERFLOW = 7, "UO", "A circuit breaker's limit was reached.";
    NO_ROUTE = 8, "NR", "No route matches.";
    DELAY_INJECTED = 9, "DI", "A delay was injected.";
    FAULT_INJECTED = 10, "FI", "An abort was injected.";
    RATE_LIMITED = 11, "RL", "A rate limit refused the request.";
    UNAUTHORIZED_EXTERNAL = 12, "UAEX", "Authorization refused the request.";
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "The rate-limit service failed.";
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "The caller closed the connection.";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "Retries or connect attempts are used up.";
    STREAM_IDLE_TIMEOUT = 16, "SI", "The stream was idle for too long.";
    INVALID_HEADER = 17, "IH", "A strictly checked header has an invalid value.";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "The caller broke the protocol.";
    MAX_STREAM_DURATION = 19, "UMSDR", "The request reached its longest duration.";
    FROM_CACHE = 20, "RFCF", "The response came from a cache.";
    NO_FILTER_CONFIG = 21, "NFCF", "A filter's configuration was not received in time.";
    DURATION_TIMEOUT = 22, "DT", "The connection reached its longest duration.";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "The upstream broke the protocol.";
    NO_CLUSTER = 24, "NC", "The route's cluster does not exist.";
    OVERLOAD = 25, "OM", "The proxy is overloaded.";
    DNS_FAILURE = 26, "DF", "The upstream's name did not resolve.";
    DROP_OVERLOAD = 27, "DO", "Dropped by a drop policy of the cluster.";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "The stream was reset by the caller.";
}

impl ResponseFlags {
    /// No flag: shown as `-`.
    pub const NONE: Self = Self(0);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Appends the short names, joined by commas; `-` for none.
    pub fn write(self, out: &mut Vec<u8>) {
        if self.is_empty() {
            out.push(b'-');
            return;
        }
        let mut first = true;
        for (_, name) in NAMES.iter().filter(|(flag, _)| self.contains(*flag)) {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(name.as_bytes());
        }
    }
}

impl std::fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let names = NAMES.iter().filter(|(flag, _)| self.contains(*flag));
        names.enumerate().try_for_each(|(index, (_, name))| {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_a_dash_and_two_are_joined_by_a_comma() {
        let both =
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        for (flags, text) in [(ResponseFlags::NONE, "-"), (ResponseFlags::NO_ROUTE, "NR"), (both, "UF,URX")] {
            let mut out = Vec::new();
            flags.write(&mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(flags.to_string(), text);
        }
    }

    #[test]
    fn every_flag_has_a_bit_of_its_own() {
        let all = NAMES.iter().fold(0_u32, |seen, (flag, name)| {
            assert_eq!(seen & flag.0, 0, "{name} shares its bit");
            seen | flag.0
        });
        assert_eq!(all.count_ones() as usize, NAMES.len());
    }
}
