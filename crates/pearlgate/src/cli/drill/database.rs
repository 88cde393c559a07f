//! The database, broken from outside: a PostgreSQL of the drill's own is stopped at once under a server, and
//! started again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use foundation::kernel::Clock;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Signal, getuid};
use serde_json::json;
use tokio::time::sleep;

use super::Plan;
use super::client::{Client, Visitor};
use super::flows::{PASSWORD, Tokens};
use super::process::{Process, Throwaway};
use super::report::{Database, Row};
use super::server::Server;
use super::stage::{Cast, Stage};
use super::tally::{BOUND, Tally};
use crate::cli::Failure;

/// "In under a second", and as much for a machine that does other things too.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// "First success within 2 s", and a little.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// A PostgreSQL or a server that is not ready by then will not be.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// Between two rounds of requests while it is away.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(plan: &Plan) -> Result<Database, Failure> {
    let mut cluster = match Cluster::make().await {
        Ok(cluster) => cluster,
        Err(why) => return Ok(Database::NotDone(why)),
    };
    if let Err(failure) = cluster.start().await {
        return Ok(Database::NotDone(failure.to_string()));
    }
    let server = Server::start(None, Some(&cluster.url())).await?;
    let stage = Arc::new(Stage { client: Client::new(&server.url)?, cast: Cast::new(0, 0), receiver: None });
    ready(&stage.client).await?;
    let tally = |bound| Arc::new(Tally::new(bound, None));
    let (there, away) = (tally(BOUND), tally(REFUSED_WITHIN));
    let back = outage(&stage, &mut cluster, plan.outage, (&there, &away)).await?;
    if back.is_some_and(|back| back > BACK_WITHIN) {
        there.fail(&format!("a login worked again only after more than {} s", BACK_WITHIN.as_secs()));
    }
    Ok(Database::Done(Row::of("postgresql", "stopped", &[&there, &away], back)))
}

/// How long after PostgreSQL is back a login works again; none when it does not, or nothing could be tried.
async fn outage(
    stage: &Arc<Stage>,
    cluster: &mut Cluster,
    time: Duration,
    (there, away): (&Arc<Tally>, &Arc<Tally>),
) -> Result<Option<Duration>, Failure> {
    let (email, visitor) = (stage.cast.newcomer(), stage.visitor(there));
    let Ok(tokens) = visitor.sign_up(&email).await else { return Ok(None) };
    // Whatever comes of these is noted.
    let _ = visitor.login(&email, PASSWORD).await;
    cluster.stop().await?;
    let (since, stranded) = (Clock::stopwatch(), stage.visitor(away));
    while since.elapsed() < time {
        refused(&stranded, (&email, &tokens)).await;
        sleep(PAUSE).await;
    }
    cluster.start().await?;
    let since = Clock::stopwatch();
    let back = loop {
        let answer = visitor.send(visitor.login_request(&email, PASSWORD)).await;
        match answer.map_or(0, |answer| answer.status) {
            200 => break since.elapsed(),
            _ if since.elapsed() > PATIENCE => return Ok(None),
            _ => sleep(LOOK).await,
        }
    };
    let _ = visitor.refresh(&tokens).await;
    let _ = visitor.sign_up(&stage.cast.newcomer()).await;
    Ok(Some(back))
}

/// What needs the database is refused in time and says when to come back; what does not goes on.
async fn refused(visitor: &Visitor, (email, tokens): (&str, &Tokens)) {
    let get = |path: &str| visitor.get(path);
    let registration = json!({ "email": format!("new-{email}"), "password": PASSWORD });
    let refresh = json!({ "refresh_token": tokens.refresh });
    let asked = [
        ("register without the database", visitor.post("/v1/auth/register", &registration), 503),
        ("log in without the database", visitor.login_request(email, PASSWORD), 503),
        ("refresh without the database", visitor.post("/v1/auth/refresh", &refresh), 503),
        ("/v1/me without the database", get("/v1/me").bearer_auth(&tokens.access), 503),
        ("/health/ready without the database", get("/health/ready"), 503),
        ("/health/live without the database", get("/health/live"), 200),
        ("the public keys without the database", get("/.well-known/jwks.json"), 200),
    ];
    for (what, request, right) in asked {
        let _ = visitor.ask(what, request, right).await;
    }
}

async fn ready(client: &Client) -> Result<(), Failure> {
    let since = Clock::stopwatch();
    loop {
        let answer = client.send(client.request(reqwest::Method::GET, "/health/ready")).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            return Err(Failure::Other("the drill's own server does not take its PostgreSQL".into()));
        }
        sleep(LOOK).await;
    }
}

/// A PostgreSQL on a socket in its own directory, which nobody but its owner can open.
struct Cluster {
    // The fields are dropped in their order: first it ends, then its directory goes.
    running: Option<Process>,
    dir: Throwaway,
    programs: PathBuf,
}

impl Cluster {
    /// Prepared and not running; or in words why there is none.
    async fn make() -> Result<Self, String> {
        let programs = programs().ok_or("neither PATH nor /usr/lib/postgresql has initdb and postgres")?;
        let cluster = Self { running: None, dir: Throwaway::reserve(), programs };
        let mut initdb = cluster.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut initdb = Process::start(&mut initdb, Signal::KILL).map_err(|e| e.to_string())?;
        match initdb.ended().await {
            Ok(status) if status.success() => Ok(cluster),
            _ => Err(format!("initdb failed: {}", initdb.complaint())),
        }
    }

    async fn start(&mut self) -> Result<(), Failure> {
        let mut postgres = self.command("postgres");
        postgres.args(["-h", "", "-k"]).arg(self.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(Process::start(&mut postgres, Signal::QUIT)?);
        let since = Clock::stopwatch();
        while !self.is_ready() {
            if since.elapsed() > PATIENCE {
                return Err(Failure::Other("the drill's own PostgreSQL did not start".into()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// At once, as `pg_ctl stop -m immediate` does it: no goodbye, and recovery at the next start.
    async fn stop(&mut self) -> Result<(), Failure> {
        match self.running.take() {
            Some(mut running) => running.stop().await,
            None => Ok(()),
        }
    }

    /// What its own programs look at: the eighth line of the file that it keeps while it runs.
    fn is_ready(&self) -> bool {
        let file = std::fs::read_to_string(self.dir.path().join("postmaster.pid")).unwrap_or_default();
        file.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }

    fn url(&self) -> String {
        let dir = self.dir.path().display().to_string();
        format!("postgres://postgres@{}/postgres", utf8_percent_encode(&dir, NON_ALPHANUMERIC))
    }

    /// One of its programs on its data. It refuses root, who becomes the user that its package makes.
    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if getuid().is_root() {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
            setpriv
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(self.dir.path()).current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        command
    }
}

/// The folder of PostgreSQL's programs: none needed when PATH has them, else Debian's newest.
fn programs() -> Option<PathBuf> {
    let needed = ["initdb", "postgres"];
    let runs = |name: &str| {
        let mut asking = Command::new(name);
        asking.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asking.status().is_ok_and(|status| status.success())
    };
    if needed.into_iter().all(runs) {
        return Some(PathBuf::new());
    }
    let version = |dir: &Path| dir.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<(u32, PathBuf)> =
        folders.filter_map(|entry| Some((version(&entry.path())?, entry.path().join("bin")))).collect();
    folders.sort();
    let complete = |dir: &PathBuf| needed.iter().all(|name| dir.join(name).is_file());
    folders.into_iter().rev().map(|(_, dir)| dir).find(complete)
}
