//! `pearlgate drill`: breaks what the server depends on, one by one, while people sign up, sign in and
//! reset passwords; then everything at once under a crowd; then the database. Says what happened.

mod client;
mod crowd;
mod database;
mod faults;
mod flows;
mod process;
mod receiver;
mod report;
mod server;
mod stage;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::{Drill, Failure, block_on, complain, say, serve};
use client::Client;
use receiver::Receiver;
use report::{Database, Report};
use server::Server;
use stage::{Cast, Stage};

/// How many and how long.
struct Plan {
    /// Who are signed in and active.
    people: u32,
    /// Who forget their passwords.
    helpers: u32,
    /// Two faults of each dependency instead of seven.
    short: bool,
    /// How often everybody does everything under a fault.
    waves: u32,
    /// How long a fault stays at least.
    hold: Duration,
    /// Before, during and after everything is away.
    phases: [Duration; 3],
    /// Requests a second meanwhile.
    pace: f64,
    /// How long the database stays away.
    outage: Duration,
}

impl Plan {
    fn of(options: &Drill) -> Self {
        let people = options.people.unwrap_or(match (&options.url, options.short) {
            // They register for real, one mail each.
            (Some(_), _) => 50,
            (None, true) => 200,
            (None, false) => 12_000,
        });
        let s = Duration::from_secs;
        match options.short {
            true => Self {
                people,
                helpers: 40,
                short: true,
                waves: 1,
                hold: s(1),
                phases: [s(2), s(4), s(2)],
                pace: 100.0,
                outage: s(2),
            },
            false => Self {
                people,
                helpers: 100,
                short: false,
                waves: 2,
                hold: s(3),
                phases: [s(15), s(30), s(15)],
                pace: 300.0,
                outage: s(5),
            },
        }
    }
}

/// An address as `--url` takes it: of a server, without a path.
pub(super) fn address(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|e| e.to_string())?;
    match (url.scheme(), url.host(), url.path()) {
        ("http" | "https", Some(_), "/") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("give an address such as http://localhost:8080".into()),
    }
}

pub(super) fn run(options: &Drill) -> Result<ExitCode, Failure> {
    let report = block_on(async {
        let stop = serve::stop_signal();
        let stop = stop.map_err(|e| Failure::Other(format!("signals cannot be waited for: {e}")))?;
        let report = tokio::select! {
            report = drill(options) => report,
            () = stop => Err(Failure::Other("stopped; what the drill had started is gone".into())),
        };
        if let (Some(url), Err(_)) = (&options.url, &report) {
            // A server that is not ours is left as it was found, as far as it lets us.
            let _ = Client::new(url)?.switch_all("none").await;
        }
        report
    })??;
    say(&if options.json { report.json() } else { report.text() });
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn drill(options: &Drill) -> Result<Report, Failure> {
    let plan = Plan::of(options);
    let cast = Cast::new(plan.people, plan.helpers);
    let (url, own) = match &options.url {
        Some(url) => (url.clone(), None),
        None => {
            let own = Server::start(Some(&cast), None).await?;
            (own.url.clone(), Some(own))
        }
    };
    let client = Client::new(&url)?;
    client.is_dev().await?;
    // A server that is not ours tells whom it tells.
    let receiver = match &own {
        Some(own) => Some(own.tell(Receiver::start().await?).await?),
        None => None,
    };
    let stage = Arc::new(Stage { client, cast, receiver });
    if own.is_none() {
        flows::register_everybody(&stage).await?;
    }
    flows::rehearse(&stage).await?;
    complain("every dependency is broken in turn, while people sign up, sign in and reset passwords");
    let faults = faults::run(&stage, &plan).await?;
    complain(&format!("{} people sign in, and are active while everything outside is away", plan.people));
    let crowd = crowd::run(&stage, &plan).await?;
    let database = if options.skip_database {
        Database::NotDone("--skip-database".into())
    } else {
        complain("a PostgreSQL is stopped under a second server, and started again");
        database::run(&plan).await?
    };
    let report = Report { server: url, faults, crowd, database };
    if let (Some(own), false) = (&own, report.passed()) {
        complain(&format!("the server's own log ends with:\n{}", own.last_words()));
    }
    Ok(report)
}
