//! Sessions and refresh tokens on paper: pure.

use foundation::kernel::{Digest, Entity, Id, MacKey, MasterKeys, Secret, Timestamp};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Ids of sessions.
#[derive(Debug)]
pub struct SessionRow;
impl Entity for SessionRow {
    const PREFIX: &'static str = "ses";
}

/// How long after a rotation the same successor is given again: longer than any retry, shorter than a thief needs
/// to profit.
pub(super) const REPEATABLE: Duration = Duration::from_secs(30);

const PREFIX: &str = "pgr_";
const NONCE: usize = 16;
const TAG: usize = 16;
const LENGTH: usize = 16 + NONCE + TAG;

/// What was shown beside a password, or without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// That one reads the account's mailbox.
    Mailbox,
    /// A second factor.
    Factor,
}

/// What was proven when a session began (NIST SP 800-63B-4 §2; RFC 8176 for the methods' names).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Authenticator assurance level.
    pub aal: i64,
    /// Authentication methods, joined with spaces.
    pub amr: &'static str,
    /// What was shown beside a password.
    pub shown: Shown,
}

impl Proof {
    /// A password and nothing else.
    pub const PASSWORD: Self = Self { aal: 1, amr: "pwd", shown: Shown::Nothing };
    /// A link or a code that was mailed: once, and from nothing but the mailbox. It never counts as a second factor
    /// (NIST SP 800-63B-4 §3.1.3.1).
    pub const MAILBOX: Self = Self { aal: 1, amr: "otp", shown: Shown::Mailbox };
    /// A one-time password of an app, or a recovery code, and nothing else.
    pub const FACTOR: Self = Self { aal: 1, amr: "otp", shown: Shown::Factor };

    /// A provider's word, and nothing else: what it asked for is not known. It is no second factor of ours.
    pub const FEDERATED: Self = Self { aal: 1, amr: "fed", shown: Shown::Nothing };
    /// An operator's wish to be somebody else: nothing of that person's was shown.
    pub const IMPERSONATION: Self = Self { aal: 1, amr: "impersonation", shown: Shown::Nothing };
    /// The word of a provider that is trusted to say that a second factor was shown there.
    pub const FEDERATED_FACTOR: Self = Self { aal: 2, amr: "fed mfa", shown: Shown::Factor };

    /// A passkey: one that may be copied to other devices (`swk`) or not (`hwk`); with user verification it is two factors
    /// in one (NIST SP 800-63B-4 §2.2.1 and appendix B).
    pub const fn passkey(copied: bool, verified: bool) -> Self {
        let amr = match (copied, verified) {
            (true, true) => "swk mfa",
            (true, false) => "swk",
            (false, true) => "hwk mfa",
            (false, false) => "hwk",
        };
        Self { aal: if verified { 2 } else { 1 }, amr, shown: Shown::Factor }
    }

    /// A second step after this one. Two steps are level 2 when one is known and the other is had; a mailbox is neither.
    #[must_use]
    pub fn and(self, second: Self) -> Self {
        let shown = self.shown.max(second.shown);
        let knows = self.amr == Self::PASSWORD.amr;
        let had = second.amr.split(' ').next().unwrap_or_default();
        let federated = self.amr == Self::FEDERATED.amr;
        let amr = match (knows, second.shown, had) {
            _ if federated => match (second.shown, had) {
                (Shown::Factor, "hwk") => "fed hwk mfa",
                (Shown::Factor, "swk") => "fed swk mfa",
                (Shown::Factor, _) => "fed otp mfa",
                _ => "fed otp",
            },
            (true, Shown::Factor, "hwk") => "pwd hwk mfa",
            (true, Shown::Factor, "swk") => "pwd swk mfa",
            (true, Shown::Factor, _) => "pwd otp mfa",
            (true, ..) => "pwd otp",
            (false, Shown::Factor, "hwk") => "otp hwk mfa",
            (false, Shown::Factor, "swk") => "otp swk mfa",
            (false, Shown::Factor, _) => "otp mfa",
            (false, ..) => self.amr,
        };
        let aal = if knows && second.shown == Shown::Factor { 2 } else { self.aal.max(second.aal) };
        Self { aal, amr, shown }
    }

    /// Whether a password is among this and the methods of before.
    pub(super) fn knows(self, methods: &str) -> bool {
        [methods, self.amr].iter().any(|all| all.split(' ').any(|one| one == Self::PASSWORD.amr))
    }

    /// The methods of a session that had these before; `level_2` when they make that level together.
    pub(super) fn added_to(self, methods: &str, level_2: bool) -> String {
        let mut all = methods.to_owned();
        for method in self.amr.split(' ').chain(level_2.then_some("mfa")) {
            if !all.split(' ').any(|known| known == method) {
                all = format!("{all} {method}").trim().to_owned();
            }
        }
        all
    }
}

/// Why a session ended; what the 401 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The person left.
    LoggedOut,
    /// An old refresh token was presented.
    RefreshTokenReused,
    /// Its whole life is over.
    Expired,
    /// Nobody used it for too long.
    Idle,
    /// The account was suspended.
    Suspended,
    /// The password was changed, or set anew through the mailbox.
    PasswordChanged,
    /// The person ended it from elsewhere, or said in answer to a mail that it was not theirs.
    RevokedByUser,
    /// An operator ended it.
    RevokedByAdmin,
    /// It was the oldest, and the person may not have more.
    SessionLimit,
    /// The account is to be deleted.
    Closed,
}

impl EndReason {
    /// As `api.md` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::RefreshTokenReused => "refresh_token_reused",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Suspended => "suspended",
            Self::PasswordChanged => "password_changed",
            Self::RevokedByUser => "revoked_by_user",
            Self::RevokedByAdmin => "revoked_by_admin",
            Self::SessionLimit => "session_limit",
            Self::Closed => "closed",
        }
    }
}

/// How long a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    /// In all.
    pub(super) absolute: Duration,
    /// Without its refresh token being used.
    pub(super) idle: Duration,
}

/// Operators who have shown a second factor get the shorter of two lives (NIST SP 800-63B-4 §2.2.3).
pub(super) fn lifetimes(
    everybody: Lifetimes,
    operators: Lifetimes,
    is_operator: bool,
    aal: i64,
) -> Lifetimes {
    if is_operator && aal >= 2 {
        return Lifetimes {
            absolute: operators.absolute.min(everybody.absolute),
            idle: operators.idle.min(everybody.idle),
        };
    }
    everybody
}

/// Makes and reads refresh tokens: a pair of keys under each master key, the current one's first.
#[derive(Debug, Clone)]
pub struct RefreshKey(Vec<Pair>);

#[derive(Debug, Clone)]
struct Pair {
    tag: MacKey,
    next: MacKey,
}

impl Pair {
    fn issue(&self, session: Id<SessionRow>, nonce: [u8; NONCE]) -> Secret {
        let tag = self.tag.mac_parts(&[session.as_bytes(), &nonce]).truncated::<TAG>();
        Secret::encode(PREFIX, &[session.as_bytes().as_slice(), &nonce, &tag].concat())
    }

    fn made(&self, session: &[u8; 16], nonce: &[u8; NONCE], tag: &[u8]) -> bool {
        self.tag.mac_parts(&[session, nonce]).truncated::<TAG>().as_slice().ct_eq(tag).into()
    }

    fn successor(&self, token: &Secret, session: Id<SessionRow>, rotated_at: Timestamp) -> Secret {
        let moment = rotated_at.micros().to_be_bytes();
        let nonce = self.next.mac_parts(&[token.reveal().as_bytes(), &moment]).truncated();
        self.issue(session, nonce)
    }

    fn renewal(&self, replaced: &Digest, session: Id<SessionRow>, at: Timestamp) -> Secret {
        let moment = at.micros().to_be_bytes();
        let nonce = self.next.mac_parts(&[b"renewal", replaced.as_bytes(), &moment]).truncated();
        self.issue(session, nonce)
    }
}

impl RefreshKey {
    /// Under the master keys.
    pub fn derive(master: &MasterKeys) -> Self {
        let pair = |key: &[u8; 32]| Pair {
            tag: MacKey::derive(key, "refresh tag"),
            next: MacKey::derive(key, "refresh successor"),
        };
        Self(master.all().map(pair).collect())
    }

    /// The token of a session with this nonce.
    pub fn issue(&self, session: Id<SessionRow>, nonce: [u8; NONCE]) -> Secret {
        self.current().issue(session, nonce)
    }

    #[expect(clippy::expect_used, reason = "there is always a current master key")]
    fn current(&self) -> &Pair {
        self.0.first().expect("a current key")
    }

    /// The session that a token belongs to; none for what we never made.
    pub fn read(&self, token: &Secret) -> Option<Id<SessionRow>> {
        let bytes: [u8; LENGTH] = token.decode(PREFIX)?;
        let (session, rest) = bytes.split_first_chunk::<16>()?;
        let (nonce, tag) = rest.split_first_chunk::<NONCE>()?;
        self.0.iter().any(|pair| pair.made(session, nonce, tag)).then(|| Id::from_bytes(*session))
    }

    /// The one successor of a token for a rotation at this moment: derived, so that it can be given again without
    /// being stored.
    pub fn successor(&self, token: &Secret, session: Id<SessionRow>, rotated_at: Timestamp) -> Secret {
        self.current().successor(token, session, rotated_at)
    }

    /// The token that takes the place of the one with this digest when the person proves again who they are: nothing
    /// leads to it from that token, and who asks twice at the same time gets the same.
    pub fn renewal(&self, replaced: &Digest, session: Id<SessionRow>, at: Timestamp) -> Secret {
        self.current().renewal(replaced, session, at)
    }

    /// The renewal that was given at that moment and is the current token since.
    pub fn renewed(
        &self,
        replaced: &Digest,
        session: Id<SessionRow>,
        at: Timestamp,
        current: &Digest,
    ) -> Option<Secret> {
        let made = self.0.iter().map(|pair| pair.renewal(replaced, session, at));
        made.into_iter().find(|token| token.digest() == *current)
    }

    /// The successor that was given at that moment and is the current token since, under whichever master key it was
    /// made; none when another one took its place.
    pub fn given(
        &self,
        token: &Secret,
        session: Id<SessionRow>,
        rotated_at: Timestamp,
        current: &Digest,
    ) -> Option<Secret> {
        let made = self.0.iter().map(|pair| pair.successor(token, session, rotated_at));
        made.into_iter().find(|successor| successor.digest() == *current)
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::{Clock, Entropy};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_successor_is_one_per_token_and_moment() {
        let master = |byte: u8| MasterKeys::new([byte; 32], &[]);
        let key = RefreshKey::derive(&master(1));
        let session = Id::new(&Clock::System, &Entropy::System);
        let first = key.issue(session, [7; 16]);
        let (t1, t2) = (Timestamp::from_micros(1), Timestamp::from_micros(2));
        let next = key.successor(&first, session, t1);
        assert_eq!(key.read(&next), Some(session));
        assert_eq!(key.successor(&first, session, t1).reveal(), next.reveal());
        assert_ne!(key.successor(&first, session, t2).reveal(), next.reveal());
        assert_eq!(RefreshKey::derive(&master(2)).read(&first), None, "another server's key");

        let later = RefreshKey::derive(&MasterKeys::new([2; 32], &[[1; 32]]));
        assert_eq!(later.read(&first), Some(session), "the master key changed");
        let given = later.given(&first, session, t1, &next.digest()).unwrap();
        assert_eq!(given.reveal(), next.reveal(), "what was given before the change is given again after it");
        assert!(later.given(&first, session, t2, &next.digest()).is_none());
        assert_ne!(later.successor(&first, session, t1).reveal(), next.reveal());
    }

    #[test]
    fn an_operator_with_a_second_factor_has_the_shorter_life() {
        let life = |days: u64, hours: u64| Lifetimes {
            absolute: Duration::from_secs(days * 86_400),
            idle: Duration::from_secs(hours * 3_600),
        };
        let (all, operators) = (life(90, 720), life(1, 1));
        assert_eq!(lifetimes(all, operators, true, 2), operators);
        assert_eq!(
            lifetimes(all, operators, true, 1),
            all,
            "without the factor they are not let in as operators"
        );
        assert_eq!(lifetimes(all, operators, false, 2), all);
        assert_eq!(lifetimes(life(1, 2), life(7, 1), true, 2), life(1, 1), "never longer than anybody else");
    }

    proptest! {
        #[test]
        fn what_we_did_not_make_is_not_read(text in "(pgr_)?[A-Za-z0-9_-]{0,80}", flip in 4usize..68, to in "[A-Za-z0-9_-]") {
            let key = RefreshKey::derive(&MasterKeys::new([1; 32], &[]));
            prop_assert_eq!(key.read(&Secret::new(text)), None);
            let good = key.issue(Id::from_bytes([5; 16]), [9; 16]);
            let mut changed = good.reveal().to_owned();
            changed.replace_range(flip..=flip, &to);
            if changed != good.reveal() {
                prop_assert_eq!(key.read(&Secret::new(changed)), None);
            }
        }
    }
}
