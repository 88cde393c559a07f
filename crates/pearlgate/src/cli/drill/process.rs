//! Processes and directories of the drill's own: they are gone when it is.

use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use data_encoding::HEXLOWER;
use foundation::kernel::Entropy;
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Failure;

const LOOK: Duration = Duration::from_millis(20);

/// A child that does not outlive us.
pub(super) struct Process {
    child: Child,
    end: Signal,
}

impl Process {
    /// Starts it; `end` is the signal that ends it.
    pub(super) fn start(command: &mut Command, end: Signal) -> Result<Self, Failure> {
        let child = command.spawn().map_err(|e| {
            Failure::Other(format!("{} cannot be started: {e}", command.get_program().display()))
        })?;
        Ok(Self { child, end })
    }

    /// Waits until it has ended by itself.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(e) => return Err(Failure::Other(format!("a child cannot be waited for: {e}"))),
            }
        }
    }

    /// Ends it and waits until it has.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        let _ = kill_process(Pid::from_child(&self.child), self.end);
        self.ended().await.map(drop)
    }

    /// The first line of what it says; empty when it ends without one.
    pub(super) async fn first_line(&mut self) -> String {
        let Some(out) = self.child.stdout.take() else { return String::new() };
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut out, mut line) = (BufReader::new(out), String::new());
            let _ = out.read_line(&mut line);
            let _ = tell.send(line);
            // The rest is read away, so that it never waits for us.
            let _ = std::io::copy(&mut out, &mut std::io::sink());
        });
        told.await.unwrap_or_default()
    }

    /// What it complained of, when it has ended.
    pub(super) fn complaint(&mut self) -> String {
        let mut words = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            let _ = err.read_to_string(&mut words);
        }
        words.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), self.end);
            let _ = self.child.wait();
        }
    }
}

/// A directory that is gone when this is.
pub(super) struct Throwaway(PathBuf);

impl Throwaway {
    /// Where nothing is yet: for somebody else to make it.
    pub(super) fn reserve() -> Self {
        let name = format!("pearlgate-drill-{}", HEXLOWER.encode(&Entropy::System.bytes::<8>()));
        Self(std::env::temp_dir().join(name))
    }

    /// One that nobody else can look into.
    pub(super) fn make() -> Result<Self, Failure> {
        let dir = Self::reserve();
        let made = DirBuilder::new().mode(0o700).create(dir.path());
        made.map_err(|e| Failure::Other(format!("{}: {e}", dir.path().display())))?;
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
