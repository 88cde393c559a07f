//! The embedded database's disk: full, read-only, locked, or not a database at all. Writes are refused and tried
//! again later, reads go on, nothing acknowledged is lost, and it heals by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::api::Api;
use super::child::{PATIENCE, dev, dev_on, pearlgate, serve, until};
use crate::support::Answer;

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim()))
    }
}

#[expect(clippy::print_stdout, reason = "a test that does nothing says so")]
fn skipped<T>(reason: &str, why: &str) -> Option<T> {
    println!("skipped: {reason}: {why}");
    None
}

/// A disk of a few megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where we may not mount one; the reason is printed.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        match run("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs", dir.path().to_str().unwrap()]) {
            Ok(()) => Some(Self(dir)),
            Err(why) => skipped("no disk can be filled here, because that takes root", &why),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("somebody else's backup")
    }

    /// Not one byte is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", self.0.path().to_str().unwrap()]);
    }
}

/// A file that not even root can write to.
struct Immutable(PathBuf);

impl Immutable {
    fn make(file: PathBuf) -> Option<Self> {
        match run("chattr", &["+i", file.to_str().unwrap()]) {
            Ok(()) => Some(Self(file)),
            Err(why) => skipped(
                "no file can be made immutable here, because that takes root and a file system that can",
                &why,
            ),
        }
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = run("chattr", &["-i", self.0.to_str().unwrap()]);
    }
}

fn refused_for_now(answer: &Answer) {
    assert_eq!(answer.refusal(), "503 dependency_unavailable", "{}", answer.text);
    let wait: u64 = answer.header("retry-after").parse().expect("a 503 says when to come back");
    assert!((1..=10).contains(&wait));
    for secret in ["pearlgate.db", "sqlite", "SQL", "disk"] {
        assert!(!answer.text.contains(secret), "no word of what is behind: {}", answer.text);
    }
}

/// What goes on whatever the disk does.
async fn reads_go_on(api: &Api, access: &str) {
    assert_eq!(api.get_as("/v1/me", access).await.status, 200);
    assert_eq!(api.get("/health/live").await.status, 200);
    assert_eq!(api.get("/.well-known/jwks.json").await.status, 200);
}

/// Registers until it is refused; gives those who were acknowledged.
async fn until_refused(api: &Api, name: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < PATIENCE, "the disk never filled up");
        let email = format!("{name}-{}@example.com", acknowledged.len());
        let answer = api.register(&email).await;
        if answer.status != 202 {
            refused_for_now(&answer);
            return acknowledged;
        }
        acknowledged.push(email);
    }
}

async fn works_again(api: &Api, email: &str) {
    let registered = || async { (api.register(email).await.status == 202).then_some(()) };
    until("it writes again", PATIENCE, registered).await;
}

fn is_sound(data: &Path) {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    let integrity: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_heals() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.0.path().join("data");
    let server = dev(&data).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let (access, refresh) = (ada.str("/access_token"), ada.str("/refresh_token"));
    let mut acknowledged = Vec::new();
    for round in ["once", "twice"] {
        disk.fill();
        acknowledged.extend(until_refused(&server.api, round).await);
        reads_go_on(&server.api, &access).await;
        refused_for_now(&server.api.refresh(&refresh).await);
        refused_for_now(&server.api.login("ada@example.com").await);
        disk.free();
        let email = format!("after-{round}@example.com");
        works_again(&server.api, &email).await;
        acknowledged.push(email);
    }
    assert_eq!(server.api.refresh(&refresh).await.status, 200, "what was refused did not happen");
    // A job whose end could not be written down comes again when its lease is over.
    server.api.post("/dev/v1/clock", serde_json::json!({ "advance": "31s" })).await;
    for email in acknowledged {
        // A job stores it, a moment after the answer, and then there is a mail.
        server.api.mailbox(&email).await;
        assert_eq!(
            server.api.login(&email).await.refusal(),
            "403 email_not_verified",
            "{email} was acknowledged"
        );
    }
    server.stop().await;
    is_sound(&data);
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_no_reason_not_to_start() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.0.path().join("data");
    let server = dev(&data).start().await;
    let access = server.api.dev_person("ada@example.com").await.str("/access_token");
    let port = server.port;
    server.stop().await;
    disk.fill();
    let server = dev_on(&data, port).listening().await;
    assert_eq!(server.api.get("/health/live").await.status, 200);
    refused_for_now(&server.api.register("eve@example.com").await);
    disk.free();
    works_again(&server.api, "eve@example.com").await;
    reads_go_on(&server.api, &access).await;
    server.stop().await;
    is_sound(&data);
}

#[tokio::test]
async fn a_database_file_that_is_read_only_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let port = server.port;
    server.stop().await;
    let Some(immutable) = Immutable::make(dir.path().join("pearlgate.db")) else { return };
    let server = dev_on(dir.path(), port).listening().await;
    reads_go_on(&server.api, &ada.str("/access_token")).await;
    refused_for_now(&server.api.register("eve@example.com").await);
    refused_for_now(&server.api.refresh(&ada.str("/refresh_token")).await);
    drop(immutable);
    works_again(&server.api, "eve@example.com").await;
    server.stop().await;
    is_sound(dir.path());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_immutable) = Immutable::make(dir.path().to_owned()) else { return };
    for data in [dir.path().to_owned(), dir.path().join("below")] {
        serve(&data).run().await.refused(&[data.to_str().unwrap(), "data directory", "--data"]);
    }
}

#[tokio::test]
async fn a_database_that_somebody_locks_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let somebody = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
    somebody.busy_timeout(Duration::from_secs(10)).unwrap();
    for _ in 0..2 {
        somebody.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let asked = Instant::now();
        refused_for_now(&server.api.register("eve@example.com").await);
        assert!(asked.elapsed() < Duration::from_secs(3), "refused only after {:?}", asked.elapsed());
        reads_go_on(&server.api, &ada.str("/access_token")).await;
        somebody.execute_batch("ROLLBACK").unwrap();
        works_again(&server.api, "eve@example.com").await;
    }
    server.stop().await;
    is_sound(dir.path());
}

#[tokio::test]
async fn a_lock_at_the_start_is_waited_for_too() {
    let dir = tempfile::tempdir().unwrap();
    dev(dir.path()).start().await.stop().await;
    let somebody = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
    somebody.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let server = dev(dir.path()).listening().await;
    assert_eq!(server.api.get("/health/live").await.status, 200);
    refused_for_now(&server.api.get("/health/ready").await);
    refused_for_now(&server.api.register("eve@example.com").await);
    somebody.execute_batch("ROLLBACK").unwrap();
    works_again(&server.api, "eve@example.com").await;
    server.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pearlgate.db");
    let mine = "Dear diary, this is no database. ".repeat(200);
    fs::write(&file, &mine).unwrap();
    let data = dir.path().to_str().unwrap();
    for call in [serve(dir.path()), pearlgate(&["migrate", "--data", data])] {
        call.run().await.refused(&[file.to_str().unwrap(), "not a database"]);
    }
    let doctor = pearlgate(&["doctor", "--data", data]).run().await;
    assert!(
        doctor.out.lines().any(|line| line.starts_with("wrong") && line.contains("not a database")),
        "{doctor:?}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), mine);
    assert!(!dir.path().join("pearlgate.db-wal").exists());
}
