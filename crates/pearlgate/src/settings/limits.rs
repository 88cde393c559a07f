//! The settings of limits, lockout and alarms.

use std::time::Duration;

use foundation::config::{ConfigError, Layers};
use foundation::kernel::Secret;
use foundation::limits::{Mode, Name, Quota, Redis, Rule};

use super::{RawAlarms, RawLimit, RawLimits, RawLockout, duration};
use crate::limits::{ALL, By, Limit};

/// Where networks and sessions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In Redis when there is one, else where several servers share a database, else in memory.
    Auto,
    /// In this process.
    Memory,
    /// In the database.
    Database,
    /// In Redis.
    Redis,
}

/// Limits as they are set.
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// Where.
    pub store: Store,
    /// Which.
    pub rules: Vec<(Name, Rule)>,
    /// Mails that strangers can have sent to one mailbox.
    pub mails: MailCaps,
    /// For how long sign-ins are written down.
    pub history: Duration,
    /// How many a day.
    pub history_per_day: u32,
}

/// Mails that strangers can have sent to one mailbox.
#[derive(Debug, Clone, Copy)]
pub struct MailCaps {
    /// In any hour.
    pub per_hour: u32,
    /// In any day.
    pub per_day: u32,
    /// Whether it counts.
    pub mode: Mode,
}

/// When strangers are kept out of an account.
#[derive(Debug, Clone, Copy)]
pub struct LockoutSettings {
    /// Whether it counts.
    pub mode: Mode,
    /// Failures in a row with which it begins.
    pub after: u32,
    /// For how long at first.
    pub first: Duration,
    /// And at most.
    pub longest: Duration,
    /// After which quiet time it begins anew.
    pub forget: Duration,
    /// Wrong passwords by strangers in all.
    pub strangers: u32,
    /// Wrong passwords on known devices in all.
    pub devices: u32,
}

/// When an alarm is raised.
#[derive(Debug, Clone, Copy)]
pub struct AlarmSettings {
    /// The time that is looked at.
    pub window: Duration,
    /// The share of failures.
    pub failure_ratio: f64,
    /// Of at least so many.
    pub at_least: u32,
    /// Accounts that one network may try.
    pub accounts_per_network: u32,
    /// Accounts that one password may be tried with.
    pub accounts_per_password: u32,
    /// What strangers need then.
    pub answer: AlarmAnswer,
}

/// What a device that nobody knows needs beside the password while there is an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmAnswer {
    /// Nothing.
    None,
    /// A proof of work.
    ProofOfWork,
    /// A code from the mailbox.
    MailedCode,
}

const MODES: &str = "is \"on\", \"report\" or \"off\"";

fn mode(layers: &Layers, key: &str, text: &str) -> Result<Mode, ConfigError> {
    match text {
        "on" => Ok(Mode::On),
        "report" => Ok(Mode::Report),
        "off" => Ok(Mode::Off),
        _ => Err(layers.refuse(key, MODES)),
    }
}

/// Checks the limits.
pub(super) fn read(
    layers: &Layers,
    raw: &RawLimits,
    dev: bool,
    redis: &Secret,
) -> Result<LimitSettings, ConfigError> {
    let rules = ALL.iter().map(|limit| Ok((limit.name, rule(layers, limit, of(raw, limit), dev)?)));
    let caps = &raw.mails;
    if caps.per_hour == 0 || caps.per_hour > caps.per_day {
        return Err(layers.refuse("limits.mails.per_hour", "is between 1 and limits.mails.per_day"));
    }
    if caps.per_day > 1000 {
        let what = "is between limits.mails.per_hour (at least 1) and 1000";
        return Err(layers.refuse("limits.mails.per_day", what));
    }
    let store = match raw.store.as_str() {
        "auto" => Store::Auto,
        "memory" => Store::Memory,
        "database" => Store::Database,
        "redis" if redis.reveal().is_empty() => {
            return Err(layers.refuse("limits.store", "is \"redis\", and redis.url names none"));
        }
        "redis" => Store::Redis,
        _ => return Err(layers.refuse("limits.store", "is \"auto\", \"memory\", \"database\" or \"redis\"")),
    };
    Ok(LimitSettings {
        store,
        rules: rules.collect::<Result<_, ConfigError>>()?,
        mails: MailCaps {
            per_hour: caps.per_hour,
            per_day: caps.per_day,
            mode: mode(layers, "limits.mails.mode", &caps.mode)?,
        },
        history: duration(layers, "limits.history.keep", &raw.history.keep)?,
        history_per_day: raw.history.per_day,
    })
}

fn of<'r>(raw: &'r RawLimits, limit: &Limit) -> &'r RawLimit {
    use crate::limits as l;
    match limit.name {
        name if name == l::SIGN_IN.name => &raw.sign_in,
        name if name == l::SIGN_IN_NETWORK.name => &raw.sign_in_network,
        name if name == l::SIGN_IN_EVERYBODY.name => &raw.sign_in_everybody,
        name if name == l::REGISTRATION_NETWORK.name => &raw.registration_network,
        name if name == l::MAIL_NETWORK.name => &raw.mail_network,
        name if name == l::PROOF_NETWORK.name => &raw.proof_network,
        name if name == l::REFRESH.name => &raw.refresh,
        name if name == l::FACTOR_CHANGES.name => &raw.factor_changes,
        name if name == l::EXPORTS.name => &raw.exports,
        _ => &raw.reauthentication,
    }
}

fn rule(layers: &Layers, limit: &Limit, raw: &RawLimit, dev: bool) -> Result<Rule, ConfigError> {
    let key = |part: &str| format!("limits.{}.{part}", limit.name);
    let per = duration(layers, &key("per"), &raw.per)?;
    if per > Duration::from_secs(400 * 86_400) {
        return Err(layers.refuse(&key("per"), "is at most 400 days"));
    }
    let quota = Quota::new(raw.count, per).ok_or_else(|| {
        layers.refuse(&key("count"), "must be at least 1, and at most one in every microsecond of `per`")
    })?;
    let mode = match mode(layers, &key("mode"), &raw.mode)? {
        // Everybody who tries it out comes from one address.
        Mode::On if dev && limit.by.is_shared() => Mode::Report,
        mode => mode,
    };
    Ok(Rule { quota, mode, lazy: limit.by == By::Session })
}

/// Checks the address of Redis, if there is one.
pub(super) fn redis(layers: &Layers, url: Secret) -> Result<Option<Secret>, ConfigError> {
    if url.reveal().is_empty() {
        return Ok(None);
    }
    Redis::check(&url).map_err(|why| layers.refuse("redis.url", why))?;
    Ok(Some(url))
}

/// Checks the lockout.
pub(super) fn lockout(layers: &Layers, raw: &RawLockout) -> Result<LockoutSettings, ConfigError> {
    let settings = LockoutSettings {
        mode: mode(layers, "lockout.mode", &raw.mode)?,
        after: raw.after,
        first: duration(layers, "lockout.first", &raw.first)?,
        longest: duration(layers, "lockout.longest", &raw.longest)?,
        forget: duration(layers, "lockout.forget", &raw.forget)?,
        strangers: raw.strangers,
        devices: raw.devices,
    };
    if settings.after == 0 || settings.after > settings.strangers {
        return Err(layers.refuse("lockout.after", "is between 1 and lockout.strangers"));
    }
    if settings.longest < settings.first || settings.longest > Duration::from_secs(86_400) {
        return Err(
            layers.refuse("lockout.longest", "is between lockout.first and \"24h\": an owner may be waiting")
        );
    }
    let all = settings.strangers.saturating_add(settings.devices);
    if settings.devices == 0 || all > 100 {
        return Err(layers.refuse(
            "lockout.strangers",
            "and lockout.devices (at least 1) are together at most 100 (NIST SP 800-63B-4 §3.2.2)",
        ));
    }
    Ok(settings)
}

/// Checks the alarms.
pub(super) fn alarms(layers: &Layers, raw: &RawAlarms) -> Result<AlarmSettings, ConfigError> {
    if !(raw.failure_ratio > 0.0 && raw.failure_ratio <= 1.0) {
        return Err(layers.refuse("alarms.failure_ratio", "is a share above 0 and up to 1, such as 0.7"));
    }
    let numbers = [
        ("alarms.at_least", raw.at_least),
        ("alarms.accounts_per_network", raw.accounts_per_network),
        ("alarms.accounts_per_password", raw.accounts_per_password),
    ];
    if let Some((key, _)) = numbers.iter().find(|(_, number)| !(2..=1_000_000).contains(number)) {
        return Err(layers.refuse(key, "is between 2 and 1000000"));
    }
    Ok(AlarmSettings {
        window: duration(layers, "alarms.window", &raw.window)?,
        failure_ratio: raw.failure_ratio,
        at_least: raw.at_least,
        accounts_per_network: raw.accounts_per_network,
        accounts_per_password: raw.accounts_per_password,
        answer: match raw.answer.as_str() {
            "none" => AlarmAnswer::None,
            "proof_of_work" => AlarmAnswer::ProofOfWork,
            "mailed_code" => AlarmAnswer::MailedCode,
            _ => {
                let what = "is \"none\", \"proof_of_work\" or \"mailed_code\"";
                return Err(layers.refuse("alarms.answer", what));
            }
        },
    })
}
