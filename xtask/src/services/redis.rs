//! A Redis that remembers nothing.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, OrFail, Outcome};
use crate::parts::Parts;
use crate::services::household::Household;
use crate::services::port;

const REMEDY: &str = "mend what it names; Redis 7 is what we test against";

/// Starts it and returns its address.
pub(crate) fn start(house: &mut Household, parts: &Parts) -> Outcome<String> {
    let dir = house.dir().join("redis");
    let log = dir.join("log");
    std::fs::create_dir(&dir).or_fail(format!("cannot make {}", dir.display()), "make room in /tmp")?;
    for _ in 0..port::ATTEMPTS {
        let port = port::free()?;
        let mut command = Command::new(&parts.redis);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--save", "", "--appendonly", "no", "--logfile"])
            .arg(&log)
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::null());
        let server = house.adopt("Redis", "TERM", &mut command)?;
        if house.answers(&server, || pong(port).or_fail("no answer to PING", REMEDY))? {
            return Ok(format!("redis://127.0.0.1:{port}"));
        }
    }
    let words = std::fs::read_to_string(&log).unwrap_or_default();
    Err(Failure::new("Redis ends as soon as it starts", words.trim(), REMEDY))
}

/// Asks whether a Redis is there.
fn pong(port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let patience = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0_u8; 5];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG" { Ok(()) } else { Err(io::Error::other("something else than Redis answers")) }
}
