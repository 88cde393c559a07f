//! The program as a child process: called like a person would, read like a person would, gone when the test is.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::api::Api;

/// The public URL of a production server in these tests. It listens elsewhere: requests name `localhost`.
pub const PUBLIC: &str = "http://localhost:1";
pub use crate::support::PATIENCE;

/// Asks again and again until there is an answer; a test that waits in vain fails.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, asking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// The lines that a child has written so far.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                kept.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The first line that has `what` in it, waited for.
    pub async fn with(&self, what: &str) -> String {
        until(&format!("a line has {what:?}"), PATIENCE, || async {
            self.all().into_iter().find(|line| line.contains(what))
        })
        .await
    }
}

/// A child that does not outlive its test.
pub struct Guarded(pub Child);

impl Guarded {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Ends it the hard way and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {within:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command line with an environment of its own: nothing of the test's leaks in.
pub struct Call(Command);

/// `pearlgate ARGS…` with hashes that cost nothing.
pub fn pearlgate(args: &[&str]) -> Call {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pearlgate"));
    command.args(args).env_clear().stdin(Stdio::null());
    Call(command).set("hashing.memory_kib", "64").set("hashing.iterations", "1")
}

/// A production server on a free port; everything it must be told is told.
pub fn serve(data: &Path) -> Call {
    serve_on(data, 0)
}

pub fn serve_on(data: &Path, port: u16) -> Call {
    let call =
        pearlgate(&["serve", "--listen", &format!("127.0.0.1:{port}"), "--data", data.to_str().unwrap()]);
    call.set("server.public_url", PUBLIC)
        .set("secrets.master_key", &BASE64.encode(&[7; 32]))
        .set("passwords.breach.url", "")
        .set("log.format", "json")
}

/// A dev server on a free port.
pub fn dev(data: &Path) -> Call {
    dev_on(data, 0)
}

/// A dev server whose address, and with it its public URL, is the one from before.
pub fn dev_on(data: &Path, port: u16) -> Call {
    let call = pearlgate(&[
        "serve",
        "--dev",
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--data",
        data.to_str().unwrap(),
    ]);
    call.set("log.format", "json")
}

/// What a call said and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// A refusal: words for a person on standard error, nothing else, and no panic.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) {
        assert!(self.status.code().is_some_and(|code| code != 0), "not refused: {self:?}");
        assert_eq!(self.out, "", "a refusal belongs on standard error");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in the refusal: {}", self.err);
        }
    }

    #[track_caller]
    pub fn went_well(&self) -> &str {
        assert!(self.status.success(), "{self:?}");
        &self.out
    }
}

impl Call {
    /// Sets `section.key` through the environment.
    pub fn set(self, key: &str, value: &str) -> Self {
        self.env(&format!("PEARLGATE__{}", key.to_uppercase().replace('.', "__")), value)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.0.arg(arg);
        self
    }

    /// Gives it a file as its standard input.
    pub fn reading(mut self, file: &Path) -> Self {
        self.0.stdin(std::fs::File::open(file).unwrap());
        self
    }

    /// Starts it and leaves it alone.
    pub fn background(self) -> Guarded {
        self.spawn().0
    }

    fn spawn(mut self) -> (Guarded, Lines, Lines) {
        let mut child = self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        (Guarded(child), out, err)
    }

    /// Waits for the end: for calls that do their work and go.
    pub async fn run(self) -> Outcome {
        self.run_within(PATIENCE).await
    }

    /// The same for a call that takes longer.
    pub async fn run_within(mut self, within: Duration) -> Outcome {
        let mut child = Guarded(self.0.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let read = |mut from: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut text = String::new();
                from.read_to_string(&mut text).unwrap();
                text
            })
        };
        let out = read(Box::new(child.0.stdout.take().unwrap()));
        let err = read(Box::new(child.0.stderr.take().unwrap()));
        let status = child.ended(within).await;
        Outcome { status, out: out.join().unwrap(), err: err.join().unwrap() }
    }

    /// Waits until it listens and can do its work: a start waits for its database only so long, and a machine that has
    /// much to do may take longer.
    pub async fn start(self) -> Server {
        let server = self.listening().await;
        server.ready().await;
        server
    }

    /// Waits for the first line, which must say where it listens. Its database may be away.
    pub async fn listening(self) -> Server {
        let (mut child, out, err) = self.spawn();
        let first = until("the server has said where it listens", PATIENCE, || {
            let ended = child.0.try_wait().unwrap();
            let first = out.all().first().cloned();
            assert!(ended.is_none() || first.is_some(), "it ended with {ended:?}: {:?}", err.all());
            async { first }
        })
        .await;
        let url = first
            .strip_prefix("listening on ")
            .unwrap_or_else(|| panic!("the first line is {first:?}"))
            .to_owned();
        let port = url.strip_prefix("http://localhost:").and_then(|port| port.parse().ok());
        Server {
            port: port.unwrap_or_else(|| panic!("the URL is {url:?}")),
            api: Api::new(&url),
            url,
            child,
            out,
            err,
        }
    }
}

/// A running server.
pub struct Server {
    pub url: String,
    pub port: u16,
    pub api: Api,
    pub child: Guarded,
    pub out: Lines,
    pub err: Lines,
}

impl Server {
    /// Waits until it can do its work.
    pub async fn ready(&self) {
        until("the server can do its work", PATIENCE, || async {
            (self.api.get("/health/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// `kill -9`, and it is gone.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// The internal listener, whose address stands in the log.
    pub async fn internal(&self) -> Api {
        let line: Value = serde_json::from_str(&self.err.with("internal listener").await).unwrap();
        Api::new(&format!("http://{}", line["fields"]["address"].as_str().unwrap()))
    }

    /// Asks it to stop and expects that it does, in time and in good order.
    pub async fn stop(mut self) {
        self.child.signal(Signal::TERM);
        let status = self.child.ended(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(0), "{:?}", self.err.all());
    }
}
