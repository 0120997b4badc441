//! File descriptors. The gate raises its limit as far as the system allows, and reserves some for its own use, so that
//! clients cannot exhaust them.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything except connections of clients and calls to Imgwire: files, stores, the management
/// listener.
const RESERVED: u64 = 96;

const RESERVED_PER_WORKER: u64 = 12;

/// Raises the soft limit on open files to the hard limit, and returns it. `None` means unlimited.
pub(crate) fn raise_limit() -> Option<u64> {
    let limits = getrlimit(Resource::Nofile);
    let mut raised = limits;
    raised.current = limits.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limits.current,
    }
}

/// The numbers of connections and requests that fit into the limit on open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) connections: usize,
    /// Requests in progress. Each may call Imgwire.
    pub(crate) in_flight: u32,
}

impl Capacity {
    /// Reduces `wanted` to fit into `limit`. Connections take at most three quarters of what they share with requests,
    /// so that requests do not run out of descriptors.
    pub(crate) fn within(limit: Option<u64>, wanted: Self, workers: usize) -> Self {
        let Some(limit) = limit else { return wanted };
        let reserved = RESERVED + RESERVED_PER_WORKER * workers as u64;
        let left = limit.saturating_sub(reserved);
        let connections = (wanted.connections as u64).min(left / 4 * 3).max(1);
        let in_flight = left.saturating_sub(connections).max(1);
        Self {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            in_flight: u32::try_from(in_flight)
                .map_or(wanted.in_flight, |left| left.min(wanted.in_flight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_leaves_descriptors_for_calls_to_imgwire_and_for_the_gate_itself() {
        let capacity = |connections, in_flight| Capacity {
            connections,
            in_flight,
        };
        let wanted = capacity(10_000, 10_000);
        for (limit, fits) in [
            (None, wanted),
            (Some(u64::MAX), wanted),
            (Some(20_120), wanted),
            (Some(20_000), capacity(10_000, 9_880)),
            (Some(12_120), capacity(9_000, 3_000)),
            (Some(1_120), capacity(750, 250)),
            (Some(50), capacity(1, 1)),
        ] {
            assert_eq!(Capacity::within(limit, wanted, 2), fits, "{limit:?}");
        }
        let few = capacity(10_000, 100);
        assert_eq!(Capacity::within(Some(1_120), few, 2), capacity(750, 100));
    }
}
