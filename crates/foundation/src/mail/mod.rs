//! Mail: rendered from templates when it is delivered, delivered by a job that was written in the transaction of
//! what it tells about. What the job carries (a link, a code) rests sealed until then.

mod mailbox;
mod render;
mod smtp;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::db::{self, Tx};
use crate::jobs::{Backoff, Handlers, Job, JobError, Queue, When};
use crate::kernel::{Entity, Entropy, Id, Sealer, Timestamp};
use crate::outbound::{CallError, Dependencies, Dependency, Settings};

pub use mailbox::{Kept, Mailbox};
pub use render::{Message, Renderer};
pub use smtp::{Smtp, SmtpOptions, SmtpTls};

/// The whole time that one delivery may take (`outages.md`).
const BUDGET: Duration = Duration::from_secs(10);
const PURPOSE: &str = "mail";
/// More than workers deliver at a time.
const AT_A_TIME: usize = 64;
const DEGRADED: &str = "mail is sent when the provider answers again; nobody has to do anything twice";

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
}

impl Job for DeliverMail {
    const KIND: &'static str = "mail.deliver";
    /// The deadline decides, not the count.
    const MAX_ATTEMPTS: i64 = 1_000;
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(300) };
}

/// Where a mail goes: a provider behind the guard. Failover comes here: an ordered list of these, each with its
/// own dependency, tried in turn by [`Postman::deliver`].
#[derive(Debug, Clone)]
struct Provider {
    dependency: Dependency,
    transport: Transport,
}

/// The ways to hand a mail over.
#[derive(Debug, Clone)]
pub enum Transport {
    /// To a mail server.
    Smtp(Smtp),
    /// Into the mailbox in the browser: dev mode.
    Mailbox(Mailbox),
}

/// Takes mails in transactions, delivers them by jobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postman {
    primary: Provider,
    renderer: Renderer,
    sealer: Sealer,
    queue: Queue,
    chance: Entropy,
}

impl Postman {
    /// A postman with one provider, which appears as `mail.primary` among the dependencies.
    pub fn new(
        transport: Transport,
        dependencies: &Dependencies,
        renderer: Renderer,
        sealer: Sealer,
        queue: Queue,
        chance: Entropy,
    ) -> Self {
        let settings = Settings {
            name: "mail.primary".into(),
            timeout: BUDGET,
            degraded: DEGRADED,
            patience: None,
            at_a_time: AT_A_TIME,
        };
        let primary = Provider { dependency: dependencies.add(settings), transport };
        Self { primary, renderer, sealer, queue, chance }
    }

    /// Puts a mail into this transaction: it goes out if, and only if, the transaction is stored. It is worth
    /// sending for `useful`; after that it is given up.
    ///
    /// # Errors
    /// [`db::Error`] as every statement.
    pub fn send(&self, tx: &mut Tx<'_>, mail: &Mail, now: Timestamp, useful: Duration) -> db::Result<()> {
        self.put(tx, mail, &When::now(now, useful))
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
        self.put(tx, mail, &When::now(now, useful).urgent())
    }

    fn put(&self, tx: &mut Tx<'_>, mail: &Mail, when: &When) -> db::Result<()> {
        let plain =
            serde_json::to_vec(mail).map_err(|e| db::Error::Bug(format!("mail {}: {e}", mail.kind)))?;
        let sealed = self.sealer.seal(PURPOSE, &plain).map_err(|e| db::Error::Bug(e.to_string()))?;
        let id = Id::from_bytes(self.chance.bytes());
        let job = DeliverMail { id, sealed: data_encoding::BASE64.encode(&sealed) };
        self.queue.enqueue(tx, &job, when)?;
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

    async fn deliver(&self, job: &DeliverMail) -> Result<(), JobError> {
        let dead = |why: String| JobError::Dead(why);
        let sealed = data_encoding::BASE64.decode(job.sealed.as_bytes()).map_err(|e| dead(e.to_string()))?;
        let plain = self.sealer.open(PURPOSE, &sealed).map_err(|e| dead(e.to_string()))?;
        let mail: Mail = serde_json::from_slice(&plain).map_err(|e| dead(e.to_string()))?;
        let message = self.renderer.render(job.id, &mail).map_err(dead)?;
        let handed_over = self.primary.dependency.call(self.primary.transport.hand_over(&message)).await;
        let outcome = if handed_over.is_ok() { "sent" } else { "failed" };
        metrics::counter!("mails_total", "kind" => mail.kind, "outcome" => outcome).increment(1);
        handed_over.map_err(|error| match error {
            CallError::Refused(why) => JobError::Dead(why),
            other => JobError::Retry(other.to_string()),
        })
    }
}

impl Transport {
    async fn hand_over(&self, message: &Message) -> Result<(), CallError> {
        match self {
            Self::Smtp(smtp) => smtp.send(message).await,
            Self::Mailbox(mailbox) => {
                mailbox.keep(message);
                Ok(())
            }
        }
    }
}
