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
    /// Where `/metrics` is.
    internal: u16,
}

/// Somebody who is signed in.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) email: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
    /// What makes the bench a known device: who signs in again and again is not told of it each time.
    pub(crate) device: String,
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

/// Limits that are counted and never reached: all load comes from one address. Caps of mails cannot be so wide, and are
/// off; the lockout reports.
const WIDE: [Setting; 22] = [
    ("limits.sign_in.count", "1000000"),
    ("limits.sign_in.per", "1s"),
    ("limits.sign_in_network.count", "1000000"),
    ("limits.sign_in_network.per", "1s"),
    ("limits.sign_in_everybody.count", "1000000"),
    ("limits.sign_in_everybody.per", "1s"),
    ("limits.registration_network.count", "1000000"),
    ("limits.registration_network.per", "1s"),
    ("limits.mail_network.count", "1000000"),
    ("limits.mail_network.per", "1s"),
    ("limits.proof_network.count", "1000000"),
    ("limits.proof_network.per", "1s"),
    ("limits.refresh.count", "1000000"),
    ("limits.refresh.per", "1s"),
    ("limits.reauthentication.count", "1000000"),
    ("limits.reauthentication.per", "1s"),
    ("limits.mails.mode", "off"),
    ("limits.history.per_day", "1000000000"),
    ("alarms.at_least", "1000000"),
    ("alarms.accounts_per_network", "1000000"),
    ("alarms.accounts_per_password", "1000000"),
    ("lockout.mode", "report"),
];

/// `pearlgate serve` with what all measures have in common.
fn command() -> Measured<Command> {
    let mut command = Command::new(binary()?);
    command.envs(variables(&WIDE));
    command.arg("serve").env("PEARLGATE__LOG__LEVEL", "error").env("PEARLGATE__PASSWORDS__BREACH__URL", "");
    Ok(command)
}

/// A setting as the settings file calls it, and its value.
pub(crate) type Setting = (&'static str, &'static str);

/// Settings as the environment spells them.
fn variables(settings: &[Setting]) -> impl Iterator<Item = (String, &'static str)> {
    settings
        .iter()
        .map(|(key, value)| (format!("PEARLGATE__{}", key.to_uppercase().replace('.', "__")), *value))
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn memory(pid: u32, what: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(what))?.split_whitespace().next()?.parse().ok()
}

/// The request that signs somebody in on the device that they had before.
pub(crate) fn sign_in(person: &Person, password: &str) -> Vec<u8> {
    let Person { email, device, .. } = person;
    let body = format!(r#"{{"email":"{email}","password":"{password}","device_token":"{device}"}}"#);
    request("POST", "/v1/auth/login", "", &body)
}

/// The request that signs somebody in, of whom only the address is known.
pub(crate) fn login(email: &str, password: &str) -> Vec<u8> {
    let body = format!(r#"{{"email":"{email}","password":"{password}"}}"#);
    request("POST", "/v1/auth/login", "", &body)
}

impl Program {
    /// Starts it in dev mode with its default settings on this data; it asks nobody about breached passwords, which
    /// would be a call to the world outside.
    pub(crate) fn start(data: &Path) -> Measured<Self> {
        Self::dev_with(data, &[])
    }

    /// The same with settings over the default ones, such as `("hashing.memory_kib", "1024")`.
    pub(crate) fn dev_with(data: &Path, settings: &[Setting]) -> Measured<Self> {
        let mut command = command()?;
        command.arg("--dev").envs(variables(settings));
        Self::spawn(&mut command, data, None)
    }

    /// The same on a PostgreSQL database.
    pub(crate) fn on_postgres(data: &Path, url: &str) -> Measured<Self> {
        let mut command = command()?;
        command.arg("--dev").env("PEARLGATE__DATABASE__URL", url);
        Self::spawn(&mut command, data, None)
    }

    /// Starts it as in production on data that dev mode made.
    pub(crate) fn production(data: &Path) -> Measured<Self> {
        Self::production_with(data, &[])
    }

    /// The same with settings over the default ones.
    pub(crate) fn production_with(data: &Path, settings: &[Setting]) -> Measured<Self> {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|taken| taken.local_addr());
        let internal = free.map_err(|e| e.to_string())?.port();
        let mut command = command()?;
        command
            .env("PEARLGATE__SERVER__PUBLIC_URL", "http://localhost")
            .env("PEARLGATE__SERVER__INTERNAL_LISTEN", format!("127.0.0.1:{internal}"))
            .env("PEARLGATE__SECRETS__MASTER_KEY_FILE", data.join("dev-master.key"))
            .envs(variables(settings));
        Self::spawn(&mut command, data, Some(internal))
    }

    fn spawn(command: &mut Command, data: &Path, internal: Option<u16>) -> Measured<Self> {
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        let mut out = BufReader::new(out);
        out.read_line(&mut line).map_err(|e| e.to_string())?;
        // The rest is read away, so that the program never waits for us.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| format!("it did not start: {line:?}"))?;
        Ok(Self { child, port, internal: internal.unwrap_or(port) })
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident(&self) -> Measured<u64> {
        memory(self.child.id(), "VmRSS:").ok_or_else(|| "no VmRSS".into())
    }

    /// The most resident memory so far, in KiB.
    pub(crate) fn peak(&self) -> Measured<u64> {
        memory(self.child.id(), "VmHWM:").ok_or_else(|| "no VmHWM".into())
    }

    /// How many hashes its pool has done, and the seconds they took together.
    pub(crate) async fn hashes(&self) -> Measured<(f64, f64)> {
        let answer = Client::connect(self.internal).await?.send(&request("GET", "/metrics", "", "")).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let metric = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.ok_or_else(|| format!("no {name} in /metrics"))
        };
        Ok((metric("password_hash_seconds_count ")?, metric("password_hash_seconds_sum ")?))
    }

    /// Signs people in, and returns their access tokens.
    pub(crate) async fn sign_in(&self, people: &[Person]) -> Measured<Vec<String>> {
        let mut client = Client::connect(self.port).await?;
        let mut tokens = Vec::new();
        for person in people {
            tokens.push(client.send(&sign_in(person, PASSWORD)).await?.text("/access_token")?);
        }
        Ok(tokens)
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
        self.named("bench", count).await
    }

    /// The same, of another name.
    pub(crate) async fn named(&self, name: &str, count: usize) -> Measured<Vec<Person>> {
        let mut client = Client::connect(self.port).await?;
        let mut people = Vec::new();
        for n in 0..count {
            let email = format!("{name}{n}@example.com");
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
                device: answer.text("/device_token")?,
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
