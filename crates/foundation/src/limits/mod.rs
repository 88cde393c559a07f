//! How often something may be done, and by whom. One algorithm (GCRA), three stores that give the same answers: this
//! process's memory, the database, Redis.
//!
//! * A limit has a name and a rule from the settings: so many in such a time; off, report-only, or on.
//! * An attempt is spent before the work that it stands for. [`Limits::take`] asks the memory first, which knows what
//!   this process saw: who is over there costs nobody anything more. Then the shared store decides. When Redis is away
//!   (or forgot everything), memory and database go on: never unlimited.
//! * [`Limits::take_in`] counts in the database, in the transaction of what it guards, and can be given back there.
//! * Keys are slots of a fixed number, under a key of the server's: what is stored is bounded and says nothing about
//!   whom it is about.

mod database;
mod gcra;
mod memory;
mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use database::{STATEMENTS, sweep};
pub use gcra::{Quota, Standing};
pub use redis::Redis;

use crate::db::{self, Db, Tx};
use crate::kernel::{Clock, MacKey, Timestamp};
use memory::Memory;

/// Keys of one limit: strangers share a slot with somebody once in four million.
const SLOTS: u64 = 1 << 22;

/// A limit's name, as the settings spell it.
pub type Name = &'static str;

/// Whether a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// It is counted and measured, and nobody is stopped.
    Report,
    /// Whoever is over it is stopped.
    On,
}

/// A limit as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// So many in such a time.
    pub quota: Quota,
    /// Whether it counts.
    pub mode: Mode,
    /// The shared store is asked only by whoever has used a quarter of it in this process: for what happens all the time
    /// and is hardly ever too much. Every further process lets through up to a quarter more.
    pub lazy: bool,
}

/// Whom an attempt counts against, within one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) u64);

impl Key {
    fn as_number(self) -> i64 {
        i64::from_ne_bytes(self.0.to_ne_bytes())
    }
}

/// Where shared counters are.
#[derive(Clone)]
pub enum Shared {
    /// Nowhere: there is only this process.
    None,
    /// In the database.
    Database(Db),
    /// In Redis; in the database while it is away.
    Redis(Box<Redis>, Db),
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Which limit.
    pub name: Name,
    /// Its rule.
    pub rule: Rule,
    /// How its key stands.
    pub standing: Standing,
}

impl Taken {
    /// Whether the attempt has to stop here.
    pub fn refused(&self) -> bool {
        self.rule.mode == Mode::On && !self.standing.allowed
    }

    /// Seconds after which the next attempt may be made, at least one.
    pub fn retry_after(&self) -> u64 {
        whole_seconds(self.standing.retry_after).max(1)
    }

    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
    pub fn headers(&self) -> [(&'static str, String); 2] {
        let (name, quota, standing) = (self.name, &self.rule.quota, &self.standing);
        let (window, free) = (whole_seconds(quota.per()).max(1), whole_seconds(standing.free_in));
        [
            ("ratelimit-policy", format!("\"{name}\";q={};w={window}", quota.count())),
            ("ratelimit", format!("\"{name}\";r={};t={free}", standing.remaining)),
        ]
    }
}

fn whole_seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Every limit of this process. Cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    rules: BTreeMap<Name, Counted>,
    shared: Shared,
    key: MacKey,
    clock: Clock,
}

struct Counted {
    rule: Rule,
    memory: Memory,
    /// What its keys begin with.
    prefix: u64,
}

impl Limits {
    /// With these rules. `key` hides whom the counters are about.
    pub fn new(
        rules: impl IntoIterator<Item = (Name, Rule)>,
        shared: Shared,
        key: MacKey,
        clock: Clock,
    ) -> Self {
        let counted = |(name, rule): (Name, Rule)| {
            let prefix = u64::from_be_bytes(key.mac_parts(&[name.as_bytes()]).truncated()) & !(SLOTS - 1);
            (name, Counted { rule, memory: Memory::default(), prefix })
        };
        let rules = rules.into_iter().map(counted).collect();
        Self(Arc::new(Inner { rules, shared, key, clock }))
    }

    /// The slot of a subject in a limit.
    fn key(&self, counted: &Counted, subject: &[u8]) -> Key {
        let slot = u64::from_be_bytes(self.0.key.mac(subject).truncated());
        Key(counted.prefix | (slot & (SLOTS - 1)))
    }

    /// Spends one attempt of a subject; none when the limit is off (or there is none of this name).
    ///
    /// # Errors
    /// When neither Redis nor the database answers: then nothing is known, and nothing may go on.
    pub async fn take(&self, name: Name, subject: &[u8]) -> db::Result<Option<Taken>> {
        let Some(counted) = self.on(name) else { return Ok(None) };
        let Counted { rule, memory, .. } = counted;
        let (key, now, quota) = (self.key(counted, subject), self.0.clock.now(), rule.quota);
        let known = quota.from(memory.known(key), now);
        let (seen_allowed, seen) = quota.try_at(known, now);
        let (allowed, free_at) = if !seen_allowed {
            (false, seen)
        } else {
            let (allowed, free_at) = match &self.0.shared {
                Shared::None => memory.take(key, &quota, now),
                _ if rule.lazy && quota.is_little(known, now) => memory.take(key, &quota, now),
                Shared::Database(db) => in_database(db, key, quota, now, known).await?,
                Shared::Redis(redis, db) => match redis.take(key, &quota, now, known).await {
                    Ok(answer) => answer,
                    // Others of this process may have been let through meanwhile.
                    Err(_) => {
                        let known = quota.from(memory.known(key), now);
                        in_database(db, key, quota, now, known).await?
                    }
                },
            };
            memory.learn(key, free_at, &quota, now);
            (allowed, free_at)
        };
        Ok(Some(self.noted(name, rule, quota.standing(allowed, free_at, now))))
    }

    /// Spends one attempt in the database, in the transaction of what it guards.
    ///
    /// # Errors
    /// As every statement.
    pub fn take_in(&self, tx: &mut Tx<'_>, name: Name, subject: &[u8]) -> db::Result<Option<Taken>> {
        let Some(counted) = self.on(name) else { return Ok(None) };
        let (rule, key, now) = (&counted.rule, self.key(counted, subject), self.0.clock.now());
        let (allowed, free_at) = database::take(tx, key, &rule.quota, now, 0)?;
        Ok(Some(self.noted(name, rule, rule.quota.standing(allowed, free_at, now))))
    }

    /// Gives back what [`Limits::take_in`] spent.
    ///
    /// # Errors
    /// As every statement.
    pub fn give_back_in(&self, tx: &mut Tx<'_>, name: Name, subject: &[u8]) -> db::Result<()> {
        let Some(counted) = self.on(name) else { return Ok(()) };
        database::give_back(tx, self.key(counted, subject), &counted.rule.quota)
    }

    /// Forgets what [`Limits::take_in`] counted against a subject.
    ///
    /// # Errors
    /// As every statement.
    pub fn forget_in(&self, tx: &mut Tx<'_>, name: Name, subject: &[u8]) -> db::Result<()> {
        let Some(counted) = self.on(name) else { return Ok(()) };
        database::forget(tx, self.key(counted, subject))
    }

    fn on(&self, name: Name) -> Option<&Counted> {
        self.0.rules.get(name).filter(|counted| counted.rule.mode != Mode::Off)
    }

    fn noted(&self, name: Name, rule: &Rule, standing: Standing) -> Taken {
        if !standing.allowed {
            let mode = if rule.mode == Mode::On { "on" } else { "report" };
            metrics::counter!("limits_reached_total", "limit" => name, "mode" => mode).increment(1);
            tracing::debug!(limit = name, mode, "a limit was reached");
        }
        Taken { name, rule: *rule, standing }
    }
}

async fn in_database(db: &Db, key: Key, quota: Quota, now: Timestamp, known: i64) -> db::Result<(bool, i64)> {
    db.write(move |tx| database::take(tx, key, &quota, now, known)).await
}
