//! On PostgreSQL: refreshes against the database's own rate, and how fast an end is known elsewhere.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use foundation::kernel::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, request};
use crate::measures::{refresh_load, temporary};
use crate::program::{PASSWORD, Program, sign_in};
use crate::table::{Table, median, quantile};
use crate::{Measured, ROUNDS};

const CLIENTS: usize = 8;
/// Ends in a measure of how fast they spread.
const ENDS: usize = 100;

/// The PostgreSQL that `cargo xtask bench` has started, with a database of our own.
pub(crate) struct Database {
    pub(crate) url: String,
}

/// A transaction that stays open until this is dropped.
pub(crate) struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Database {
    /// Opens a transaction that has read, and keeps it open.
    pub(crate) fn hold(&self) -> Measured<Held> {
        let mut psql = tool("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--dbname", &self.url]);
        let child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut held = Held(child.map_err(|e| e.to_string())?);
        let open = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'open' FROM jobs RIGHT JOIN (SELECT 1) one ON TRUE LIMIT 1;\n";
        let pipes = (held.0.stdin.as_mut(), held.0.stdout.take());
        let (Some(stdin), Some(stdout)) = pipes else { return Err("psql has no pipes".into()) };
        stdin.write_all(open.as_bytes()).map_err(|e| e.to_string())?;
        let mut first = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut first)
            .map_err(|e| e.to_string())?;
        if first.trim() == "open" { Ok(held) } else { Err(format!("the transaction says {first:?}")) }
    }

    pub(crate) fn create(name: &str) -> Measured<Self> {
        let base = variable("PEARLGATE_TEST_POSTGRES")?;
        sql(&base, &format!("DROP DATABASE IF EXISTS {name}"))?;
        sql(&base, &format!("CREATE DATABASE {name}"))?;
        let (server, _) = base.rsplit_once('/').ok_or("PEARLGATE_TEST_POSTGRES is no address")?;
        Ok(Self { url: format!("{server}/{name}") })
    }
}

#[expect(clippy::disallowed_methods, reason = "how `cargo xtask bench` says where its servers are")]
fn variable(name: &str) -> Measured<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set: run `cargo xtask bench`"))
}

fn tool(name: &str) -> Measured<Command> {
    Ok(Command::new(Path::new(&variable("PEARLGATE_TEST_PG_BIN")?).join(name)))
}

fn sql(url: &str, text: &str) -> Measured<()> {
    let out = tool("psql")?.args(["--no-psqlrc", "--quiet", "--dbname", url, "--command", text]).output();
    let out = out.map_err(|e| e.to_string())?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

/// Refreshes over HTTP against pgbench running the same one statement, 8 clients each.
pub(crate) async fn refresh(table: &mut Table) -> Measured<()> {
    let (dir, database) = (temporary()?, Database::create("bench_refresh")?);
    let program = Program::on_postgres(dir.path(), &database.url)?;
    let people = program.people(CLIENTS).await?;
    let mut tokens: Vec<String> = people.iter().map(|person| person.refresh.clone()).collect();
    let script = dir.path().join("rotate.sql");
    let mut file = std::fs::File::create(&script).map_err(|e| e.to_string())?;
    // Rows of pgbench's own, one for each client.
    sql(
        &database.url,
        "CREATE TABLE bare (LIKE refresh_tokens INCLUDING ALL); INSERT INTO bare SELECT * FROM refresh_tokens",
    )?;
    sql(
        &database.url,
        "CREATE TABLE numbered AS SELECT CAST(row_number() OVER () AS INT) AS n, session_id FROM bare; ALTER TABLE numbered ADD PRIMARY KEY (n)",
    )?;
    writeln!(
        file,
        "UPDATE bare SET previous_digest = current_digest, current_digest = sha256(current_digest), rotated_at = rotated_at + 1, expires_at = expires_at + 1 \
         WHERE session_id = (SELECT session_id FROM numbered WHERE n = :client_id + 1) RETURNING user_id;"
    )
    .map_err(|e| e.to_string())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(pgbench(&database.url, &script)?);
        let (rate, next) = refresh_load(program.port, tokens).await?;
        ours.push(rate);
        tokens = next;
    }
    let (ours, theirs) = (median(ours), median(theirs));
    table.judged(
        "refresh ÷ pgbench's one-statement rotation, PostgreSQL",
        format!("{:.2} ({ours:.0}/s ÷ {theirs:.0}/s)", ours / theirs),
        "≥ 0.85",
        ours / theirs >= 0.85,
        "8 clients each, fsync and synchronous_commit on; over HTTP with one ES256 signature each on the left, a prepared statement on the right; everything on the same 2 cores",
    );
    Ok(())
}

fn pgbench(url: &str, script: &Path) -> Measured<f64> {
    let out = tool("pgbench")?
        .args([
            "--no-vacuum",
            "--protocol",
            "prepared",
            "--client",
            "8",
            "--jobs",
            "2",
            "--time",
            "2",
            "--file",
        ])
        .arg(script)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("pgbench: {e}"))?;
    let words = String::from_utf8_lossy(&out.stdout);
    let rate =
        words.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
    rate.ok_or_else(|| format!("pgbench: {words}{}", String::from_utf8_lossy(&out.stderr)))
}

/// From the answer of a sign-out on one server to the first refusal on another, and to the word of it in the feed.
pub(crate) async fn sign_out(table: &mut Table) -> Measured<()> {
    let (dir, other_dir, database) = (temporary()?, temporary()?, Database::create("bench_nodes")?);
    let one = Program::on_postgres(dir.path(), &database.url)?;
    let person = one.people(1).await?.pop().ok_or("nobody")?;
    let key = dir.path().join("dev-master.key");
    std::fs::copy(key, other_dir.path().join("dev-master.key")).map_err(|e| e.to_string())?;
    let other = Program::on_postgres(other_dir.path(), &database.url)?;
    let (mut here, mut there) = (Client::connect(one.port).await?, Client::connect(other.port).await?);
    let mut feed = Feed::follow(other.port).await?;
    let (mut refused, mut told) = (Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let session = here.send(&sign_in(&person, PASSWORD)).await?;
        let (access, id) = (session.text("/access_token")?, session.text("/session/id")?);
        let check = request("GET", "/v1/me", &access, "");
        // The issuer is each server's own address in dev mode, so the other is asked by the refresh token.
        let body = format!(r#"{{"refresh_token":"{}"}}"#, session.text("/refresh_token")?);
        let again = request("POST", "/v1/auth/refresh", "", &body);
        if here.send(&check).await?.status != 200 || there.send(&again).await?.status != 200 {
            return Err("a session that lives was refused".into());
        }
        let out = here.send(&request("POST", "/v1/auth/logout", "", &body)).await?;
        let began = Clock::stopwatch();
        if out.status != 204 {
            return Err(format!("signing out was answered with {}", out.status));
        }
        while there.send(&again).await?.status == 200 {}
        refused.push(began.elapsed().as_secs_f64() * 1_000.0);
        feed.hears(&id).await?;
        told.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let worst = refused.iter().copied().fold(0.0, f64::max);
    table.judged(
        "sign-out to rejection on another server",
        format!("{:.1} ms, at most {worst:.1} ms", median(refused)),
        "≤ 50 ms",
        worst <= 50.0,
        "100 sign-outs, two servers on one PostgreSQL: from the 204 on one to the first refusal on the other, which is the first answer",
    );
    let worst = told.iter().copied().fold(0.0, f64::max);
    table.judged(
        "sign-out to its event in another server's feed",
        format!(
            "{:.0} ms, p99 {:.0} ms, at most {worst:.0} ms",
            median(told.clone()),
            quantile(&mut told, 0.99)
        ),
        "under a second",
        worst < 1_000.0,
        "the same 100; the other server looks four times a second while somebody follows",
    );
    Ok(())
}

/// The server-sent events of a server.
struct Feed {
    socket: TcpStream,
    heard: Vec<u8>,
}

impl Feed {
    async fn follow(port: u16) -> Measured<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
        let ask = "GET /v1/revocations HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
        socket.write_all(ask.as_bytes()).await.map_err(|e| e.to_string())?;
        Ok(Self { socket, heard: Vec::new() })
    }

    async fn hears(&mut self, what: &str) -> Measured<()> {
        let listening = async {
            while !self.heard.windows(what.len()).any(|window| window == what.as_bytes()) {
                if self.socket.read_buf(&mut self.heard).await.map_err(|e| e.to_string())? == 0 {
                    return Err("the feed ended".to_owned());
                }
            }
            self.heard.clear();
            Ok(())
        };
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, listening)
            .await
            .map_err(|_| format!("the feed never told of {what}"))?
    }
}
