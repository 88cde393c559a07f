//! Free ports.

use std::net::TcpListener;

use crate::failure::{OrFail, Outcome};

/// How often a server is started anew when someone else took its port in the meantime.
pub(crate) const ATTEMPTS: usize = 3;

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free() -> Outcome<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .or_fail("no free port on 127.0.0.1", "see whether the loopback interface is up")
}
