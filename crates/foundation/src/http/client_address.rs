//! Who is calling: the peer, or what a declared proxy says. A forwarded header from anybody else means nothing.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::kernel::Timestamp;

/// The networks whose forwarded headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<IpNet>);

/// The client's address, IPv4-mapped IPv6 written as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Where whatever comes from inside comes from: a job, a command. It is written down as no address at all.
    pub const NOWHERE: Self = Self(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));

    /// The network that limits count by: an IPv4 address, or the 64 bits of IPv6 that one customer has at least.
    pub fn network(&self) -> IpNet {
        let bits = if self.0.is_ipv4() { 32 } else { 64 };
        IpNet::new(self.0, bits).map_or(IpNet::from(self.0), |net| net.trunc())
    }
}

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Proxies {
    /// From `10.0.0.0/8`, `::1` and the like.
    ///
    /// # Errors
    /// The first text that is neither a network nor an address.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                format!("holds {text:?}, which is neither a network such as 10.0.0.0/8 nor an address")
            })
        };
        texts.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether this address is one of a declared proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of whoever made the request: from the right of `X-Forwarded-For`, the first that is not a
    /// declared proxy. Anything unreadable in the header counts as the proxy that sent it, never as "nobody"
    /// (authentik CVE-2024-47070).
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return ClientAddress(client);
        }
        let values = headers.get_all("x-forwarded-for");
        let mut hops: Vec<&str> = Vec::new();
        for value in &values {
            hops.extend(value.to_str().unwrap_or("?").split(','));
        }
        for hop in hops.into_iter().rev() {
            let Some(address) = address_of(hop.trim()) else { break };
            client = address.to_canonical();
            if !self.contains(client) {
                break;
            }
        }
        ClientAddress(client)
    }
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    plain.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
}

/// So many requests are looked at before anything is said.
const LOOKED_AT: u32 = 200;
/// So many addresses behind the one have to be told of.
const SEVERAL: usize = 3;
/// How often it is said again.
const AGAIN: Duration = Duration::from_secs(3600);

/// Notices that everybody comes from one address which says that it forwards for others, and which nobody declared: limits
/// by network then stop everybody together.
#[derive(Debug, Default)]
pub struct OneForAll(Mutex<Looked>);

#[derive(Debug, Default)]
struct Looked {
    peer: Option<IpAddr>,
    requests: u32,
    others: u32,
    forwarded: u32,
    told_of: Vec<u64>,
    said_at: Option<Timestamp>,
}

impl OneForAll {
    /// Notes a request; gives the one address when it is time to say something.
    pub fn note(
        &self,
        proxies: &Proxies,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Option<IpAddr> {
        let peer = peer.to_canonical();
        if proxies.contains(peer) {
            return None;
        }
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.peer.is_none() {
            looked.peer = Some(peer);
        } else if looked.peer != Some(peer) {
            // Some come by themselves: a probe now and then says nothing, one in twenty says that there is no one for all.
            looked.others += 1;
            if looked.others > LOOKED_AT / 20 {
                *looked = Looked { said_at: looked.said_at, ..Looked::default() };
            }
            return None;
        }
        looked.requests += 1;
        if let Some(value) = headers.get("x-forwarded-for").or_else(|| headers.get("forwarded")) {
            looked.forwarded += 1;
            let mut hasher = DefaultHasher::new();
            value.as_bytes().hash(&mut hasher);
            let value = hasher.finish();
            if looked.told_of.len() < SEVERAL && !looked.told_of.contains(&value) {
                looked.told_of.push(value);
            }
        }
        if looked.requests < LOOKED_AT {
            return None;
        }
        let one = looked.told_of.len() >= SEVERAL && looked.forwarded * 2 >= looked.requests;
        let due = looked.said_at.is_none_or(|said| now >= said + AGAIN || now < said);
        let said_at = if one && due { Some(now) } else { looked.said_at };
        *looked = Looked { said_at, ..Looked::default() };
        (one && due).then_some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::parse(&["10.0.0.0/8".into(), "127.0.0.1".into()]).unwrap();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn cve_2024_47070_only_declared_proxies_are_believed_and_nonsense_changes_nothing() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1", "an undeclared peer");
        assert_eq!(client("10.1.1.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            client("10.1.1.1", &["1.2.3.4, 198.51.100.7, 10.9.9.9"]),
            "198.51.100.7",
            "the client's own words stand left"
        );
        assert_eq!(
            client("10.1.1.1", &["1.2.3.4", "198.51.100.7"]),
            "198.51.100.7",
            "two headers are one list"
        );
        for with_port in ["198.51.100.7:4711", "[198.51.100.7]"] {
            assert_eq!(client("10.1.1.1", &[with_port]), "198.51.100.7");
        }
        assert_eq!(client("10.1.1.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.1.1.1", &["a"]), "10.1.1.1", "nonsense is the proxy's");
        assert_eq!(client("10.1.1.1", &["1.2.3.4, a"]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(
            client("::ffff:127.0.0.1", &["::ffff:192.0.2.9"]),
            "192.0.2.9",
            "mapped addresses are IPv4"
        );
    }

    #[test]
    fn cve_2026_45364_one_network_of_ipv6_is_one_client() {
        let network = |text: &str| ClientAddress(text.parse().unwrap()).network().to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(network("2001:db8:1:2::"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:3::"), network("2001:db8:1:2::"));
        assert_eq!(network("192.0.2.7"), "192.0.2.7/32");
    }

    #[test]
    fn one_address_for_all_is_noticed_and_said_once_an_hour() {
        let (one, none) = (&OneForAll::default(), &Proxies::default());
        let (peer, at) = ("10.0.0.1".parse().unwrap(), Timestamp::from_micros);
        let said = |now: i64, several: bool| {
            (0..1_000_u32).filter(move |n| {
                let mut headers = HeaderMap::new();
                let place = if several { n % 50 } else { 1 };
                headers.insert("x-forwarded-for", format!("192.0.2.{place}").parse().unwrap());
                one.note(none, peer, &headers, at(now)).is_some()
            })
        };
        assert_eq!(said(0, false).count(), 0, "one client behind it may be all there is");
        assert_eq!(said(0, true).count(), 1);
        assert_eq!(said(3_599_000_000, true).count(), 0);
        assert_eq!(said(3_600_000_000, true).count(), 1);
        // Whoever comes by themselves shows that it is not one for all, whatever one of them says.
        let other = OneForAll::default();
        let stranger = "192.0.2.99".parse().unwrap();
        for n in 0..2_000_u32 {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", format!("192.0.2.{}", n % 50).parse().unwrap());
            assert_eq!(other.note(none, peer, &headers, at(0)), None);
            if n % 10 == 0 {
                assert_eq!(other.note(none, stranger, &HeaderMap::new(), at(0)), None);
            }
        }
        let declared = Proxies::parse(&["10.0.0.0/8".into()]).unwrap();
        for n in 0..500_u32 {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", format!("192.0.2.{}", n % 50).parse().unwrap());
            assert_eq!(other.note(&declared, peer, &headers, at(0)), None);
        }
    }
}
