//! Providers in the order in which they are tried. Each has a breaker, and perhaps a pace; a mail that one does not take goes
//! to the next at once.

use std::time::Duration;

use super::api::{Account, Said};
use super::pace::{self, Full, Pace, Whose};
use super::{BUDGET, Mailbox, Message, Smtp};
use crate::db::{self, Db};
use crate::kernel::{Clock, Timestamp};
use crate::outbound::{CallError, Dependencies, Dependency, HttpClient, Patience, Settings};

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
    /// Nobody was asked.
    Later(Full),
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
            let way = match hop.transport {
                Transport::Smtp(smtp) => Way::Smtp(smtp),
                Transport::Mailbox(mailbox) => Way::Mailbox(mailbox),
                Transport::Api(account) => {
                    Way::Api(account, HttpClient::new(dependency.clone(), None, ANSWER)?)
                }
            };
            Ok(Provider { name: hop.name, dependency, way, paces: hop.paces })
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
        let paces: Vec<Pace> = self.per_domain.into_iter().collect();
        let domain = Whose::Domain(domain);
        let taken = match pace::take(db, &domain, &paces, self.clock.now()).await? {
            Ok(taken) => taken,
            Err(full) => return Ok(Outcome::Later(full)),
        };
        let mut late = false;
        let outcome = self.ask(db, message, &mut late).await;
        // What nobody was given takes no place; where somebody did not answer in time nobody knows.
        if !late && !matches!(outcome, Ok(Outcome::Taken(..) | Outcome::NoSuchAddress(..))) {
            pace::give_back(db, taken).await?;
        }
        outcome
    }

    /// Asks one after the other.
    async fn ask(&self, db: &Db, message: &Message, late: &mut bool) -> db::Result<Outcome> {
        let (mut said, mut refused, mut asked) = (Vec::new(), true, false);
        let mut soonest: Option<Full> = None;
        for provider in &self.providers {
            let mut not_now = |full: Full| {
                refused = false;
                soonest = Some(soonest.map_or(full, |soonest| soonest.min(full)));
            };
            // Whoever is not asked spends none of its places.
            if provider.dependency.is_left_alone() {
                provider.dependency.note_spared();
                not_now(Full::for_a(LEFT_ALONE));
                continue;
            }
            let whose = Whose::Provider(provider.name.clone());
            let taken = match pace::take(db, &whose, &provider.paces, self.clock.now()).await? {
                Ok(taken) => taken,
                Err(full) => {
                    not_now(full);
                    continue;
                }
            };
            let answer = provider.send(message, &self.clock).await;
            // Where it did not answer in time nobody knows whether it took the mail.
            *late |= matches!(answer, Err(CallError::Timeout(_)));
            if !matches!(answer, Ok(Said::Taken(_) | Said::NoSuchAddress(_)) | Err(CallError::Timeout(_))) {
                pace::give_back(db, taken).await?;
            }
            match answer {
                Ok(Said::Taken(reference)) => return Ok(Outcome::Taken(provider.name.clone(), reference)),
                Ok(Said::NoSuchAddress(words)) => {
                    return Ok(Outcome::NoSuchAddress(provider.name.clone(), words));
                }
                Err(CallError::Spared(_)) => not_now(Full::for_a(LEFT_ALONE)),
                Ok(Said::NotHere(words) | Said::NotNow(words)) => {
                    (refused, asked) = (false, true);
                    said.push(format!("{}: {words}", provider.name));
                }
                Err(error) => {
                    asked = true;
                    refused &= matches!(error, CallError::Refused(_));
                    said.push(format!("{}: {error}", provider.name));
                }
            }
        }
        let words = said.join("; ");
        Ok(match soonest {
            _ if refused => Outcome::Refused(words),
            Some(full) if !asked => Outcome::Later(full),
            _ => Outcome::Away(words),
        })
    }
}

/// How long a mail waits when every provider is left alone for the moment.
const LEFT_ALONE: Duration = Duration::from_secs(5);

impl Provider {
    /// The account at its API; none for what has no API.
    pub(super) fn account(&self) -> Option<&Account> {
        match &self.way {
            Way::Api(account, _) => Some(account),
            Way::Smtp(_) | Way::Mailbox(_) => None,
        }
    }

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
                    // Some repeat what they were asked.
                    let body = account.hide(String::from_utf8_lossy(&answer.body).into_owned());
                    match account.read(answer.status, body.as_bytes()) {
                        // About this one mail: it is there, and the next one may like it.
                        Ok(said @ (Said::NotHere(_) | Said::NotNow(_)))
                            if matches!(answer.status, 400 | 409 | 413 | 422) =>
                        {
                            Ok(said)
                        }
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
