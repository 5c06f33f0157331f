//! What the limits per source count by.

use std::net::IpAddr;

/// What the limits per source count by: see [`PerSource`](crate::admission::PerSource).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Source(u64);

impl Source {
    /// The source that an address belongs to.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // No IPv6 /64 in use begins with 32 zero bits and is not this: ::/32 is reserved (RFC 4291).
            IpAddr::V4(ip) => Self(u64::from(ip.to_bits())),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}
