//! Mail: rendered from templates when it is delivered, delivered by a job that was written in the transaction of
//! what it tells about. What the job carries (a link, a code) rests sealed until then.
//!
//! * Providers are tried in their order (`chain.rs`); what one does not take goes to the next at once. When none takes it,
//!   it waits for as long as it is of use.
//! * Each mail is a row that says what became of it. An address at which nobody can be reached is a row, too: it is not
//!   tried again for a while. Providers tell of that later, by events (`events.rs`).

mod api;
mod brevo;
mod chain;
mod events;
mod mailbox;
mod mailgun;
mod pace;
mod postmark;
mod render;
mod resend;
mod sendgrid;
mod ses;
mod smtp;
mod sns;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::db::{self, Db, Tx};
use crate::jobs::{Backoff, Handlers, Job, JobError, Lane, Queue, When};
use crate::kernel::{Clock, Entity, Entropy, Id, Sealer, Timestamp};
use crate::outbound::Dependencies;
use crate::params;

pub use api::{Account, Forged, Kind};
pub use chain::{Hop, Transport};
pub use events::NotHeard;
pub use mailbox::{Kept, Mailbox};
pub use pace::Pace;
pub use render::{Message, Renderer};
pub use smtp::{Smtp, SmtpOptions, SmtpTls, sender};
pub use store::{Delivery, STATEMENTS, Suppression};

use api::line;
use chain::{Chain, Outcome};
use events::Hearing;
use pace::Full;

/// The whole time that one provider may take for a mail (`outages.md`).
const BUDGET: Duration = Duration::from_secs(10);
const PURPOSE: &str = "mail";
/// How long an address is left alone at which nobody can be reached.
const UNREACHABLE: Duration = Duration::from_secs(30 * 86_400);
/// How long it is remembered what became of a mail.
const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);
/// A job outlives the use of its mail by this, to write down that it was given up.
const GRACE: Duration = Duration::from_secs(3_600);

/// Ids of mails; a mail's Message-ID is made from it and stays the same however often it is sent.
#[derive(Debug)]
pub struct MailRow;
impl Entity for MailRow {
    const PREFIX: &'static str = "mail";
}

/// A mail to be sent: which one, to whom, and what its template needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mail {
    /// The template's name, such as `verify_email`.
    pub kind: String,
    /// One address.
    pub to: String,
    /// What the template needs. `code` is shown apart in the dev mailbox.
    pub values: serde_json::Value,
}

/// The job that delivers one mail.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeliverMail {
    id: Id<MailRow>,
    sealed: String,
    /// Until when it is of use; the job's own deadline where an older server put it.
    #[serde(default)]
    until: Option<Timestamp>,
    /// Before others that wait.
    #[serde(default)]
    urgent: bool,
}

impl Job for DeliverMail {
    const KIND: &'static str = "mail.deliver";
    /// The deadline decides, not the count.
    const MAX_ATTEMPTS: i64 = 1_000;
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(300) };
    /// Whoever hangs there holds up nothing else.
    const LANE: Lane = "mail";
}

/// What a postman stands on.
#[derive(Debug, Clone)]
pub struct Office {
    /// Where what becomes of mails is written down.
    pub db: Db,
    /// Where they wait.
    pub queue: Queue,
    /// How they look.
    pub renderer: Renderer,
    /// What they rest under until then.
    pub sealer: Sealer,
    /// What time it is.
    pub clock: Clock,
    /// Chance.
    pub chance: Entropy,
    /// How an address is compared with others.
    pub key: fn(&str) -> String,
}

/// Takes mails in transactions, delivers them by jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postman {
    chain: Arc<Chain>,
    office: Office,
    hearing: Hearing,
}

impl Postman {
    /// A postman with providers in the order in which they are tried; each appears as `mail.{name}` among the dependencies.
    ///
    /// # Errors
    /// In words, when one of them cannot be used.
    pub fn new(
        hops: Vec<Hop>,
        per_domain: Option<Pace>,
        dependencies: &Dependencies,
        office: Office,
    ) -> Result<Self, String> {
        let chain = Chain::new(hops, per_domain, dependencies, office.clock.clone())?;
        let hearing = Hearing::new(&chain, dependencies)?;
        Ok(Self { chain: chain.into(), office, hearing })
    }

    /// Puts a mail into this transaction: it goes out if, and only if, the transaction is stored. It is worth
    /// sending for `useful`; after that it is given up.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn send(&self, tx: &mut Tx<'_>, mail: &Mail, now: Timestamp, useful: Duration) -> db::Result<()> {
        self.put(tx, mail, (now, useful), false)
    }

    /// The same before others that wait: what somebody needs to get in, and what they have to know at once.
    ///
    /// # Errors
    /// As [`Postman::send`].
    pub fn send_first(
        &self,
        tx: &mut Tx<'_>,
        mail: &Mail,
        now: Timestamp,
        useful: Duration,
    ) -> db::Result<()> {
        self.put(tx, mail, (now, useful), true)
    }

    fn put(
        &self,
        tx: &mut Tx<'_>,
        mail: &Mail,
        (now, useful): (Timestamp, Duration),
        urgent: bool,
    ) -> db::Result<()> {
        let plain =
            serde_json::to_vec(mail).map_err(|e| db::Error::Bug(format!("mail {}: {e}", mail.kind)))?;
        let sealed = self.office.sealer.seal(PURPOSE, &plain).map_err(|e| db::Error::Bug(e.to_string()))?;
        let id = Id::from_bytes(self.office.chance.bytes());
        let (sealed, until) = (data_encoding::BASE64.encode(&sealed), Some(now + useful));
        tx.execute(&store::QUEUED, params![id, mail.kind, (self.office.key)(&mail.to), now])?;
        let when = When::now(now, useful + GRACE);
        let when = if urgent { when.urgent() } else { when };
        self.office.queue.enqueue(tx, &DeliverMail { id, sealed, until, urgent }, &when)?;
        Ok(())
    }

    /// Adds the job that delivers to a worker's handlers.
    #[must_use]
    pub fn handle(&self, handlers: Handlers) -> Handlers {
        let postman = self.clone();
        handlers.on(move |job: DeliverMail| {
            let postman = postman.clone();
            async move { postman.deliver(&job).await }
        })
    }

    /// Whether mail in general is late: no provider has answered for a minute. It says nothing of any one mail.
    pub fn is_slow(&self) -> bool {
        self.chain.is_slow(self.office.clock.now())
    }

    /// Hears what a provider tells of its mails; gives how many of its events were new.
    ///
    /// # Errors
    /// [`NotHeard`].
    pub async fn hear(&self, provider: &str, headers: &HeaderMap, body: &[u8]) -> Result<usize, NotHeard> {
        self.hearing.hear(&self.office, provider, headers, body).await
    }

    async fn deliver(&self, job: &DeliverMail) -> Result<(), JobError> {
        let dead = |why: String| JobError::Dead(why);
        let read = self.open(job).and_then(|mail| Ok((self.office.renderer.render(job.id, &mail)?, mail)));
        let (message, mail) = match read {
            Ok(read) => read,
            Err(why) => {
                self.became(job.id, "given_up", ("", ""), &why).await?;
                return Err(dead(why));
            }
        };
        let (id, now, recipient) = (job.id, self.office.clock.now(), (self.office.key)(&mail.to));
        let key = recipient.clone();
        let (state, suppressed) = (self.office.db)
            .read(move |tx| {
                let state: Option<(String,)> = tx.opt(&store::STATE, params![id])?;
                let suppressed: Option<(String,)> = tx.opt(&store::SUPPRESSED, params![key, now])?;
                Ok((state, suppressed))
            })
            .await?;
        // It was taken, and whoever took it down was stopped before the job could end. What was given up is here again because
        // somebody wants it tried again.
        if state.is_some_and(|(state,)| state != "waiting" && state != "given_up") {
            return Ok(());
        }
        let counted = |outcome: &'static str| {
            metrics::counter!("mails_total", "kind" => mail.kind.clone(), "outcome" => outcome).increment(1);
        };
        if let Some((reason,)) = suppressed {
            counted("suppressed");
            return self
                .became(id, "suppressed", ("", ""), &format!("the address is left alone: {reason}"))
                .await;
        }
        if job.until.is_some_and(|until| now > until) {
            counted("given_up");
            self.became(id, "given_up", ("", ""), LATE).await?;
            return Err(dead(LATE.into()));
        }
        match self.chain.hand_over(&self.office.db, &message).await? {
            Outcome::Taken(provider, reference) => {
                counted("sent");
                self.became(id, "sent", (&provider, &reference), "").await
            }
            Outcome::NoSuchAddress(provider, words) => {
                counted("bounced");
                self.bounced(id, &recipient, &provider, &words).await?;
                Err(dead(words))
            }
            Outcome::Refused(words) => {
                counted("failed");
                self.became(id, "given_up", ("", ""), &words).await?;
                Err(dead(words))
            }
            Outcome::Away(words) => {
                counted("failed");
                self.became(id, "waiting", ("", ""), &words).await?;
                Err(JobError::Retry(words))
            }
            Outcome::Later(full) if job.until.is_some_and(|until| now + full.pause > until) => {
                counted("given_up");
                self.became(id, "given_up", ("", ""), FULL).await?;
                Err(dead(FULL.into()))
            }
            Outcome::Later(full) => Err(JobError::Later(self.later(job, full, now))),
        }
    }

    fn open(&self, job: &DeliverMail) -> Result<Mail, String> {
        let sealed = data_encoding::BASE64.decode(job.sealed.as_bytes()).map_err(|e| e.to_string())?;
        let plain = self.office.sealer.open(PURPOSE, &sealed).map_err(|e| e.to_string())?;
        serde_json::from_slice(&plain).map_err(|e| e.to_string())
    }

    /// What waits for the same moment does not come back in the same moment; what is urgent comes back first.
    fn later(&self, job: &DeliverMail, full: Full, now: Timestamp) -> Duration {
        if job.urgent {
            return full.pause;
        }
        let left = job.until.map_or(full.spread, |until| (now + full.pause).until(until) / 2);
        let millis = u32::try_from(full.spread.min(left).as_millis()).unwrap_or(u32::MAX).max(200);
        full.pause + Duration::from_millis(u64::from(self.office.chance.below(millis)))
    }

    async fn became(
        &self,
        id: Id<MailRow>,
        state: &'static str,
        (provider, reference): (&str, &str),
        detail: &str,
    ) -> Result<(), JobError> {
        let now = self.office.clock.now();
        let (provider, reference, detail) = (provider.to_owned(), line(reference), line(detail));
        let done = (self.office.db).write_one(move |tx| {
            tx.execute(&store::BECAME, params![id, state, provider, reference, detail, now])
        });
        Ok(done.await.map(|_| ())?)
    }

    async fn bounced(&self, id: Id<MailRow>, to: &str, by: &str, detail: &str) -> Result<(), JobError> {
        let now = self.office.clock.now();
        let (to, detail, by) = (to.to_owned(), line(detail), by.to_owned());
        let done = (self.office.db).write(move |tx| {
            tx.execute(&store::SUPPRESS, params![to, "bounced", detail, by, now, now + UNREACHABLE])?;
            tx.execute(&store::BECAME, params![id, "bounced", by, "", detail, now])
        });
        Ok(done.await.map(|_| ())?)
    }
}

const FULL: &str = "nobody takes more mails before it is of no use any more";
const LATE: &str = "it was of no use any more before anybody took it";

/// The newest mails before a moment, or those to one address.
///
/// # Errors
/// As every read.
pub async fn list(db: &Db, to: Option<String>, before: Timestamp, most: u16) -> db::Result<Vec<Delivery>> {
    page(db, to, (before, Id::from_bytes([0; 16])), most).await
}

/// The same before one of them: of those of one moment, the one with the greatest id comes first.
///
/// # Errors
/// As every read.
pub async fn page(
    db: &Db,
    to: Option<String>,
    (before, id): (Timestamp, Id<MailRow>),
    most: u16,
) -> db::Result<Vec<Delivery>> {
    let most = i64::from(most);
    db.read_one(move |tx| match &to {
        Some(to) => tx.all(&store::LIST_TO, params![to, before, id, most]),
        None => tx.all(&store::LIST, params![before, id, most]),
    })
    .await
}

/// One mail.
///
/// # Errors
/// As every read.
pub async fn find(db: &Db, id: Id<MailRow>) -> db::Result<Option<Delivery>> {
    db.read_one(move |tx| tx.opt(&store::ONE, params![id])).await
}

/// Addresses that are left alone.
///
/// # Errors
/// As every read.
pub async fn suppressions(db: &Db, now: Timestamp, most: u16) -> db::Result<Vec<Suppression>> {
    db.read_one(move |tx| tx.all(&store::SUPPRESSIONS, params![now, i64::from(most)])).await
}

/// Writes to an address again. False when it was not left alone.
///
/// # Errors
/// As every statement.
pub fn lift(tx: &mut Tx<'_>, recipient: &str) -> db::Result<bool> {
    Ok(tx.opt::<(Timestamp,)>(&store::LIFT, params![recipient])?.is_some())
}

/// Forgets what is old. True when there is more of it.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    let swept = tx.execute(&store::SWEEP, params![now - REMEMBERED])?;
    tx.execute(&store::SWEEP_SUPPRESSIONS, params![now])?;
    tx.execute(&store::SWEEP_HEARD, params![now])?;
    tx.execute(&store::SWEEP_WINDOWS, params![now])?;
    Ok(swept >= 500)
}
