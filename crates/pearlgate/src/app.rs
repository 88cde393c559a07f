//! Everything that handlers share, put together once at start.

use std::ops::Deref;
use std::sync::Arc;

use foundation::audit::{Event, Stream, Trail};
use foundation::db::{self, Db, Migration, Tx};
use foundation::http::{ClientAddress, Idempotency, OneForAll};
use foundation::jobs::Queue;
use foundation::kernel::{Clock, CursorKey, Entropy, Id, MacKeys, MasterKeys, Sealer};
use foundation::limits::Limits;
use foundation::mail::{Hop, Mailbox, Office, Postman, Renderer, Smtp, Transport};
use foundation::outbound::Dependencies;
use foundation::telemetry::Metrics;
use minijinja::Environment;
use tokio::sync::{Notify, watch};

use crate::access::By;
use crate::accounts::{self, UserRow};
use crate::federation::Providers;
use crate::limits;
use crate::lockout::Turns;
use crate::passwords::{Breaches, Cost, HashPool};
use crate::sessions::{AccessTokens, KeyKeeper, Own, Places, RefreshKey, Seen};
use crate::settings::{MailWay, Settings};
use crate::sign_in::{Alarms, History};
use crate::templates;
use crate::webhooks::{self, Webhooks};

macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        /// The schema's steps, the same names for both databases.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            name: $name,
            sqlite: include_str!(concat!("../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../migrations/postgres/", $name, ".sql")),
        }),+];
    };
}
migrations!(
    "0001_people",
    "0002_operations",
    "0003_ways_back",
    "0004_sessions",
    "0005_limits",
    "0006_second_factors",
    "0007_passkeys",
    "0008_federation",
    "0009_outside",
    "0010_access",
    "0011_comings_and_goings"
);

/// The server's parts. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The server's parts.
#[expect(missing_docs, reason = "each part's type says what it is")]
pub struct Parts {
    pub settings: Settings,
    pub clock: Clock,
    pub chance: Entropy,
    pub db: Db,
    pub queue: Queue,
    pub postman: Postman,
    pub trail: Trail,
    pub dependencies: Dependencies,
    pub mailbox: Option<Mailbox>,
    pub limits: Limits,
    pub one_for_all: OneForAll,
    pub turns: Turns,
    pub alarms: Alarms,
    pub history: History,
    pub hashes: HashPool,
    pub breaches: Breaches,
    pub providers: Providers,
    pub webhooks: Webhooks,
    pub refresh_key: RefreshKey,
    pub access_tokens: AccessTokens,
    pub keys: KeyKeeper,
    pub seen: Seen,
    pub places: Places,
    /// Told whenever a session has ended.
    pub ended: Arc<Notify>,
    /// True as soon as the server is to stop.
    pub stopping: watch::Sender<bool>,
    pub code_key: MacKeys,
    pub device_key: MacKeys,
    pub work_key: MacKeys,
    pub passkey_key: MacKeys,
    pub cursors: CursorKey,
    pub idempotency: Idempotency,
    pub sealer: Sealer,
    pub templates: Arc<Environment<'static>>,
    pub metrics: Metrics,
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Puts the parts together. Nothing outside is asked yet.
    ///
    /// # Errors
    /// In words, when a part cannot be made from the settings.
    pub fn new(
        settings: Settings,
        db: Db,
        clock: Clock,
        chance: Entropy,
        master: &MasterKeys,
    ) -> Result<Self, String> {
        let templates = Arc::new(templates::environment().map_err(|e| format!("a template is broken: {e}"))?);
        let dependencies = Dependencies::new(clock.clone(), chance.clone());
        let sealer = Sealer::new(master, chance.clone());
        let queue = Queue::new(clock.clone(), chance.clone());
        let mailbox = settings.dev.then(|| Mailbox::new(clock.clone()));
        let hops = hops(&settings, mailbox.as_ref())?;
        let office = Office {
            db: db.clone(),
            queue: queue.clone(),
            renderer: Renderer::new(templates.clone()),
            sealer: sealer.clone(),
            clock: clock.clone(),
            chance: chance.clone(),
            key: accounts::address_key,
        };
        let postman = Postman::new(hops, settings.mail.per_domain, &dependencies, office)?;
        let limits = limits::start(&settings, &dependencies, &db, master, clock.clone())?;
        let (memory, passes, lanes) = settings.hash_cost;
        let cost = Cost { memory, passes, lanes };
        Ok(Self(Arc::new(Parts {
            limits,
            one_for_all: OneForAll::default(),
            turns: Turns::default(),
            alarms: Alarms::new(settings.alarms, &chance),
            history: History::new(settings.limits.history_per_day),
            hashes: HashPool::start(
                cost,
                settings.peppers.clone(),
                settings.hash_threads,
                settings.hash_queue,
                chance.clone(),
            )?,
            breaches: Breaches::new(&settings, &dependencies)?,
            providers: Providers::new(&settings, &dependencies, clock.clone(), sealer.clone())?,
            webhooks: Webhooks::new(&settings.webhooks, &dependencies)?,
            trail: Trail::new(clock.clone(), chance.clone()),
            refresh_key: RefreshKey::derive(master),
            access_tokens: AccessTokens::new(&settings),
            keys: KeyKeeper::new(&settings, db.clone(), sealer.clone(), clock.clone(), chance.clone()),
            seen: Seen::default(),
            places: Places::open(settings.places_file.as_deref())?,
            ended: Arc::default(),
            stopping: watch::channel(false).0,
            code_key: MacKeys::derive(master, "code"),
            device_key: MacKeys::derive(master, "device"),
            work_key: MacKeys::derive(master, "work"),
            passkey_key: MacKeys::derive(master, "passkey"),
            cursors: CursorKey::derive(master),
            idempotency: Idempotency::derive(master),
            metrics: Metrics::start(),
            settings,
            clock,
            chance,
            db,
            queue,
            postman,
            dependencies,
            mailbox,
            sealer,
            templates,
        })))
    }

    /// Writes what happened to somebody, or at an address, by nobody known: a stranger, or the server itself. Applications
    /// that want to be told are told.
    ///
    /// # Errors
    /// As every statement.
    pub fn audit(
        &self,
        tx: &mut Tx<'_>,
        stream: &Stream,
        kind: &'static str,
        from: ClientAddress,
        details: serde_json::Value,
    ) -> db::Result<()> {
        if let Ok(user) = stream.name().parse() {
            webhooks::tell_of(tx, self, user, kind, &details)?;
        }
        self.trail.record(tx, stream, &Event { kind, actor: String::new(), address: place(from), details })
    }

    /// Writes what a person did, having proven who they are, and in which session where there is one. Applications that want
    /// to be told are told.
    ///
    /// # Errors
    /// As every statement.
    pub fn audit_own(
        &self,
        tx: &mut Tx<'_>,
        who: impl Into<Own>,
        kind: &'static str,
        from: ClientAddress,
        details: serde_json::Value,
    ) -> db::Result<()> {
        let Own { user, session } = who.into();
        webhooks::tell_of(tx, self, user, kind, &details)?;
        let details = in_session(details, session.map(|id| id.to_string()).unwrap_or_default());
        let event = Event { kind, actor: user.to_string(), address: place(from), details };
        self.trail.record(tx, &Stream::of(user), &event)
    }

    /// Writes what an operator did to somebody, or to the server, and in which session. Applications that want to be told are
    /// told.
    ///
    /// # Errors
    /// As every statement.
    pub fn audit_by(
        &self,
        tx: &mut Tx<'_>,
        stream: &Stream,
        kind: &'static str,
        by: &By,
        details: serde_json::Value,
    ) -> db::Result<()> {
        if let Ok(user) = stream.name().parse() {
            webhooks::tell_of(tx, self, user, kind, &details)?;
            if by.person() != Some(user) {
                self.note_act(tx, user, kind, by)?;
            }
        }
        let details = in_session(details, by.session());
        self.trail.record(tx, stream, &Event { kind, actor: by.actor(), address: place(by.from), details })
    }

    /// That an operator did something to somebody stands in the server's own chain as well: whoever erases somebody erases
    /// nothing of what was done to them.
    fn note_act(&self, tx: &mut Tx<'_>, user: Id<UserRow>, kind: &'static str, by: &By) -> db::Result<()> {
        let details = in_session(serde_json::json!({ "on": user, "did": kind }), by.session());
        let event = Event { kind: "acted", actor: by.actor(), address: place(by.from), details };
        self.trail.record(tx, &Stream::server(), &event)
    }
}

/// Who is given mails: in dev mode the mailbox in the browser, which stands for all of them.
fn hops(settings: &Settings, mailbox: Option<&Mailbox>) -> Result<Vec<Hop>, String> {
    if let Some(mailbox) = mailbox {
        let name = "primary".to_owned();
        return Ok(vec![Hop { name, transport: Transport::Mailbox(mailbox.clone()), paces: Vec::new() }]);
    }
    let hop = |hop: &crate::settings::MailHop| {
        let transport = match &hop.way {
            MailWay::Smtp(options) => Transport::Smtp(Smtp::new(options).map_err(|e| e.to_string())?),
            MailWay::Api(account) => Transport::Api(Box::new(account.clone())),
        };
        Ok(Hop { name: hop.name.clone(), transport, paces: hop.paces.clone() })
    };
    settings.mail.hops.iter().map(hop).collect()
}

/// The session in which something was done beside what is known of it, unless that is about a session.
fn in_session(mut details: serde_json::Value, session: String) -> serde_json::Value {
    if let Some(known) = details.as_object_mut().filter(|_| !session.is_empty()) {
        known.entry("session").or_insert(session.into());
    }
    details
}

/// The address as it is written down: nothing for what came from inside.
fn place(from: ClientAddress) -> String {
    if from.0.is_unspecified() { String::new() } else { from.to_string() }
}
