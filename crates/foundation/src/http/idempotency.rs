//! `Idempotency-Key`: the same key and body gives the first answer again, for 24 hours. The claim is the first
//! statement of the transaction that does the work, so the work is done once however many requests race.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::db::{self, Db, Tx};
use crate::kernel::{Digest, MacKey, MasterKeys, Problem, Timestamp};
use crate::{params, record, statements};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
const LONGEST_KEY: usize = 255;

statements! {
    CLAIM = "INSERT INTO idempotency_keys (key_digest, body_mac, status, body, expires_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (key_digest) DO UPDATE SET body_mac = excluded.body_mac, status = excluded.status,
            body = excluded.body, expires_at = excluded.expires_at
        WHERE idempotency_keys.expires_at <= $6
        RETURNING status";
    FIND = "SELECT body_mac, status, body FROM idempotency_keys WHERE key_digest = $1 AND expires_at > $2";
    SWEEP = "DELETE FROM idempotency_keys WHERE expires_at <= $1";
}

/// Makes keys of requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Idempotency(MacKey);

/// The key of one request, bound to caller, route and body; by default no key at all.
#[derive(Debug, Clone, Default)]
pub struct IdempotencyKey(Option<(Digest, Digest)>);

record! {
    /// A remembered answer.
    #[derive(Debug, Clone)]
    pub struct Remembered {
        body_mac: Digest,
        /// Its status.
        pub status: i64,
        /// Its body.
        pub body: String,
    }
}

/// Whether the work is ours to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody did it under this key: do it.
    Ours,
    /// Somebody did: change nothing, give [`IdempotencyKey::replay`]'s answer.
    Done,
}

impl Idempotency {
    /// Under the master key: the key and the body (which may hold a password) are kept as MACs.
    pub fn derive(master: &MasterKeys) -> Self {
        // A change of the master key forgets them: they live for a day.
        Self(MacKey::derive(master.current(), "idempotency"))
    }

    /// The key that a request carries.
    ///
    /// # Errors
    /// 400 for a key that is empty, too long, not printable ASCII, or given twice.
    pub fn key(
        &self,
        headers: &HeaderMap,
        caller: &str,
        route: &str,
        body: &[&[u8]],
    ) -> Result<IdempotencyKey, Problem> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else { return Ok(IdempotencyKey(None)) };
        let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= LONGEST_KEY);
        let (Some(text), None) = (text, values.next()) else {
            return Err(Problem::malformed(format!(
                "The Idempotency-Key header must be given once, as 1 to {LONGEST_KEY} printable characters."
            )));
        };
        let key = self.0.mac_parts(&[b"key", caller.as_bytes(), route.as_bytes(), text.as_bytes()]);
        let mut parts: Vec<&[u8]> = vec![b"body"];
        parts.extend_from_slice(body);
        Ok(IdempotencyKey(Some((key, self.0.mac_parts(&parts)))))
    }
}

impl IdempotencyKey {
    /// Claims the work in this transaction and remembers its answer. Must come before any other change.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn claim(&self, tx: &mut Tx<'_>, now: Timestamp, status: i64, answer: &str) -> db::Result<Claim> {
        let Some((key, body)) = &self.0 else { return Ok(Claim::Ours) };
        let row: Option<(i64,)> =
            tx.opt(&CLAIM, params![key, body, status, answer, now + REMEMBERED, now])?;
        Ok(if row.is_some() { Claim::Ours } else { Claim::Done })
    }

    /// The first answer, when there was one.
    ///
    /// # Errors
    /// 422 `idempotency_key_reused` when the first request had another body; 503 when the database is away.
    pub async fn replay(&self, db: &Db, now: Timestamp) -> Result<Option<Remembered>, Problem> {
        let Some((key, body)) = self.0 else { return Ok(None) };
        let found: Option<Remembered> =
            db.read_one(move |tx| tx.opt(&FIND, params![key, now])).await.map_err(|e| e.to_problem())?;
        match found {
            Some(first) if first.body_mac != body => Err(Problem::new(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key belongs to another request",
            )
            .detail("The same key came with another body before. Use a new key for a new request.")),
            found => Ok(found),
        }
    }
}

/// Forgets what is too old.
///
/// # Errors
/// [`db::Error`] as every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<u64> {
    tx.execute(&SWEEP, params![now])
}
