//! Providers in the order in which they are tried. Each has a breaker, and perhaps a pace; a mail that one does not take goes
//! to the next at once.

use std::time::Duration;

use super::api::{Account, Said};
use super::store;
use super::{BUDGET, Mailbox, Message, Smtp};
use crate::db::{self, Db};
use crate::kernel::{Clock, Timestamp};
use crate::outbound::{CallError, Dependencies, Dependency, HttpClient, Patience, Settings};
use crate::params;

/// More than workers deliver at a time.
const AT_A_TIME: usize = 64;
const DEGRADED: &str = "mail is sent when a provider answers again; nobody has to do anything twice";
/// What of an answer is read.
const ANSWER: usize = 64 * 1024;
/// A provider that fails so often in a row is left alone, and the next one is asked.
const PATIENCE: Patience = Patience {
    failures: 3,
    first: Duration::from_secs(5),
    longest: Duration::from_secs(60),
    slow: Some(Duration::from_secs(8)),
};

/// So many mails in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Pace {
    /// `100/24h`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, per) = text.split_once('/')?;
        let per = humantime::parse_duration(per.trim()).ok()?;
        let count = count.trim().parse().ok()?;
        (count > 0 && per >= Duration::from_millis(100) && per <= Duration::from_secs(31 * 86_400))
            .then_some(Self { count, per })
    }

    /// The span that a moment is in, and when the next begins.
    fn window(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let length = i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX).max(1);
        let starts = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(length));
        (starts, starts + self.per)
    }
}

/// A provider as it is set.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Its name: `mail.{name}` among the dependencies.
    pub name: String,
    /// How a mail gets there.
    pub transport: Transport,
    /// What it takes at most, each apart: a rate, a daily quota.
    pub paces: Vec<Pace>,
}

/// The ways to hand a mail over.
#[derive(Debug, Clone)]
pub enum Transport {
    /// To a mail server.
    Smtp(Smtp),
    /// To a provider's HTTP API.
    Api(Box<Account>),
    /// Into the mailbox in the browser: dev mode.
    Mailbox(Mailbox),
}

#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) dependency: Dependency,
    pub(super) account: Option<Account>,
    way: Way,
    paces: Vec<Pace>,
}

#[derive(Debug, Clone)]
enum Way {
    Smtp(Smtp),
    Api(Box<Account>, HttpClient),
    Mailbox(Mailbox),
}

/// The providers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) providers: Vec<Provider>,
    clock: Clock,
    /// To one domain.
    per_domain: Option<Pace>,
}

/// What became of a mail in this attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Somebody took it: who, and what they call it.
    Taken(String, String),
    /// Nobody can be reached at its address: who says so, and in which words.
    NoSuchAddress(String, String),
    /// None of them will ever take it.
    Refused(String),
    /// None of them took it now.
    Away(String),
    /// Nobody was asked: not before this time has passed.
    Later(Duration),
}

impl Chain {
    pub(super) fn new(
        hops: Vec<Hop>,
        per_domain: Option<Pace>,
        dependencies: &Dependencies,
        clock: Clock,
    ) -> Result<Self, String> {
        let provider = |hop: Hop| {
            let dependency = dependencies.add(Settings {
                name: format!("mail.{}", hop.name),
                timeout: BUDGET,
                degraded: DEGRADED,
                patience: Some(PATIENCE),
                at_a_time: AT_A_TIME,
            });
            let account = match &hop.transport {
                Transport::Api(account) => Some(Account::clone(account)),
                Transport::Smtp(_) | Transport::Mailbox(_) => None,
            };
            let way = match hop.transport {
                Transport::Smtp(smtp) => Way::Smtp(smtp),
                Transport::Mailbox(mailbox) => Way::Mailbox(mailbox),
                Transport::Api(account) => {
                    Way::Api(account, HttpClient::new(dependency.clone(), None, ANSWER)?)
                }
            };
            Ok(Provider { name: hop.name, dependency, account, way, paces: hop.paces })
        };
        let providers = hops.into_iter().map(provider).collect::<Result<_, String>>()?;
        Ok(Self { providers, clock, per_domain })
    }

    /// Whether no provider has answered for a minute.
    pub(super) fn is_slow(&self, now: Timestamp) -> bool {
        let down = |provider: &Provider| {
            let health = provider.dependency.health();
            health.state == "down" && health.since + Duration::from_secs(60) <= now
        };
        self.providers.iter().all(down)
    }

    pub(super) async fn hand_over(&self, db: &Db, message: &Message) -> db::Result<Outcome> {
        let domain = message.to.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        if let Some(pace) = self.per_domain
            && let Some(pause) = self.wait(db, format!("domain {domain}"), &[pace]).await?
        {
            return Ok(Outcome::Later(pause));
        }
        let (mut said, mut refused, mut asked, mut shortest) = (Vec::new(), true, false, None);
        for provider in &self.providers {
            // Whoever is not asked spends none of its places.
            if provider.dependency.is_left_alone() {
                shortest = Some(shortest.map_or(LEFT_ALONE, |shortest: Duration| shortest.min(LEFT_ALONE)));
                refused = false;
                provider.dependency.note_spared();
                continue;
            }
            if let Some(pause) = self.wait(db, format!("provider {}", provider.name), &provider.paces).await?
            {
                shortest = Some(shortest.map_or(pause, |shortest: Duration| shortest.min(pause)));
                refused = false;
                continue;
            }
            match provider.send(message, &self.clock).await {
                Ok(Said::Taken(reference)) => return Ok(Outcome::Taken(provider.name.clone(), reference)),
                Ok(Said::NoSuchAddress(words)) => {
                    return Ok(Outcome::NoSuchAddress(provider.name.clone(), words));
                }
                Ok(Said::NotHere(words) | Said::NotNow(words)) => {
                    (refused, asked) = (false, true);
                    said.push(format!("{}: {words}", provider.name));
                }
                Err(CallError::Spared(_)) => {
                    refused = false;
                    shortest =
                        Some(shortest.map_or(LEFT_ALONE, |shortest: Duration| shortest.min(LEFT_ALONE)));
                }
                Err(error) => {
                    asked = true;
                    refused &= matches!(error, CallError::Refused(_));
                    said.push(format!("{}: {error}", provider.name));
                }
            }
        }
        let words = said.join("; ");
        Ok(match shortest {
            _ if refused => Outcome::Refused(words),
            Some(pause) if !asked => Outcome::Later(pause),
            _ => Outcome::Away(words),
        })
    }

    /// Takes a place in each of these spans; how long to wait when there is none.
    async fn wait(&self, db: &Db, subject: String, paces: &[Pace]) -> db::Result<Option<Duration>> {
        if paces.is_empty() {
            return Ok(None);
        }
        let (paces, now) = (paces.to_vec(), self.clock.now());
        db.write(move |tx| {
            for pace in &paces {
                let (starts, ends) = pace.window(now);
                let subject = format!("{subject} {}", humantime::format_duration(pace.per));
                let most = i64::from(pace.count);
                if tx.opt::<(i64,)>(&store::TAKE_PLACE, params![subject, starts, most])?.is_none() {
                    return Ok(Some(now.until(ends).max(Duration::from_millis(50))));
                }
            }
            Ok(None)
        })
        .await
    }
}

/// How long a mail waits when every provider is left alone for the moment.
const LEFT_ALONE: Duration = Duration::from_secs(5);

impl Provider {
    async fn send(&self, message: &Message, clock: &Clock) -> Result<Said, CallError> {
        match &self.way {
            Way::Smtp(smtp) => self.dependency.call(smtp.send(message)).await,
            Way::Mailbox(mailbox) => {
                let kept = async {
                    mailbox.keep(message);
                    Ok(Said::Taken(String::new()))
                };
                self.dependency.call(kept).await
            }
            Way::Api(account, client) => {
                let mime = super::smtp::mime(&account.from, message).map_err(CallError::Refused)?;
                let request = account.request(message, &mime, clock.now());
                let talk = client.converse(|asking| async move {
                    let headers: Vec<(&'static str, &str)> =
                        request.headers.iter().map(|(name, value)| (*name, value.reveal())).collect();
                    let answer = asking.post(&request.url, &headers, request.body.into()).await?;
                    match account.read(answer.status, &answer.body) {
                        // Its operator has to mend that, or it has had enough: the next one is asked, and this one left alone.
                        Ok(Said::NotHere(words) | Said::NotNow(words)) | Err(words) => {
                            Err(CallError::Away(words))
                        }
                        Ok(said) => Ok(said),
                    }
                });
                talk.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_count_in_a_time() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Pace::parse("100/24h"), Some(Pace { count: 100, per: day }));
        assert_eq!(Pace::parse("2 / 1s"), Some(Pace { count: 2, per: Duration::from_secs(1) }));
        for wrong in ["", "100", "0/1h", "x/1h", "1/soon", "1/0s", "-1/1h", "1/1y"] {
            assert_eq!(Pace::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn spans_follow_each_other_without_a_gap() {
        let pace = Pace { count: 1, per: Duration::from_secs(60) };
        let (starts, ends) = pace.window(Timestamp::from_micros(90_000_000));
        assert_eq!((starts.micros(), ends.micros()), (60_000_000, 120_000_000));
        assert_eq!(pace.window(ends).0, ends);
    }
}
