//! A PostgreSQL that a test may break: its own cluster, its own port, gone with the test.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process};

use super::child::{Guarded, PATIENCE, until};
use crate::support::environment;

pub struct Cluster {
    pub port: u16,
    dir: tempfile::TempDir,
    running: Option<Guarded>,
}

/// What a database says to one question. (The client brings a runtime of its own, which may not stand in ours.)
pub fn ask(url: &str, question: &str) -> Result<i64, postgres::Error> {
    let (url, question) = (url.to_owned(), question.to_owned());
    let asking = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls)?;
        client.query_one(&question, &[]).map(|row| row.get(0))
    });
    asking.join().unwrap()
}

impl Cluster {
    /// Prepared and not running.
    pub fn away() -> Self {
        // Where PostgreSQL's user can go, whoever we are.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        if getuid().is_root() {
            let id = |what: &str| {
                let id = Command::new("id").args([what, &user()]).output().unwrap();
                String::from_utf8(id.stdout).unwrap().trim().parse().unwrap()
            };
            chown(dir.path(), Some(id("-u")), Some(id("-g"))).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster = Self { port, dir, running: None };
        let made = cluster
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }

    pub async fn start(&mut self) {
        let mut command = self.command("postgres");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"]).arg(self.dir.path());
        let log =
            std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.running = Some(Guarded(child));
        let url = self.url();
        until("PostgreSQL answers", PATIENCE, || async { ask(&url, "SELECT CAST(1 AS BIGINT)").ok() }).await;
    }

    /// As `pg_ctl stop -m immediate`: no goodbye, and recovery at the next start.
    pub async fn crash(&mut self) {
        let mut running = self.running.take().unwrap();
        running.signal(Signal::QUIT);
        running.ended(PATIENCE).await;
    }

    /// It still accepts connections, as the kernel does that, and answers nothing.
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        let postmaster = &self.running.as_ref().unwrap().0;
        // The postmaster first: it makes no new ones then.
        kill_process(Pid::from_child(postmaster), signal).unwrap();
        let children =
            Command::new("ps").args(["-o", "pid=", "--ppid", &postmaster.id().to_string()]).output().unwrap();
        for child in String::from_utf8(children.stdout).unwrap().split_whitespace() {
            let _ = kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), signal);
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// One of PostgreSQL's programs on our data, as a user that it accepts.
    fn command(&self, program: &str) -> Command {
        let program = PathBuf::from(environment("PEARLGATE_TEST_PG_BIN")).join(program);
        let mut command = if getuid().is_root() {
            let (user, mut command) = (user(), Command::new("setpriv"));
            command
                .args([format!("--reuid={user}"), format!("--regid={user}"), "--init-groups".into()])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(self.dir.path().join("data")).current_dir("/tmp");
        command
    }
}

impl Drop for Cluster {
    /// A clean end leaves no shared memory behind. What is frozen would not hear of it.
    fn drop(&mut self) {
        if self.running.is_some() {
            self.thaw();
        }
        if let Some(mut running) = self.running.take() {
            running.signal(Signal::QUIT);
            let _ = running.0.wait();
        }
    }
}

fn user() -> String {
    environment("PEARLGATE_TEST_PG_USER")
}
