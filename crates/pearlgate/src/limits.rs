//! The limits there are, by name: which each route has stands beside it in the router.

use foundation::db::Db;
use foundation::kernel::{Clock, MacKey, MasterKeys, Problem};
use foundation::limits::{Limits, Mode, Name, Quota, Redis, Rule, Shared, Taken};
use foundation::outbound::{Dependencies, Patience, Settings as Guard};
use std::time::Duration;

use crate::errors;
use crate::settings::{Settings, Store};

/// Whom a limit counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The client's network: an IPv4 address or an IPv6 /64.
    Network,
    /// All together.
    Everybody,
    /// The address, whether or not it has an account: taken where the account is looked for.
    Account,
    /// The session: taken where its token is read.
    Session,
}

impl By {
    /// Whether many people stand behind one counter.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::Network | Self::Everybody)
    }
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// As the settings spell it.
    pub name: Name,
    /// Whom it counts against.
    pub by: By,
}

macro_rules! limits {
    ($($(#[$doc:meta])* $id:ident = $name:literal by $by:ident;)+) => {
        $($(#[$doc])* pub const $id: Limit = Limit { name: $name, by: By::$by };)+
        /// All of them.
        pub const ALL: &[Limit] = &[$($id),+];
    };
}

/// Each solved challenge once; no setting, because it would be no proof otherwise.
pub const PROOF_OF_WORK: Limit = Limit { name: "proof_of_work", by: By::Everybody };
/// Longer than a challenge can be solved.
const ONCE: Duration = Duration::from_secs(600);

limits! {
    /// Wrong passwords at sign-in.
    SIGN_IN = "sign_in" by Account;
    /// Sign-ins by password.
    SIGN_IN_NETWORK = "sign_in_network" by Network;
    /// All sign-ins by password.
    SIGN_IN_EVERYBODY = "sign_in_everybody" by Everybody;
    /// Registrations.
    REGISTRATION_NETWORK = "registration_network" by Network;
    /// Asking for a mail.
    MAIL_NETWORK = "mail_network" by Network;
    /// Showing what was mailed.
    PROOF_NETWORK = "proof_network" by Network;
    /// New tokens.
    REFRESH = "refresh" by Session;
    /// Wrong passwords and codes of somebody who is signed in.
    REAUTHENTICATION = "reauthentication" by Session;
    /// Changes of one's own second factors.
    FACTOR_CHANGES = "factor_changes" by Account;
    /// Taking everything along that is stored about oneself.
    EXPORTS = "exports" by Account;
}

const REDIS: &str = "redis";
/// `outages.md`.
const BUDGET: Duration = Duration::from_millis(20);
const DEGRADED: &str = "limits are counted in each server's memory and in the database";
const PATIENCE: Patience =
    Patience { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(30), slow: None };
/// One connection carries them all.
const AT_A_TIME: usize = 1_024;

/// The limits of the settings, counted where they say.
///
/// # Errors
/// In words, when the address of Redis is none.
pub fn start(
    settings: &Settings,
    dependencies: &Dependencies,
    db: &Db,
    master: &MasterKeys,
    clock: Clock,
) -> Result<Limits, String> {
    let wanted = matches!(settings.limits.store, Store::Auto | Store::Redis);
    let redis = match settings.redis.as_ref().filter(|_| wanted) {
        None => None,
        Some(url) => {
            let guard = Guard {
                name: REDIS.into(),
                timeout: BUDGET,
                degraded: DEGRADED,
                patience: Some(PATIENCE),
                at_a_time: AT_A_TIME,
            };
            Some(Redis::new(url, dependencies.add(guard)).map_err(|why| format!("redis.url {why}"))?)
        }
    };
    let shared = match (settings.limits.store, redis) {
        (Store::Auto | Store::Redis, Some(redis)) => Shared::Redis(Box::new(redis), db.clone()),
        (Store::Auto, None) if settings.database_url.is_some() => Shared::Database(db.clone()),
        (Store::Database, _) => Shared::Database(db.clone()),
        _ => Shared::None,
    };
    let key = MacKey::derive(master.current(), "limits");
    let once =
        Quota::new(1, ONCE).map(|quota| (PROOF_OF_WORK.name, Rule { quota, mode: Mode::On, lazy: false }));
    Ok(Limits::new(settings.limits.rules.iter().copied().chain(once), shared, key, clock))
}

/// What is told to whoever is over a limit.
pub fn too_many(taken: &Taken) -> Problem {
    errors::problem("too_many_attempts").retry_after(taken.retry_after()).headers(taken.headers())
}
