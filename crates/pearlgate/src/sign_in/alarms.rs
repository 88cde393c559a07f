//! When so much goes wrong that it is no accident: a large share of all sign-ins fails (stuffing), one network tries many
//! accounts, one password is tried with many accounts (spraying). In the memory of this process, and bounded.
//!
//! Passwords are told apart by an HMAC under a key that this process makes for itself and never writes down: what is
//! remembered says nothing to anybody else, and nothing at all after a restart.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foundation::kernel::{Entropy, MacKey, Timestamp};
use serde_json::{Value, json};

use crate::passwords::Attempt;
use crate::settings::AlarmSettings;

const DAY: Duration = Duration::from_secs(86_400);
/// Parts of the window that are counted for themselves.
const PARTS: i64 = 10;
/// Networks, and passwords, that are remembered at a time: a few MiB.
const MOST: usize = 1 << 16;
/// Alarms at a time; more say nothing new.
const AT_A_TIME: usize = 256;

/// Something to be told, once until it is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// What was too much, as the settings spell it.
    pub reason: &'static str,
    /// By how much.
    pub details: Value,
}

/// The alarms of this process. Cheap to clone.
#[derive(Clone)]
pub struct Alarms(Arc<Inner>);

struct Inner {
    settings: AlarmSettings,
    key: MacKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Part, sign-ins, failures.
    parts: VecDeque<(i64, u32, u32)>,
    networks: Spread,
    passwords: Spread,
    /// Until when, by reason and what it is about.
    on: BTreeMap<(&'static str, u64), Timestamp>,
    /// Raised, and not told yet: at most one for each that is on.
    unheard: Vec<Raised>,
}

/// Which accounts something was tried with.
#[derive(Default)]
struct Spread(HashMap<u64, (Timestamp, Vec<u64>)>);

impl Spread {
    /// Notes one more; the number of accounts within `window`, at most `enough`.
    fn note(&mut self, what: u64, account: u64, enough: usize, window: Duration, now: Timestamp) -> usize {
        if self.0.len() >= MOST && !self.0.contains_key(&what) {
            self.0.retain(|_, (since, _)| *since + window > now);
            // Whoever did least is forgotten first, and of these whoever came first.
            while self.0.len() >= MOST {
                let least = self.0.values().map(|(_, accounts)| accounts.len()).min().unwrap_or(0);
                let mut since: Vec<Timestamp> =
                    self.0.values().filter(|(_, all)| all.len() == least).map(|(since, _)| *since).collect();
                let middle = since.len() / 2;
                let middle = *since.select_nth_unstable(middle).1;
                self.0.retain(|_, (since, all)| all.len() > least || *since > middle);
            }
        }
        let (since, accounts) = self.0.entry(what).or_insert_with(|| (now, Vec::new()));
        if *since + window <= now || *since > now {
            (*since, *accounts) = (now, Vec::new());
        }
        if accounts.len() < enough && !accounts.contains(&account) {
            accounts.push(account);
        }
        accounts.len()
    }
}

impl Alarms {
    /// None yet.
    pub fn new(settings: AlarmSettings, chance: &Entropy) -> Self {
        let key = MacKey::new(&chance.bytes::<32>());
        Self(Arc::new(Inner { settings, key, state: Mutex::default() }))
    }

    /// Somebody tries a password with an account (or an address that nobody has).
    pub fn tried(&self, network: &str, password: &Attempt, account: &str, now: Timestamp) -> Vec<Raised> {
        let Inner { settings, key, .. } = &*self.0;
        let mark = |kind: &str, of: &str| {
            u64::from_be_bytes(key.mac_parts(&[kind.as_bytes(), of.as_bytes()]).truncated())
        };
        let account = mark("account", account);
        let (of_network, of_password) = (mark("network", network), mark("password", password.reveal()));
        let mut state = self.state();
        let most = usize::try_from(settings.accounts_per_network).unwrap_or(usize::MAX);
        let tried = state.networks.note(of_network, account, most, settings.window, now);
        let one = state.raise(
            settings,
            now,
            tried >= most,
            ("accounts_per_network", of_network),
            || json!({ "reason": "accounts_per_network", "accounts": tried, "network": network }),
        );
        let most = usize::try_from(settings.accounts_per_password).unwrap_or(usize::MAX);
        let tried = state.passwords.note(of_password, account, most, DAY, now);
        let other = state.raise(
            settings,
            now,
            tried >= most,
            ("accounts_per_password", of_password),
            || json!({ "reason": "accounts_per_password", "accounts": tried }),
        );
        one.into_iter().chain(other).collect()
    }

    /// A password was looked at, or nobody waited for the end. With it comes what was raised when nobody listened.
    pub fn went(&self, well: bool, now: Timestamp) -> Vec<Raised> {
        let raised = self.count(well, now);
        let unheard = std::mem::take(&mut self.state().unheard);
        unheard.into_iter().chain(raised).collect()
    }

    /// The same where nobody can tell of it: who comes next does.
    pub fn went_unheard(&self, well: bool, now: Timestamp) {
        let raised = self.count(well, now);
        self.state().unheard.extend(raised);
    }

    fn count(&self, well: bool, now: Timestamp) -> Option<Raised> {
        let settings = &self.0.settings;
        let part = i64::try_from(settings.window.as_micros()).unwrap_or(i64::MAX) / PARTS;
        let part = now.micros() / part.max(1);
        let mut state = self.state();
        match state.parts.back_mut() {
            Some((last, tried, failed)) if *last >= part && *last - part < PARTS => {
                (*tried, *failed) = (*tried + 1, *failed + u32::from(!well));
            }
            _ => state.parts.push_back((part, 1, u32::from(!well))),
        }
        state.parts.retain(|(at, ..)| (part - PARTS..=part + PARTS).contains(at));
        let (tried, failed) =
            state.parts.iter().fold((0_u32, 0_u32), |(tried, failed), (_, t, f)| (tried + t, failed + f));
        let reached =
            tried >= settings.at_least && f64::from(failed) >= settings.failure_ratio * f64::from(tried);
        state.raise(
            settings,
            now,
            reached,
            ("failure_ratio", 0),
            || json!({ "reason": "failure_ratio", "tried": tried, "failed": failed }),
        )
    }

    /// Whether there is an alarm.
    pub fn are_on(&self, now: Timestamp) -> bool {
        let window = self.0.settings.window;
        self.state().on.values().any(|until| *until > now && *until <= now + window)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps an alarm on, and says so when it was off.
    fn raise(
        &mut self,
        settings: &AlarmSettings,
        now: Timestamp,
        reached: bool,
        what: (&'static str, u64),
        details: impl FnOnce() -> Value,
    ) -> Option<Raised> {
        if !reached {
            return None;
        }
        if self.on.len() >= AT_A_TIME && !self.on.contains_key(&what) {
            self.on.retain(|_, until| *until > now);
            if self.on.len() >= AT_A_TIME {
                return None;
            }
        }
        let was_on = self.on.insert(what, now + settings.window).is_some_and(|until| until > now);
        (!was_on).then(|| Raised { reason: what.0, details: details() })
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::Secret;

    use super::*;
    use crate::settings::AlarmAnswer;

    const WINDOW: Duration = Duration::from_secs(600);

    fn alarms() -> Alarms {
        let settings = AlarmSettings {
            window: WINDOW,
            failure_ratio: 0.7,
            at_least: 100,
            accounts_per_network: 5,
            accounts_per_password: 4,
            answer: AlarmAnswer::None,
        };
        Alarms::new(settings, &Entropy::System)
    }

    fn attempt(text: &str) -> Attempt {
        Attempt::accept("password", &Secret::new(text.into())).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_795_430_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn seven_in_ten_of_a_hundred_raise_one_alarm_that_ends() {
        let alarms = alarms();
        let mut raised = Vec::new();
        for n in 0..200 {
            raised.extend(alarms.went(n % 10 < 3, at(n)));
        }
        assert_eq!(raised.len(), 1, "told once: {raised:?}");
        assert_eq!((raised[0].reason, &raised[0].details["tried"]), ("failure_ratio", &json!(100)));
        assert!(alarms.are_on(at(798)) && !alarms.are_on(at(799)));
        for n in 0..200 {
            assert_eq!(alarms.went(n % 10 < 4, at(5_000 + n)), [], "six in ten is a bad morning");
        }
    }

    #[test]
    fn what_was_raised_when_nobody_listened_is_told_with_the_next() {
        let alarms = alarms();
        for n in 0..100 {
            alarms.went_unheard(false, at(n));
        }
        let told = alarms.went(false, at(100));
        assert_eq!((told.len(), told[0].reason), (1, "failure_ratio"));
        assert_eq!(alarms.went(false, at(101)), []);
    }

    #[test]
    fn what_is_long_ago_counts_no_more_and_a_clock_put_back_breaks_nothing() {
        let alarms = alarms();
        for n in 0..99 {
            assert_eq!(alarms.went(false, at(n)), []);
        }
        assert_eq!(alarms.went(false, at(2_000)), []);
        assert_eq!(alarms.went(false, at(-100_000)), []);
    }

    #[test]
    fn one_network_and_one_password_with_many_accounts_are_seen_among_thousands_of_others() {
        let alarms = alarms();
        let mut raised = Vec::new();
        for n in 0..6 {
            for other in 0..15_000 {
                let (network, word) = (format!("10.{n}.{other}"), format!("own {n} {other}"));
                assert_eq!(alarms.tried(&network, &attempt(&word), &format!("u{n}{other}"), at(n)), []);
            }
            raised.extend(alarms.tried("192.0.2.1", &attempt(&format!("w{n}")), &format!("a{n}"), at(n)));
            raised.extend(alarms.tried(
                &format!("198.51.100.{n}"),
                &attempt("same"),
                &format!("b{n}"),
                at(n),
            ));
            for _ in 0..10 {
                let again = alarms.tried("203.0.113.1", &attempt("forgot it"), "ada", at(n));
                assert_eq!(again, [], "one account is one account");
            }
        }
        let mut reasons: Vec<&str> = raised.iter().map(|raised| raised.reason).collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["accounts_per_network", "accounts_per_password"]);
        let state = alarms.state();
        assert!(state.networks.0.len() <= MOST && state.passwords.0.len() <= MOST);
    }
}
