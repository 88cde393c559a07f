//! Sessions and refresh tokens on paper: pure.

use foundation::kernel::{Entity, Id, MacKey, Secret, Timestamp};
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

/// What was proven when a session began (NIST SP 800-63B-4 §2; RFC 8176 for the methods' names).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Authenticator assurance level.
    pub aal: i64,
    /// Authentication methods, joined with spaces.
    pub amr: &'static str,
}

impl Proof {
    /// A password and nothing else.
    pub const PASSWORD: Self = Self { aal: 1, amr: "pwd" };
    /// A link or a code that was mailed: once, and from nothing but the mailbox. It never counts as a second factor
    /// (NIST SP 800-63B-4 §3.1.3.1).
    pub const MAILBOX: Self = Self { aal: 1, amr: "otp" };
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
    /// The owner of the mailbox said that something was not their doing.
    RevokedByUser,
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
        }
    }
}

/// Makes and reads refresh tokens.
#[derive(Debug, Clone)]
pub struct RefreshKey {
    tag: MacKey,
    next: MacKey,
}

impl RefreshKey {
    /// Under the master key.
    pub fn derive(master: &[u8; 32]) -> Self {
        Self { tag: MacKey::derive(master, "refresh tag"), next: MacKey::derive(master, "refresh successor") }
    }

    /// The token of a session with this nonce.
    pub fn issue(&self, session: Id<SessionRow>, nonce: [u8; NONCE]) -> Secret {
        let tag = self.tag.mac_parts(&[session.as_bytes(), &nonce]).truncated::<TAG>();
        Secret::encode(PREFIX, &[session.as_bytes().as_slice(), &nonce, &tag].concat())
    }

    /// The session that a token belongs to; none for what we never made.
    pub fn read(&self, token: &Secret) -> Option<Id<SessionRow>> {
        let bytes: [u8; LENGTH] = token.decode(PREFIX)?;
        let (session, rest) = bytes.split_first_chunk::<16>()?;
        let (nonce, tag) = rest.split_first_chunk::<NONCE>()?;
        let expected = self.tag.mac_parts(&[session, nonce]).truncated::<TAG>();
        bool::from(expected.as_slice().ct_eq(tag)).then(|| Id::from_bytes(*session))
    }

    /// The one successor of a token for a rotation at this moment: derived, so that it can be given again without
    /// being stored.
    pub fn successor(&self, token: &Secret, session: Id<SessionRow>, rotated_at: Timestamp) -> Secret {
        let moment = rotated_at.micros().to_be_bytes();
        let nonce = self.next.mac_parts(&[token.reveal().as_bytes(), &moment]).truncated();
        self.issue(session, nonce)
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::{Clock, Entropy};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_successor_is_one_per_token_and_moment() {
        let key = RefreshKey::derive(&[1; 32]);
        let session = Id::new(&Clock::System, &Entropy::System);
        let first = key.issue(session, [7; 16]);
        let (t1, t2) = (Timestamp::from_micros(1), Timestamp::from_micros(2));
        let next = key.successor(&first, session, t1);
        assert_eq!(key.read(&next), Some(session));
        assert_eq!(key.successor(&first, session, t1).reveal(), next.reveal());
        assert_ne!(key.successor(&first, session, t2).reveal(), next.reveal());
        assert_eq!(RefreshKey::derive(&[2; 32]).read(&first), None, "another server's key");
    }

    proptest! {
        #[test]
        fn what_we_did_not_make_is_not_read(text in "(pgr_)?[A-Za-z0-9_-]{0,80}", flip in 4usize..68, to in "[A-Za-z0-9_-]") {
            let key = RefreshKey::derive(&[1; 32]);
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
