//! What another policy would have done with the sign-ins that came: pure, over what was written down.
//!
//! Of attempts that nobody looked at then (a lock, a limit) nobody knows whether the password was right; they are taken
//! as wrong and told apart. What a network's limit turned away before it was read was never written down.

use std::collections::HashMap;

use foundation::kernel::{Id, Timestamp};
use foundation::limits::{Mode, Name, Quota};
use foundation::record;

use super::history::{AttemptRow, Went};
use crate::limits::{SIGN_IN, SIGN_IN_EVERYBODY, SIGN_IN_NETWORK};
use crate::lockout::{self, Count};
use crate::settings::{LockoutSettings, Settings};

/// The lockout's name beside the limits'.
const LOCKOUT: Name = "lockout";

record! {
    /// A sign-in as it came, and was written down.
    #[derive(Debug, Clone)]
    pub(super) struct Came {
        pub(super) id: Id<AttemptRow>,
        pub(super) at: Timestamp,
        subject: String,
        network: String,
        device: bool,
        outcome: String,
    }
}

/// Whom a rule stopped.
#[derive(Debug, Default)]
pub struct Stopped {
    /// How many attempts.
    pub attempts: u64,
    /// Of these, with the right password.
    pub right: u64,
    /// Of these, nobody knows.
    pub unknown: u64,
    /// How often each account (or slot of addresses that nobody has).
    pub accounts: HashMap<String, u64>,
    /// How often each network.
    pub networks: HashMap<String, u64>,
}

/// A policy at work.
pub struct Replay {
    quotas: HashMap<Name, Quota>,
    lockout: LockoutSettings,
    /// Of limits, by limit and subject.
    free_at: HashMap<(Name, String), i64>,
    guesses: HashMap<String, Count>,
    /// How many came: with the right password, with a wrong one, and turned away then.
    pub came: (u64, u64, u64),
    /// Whom each rule stopped, in the order in which they are asked.
    pub stopped: Vec<(Name, Stopped)>,
}

impl Replay {
    /// With the rules of these settings that are on.
    pub fn new(settings: &Settings) -> Self {
        let asked = [SIGN_IN_NETWORK.name, SIGN_IN_EVERYBODY.name, SIGN_IN.name];
        let on = settings.limits.rules.iter().filter(|(_, rule)| rule.mode == Mode::On);
        let quotas: HashMap<Name, Quota> = on.map(|(name, rule)| (*name, rule.quota)).collect();
        let mut stopped: Vec<(Name, Stopped)> = asked
            .into_iter()
            .filter(|name| quotas.contains_key(name))
            .map(|name| (name, Stopped::default()))
            .collect();
        if settings.lockout.mode == Mode::On {
            stopped.push((LOCKOUT, Stopped::default()));
        }
        let (free_at, guesses) = (HashMap::new(), HashMap::new());
        Self { quotas, lockout: settings.lockout, free_at, guesses, came: (0, 0, 0), stopped }
    }

    /// One more attempt, in the order of time.
    pub(super) fn see(&mut self, came: &Came) {
        let right = came.outcome == Went::Right.as_str();
        let looked_at = right || came.outcome == Went::Wrong.as_str();
        match (right, looked_at) {
            (true, _) => self.came.0 += 1,
            (false, true) => self.came.1 += 1,
            _ => self.came.2 += 1,
        }
        let Some(by) = self.stops(came, right) else { return };
        if let Some((_, stopped)) = self.stopped.iter_mut().find(|(name, _)| *name == by) {
            stopped.attempts += 1;
            stopped.right += u64::from(right);
            stopped.unknown += u64::from(!looked_at);
            *stopped.accounts.entry(came.subject.clone()).or_default() += 1;
            *stopped.networks.entry(came.network.clone()).or_default() += 1;
        }
    }

    /// The rule that stops an attempt.
    fn stops(&mut self, came: &Came, right: bool) -> Option<Name> {
        for (limit, subject) in [(SIGN_IN_NETWORK, came.network.as_str()), (SIGN_IN_EVERYBODY, "")] {
            if !self.take(limit.name, subject, came.at) {
                return Some(limit.name);
            }
        }
        if came.device {
            return None;
        }
        if !self.take(SIGN_IN.name, &came.subject, came.at) {
            return Some(SIGN_IN.name);
        }
        let on = self.lockout.mode == Mode::On;
        let count = self.guesses.entry(came.subject.clone()).or_default();
        let locked = on && !lockout::counts(count, &self.lockout, came.at);
        if right && !locked {
            *count = Count::default();
        }
        if right || locked {
            self.give_back(SIGN_IN.name, &came.subject);
        }
        locked.then_some(LOCKOUT)
    }

    fn take(&mut self, name: Name, subject: &str, now: Timestamp) -> bool {
        let Some(quota) = self.quotas.get(name) else { return true };
        let free_at = self.free_at.entry((name, subject.to_owned())).or_insert(0);
        let (allowed, next) = quota.try_at(*free_at, now);
        if allowed {
            *free_at = next;
        }
        allowed
    }

    fn give_back(&mut self, name: Name, subject: &str) {
        if let Some(quota) = self.quotas.get(name)
            && let Some(free_at) = self.free_at.get_mut(&(name, subject.to_owned()))
        {
            *free_at -= quota.interval();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{Purpose, layers};

    fn replay(policy: &str, came: &[(i64, &str, &str, bool, &str)]) -> Vec<(Name, u64, u64, u64)> {
        let mut layers = layers(None, []).unwrap();
        layers.text("policy.toml", policy).unwrap();
        let settings = Settings::check(&layers, Purpose::Tool).unwrap();
        let mut replay = Replay::new(&settings);
        for (second, subject, network, device, outcome) in came {
            let at = Timestamp::from_micros(1_795_430_000_000_000)
                + Duration::from_secs(u64::try_from(*second).unwrap());
            let (subject, network, outcome) = (subject.to_string(), network.to_string(), outcome.to_string());
            let id = Id::from_bytes([0; 16]);
            replay.see(&Came { id, at, subject, network, device: *device, outcome });
        }
        replay.stopped.iter().map(|(name, s)| (*name, s.attempts, s.right, s.unknown)).collect()
    }

    #[test]
    fn a_stricter_network_limit_stops_more_and_says_whom_it_hurts() {
        let many: Vec<_> = (0..20)
            .map(|n| (n, "usr_a", "192.0.2.1/32", false, if n == 19 { "right" } else { "wrong" }))
            .collect();
        let policy = "[lockout]\nmode = \"off\"\n[limits.sign_in]\nmode = \"off\"\n[limits.sign_in_network]\ncount = 10";
        assert_eq!(replay(policy, &many), [("sign_in_network", 10, 1, 0)]);
    }

    #[test]
    fn the_lockout_is_replayed_as_it_works_and_known_devices_pass_it() {
        let mut came: Vec<_> = (0..8).map(|n| (n, "usr_a", "n", false, "wrong")).collect();
        came.push((9, "usr_a", "n", true, "right"));
        came.push((10, "usr_a", "n", false, "right"));
        came.push((11, "usr_a", "n", false, "locked"));
        came.push((4 + 60, "usr_a", "n", false, "right"));
        came.push((65, "usr_a", "n", false, "wrong"));
        let stopped = replay("", &came);
        assert_eq!(stopped, [("sign_in_network", 0, 0, 0), ("sign_in", 0, 0, 0), ("lockout", 5, 1, 1)]);
    }
}
