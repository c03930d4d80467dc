//! Host fields: an IPv4 or IPv6 address and an i32 port.

use std::net::{IpAddr, SocketAddr};

use crate::layout::{HOST_V4_LEN, HOST_V6_LEN};

/// The address as RocketMQ would store it: an IPv4 address in IPv6 clothes is an IPv4 address
/// (Java's `InetAddress` makes it one).
pub(crate) fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

/// Reads a host field of 8 or 20 bytes; `None` for other lengths. Of the stored i32 port the low
/// 16 bits count.
pub(crate) fn decode(field: &[u8]) -> Option<SocketAddr> {
    let (address, port) = field.split_last_chunk::<4>()?;
    let ip = if let Ok(v4) = <[u8; 4]>::try_from(address) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(address).ok()?)
    };
    Some(SocketAddr::new(ip, i32::from_be_bytes(*port) as u16))
}

/// The bytes of a host field, in a buffer that fits both kinds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HostField {
    V4([u8; HOST_V4_LEN]),
    V6([u8; HOST_V6_LEN]),
}

impl HostField {
    pub(crate) fn new(host: SocketAddr) -> Self {
        let port = i32::from(host.port()).to_be_bytes();
        match host.ip() {
            IpAddr::V4(ip) => {
                let mut field = [0; HOST_V4_LEN];
                let (address, tail) = field.split_at_mut(4);
                address.copy_from_slice(&ip.octets());
                tail.copy_from_slice(&port);
                Self::V4(field)
            }
            IpAddr::V6(ip) => {
                let mut field = [0; HOST_V6_LEN];
                let (address, tail) = field.split_at_mut(16);
                address.copy_from_slice(&ip.octets());
                tail.copy_from_slice(&port);
                Self::V6(field)
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(field) => field,
            Self::V6(field) => field,
        }
    }
}
