//! The statements about mails.

use crate::kernel::{Id, Timestamp};
use crate::mail::MailRow;
use crate::{record, statements};

statements! {
    QUEUED = "INSERT INTO mail_deliveries
            (id, kind, recipient, state, provider, reference, detail, created_at, changed_at)
        VALUES ($1, $2, $3, 'waiting', '', '', '', $4, $4)";
    STATE = "SELECT state FROM mail_deliveries WHERE id = $1";
    BECAME = "UPDATE mail_deliveries SET state = $2, provider = $3, reference = $4, detail = $5, changed_at = $6
        WHERE id = $1 AND (state = 'waiting' OR state = 'sent' OR state = 'given_up')";
    SUPPRESSED = "SELECT reason FROM mail_suppressions WHERE recipient = $1 AND until > $2";
    SUPPRESS = "INSERT INTO mail_suppressions (recipient, reason, detail, provider, since, until)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (recipient) DO UPDATE SET reason = excluded.reason, detail = excluded.detail,
            provider = excluded.provider, since = excluded.since, until = excluded.until";
    LIFT = "DELETE FROM mail_suppressions WHERE recipient = $1 RETURNING since";
    SUPPRESSIONS = "SELECT recipient, reason, detail, provider, since, until FROM mail_suppressions
        WHERE until > $1 ORDER BY until DESC LIMIT $2";
    /// A place in a span of time, unless all $3 are taken.
    TAKE_PLACE = "INSERT INTO mail_windows (subject, starts_at, sent, ends_at) VALUES ($1, $2, 1, $4)
        ON CONFLICT (subject, starts_at) DO UPDATE SET sent = mail_windows.sent + 1
        WHERE mail_windows.sent < $3 RETURNING sent";
    GIVE_PLACE_BACK = "UPDATE mail_windows SET sent = sent - 1 WHERE subject = $1 AND starts_at = $2 AND sent > 0";
    HEARD = "INSERT INTO mail_events_heard (digest, expires_at) VALUES ($1, $2)
        ON CONFLICT (digest) DO NOTHING RETURNING expires_at";
    /// Whether a mail of ours went to somebody since $2, through a provider.
    WAS_SENT = "SELECT id FROM mail_deliveries WHERE recipient = $1 AND created_at > $2 AND provider = $3
        ORDER BY created_at DESC LIMIT 1";
    /// What a provider tells of one of them, which it knows by this name.
    TOLD = "UPDATE mail_deliveries SET state = $4, detail = $5, changed_at = $6
        WHERE recipient = $1 AND created_at > $2 AND ((reference = $3 AND reference <> '') OR id = $7)
            AND state <> 'bounced' AND state <> 'complained' AND (state <> 'delivered' OR CAST($4 AS TEXT) <> 'sent')";
    LIST = "SELECT id, kind, recipient, state, provider, reference, detail, created_at, changed_at FROM mail_deliveries
        WHERE created_at <= $1 AND (created_at < $1 OR id < $2) ORDER BY created_at DESC, id DESC LIMIT $3";
    LIST_TO = "SELECT id, kind, recipient, state, provider, reference, detail, created_at, changed_at FROM mail_deliveries
        WHERE recipient = $1 AND created_at <= $2 AND (created_at < $2 OR id < $3)
        ORDER BY created_at DESC, id DESC LIMIT $4";
    ONE = "SELECT id, kind, recipient, state, provider, reference, detail, created_at, changed_at FROM mail_deliveries
        WHERE id = $1";
    SWEEP = "DELETE FROM mail_deliveries WHERE id IN
        (SELECT d.id FROM mail_deliveries d WHERE d.created_at <= $1 ORDER BY d.created_at LIMIT 500)";
    SWEEP_SUPPRESSIONS = "DELETE FROM mail_suppressions WHERE until <= $1";
    SWEEP_HEARD = "DELETE FROM mail_events_heard WHERE expires_at <= $1";
    SWEEP_WINDOWS = "DELETE FROM mail_windows WHERE ends_at <= $1";
}

record! {
    /// A mail and what became of it.
    #[derive(Debug, Clone)]
    pub struct Delivery {
        /// Its id; its Message-ID is made from it.
        pub id: Id<MailRow>,
        /// The template's name.
        pub kind: String,
        /// Whom it was for.
        pub recipient: String,
        /// `waiting`, `sent`, `delivered`, `bounced`, `complained`, `suppressed` or `given_up`.
        pub state: String,
        /// Who took it; empty when nobody did.
        pub provider: String,
        /// What the provider calls it; empty when it said nothing.
        pub reference: String,
        /// What was said last.
        pub detail: String,
        /// When it was put.
        pub created_at: Timestamp,
        /// When it became so.
        pub changed_at: Timestamp,
    }
}

record! {
    /// An address that nobody can be reached at.
    #[derive(Debug, Clone)]
    pub struct Suppression {
        /// The address.
        pub recipient: String,
        /// `bounced` or `complained`.
        pub reason: String,
        /// What was said.
        pub detail: String,
        /// By whom.
        pub provider: String,
        /// Since when.
        pub since: Timestamp,
        /// Not tried before this.
        pub until: Timestamp,
    }
}
