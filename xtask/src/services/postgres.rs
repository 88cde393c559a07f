//! A PostgreSQL of our own, with TLS and passwords as in production.

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, OrFail, Outcome};
use crate::machine;
use crate::parts::Parts;
use crate::process::capture;
use crate::services::household::Household;
use crate::services::tls::Tls;
use crate::services::{Durability, port};

const REMEDY: &str = "mend what it names; PostgreSQL 15 is what we test against";

/// Its clean and quick end: sessions are cut off, nothing waits for them.
const STOP: &str = "INT";

/// Starts it and returns its address, password included.
pub(crate) fn start(
    house: &mut Household,
    parts: &Parts,
    tls: &Tls,
    durability: Durability,
) -> Outcome<String> {
    let home = Home { dir: house.dir().join("postgres"), parts };
    let password = machine::random_hex()?;
    home.furnish(tls, &password)?;
    home.initdb(durability)?;
    for _ in 0..port::ATTEMPTS {
        let port = port::free()?;
        let server = house.adopt("PostgreSQL", STOP, &mut home.server(port, durability)?)?;
        if house.answers(&server, || home.ask(port, &password, tls))? {
            return Ok(format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres"));
        }
    }
    let words = std::fs::read_to_string(home.dir.join("log")).unwrap_or_default();
    Err(Failure::new("PostgreSQL ends as soon as it starts", words.trim(), REMEDY))
}

/// The server's folder, which belongs to the user it runs as.
struct Home<'a> {
    dir: PathBuf,
    parts: &'a Parts,
}

impl Home<'_> {
    /// The folder itself and what the server has to find in it.
    fn furnish(&self, tls: &Tls, password: &str) -> Outcome {
        DirBuilder::new().mode(0o700).create(&self.dir).or_fail("cannot make PostgreSQL's folder", REMEDY)?;
        self.give(&self.dir)?;
        self.put("password", password.as_bytes())?;
        for (name, source) in [("server.pem", &tls.cert), ("server.key", &tls.key)] {
            let bytes = std::fs::read(source).or_fail(format!("cannot read {}", source.display()), REMEDY)?;
            self.put(name, &bytes)?;
        }
        Ok(())
    }

    /// A file that only the server reads. It takes a key from nobody else.
    fn put(&self, name: &str, bytes: &[u8]) -> Outcome {
        let path = self.dir.join(name);
        let private = Permissions::from_mode(0o600);
        std::fs::write(&path, bytes)
            .and_then(|()| std::fs::set_permissions(&path, private))
            .or_fail(format!("cannot write {}", path.display()), REMEDY)?;
        self.give(&path)
    }

    fn give(&self, path: &Path) -> Outcome {
        let Some(user) = &self.parts.postgres_user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .or_fail(format!("cannot give away {}", path.display()), REMEDY)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.parts.as_postgres(&self.parts.postgres.join(name));
        command.current_dir(&self.dir).env("LC_ALL", "C");
        command
    }

    fn initdb(&self, durability: Durability) -> Outcome {
        let help = capture(self.program("initdb").arg("--help"), REMEDY)?;
        let mut command = self.program("initdb");
        command.args(["--pgdata", "data", "--username", "postgres", "--pwfile", "password"]).args([
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]);
        if help.contains("--icu-locale") {
            // Real servers sort by a language, so ours does: a text key that forgot COLLATE "C" shows in the tests.
            command.args(["--locale-provider", "icu", "--icu-locale", "en-US"]);
        }
        if durability == Durability::None {
            command.arg("--no-sync");
        }
        capture(&mut command, REMEDY).map(drop)
    }

    fn server(&self, port: u16, durability: Durability) -> Outcome<Command> {
        let log = File::create(self.dir.join("log")).or_fail("cannot write PostgreSQL's log", REMEDY)?;
        let port = format!("port={port}");
        let sockets = format!("unix_socket_directories={}", self.dir.display());
        let mut settings = vec![&*port, &*sockets, "listen_addresses=127.0.0.1", "max_connections=400"];
        settings.extend(["ssl=on", "ssl_cert_file=../server.pem", "ssl_key_file=../server.key"]);
        if durability == Durability::None {
            // Transactions still wait for their commit, as in production; the disk does not.
            settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=on"]);
        }
        let mut command = self.program("postgres");
        command.args(["-D", "data"]).args(settings.into_iter().flat_map(|setting| ["-c", setting]));
        command.stdout(log.try_clone().or_fail("cannot share PostgreSQL's log", REMEDY)?).stderr(log);
        Ok(command)
    }

    /// Asks a query the way production asks: password, TLS, name and authority checked.
    fn ask(&self, port: u16, password: &str, tls: &Tls) -> Outcome {
        let address = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=5 \
             sslmode=verify-full sslrootcert={}",
            tls.ca.display()
        );
        let mut psql = Command::new(self.parts.postgres.join("psql"));
        psql.args(["--no-psqlrc", "--command", "SELECT 1", "--dbname", &address])
            .env("PGPASSWORD", password)
            // Away from the passwords and certificates that a developer keeps at home.
            .env("HOME", &self.dir);
        capture(&mut psql, REMEDY).map(drop)
    }
}
