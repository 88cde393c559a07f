//! The program under measurement, as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Measured;
use crate::client::{Client, request};

/// A running server; killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) port: u16,
}

/// Somebody who is signed in.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) email: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

pub(crate) const PASSWORD: &str = "nine purple lanterns drift";

/// Where `cargo build --release` puts the program: beside this one.
pub(crate) fn binary() -> Measured<PathBuf> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let path = me.parent().unwrap_or(Path::new(".")).join("pearlgate");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: run `cargo build --release` first", path.display()))
    }
}

impl Program {
    /// Starts it in dev mode with its default settings on this data.
    pub(crate) fn start(data: &Path) -> Measured<Self> {
        let mut child = Command::new(binary()?)
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .env("PEARLGATE__LOG__LEVEL", "error")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        let mut out = BufReader::new(out);
        out.read_line(&mut line).map_err(|e| e.to_string())?;
        // The rest is read away, so that the program never waits for us.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(Self { child, port: port.ok_or_else(|| format!("it did not start: {line:?}"))? })
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> Measured<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .map_err(|e| e.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).ok_or_else(|| "no VmRSS".into())
    }

    /// Processor time so far, in seconds (100 ticks a second on Linux).
    pub(crate) fn cpu(&self) -> Measured<f64> {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).map_err(|e| e.to_string())?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / 100.0)
    }

    /// People with verified accounts, signed in.
    pub(crate) async fn people(&self, count: usize) -> Measured<Vec<Person>> {
        let mut client = Client::connect(self.port).await?;
        let mut people = Vec::new();
        for n in 0..count {
            let email = format!("bench{n}@example.com");
            let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
            let id = client
                .send(&request("POST", "/v1/auth/register", "", &body))
                .await?
                .text("/verification_id")?;
            let mut code = String::new();
            while code.is_empty() {
                let path = format!("/dev/v1/messages?to={email}");
                code = client
                    .send(&request("GET", &path, "", ""))
                    .await?
                    .text("/items/0/code")
                    .unwrap_or_default();
                tokio::task::yield_now().await;
            }
            let body = format!(r#"{{"verification_id":"{id}","code":"{code}"}}"#);
            let answer = client.send(&request("POST", "/v1/auth/verify-email", "", &body)).await?;
            people.push(Person {
                email,
                access: answer.text("/access_token")?,
                refresh: answer.text("/refresh_token")?,
            });
        }
        Ok(people)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
