//! The statements about webhooks.

use foundation::kernel::{Id, Timestamp};
use foundation::{record, statements};

use super::model::{EndpointRow, MessageRow, SecretRow};
use crate::accounts::UserRow;

statements! {
    /// The next number of a person, whose stream is locked until the transaction ends; none while nobody wants to be told.
    NEXT_NUMBER = "INSERT INTO webhook_streams (user_id, number)
        SELECT $1, 1 WHERE EXISTS (SELECT 1 FROM webhook_endpoints)
        ON CONFLICT (user_id) DO UPDATE SET number = webhook_streams.number + 1 RETURNING number";
    ADD_EVENT = "INSERT INTO webhook_events (user_id, number, id, type, data, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
    /// What happened to somebody who is forgotten; what came of telling it goes with it.
    FORGET_EVENTS = "DELETE FROM webhook_events WHERE user_id = $1";
    /// Also whoever is paused: the job finds that out. What looked here could miss the end of a pause.
    WHO_WANTS = "SELECT endpoint_id FROM webhook_subscriptions WHERE type = $1 ORDER BY endpoint_id";
    /// What an endpoint is told of a person next, and whether it is told anything at all.
    ENDPOINT = "SELECT e.url, e.from_at, e.told_again_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM webhook_pauses p WHERE p.endpoint_id = e.id) THEN 1 ELSE 0 END AS BIGINT)
        FROM webhook_endpoints e WHERE e.id = $1";
    KNOWN = "SELECT id FROM webhook_endpoints WHERE id = $1";
    SECRETS = "SELECT sealed FROM webhook_secrets WHERE endpoint_id = $1 AND expires_at > $2 ORDER BY id DESC";
    POSITION = "SELECT number FROM webhook_positions WHERE endpoint_id = $1 AND user_id = $2";
    NEXT_EVENT = "SELECT e.id, e.number, e.type, e.data, e.created_at FROM webhook_events e
        WHERE e.user_id = $2 AND e.number > $3 AND e.created_at >= $4
            AND EXISTS (SELECT 1 FROM webhook_subscriptions s
                WHERE s.type = e.type AND s.endpoint_id = $1 AND s.from_at <= e.created_at)
        ORDER BY e.number LIMIT 1";
    ATTEMPTS = "SELECT attempts FROM webhook_deliveries WHERE endpoint_id = $1 AND event_id = $2";
    PERSON = "SELECT e.address, u.display_name, u.created_at,
            CAST(CASE WHEN EXISTS (SELECT 1 FROM verified_emails v WHERE v.user_id = u.id) THEN 1 ELSE 0 END AS BIGINT)
        FROM users u JOIN user_emails e ON e.user_id = u.id WHERE u.id = $1";
    /// Unless it was put back meanwhile: $5 is where it was.
    MOVE = "INSERT INTO webhook_positions (endpoint_id, user_id, number, moved_at)
        SELECT e.id, $2, $3, $4 FROM webhook_endpoints e WHERE e.id = $1
        ON CONFLICT (endpoint_id, user_id) DO UPDATE SET number = excluded.number, moved_at = excluded.moved_at
        WHERE webhook_positions.number = $5";
    TRIED = "INSERT INTO webhook_deliveries (endpoint_id, event_id, state, attempts, last_at, answer)
        SELECT e.id, m.id, $3, 1, $4, $5 FROM webhook_endpoints e, webhook_events m WHERE e.id = $1 AND m.id = $2
        ON CONFLICT (endpoint_id, event_id) DO UPDATE SET state = excluded.state,
            attempts = webhook_deliveries.attempts + 1, last_at = excluded.last_at, answer = excluded.answer
        WHERE webhook_deliveries.state <> 'delivered'";
    ADD = "INSERT INTO webhook_endpoints (id, url, description, from_at, told_again_at, created_at)
        VALUES ($1, $2, $3, $4, $4, $4)";
    /// What happened before $3 it does not want.
    WANT = "INSERT INTO webhook_subscriptions (type, endpoint_id, from_at) VALUES ($1, $2, $3)";
    WANT_NO_MORE = "DELETE FROM webhook_subscriptions WHERE type = $1 AND endpoint_id = $2";
    /// From an earlier moment on.
    WANT_SINCE = "UPDATE webhook_subscriptions SET from_at = $2 WHERE endpoint_id = $1 AND from_at > $2";
    ADD_SECRET = "INSERT INTO webhook_secrets (endpoint_id, id, sealed, expires_at)
        SELECT e.id, $2, $3, $4 FROM webhook_endpoints e WHERE e.id = $1 RETURNING expires_at";
    RETIRE_SECRETS = "UPDATE webhook_secrets SET expires_at = $2 WHERE endpoint_id = $1 AND expires_at > $2";
    ENDPOINTS = "SELECT e.id, e.url, e.description, e.created_at,
            COALESCE((SELECT p.reason FROM webhook_pauses p WHERE p.endpoint_id = e.id), '')
        FROM webhook_endpoints e ORDER BY e.id";
    LISTED = "SELECT e.id, e.url, e.description, e.created_at,
            COALESCE((SELECT p.reason FROM webhook_pauses p WHERE p.endpoint_id = e.id), '')
        FROM webhook_endpoints e WHERE e.id = $1";
    /// Changes what is given (a 1 says so).
    CHANGE = "UPDATE webhook_endpoints SET
            url = CASE WHEN CAST($2 AS BIGINT) = 1 THEN $3 ELSE url END,
            description = CASE WHEN CAST($4 AS BIGINT) = 1 THEN $5 ELSE description END
        WHERE id = $1";
    TYPES_OF = "SELECT type FROM webhook_subscriptions WHERE endpoint_id = $1 ORDER BY type";
    REMOVE = "DELETE FROM webhook_endpoints WHERE id = $1 RETURNING created_at";
    PAUSE = "INSERT INTO webhook_pauses (endpoint_id, reason, paused_at)
        SELECT e.id, $2, $3 FROM webhook_endpoints e WHERE e.id = $1
        ON CONFLICT (endpoint_id) DO UPDATE SET reason = excluded.reason RETURNING paused_at";
    RESUME = "DELETE FROM webhook_pauses WHERE endpoint_id = $1 RETURNING paused_at";
    /// What waited has its time anew.
    GO_ON = "UPDATE webhook_endpoints SET told_again_at = $2 WHERE id = $1";
    CREATED_AT = "SELECT created_at FROM webhook_events WHERE id = $1";
    TELL_AGAIN = "UPDATE webhook_endpoints SET told_again_at = $2,
        from_at = CASE WHEN from_at > $3 THEN $3 ELSE from_at END WHERE id = $1 RETURNING from_at";
    /// People with something since $1, after one of them ($2), with the number of the first such thing.
    PEOPLE_SINCE = "SELECT e.user_id, MIN(e.number) FROM webhook_events e WHERE e.created_at >= $1 AND e.user_id > $2
        GROUP BY e.user_id ORDER BY e.user_id LIMIT 50";
    PUT_BACK = "UPDATE webhook_positions SET number = $3, moved_at = $4
        WHERE endpoint_id = $1 AND user_id = $2 AND number > $3";
    FORGET_TRIES = "DELETE FROM webhook_deliveries WHERE endpoint_id = $1 AND event_id IN
        (SELECT m.id FROM webhook_events m WHERE m.user_id = $2 AND m.number > $3)";
    /// The newest before a moment and, of that moment, an event.
    DELIVERIES = "SELECT m.id, m.type, m.user_id, d.state, d.attempts, d.last_at, d.answer
        FROM webhook_deliveries d JOIN webhook_events m ON m.id = d.event_id
        WHERE d.endpoint_id = $1 AND d.last_at <= $2 AND (d.last_at < $2 OR d.event_id < $3)
        ORDER BY d.last_at DESC, d.event_id DESC LIMIT $4";
    SWEEP_EVENTS = "DELETE FROM webhook_events WHERE id IN
        (SELECT m.id FROM webhook_events m WHERE m.created_at <= $1 ORDER BY m.created_at LIMIT 500)";
    SWEEP_POSITIONS = "DELETE FROM webhook_positions WHERE (endpoint_id, user_id) IN
        (SELECT p.endpoint_id, p.user_id FROM webhook_positions p WHERE p.moved_at <= $1 ORDER BY p.moved_at LIMIT 500)";
    SWEEP_SECRETS = "DELETE FROM webhook_secrets WHERE expires_at <= $1";
    ALL_SECRETS = "SELECT endpoint_id, id, sealed FROM webhook_secrets";
    RESEAL = "UPDATE webhook_secrets SET sealed = $3 WHERE endpoint_id = $1 AND id = $2 AND sealed = $4";
}

record! {
    /// An event that is to be told.
    #[derive(Debug, Clone)]
    pub(super) struct Event {
        pub(super) id: Id<MessageRow>,
        pub(super) number: i64,
        pub(super) kind: String,
        pub(super) data: String,
        pub(super) created_at: Timestamp,
    }
}

record! {
    /// An endpoint as it is listed.
    #[derive(Debug, Clone)]
    pub(super) struct Row {
        pub(super) id: Id<EndpointRow>,
        pub(super) url: String,
        pub(super) description: String,
        pub(super) created_at: Timestamp,
        pub(super) paused: String,
    }
}

record! {
    /// What came of telling an endpoint of an event.
    #[derive(Debug, Clone)]
    pub struct Delivery {
        /// The event, and its message.
        pub event: Id<MessageRow>,
        /// What happened.
        pub kind: String,
        /// To whom.
        pub user: Id<UserRow>,
        /// `delivered`, `waiting` for another try, or `dead`.
        pub state: String,
        /// How often it was tried.
        pub attempts: i64,
        /// The last time.
        pub last_at: Timestamp,
        /// What came of that, in words.
        pub answer: String,
    }
}

record! {
    /// A sealed secret.
    #[derive(Debug, Clone)]
    pub(super) struct Sealed {
        pub(super) endpoint: Id<EndpointRow>,
        pub(super) id: Id<SecretRow>,
        pub(super) sealed: Vec<u8>,
    }
}
