//! Who is calling: the peer, or what a declared proxy says. A forwarded header from anybody else means nothing.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The networks whose forwarded headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<IpNet>);

/// The client's address, IPv4-mapped IPv6 written as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
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
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !self.contains(client) {
                break;
            }
        }
        ClientAddress(client)
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
        assert_eq!(client("10.1.1.1", &["a"]), "10.1.1.1", "nonsense is the proxy's");
        assert_eq!(client("10.1.1.1", &["1.2.3.4, a"]), "10.1.1.1");
        assert_eq!(client("10.1.1.1", &[]), "10.1.1.1");
        assert_eq!(
            client("::ffff:127.0.0.1", &["::ffff:192.0.2.9"]),
            "192.0.2.9",
            "mapped addresses are IPv4"
        );
    }
}
