//! Where a call may go: https to public addresses, unless a host was named that is our own. A name is resolved once, what it
//! resolves to is looked at, and that is what the connection is made to: no second answer of a name server counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// Networks of IPv4 that are nobody's on the internet (IANA's special-purpose registry).
const NOT_PUBLIC_4: [([u8; 4], u8); 17] = [
    // Azure's own, of every machine there.
    ([168, 63, 129, 16], 32),
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([255, 255, 255, 255], 32),
];

/// Of IPv6's global unicast, 2000::/3, what is not anybody's or leads into IPv4: Teredo and others, documentation, 6to4.
const NOT_PUBLIC_6: [([u16; 2], u8); 4] =
    [([0x2001, 0], 23), ([0x2001, 0xdb8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

/// Whether an address is somebody's on the internet.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !NOT_PUBLIC_4.iter().any(|(network, length)| {
            Ipv4Net::new(Ipv4Addr::from(*network), *length).is_ok_and(|net| net.contains(&v4))
        }),
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let global = first & 0xe000 == 0x2000;
            global
                && !NOT_PUBLIC_6.iter().any(|([a, b], length)| {
                    let network = Ipv6Addr::new(*a, *b, 0, 0, 0, 0, 0, 0);
                    Ipv6Net::new(network, *length).is_ok_and(|net| net.contains(&v6))
                })
                && (first, second) != (0x64, 0xff9b)
        }
    }
}

/// Hosts that may be asked at an address of ours, and without TLS: `host` or `host:port`.
#[derive(Debug, Clone, Default)]
pub struct Private {
    /// By name.
    pub hosts: Arc<[String]>,
    /// Whether this machine itself is one: in dev mode.
    pub loopback: bool,
}

impl Private {
    /// Whether an address of a call may be asked.
    ///
    /// # Errors
    /// In words, why not.
    pub fn admits(&self, url: &Url) -> Result<(), String> {
        let refuse =
            |why: &str| Err(format!("{} {why}", url.host_str().unwrap_or("an address without a host")));
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("is written with a user");
        }
        let host = match url.host() {
            Some(host) if matches!(url.scheme(), "http" | "https") => host,
            _ => return refuse("is not asked by https"),
        };
        if self.names(&host, url.port_or_known_default().unwrap_or_default()) {
            return Ok(());
        }
        if url.scheme() != "https" {
            return refuse("is not asked by https");
        }
        let public = match host {
            // Named with another port: its private address is not for this one.
            Host::Domain(name) => !self.knows(name),
            Host::Ipv4(v4) => is_public(v4.into()),
            Host::Ipv6(v6) => is_public(v6.into()),
        };
        if public { Ok(()) } else { refuse("is not a public address") }
    }

    fn names(&self, host: &Host<&str>, port: u16) -> bool {
        let loopback = match host {
            Host::Domain(name) => *name == "localhost",
            Host::Ipv4(v4) => v4.is_loopback(),
            Host::Ipv6(v6) => v6.is_loopback(),
        };
        let name = host.to_string();
        (self.loopback && loopback)
            || self.hosts.iter().any(|known| *known == name || *known == format!("{name}:{port}"))
    }

    /// A name in the resolver, where the port is not known: what it may be asked at was decided by [`Private::admits`].
    fn knows(&self, name: &str) -> bool {
        (self.loopback && name == "localhost")
            || self
                .hosts
                .iter()
                .any(|known| known == name || known.rsplit_once(':').is_some_and(|(host, _)| host == name))
    }
}

/// Resolves names, and forgets every address that may not be asked.
#[derive(Debug, Clone)]
pub(super) struct Guarded(pub(super) Private);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.0.knows(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|at| private || is_public(at.ip())).collect();
            if allowed.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_somebodys_on_the_internet_is_public() {
        for public in ["1.1.1.1", "140.82.121.4", "192.0.3.1", "2606:4700::1111", "2a00:1450:4001:831::200e"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for inner in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "168.63.129.16",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
            "100::1",
        ] {
            assert!(!is_public(inner.parse().unwrap()), "{inner}");
        }
    }

    #[test]
    fn an_address_is_https_and_public_or_named() {
        let admits = |private: &Private, text: &str| private.admits(&Url::parse(text).unwrap()).is_ok();
        let nobody = Private::default();
        assert!(
            admits(&nobody, "https://accounts.example.com/x") && admits(&nobody, "https://1.1.1.1:8443/")
        );
        for inner in [
            "http://accounts.example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/",
            "https://user@accounts.example.com/",
            "https://:secret@accounts.example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
        ] {
            assert!(!admits(&nobody, inner), "{inner}");
        }
        let named = Private {
            hosts: Arc::from(["idp.internal:8443".to_owned(), "10.0.0.7".to_owned()]),
            loopback: false,
        };
        assert!(admits(&named, "http://idp.internal:8443/") && admits(&named, "https://10.0.0.7/"));
        assert!(!admits(&named, "https://idp.internal:9999/") && !admits(&named, "https://idp.internal/"));
        assert!(!admits(&named, "http://idp.internal/") && !admits(&named, "http://localhost/"));
        assert!(admits(&Private { loopback: true, ..Private::default() }, "http://localhost:9/"));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_has_no_address() {
        let of = |private: Private| async move {
            Guarded(private).resolve("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        assert!(of(Private::default()).await.is_err());
        assert!(of(Private { loopback: true, ..Private::default() }).await.is_ok_and(|count| count > 0));
    }
}
