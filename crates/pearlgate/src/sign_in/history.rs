//! Sign-ins by password as they came, written down for the replay of other policies. Nobody waits for it: what cannot be
//! written is dropped and counted, and there is a most of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use std::time::Duration;

use foundation::db::{self, Db, Tx};
use foundation::kernel::{Entity, Id, Timestamp};
use foundation::params;
use tokio::sync::mpsc;

use super::replay::{Came, Replay};
use super::store;
use crate::app::App;
use crate::settings::Settings;

/// Waiting to be written.
const QUEUE: usize = 10_000;
/// Written in one transaction.
const BATCH: usize = 500;
/// Read at a time.
const PAGE: i64 = 2_000;
const DAY: i64 = 86_400_000_000;

/// Ids of attempts.
#[derive(Debug)]
pub(super) struct AttemptRow;
impl Entity for AttemptRow {
    const PREFIX: &'static str = "att";
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// The password was right.
    Right,
    /// It was wrong.
    Wrong,
    /// Strangers were locked out; nobody looked.
    Locked,
    /// A limit was reached; nobody looked.
    Limited,
}

impl Went {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Locked => "locked",
            Self::Limited => "limited",
        }
    }
}

/// An attempt.
#[derive(Debug, Clone)]
pub(super) struct Noted {
    pub(super) at: Timestamp,
    pub(super) subject: String,
    pub(super) network: String,
    pub(super) device: bool,
    pub(super) went: Went,
}

/// Where attempts are put. Cheap to clone.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Noted>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Noted>>,
    per_day: u32,
    day: AtomicI64,
    today: AtomicU32,
}

impl History {
    /// Empty; at most so many a day.
    pub fn new(per_day: u32) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = tokio::sync::Mutex::new(waiting);
        let (day, today) = (AtomicI64::new(0), AtomicU32::new(0));
        Self(Arc::new(Inner { queue, waiting, per_day, day, today }))
    }

    pub(super) fn note(&self, noted: Noted) {
        let Inner { queue, per_day, day, today, .. } = &*self.0;
        let this_day = noted.at.micros() / DAY;
        if day.swap(this_day, Ordering::Relaxed) != this_day {
            today.store(0, Ordering::Relaxed);
        }
        let kept = today.fetch_add(1, Ordering::Relaxed) < *per_day && queue.try_send(noted).is_ok();
        if !kept {
            metrics::counter!("sign_in_attempts_dropped_total").increment(1);
        }
    }
}

/// Writes down what comes, until the program ends.
pub async fn write_down_attempts(app: App) {
    let mut waiting = app.history.0.waiting.lock().await;
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let (inner, noted) = (app.clone(), std::mem::take(&mut batch));
        let written = app.db.write(move |tx| noted.iter().try_for_each(|noted| insert(tx, &inner, noted)));
        if let Err(error) = written.await {
            tracing::warn!(%error, "sign-ins could not be written down for the replay of policies");
        }
    }
}

fn insert(tx: &mut Tx<'_>, app: &App, noted: &Noted) -> db::Result<()> {
    let id = Id::<AttemptRow>::new(&app.clock, &app.chance);
    let Noted { at, subject, network, device, went } = noted;
    tx.execute(&store::NOTE, params![id, at, subject, network, i64::from(*device), went.as_str()]).map(|_| ())
}

/// Replays what was written down since a moment under a policy.
///
/// # Errors
/// As every read.
pub async fn replay(db: &Db, since: Timestamp, policy: &Settings) -> db::Result<Replay> {
    let mut replay = Replay::new(policy);
    let (mut after, mut last) = (since - Duration::from_micros(1), Id::<AttemptRow>::from_bytes([0; 16]));
    loop {
        let page =
            db.read_one(move |tx| tx.all::<Came>(&store::NOTED, params![since, after, last, PAGE])).await?;
        for came in &page {
            (after, last) = (came.at, came.id);
            replay.see(came);
        }
        if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
            return Ok(replay);
        }
    }
}

/// Forgets what is older than the settings keep. True when there is more.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, app: &App) -> db::Result<bool> {
    let before = app.clock.now() - app.settings.limits.history;
    Ok(tx.execute(&store::SWEEP_NOTED, params![before])? >= 500)
}
