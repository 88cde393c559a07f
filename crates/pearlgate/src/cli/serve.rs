//! `pearlgate serve`

use std::process::ExitCode;
use std::time::Duration;

use foundation::kernel::{Clock, Entropy};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Serve, block_on, layers, say};
use crate::access::setup;
use crate::server::{self, Running};
use crate::settings::{Purpose, Settings};

/// How long after the database did not answer it is asked again whether there was a first operator.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn run(options: &Serve) -> Result<ExitCode, Failure> {
    let mut layers = layers(&options.common)?;
    if let Some(listen) = &options.listen {
        layers.option("--listen", "server.listen", listen)?;
    }
    let purpose = if options.dev { Purpose::Dev } else { Purpose::Production };
    let settings = Settings::check(&layers, purpose)?;
    foundation::telemetry::start_logging(settings.log_json, settings.log_level);
    raise_file_limit();
    let clock = if options.dev { Clock::movable() } else { Clock::System };
    block_on(async move {
        // Before anything else can take time: a stop that comes early is a stop too.
        let stop = stop_signal().map_err(|e| Failure::Other(format!("signals cannot be waited for: {e}")))?;
        let running = server::start(settings, clock, Entropy::System).await?;
        announce(&running);
        tokio::select! {
            () = stop => {}
            () = announce_setup(&running) => {}
            why = running.failed() => return Err(Failure::Other(why)),
        }
        tracing::info!("stopping: no new work, finishing what runs");
        running.stop().await;
        Ok(ExitCode::SUCCESS)
    })?
}

fn announce(running: &Running) {
    let url = &running.url;
    say(&format!("listening on {url}"));
    if let Some(address) = running.internal {
        tracing::info!(%address, "the internal listener: /metrics, /health/dependencies, /v1/revocations and /v1/introspect");
    }
    if running.app.settings.dev {
        say(&format!("mailbox      {url}/dev/mailbox"));
        say(&format!("docs         {url}/docs"));
        say(&format!("error codes  {url}/errors"));
        say(&format!("data         {}", running.app.settings.data_dir.display()));
    }
}

/// As long as there was no first operator, a link to the page on which one is set up: when the database is there, which may
/// be long after the start. Never completes.
async fn announce_setup(running: &Running) {
    running.ready().await;
    loop {
        match setup::link(&running.app).await {
            Ok(Some(link)) => say(&format!("first operator, once, within an hour: {link}")),
            Ok(None) => {}
            Err(_) => {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
        }
        return std::future::pending().await;
    }
}

pub(super) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// As many connections as the system lets us have: the usual soft limit of 1,024 is for another age.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
