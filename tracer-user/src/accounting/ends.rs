//! The ends of a connection, as one of them has them.

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
};

/// A keyed hash of the local, then the remote address, as IPv4 where it is IPv4. Each socket has one,
/// and the addresses themselves would take eight times as much. Among 100,000 ends two are taken for
/// one another in one of 3.7 billion tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends(u64);

#[derive(Debug, Default)]
pub(super) struct EndsHasher(RandomState);

impl EndsHasher {
    pub(super) fn ends(&self, local: SocketAddr, remote: SocketAddr) -> Ends {
        Ends(self.0.hash_one((canonical(local), canonical(remote))))
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_by_both_addresses_their_order_and_no_family() {
        let hasher = EndsHasher::default();
        let ends = |local: &str, remote: &str| {
            let [local, remote] = [local, remote].map(|it| it.parse().expect("an address"));
            hasher.ends(local, remote)
        };
        let known = ends("10.0.0.1:40000", "10.0.0.2:6379");
        assert_eq!(
            known,
            ends("[::ffff:10.0.0.1]:40000", "[::ffff:10.0.0.2]:6379")
        );
        for (local, remote) in [
            ("10.0.0.2:6379", "10.0.0.1:40000"),
            ("10.0.0.1:40001", "10.0.0.2:6379"),
            ("10.0.0.1:40000", "10.0.0.3:6379"),
        ] {
            assert_ne!(known, ends(local, remote));
        }
    }
}
