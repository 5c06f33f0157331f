//! What the limits per source count by.

use std::net::IpAddr;
use std::num::NonZeroU64;

/// What the limits per source count by: see [`PerSource`](crate::admission::PerSource).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Source(NonZeroU64);

impl Source {
    /// The source that an address belongs to.
    pub fn of(ip: IpAddr) -> Self {
        let bits = match ip.to_canonical() {
            // No IPv6 /64 in use is one of these: 0:1::/32 is reserved, as all of ::/8 is (RFC 4291).
            IpAddr::V4(ip) => 1 << 32 | u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        // The loopback address ::1 is in ::/64, and nobody in ::1:0:0:0:0/64.
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}
