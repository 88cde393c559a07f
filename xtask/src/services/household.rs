//! A temporary folder, the processes that live in it, and an undertaker who outlives us all.
//!
//! A guard's `Drop` does not run when we are killed, and without unsafe code nothing of ours can catch a signal. So
//! `undertaker.sh` is started beside us, in a process group that Ctrl-C does not reach, and reads a pipe from us. It
//! learns what we start; when the pipe closes, because we closed it or because we are gone, it ends all of that and
//! deletes the folder. There is one way to clean up, and every end of ours takes it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::failure::{Failure, OrFail, Outcome};
use crate::machine;
use crate::process::succeeded;
use crate::services::Durability;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The script, handed over as text: the file may change while we run.
const UNDERTAKER: &str = include_str!("../../parts/undertaker.sh");

/// A server of the household. Shown as the undertaker wants it.
pub(crate) struct Server {
    name: &'static str,
    signal: &'static str,
    pid: u32,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.signal, self.pid)
    }
}

/// See the module's words.
pub(crate) struct Household {
    dir: PathBuf,
    undertaker: Child,
    pipe: Option<ChildStdin>,
    servers: BTreeMap<u32, Child>,
}

impl Household {
    /// Makes the folder and engages the undertaker.
    pub(crate) fn found(durability: Durability) -> Outcome<Self> {
        // Not TMPDIR, which may be somewhere the user who runs PostgreSQL cannot go. /tmp may be memory, where a
        // measurement of durable writes would measure nothing; /var/tmp is on disk.
        let parent = if durability == Durability::Full { "/var/tmp" } else { "/tmp" };
        let dir = Path::new(parent).join(format!("pearlgate-{}", machine::random_hex()?));
        let remedy = "make room and permission in /tmp and /var/tmp";
        // Others may pass through (PostgreSQL's user has to), not look around.
        DirBuilder::new()
            .mode(0o711)
            .create(&dir)
            .and_then(|()| std::fs::set_permissions(&dir, Permissions::from_mode(0o711)))
            .or_fail(format!("cannot make {}", dir.display()), remedy)?;
        let undertaker = Command::new("sh")
            .args(["-c", UNDERTAKER, "undertaker.sh"])
            .arg(&dir)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match undertaker {
            Ok(mut undertaker) => {
                let pipe = undertaker.stdin.take();
                Ok(Self { dir, undertaker, pipe, servers: BTreeMap::new() })
            }
            Err(error) => {
                drop(std::fs::remove_dir_all(&dir));
                Err(Failure::new("cannot start sh", error, "put sh into PATH"))
            }
        }
    }

    /// The folder. Whatever is in it goes with us.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a server that ends with us, by the given signal.
    pub(crate) fn adopt(
        &mut self,
        name: &'static str,
        signal: &'static str,
        command: &mut Command,
    ) -> Outcome<Server> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .or_fail(format!("cannot start {name}"), "see whether it is installed")?;
        let server = Server { name, signal, pid: child.id() };
        self.tell(&format!("watch {server}"))?;
        self.servers.insert(server.pid, child);
        Ok(server)
    }

    /// Waits until the probe succeeds. False when the server has ended instead; it is forgotten then.
    pub(crate) fn answers(&mut self, server: &Server, mut probe: impl FnMut() -> Outcome) -> Outcome<bool> {
        let start = machine::now();
        loop {
            let child = self.servers.get_mut(&server.pid);
            if child.is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                self.servers.remove(&server.pid);
                self.tell(&format!("forget {server}"))?;
                return Ok(false);
            }
            match probe() {
                Ok(()) => return Ok(true),
                Err(failure) if start.elapsed() > PATIENCE => {
                    let patience = PATIENCE.as_secs();
                    return Err(failure
                        .within(&format!("{} runs, but did not answer within {patience} s", server.name)));
                }
                Err(_) => machine::pause(),
            }
        }
    }

    /// Runs a command to its end, on our terminal but in a process group of its own: if we are killed, the undertaker
    /// ends the whole group, such as cargo, the tests, and the servers that the tests have started.
    pub(crate) fn run(&mut self, command: &mut Command, remedy: &str) -> Outcome {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .or_fail(format!("cannot start {:?}", command.get_program()), remedy)?;
        let group = format!("TERM:-{}", child.id());
        self.tell(&format!("watch {group}"))?;
        let status = child.wait().or_fail("cannot wait for a command", remedy)?;
        self.tell(&format!("forget {group}"))?;
        succeeded(command, status, "its own words are above", remedy)
    }

    fn tell(&mut self, line: &str) -> Outcome {
        let told = self.pipe.as_mut().map_or(Ok(()), |pipe| writeln!(pipe, "{line}"));
        told.or_fail(
            "the undertaker is gone",
            "nothing cleans up now: look for processes and folders named pearlgate-*",
        )
    }
}

impl Drop for Household {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // The undertaker waits until the servers are gone, and they are not before we have taken notice.
        for child in self.servers.values_mut() {
            drop(child.wait());
        }
        drop(self.undertaker.wait());
    }
}
