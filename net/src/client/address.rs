//! Where to connect: a socket address, or a name that the driver resolves whenever it connects.
//!
//! Off the data path of a node.
//! Invariant: a name is kept as it was told, so that a node that moved to another machine is found under it.
//! It resolves nothing by itself.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

/// Where a shard listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Socket(SocketAddr),
    /// `host:port`.
    Name(Arc<str>),
}

impl Address {
    /// Reads `host:port`; `None`: it is nothing that can be connected to.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        (is_host && port.parse::<u16>().is_ok()).then(|| Self::Name(text.into()))
    }

    /// The socket address; asks the system's resolver for a name, which blocks.
    ///
    /// # Errors
    /// The name has no address now.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Socket(address) => Ok(*address),
            Self::Name(name) => name.to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::NotFound.into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(out),
            Self::Name(name) => name.fmt(out),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_told_apart() {
        let socket = |text: &str| Some(Address::Socket(text.parse().unwrap()));
        for text in ["10.0.0.1:7100", "[::1]:7100"] {
            assert_eq!(Address::parse(text), socket(text));
        }
        let name = Address::parse("db-1.example:7100").unwrap();
        assert_eq!((name.to_string().as_str(), matches!(name, Address::Name(_))), ("db-1.example:7100", true));
        for text in ["", ":", ":7100", "db", "db:", "db:70000", "db one:1", "a:b:1", "db:-1"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_resolved_when_asked() {
        let resolved = Address::parse("localhost:7100").unwrap().resolve().unwrap();
        assert!(resolved.ip().is_loopback() && resolved.port() == 7_100);
        assert!(Address::parse("no-such-host.invalid:1").unwrap().resolve().is_err());
    }
}
