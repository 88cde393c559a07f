//! Lockout on paper: pure.

use std::time::Duration;

use foundation::kernel::{Id, MacKey, Problem, Timestamp};
use foundation::limits::Taken;

use crate::accounts::UserRow;
use crate::errors;
use crate::sessions::{DeviceRow, SessionRow};
use crate::settings::LockoutSettings;

/// What the token in the mail about a lock begins with.
pub(super) const PREFIX: &str = "pgu_";
/// Wrong passwords in a row after which a device is a stranger.
pub(super) const PER_DEVICE: i64 = 10;
/// Counters for addresses that nobody has: bounded, whatever strangers type.
const SLOTS: u64 = 1 << 22;

/// Whose password is guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// An account's.
    Account(Id<UserRow>),
    /// Nobody's: a slot of the address, and the tag that tells it from others in this slot.
    Nobody(u32, i64),
}

impl Whose {
    /// Whose a password at this address would be.
    pub fn at(key: &MacKey, account: Option<Id<UserRow>>, address_key: &str) -> Self {
        let nobody = || {
            let all = u64::from_be_bytes(key.mac(address_key.as_bytes()).truncated());
            let tag = i64::try_from(all / SLOTS).unwrap_or(0).max(1);
            Self::Nobody(u32::try_from(all % SLOTS).unwrap_or(0), tag)
        };
        account.map_or_else(nobody, Self::Account)
    }

    /// As it stands in the database.
    pub fn subject(&self) -> String {
        match self {
            Self::Account(user) => user.to_string(),
            Self::Nobody(slot, _) => format!("?{slot:06x}"),
        }
    }

    /// The account, if it is one's.
    pub(super) fn account(&self) -> Option<Id<UserRow>> {
        match self {
            Self::Account(user) => Some(*user),
            Self::Nobody(..) => None,
        }
    }

    /// What the subject's row counts at present.
    pub(super) fn tag(&self) -> i64 {
        match self {
            Self::Account(_) => 0,
            Self::Nobody(_, tag) => *tag,
        }
    }
}

/// Who guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guesser {
    /// Nobody known.
    Stranger,
    /// A device that signed in before.
    Device,
    /// Somebody who is signed in.
    Session(Id<SessionRow>),
}

/// An attempt that may be made: say afterwards how it went.
#[derive(Debug, Clone)]
pub struct Reserved {
    pub(super) subject: String,
    /// The address that was given; empty on a known device and in a session.
    pub(super) address_key: String,
    pub(super) guesser: Guesser,
    /// Whose it is, when it is somebody's and a stranger guesses.
    pub(super) user: Option<Id<UserRow>>,
    /// The device that it comes from, known or by now a stranger again.
    pub(super) device: Option<(Id<UserRow>, Id<DeviceRow>)>,
    /// The end of the lock that began with it; 0 when none did.
    pub(super) locks_until: Timestamp,
    /// Whether the limit counted it.
    pub(super) counted: bool,
    /// Whether the owner is told if it is wrong.
    pub(super) tells: bool,
}

impl Reserved {
    pub(super) fn new(subject: String, guesser: Guesser) -> Self {
        let locks_until = Timestamp::from_micros(0);
        Self {
            subject,
            address_key: String::new(),
            guesser,
            user: None,
            device: None,
            locks_until,
            counted: false,
            tells: false,
        }
    }

    /// Whether it comes from a device that signed in to this account before.
    pub fn on_known_device(&self) -> bool {
        self.guesser == Guesser::Device
    }
}

/// Why an attempt may not be made.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The account (or the address that nobody has) is locked to strangers for so long.
    Locked(Duration),
    /// Too many within a limit.
    TooMany(Taken),
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Locked(left) => {
                let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                errors::problem("account_locked").retry_after(seconds.max(1))
            }
            Refused::TooMany(taken) => {
                errors::problem("too_many_attempts").retry_after(taken.retry_after()).headers(taken.headers())
            }
        }
    }
}

/// How long nobody may try again after the `nth` failure in a row; none while it is too few.
pub fn pause(nth: i64, after: u32, first: Duration, longest: Duration) -> Option<Duration> {
    let beyond = u32::try_from(nth - i64::from(after)).ok()?;
    Some(first.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX)).min(longest))
}

/// What is counted against a password, as the row has it: for the replay of policies.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    in_a_row: i64,
    strangers: i64,
    locked_until: i64,
    last_at: i64,
}

/// Whether a stranger's attempt may be made, and counts it: what `RESERVE` does in the database.
pub fn counts(count: &mut Count, rules: &LockoutSettings, now: Timestamp) -> bool {
    if count.locked_until > now.micros() || count.strangers >= i64::from(rules.strangers) {
        return false;
    }
    let quiet = count.last_at <= (now - rules.forget).micros();
    count.in_a_row = if quiet { 1 } else { count.in_a_row + 1 };
    (count.strangers, count.last_at) = (count.strangers + 1, now.micros());
    if let Some(pause) = pause(count.in_a_row, rules.after, rules.first, rules.longest) {
        count.locked_until = (now + pause).micros();
    }
    true
}

/// How long until a lock is over, at most `longest`: that its owner kept strangers out for a day is not told to them.
pub(super) fn left(locked_until: Timestamp, now: Timestamp, longest: Duration) -> Duration {
    if locked_until > now { now.until(locked_until).min(longest) } else { longest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_stay_there() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let minutes = |nth| pause(nth, 5, minute, hour).map(|pause| pause.as_secs() / 60);
        let all: Vec<_> = (1..=13).map(minutes).collect();
        let expected =
            [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60].map(|minutes| Some(minutes).filter(|m| *m > 0));
        assert_eq!(all, expected);
        assert_eq!(minutes(5_000), Some(60));
    }

    #[test]
    fn an_address_that_nobody_has_is_a_slot_and_an_account_is_itself() {
        let key = MacKey::new(b"k");
        let nobody = Whose::at(&key, None, "nobody@example.com");
        assert!(matches!(nobody, Whose::Nobody(slot, tag) if u64::from(slot) < SLOTS && tag > 0));
        assert_eq!(nobody, Whose::at(&key, None, "nobody@example.com"));
        assert!(nobody.subject().starts_with('?'));
        let user = Id::from_bytes([7; 16]);
        assert_eq!(Whose::at(&key, Some(user), "x").subject(), user.to_string());
    }
}
