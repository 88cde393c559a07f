//! From settings to a running server, and to its end.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64;
use foundation::db::{self, Db, MigrationError};
use foundation::http::{Limits, serve};
use foundation::jobs::Worker;
use foundation::kernel::{Clock, Entropy};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{App, MIGRATIONS};
use crate::maintenance;
use crate::router::doors;
use crate::sessions::{self, KeyError};
use crate::settings::{Settings, parse_master_key};
use crate::sign_in;
use foundation::kernel::MasterKeys;

/// How often a server that waits for its database looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often measurements are put into their buckets.
const METRICS: Duration = Duration::from_secs(5);
/// How often it is written down when sessions were last seen.
const SEEN: Duration = Duration::from_secs(60);
/// How long a start waits for the database before it answers without it.
const FIRST_TRY: Duration = Duration::from_millis(1_500);

/// Why a server did not start: what happened, why, what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// A running server.
pub struct Running {
    /// Its parts.
    pub app: App,
    /// The address people reach it under.
    pub url: String,
    /// The internal listener's address.
    pub internal: Option<std::net::SocketAddr>,
    stop: watch::Sender<bool>,
    done: Vec<tokio::task::JoinHandle<()>>,
    fatal: watch::Receiver<Option<String>>,
    ready: watch::Receiver<bool>,
    _lock: Option<File>,
}

/// Starts a server. It answers as soon as this returns; while PostgreSQL is away it answers 503 and waits.
///
/// # Errors
/// [`StartError`].
pub async fn start(mut settings: Settings, clock: Clock, chance: Entropy) -> Result<Running, StartError> {
    let listener = bind(settings.listen, "server.listen").await?;
    let internal = match settings.internal_listen {
        Some(address) if !settings.dev => Some(bind(address, "server.internal_listen").await?),
        _ => None,
    };
    let port = listener.local_addr().map_err(|e| StartError(e.to_string()))?.port();
    let url = shown_url(settings.listen, port);
    if settings.public_url.is_empty() {
        settings.public_url.clone_from(&url);
    }
    settings.party = settings.party.clone().at(&settings.public_url);
    let lock = if settings.database_url.is_none() || settings.dev {
        Some(lock_directory(&settings.data_dir)?)
    } else {
        None
    };
    let master = match settings.master_key {
        Some(key) => key,
        None => dev_master_key(&settings.data_dir, &chance)?,
    };
    let db = open_database(&settings)?;
    let master = MasterKeys::new(master, &settings.old_master_keys.0);
    let app = App::new(settings, db, clock, chance, &master).map_err(StartError)?;
    let (stop, stopped) = watch::channel(false);
    let (fatal_sender, fatal) = watch::channel(None);
    let (began, ready) = watch::channel(false);
    // A database that is away now may come back: the server starts, answers 503, and waits.
    let worker = match tokio::time::timeout(FIRST_TRY, prepare(&app)).await {
        Ok(Ok(())) => Some(start_worker(&app)),
        Err(_) => None,
        Ok(Err(Prepare::Away(why))) => {
            tracing::warn!(why, "starting without the database");
            None
        }
        Ok(Err(Prepare::Never(why))) => return Err(StartError(why)),
    };
    let mut done = vec![tokio::spawn(work(app.clone(), worker, stopped.clone(), fatal_sender, began))];
    done.push(tokio::spawn(keep_metrics(app.clone(), stopped.clone())));
    let doors = doors(&app);
    let limits = Limits {
        connections: app.settings.max_connections,
        per_address: app.settings.max_connections_per_address,
        proxies: app.settings.proxies.clone(),
        drain: app.settings.drain,
    };
    let internal_address = internal.as_ref().and_then(|listener| listener.local_addr().ok());
    if let Some(internal) = internal {
        done.push(tokio::spawn(serve(internal, doors.internal, limits.clone(), wait(stopped.clone()))));
    }
    done.push(tokio::spawn(serve(listener, doors.public, limits, wait(stopped))));
    Ok(Running { app, url, internal: internal_address, stop, done, fatal, ready, _lock: lock })
}

impl Running {
    /// Completes when the schema is there and work has begun: at once, unless the database is away or takes its time.
    pub async fn ready(&self) {
        if self.ready.clone().wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Completes when the server cannot go on, with the reason.
    pub async fn failed(&self) -> String {
        let mut fatal = self.fatal.clone();
        loop {
            if let Some(why) = fatal.borrow_and_update().clone() {
                return why;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Finishes what runs and stops.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        // Followers of the feed would hold up the stop: they are told.
        self.app.stopping.send_replace(true);
        for task in self.done {
            let _ = task.await;
        }
    }
}

async fn keep_metrics(app: App, stopped: watch::Receiver<bool>) {
    let mut turns = tokio::time::interval(METRICS);
    let stop = wait(stopped);
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = turns.tick() => app.metrics.upkeep(),
            () = &mut stop => return,
        }
    }
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

enum Prepare {
    Away(String),
    Never(String),
}

/// Schema and signing keys.
async fn prepare(app: &App) -> Result<(), Prepare> {
    let applied = app.db.migrate(MIGRATIONS, app.clock.now()).await.map_err(|e| match e {
        MigrationError::Database(db::Error::Unavailable(why)) => {
            Prepare::Away(format!("the database is not available: {why}"))
        }
        other => Prepare::Never(other.to_string()),
    })?;
    if !applied.is_empty() {
        tracing::info!(applied = applied.join(", "), "the schema was brought up to date");
    }
    sessions::load_signing_keys(app).await.map_err(|e| match e {
        KeyError::Database(db::Error::Unavailable(why)) => {
            Prepare::Away(format!("the database is not available: {why}"))
        }
        other => Prepare::Never(other.to_string()),
    })
}

/// Waits for the database if it has to, then does jobs until the stop.
async fn work(
    app: App,
    worker: Option<Worker>,
    mut stopped: watch::Receiver<bool>,
    fatal: watch::Sender<Option<String>>,
    began: watch::Sender<bool>,
) {
    let mut worker = worker;
    while worker.is_none() {
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = stopped.changed() => return,
        }
        match prepare(&app).await {
            Ok(()) => worker = Some(start_worker(&app)),
            Err(Prepare::Away(why)) => tracing::warn!(why, "waiting for the database"),
            Err(Prepare::Never(why)) => {
                let _ = fatal.send(Some(why));
                return;
            }
        }
    }
    let _ = began.send(true);
    let attempts = tokio::spawn(sign_in::write_down_attempts(app.clone()));
    let keys = tokio::spawn(sessions::keep_signing_keys(app.clone()));
    keep_seen(&app, stopped).await;
    keys.abort();
    attempts.abort();
    if let Some(worker) = worker {
        worker.stop().await;
    }
}

/// Writes down now and then, and before the stop, when sessions were last seen.
async fn keep_seen(app: &App, stopped: watch::Receiver<bool>) {
    let stop = wait(stopped);
    tokio::pin!(stop);
    let (mut over, mut moved) = (false, app.clock.moved());
    while !over {
        tokio::select! {
            () = tokio::time::sleep(SEEN) => {}
            () = moved => {}
            () = &mut stop => over = true,
        }
        // Before anything is written: a move meanwhile is not missed.
        moved = app.clock.moved();
        if let Err(error) = sessions::write_down_seen(app).await {
            tracing::warn!(%error, "when sessions were last seen could not be written down");
        }
    }
}

fn start_worker(app: &App) -> Worker {
    Worker::start(app.db.clone(), app.queue.clone(), maintenance::handlers(app))
}

async fn bind(address: std::net::SocketAddr, key: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|e| {
        StartError(format!("{key}: {address} cannot be listened on: {e}. Is another program using the port? Port 0 takes a free one."))
    })
}

fn shown_url(listen: std::net::SocketAddr, port: u16) -> String {
    let host = if listen.ip().is_loopback() { "localhost".to_owned() } else { listen.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("http://{host}:{port}")
}

/// The database that the settings name, not asked yet.
///
/// # Errors
/// [`StartError`] when the settings or the file are wrong.
pub(crate) fn open_database(settings: &Settings) -> Result<Db, StartError> {
    let opened = match settings.postgres() {
        Some(options) => Db::postgres(&options),
        None => Db::sqlite(&settings.data_dir.join("pearlgate.db"), true),
    };
    opened.map_err(|e| StartError(e.to_string()))
}

/// Takes the data directory for this process. The kernel gives it back when the process ends, however it ends.
pub(crate) fn lock_directory(dir: &Path) -> Result<File, StartError> {
    let fail = |what: &str, e: &dyn std::fmt::Display| {
        StartError(format!(
            "the data directory {} cannot be {what}: {e}. Choose another with --data.",
            dir.display()
        ))
    };
    std::fs::create_dir_all(dir).map_err(|e| fail("made", &e))?;
    let path = dir.join("pearlgate.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| fail("written to", &e))?;
    file.try_lock().map_err(|e| match e {
        std::fs::TryLockError::WouldBlock => fail("used", &"another Pearlgate is running on it"),
        std::fs::TryLockError::Error(e) => fail("locked", &e),
    })?;
    Ok(file)
}

/// The master key that dev mode made in a data directory, if it did.
pub(crate) fn dev_key(dir: &Path) -> Option<[u8; 32]> {
    parse_master_key(&std::fs::read_to_string(dir.join("dev-master.key")).ok()?)
}

/// The configured master keys, or what dev mode made in the data directory.
pub(crate) fn master_keys(settings: &Settings) -> Option<MasterKeys> {
    let dev = || dev_key(&settings.data_dir).map(|key| MasterKeys::new(key, &settings.old_master_keys.0));
    settings.master_keys().or_else(dev)
}

fn dev_master_key(dir: &Path, chance: &Entropy) -> Result<[u8; 32], StartError> {
    let path = dir.join("dev-master.key");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return parse_master_key(&text).ok_or_else(|| {
            StartError(format!(
                "{} is not a master key. Remove it together with the database to start afresh.",
                path.display()
            ))
        });
    }
    let key: [u8; 32] = chance.bytes();
    write_private(&path, &BASE64.encode(&key)).map_err(|e| StartError(format!("{}: {e}", path.display())))?;
    Ok(key)
}

#[cfg(unix)]
fn write_private(path: &PathBuf, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create_new(true).write(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(not(unix))]
fn write_private(path: &PathBuf, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)
}
