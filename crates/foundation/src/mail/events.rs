//! What providers tell of mails afterwards. Nothing is believed that is not proven to come from the provider, nothing twice,
//! and nothing about an address that no mail of ours went to through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;

use super::api::{Account, Event, Forged, Kind, What, line};
use super::chain::Chain;
use super::sns::Notice;
use super::{MailRow, Office, REMEMBERED, UNREACHABLE, store};
use crate::db;
use crate::kernel::{Id, Timestamp, sha256};
use crate::outbound::{CallError, Dependencies, HttpClient, Private, Settings};
use crate::params;

/// For so long an event is known that was heard: longer than any provider tells it again.
const KNOWN: Duration = Duration::from_secs(7 * 86_400);
/// What fetching a certificate may take.
const BUDGET: Duration = Duration::from_secs(5);
const CERTIFICATE: usize = 32 * 1024;
/// Events in one transaction.
const BATCH: usize = 50;

/// Why an event was not heard.
#[derive(Debug, thiserror::Error)]
pub enum NotHeard {
    /// There is no provider of this name that may tell anything.
    #[error("no provider of this name may tell anything")]
    Nobody,
    /// It is not proven that the provider sent it.
    #[error("{0}")]
    Forged(Forged),
    /// What it is proven with could not be fetched.
    #[error("{0}")]
    Away(CallError),
    /// The database.
    #[error("{0}")]
    Database(#[from] db::Error),
}

/// Hears what providers tell. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Hearing {
    accounts: Arc<HashMap<String, Account>>,
    /// For the certificates of Amazon's notices; where no provider is Amazon, none.
    client: Option<HttpClient>,
    certificates: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Hearing {
    pub(super) fn new(chain: &Chain, dependencies: &Dependencies) -> Result<Self, String> {
        let told = |account: &&Account| !account.events_secret.reveal().is_empty();
        let accounts: HashMap<String, Account> = (chain.providers.iter())
            .filter_map(|provider| {
                let account = provider.account().filter(told)?;
                Some((provider.name.clone(), account.clone()))
            })
            .collect();
        let amazon = accounts.values().any(|account| account.kind == Kind::Ses);
        let client = amazon.then(|| {
            let dependency = dependencies.add(Settings {
                name: "mail.certificates".into(),
                timeout: BUDGET,
                degraded: "Amazon tells of bounces again later",
                patience: None,
                at_a_time: 16,
            });
            HttpClient::guarded(dependency, CERTIFICATE, Private::default()).map(HttpClient::untraced)
        });
        Ok(Self { accounts: accounts.into(), client: client.transpose()?, certificates: Arc::default() })
    }

    /// Hears a request of a provider's; gives how many events were new.
    pub(super) async fn hear(
        &self,
        office: &Office,
        provider: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<usize, NotHeard> {
        let account = self.accounts.get(provider).ok_or(NotHeard::Nobody)?;
        let (now, key) = (office.clock.now(), office.key);
        let events = match account.kind {
            Kind::Ses => self.noticed(account, body, now).await?,
            _ => account.events(headers, body, now).map_err(NotHeard::Forged)?,
        };
        let mut new = 0;
        for batch in events.chunks(BATCH) {
            let (batch, provider) = (batch.to_vec(), provider.to_owned());
            let heard = office.db.write(move |tx| {
                let mut new = 0;
                for event in &batch {
                    new += usize::from(note(tx, &provider, key, event, now)?);
                }
                Ok(new)
            });
            new += heard.await?;
        }
        Ok(new)
    }

    async fn noticed(&self, account: &Account, body: &[u8], now: Timestamp) -> Result<Vec<Event>, NotHeard> {
        let notice = Notice::parse(body).map_err(NotHeard::Forged)?;
        // A stranger's notice makes us ask nobody.
        if !notice.is_of(account.events_secret.reveal()) {
            return Err(NotHeard::Forged(Forged("it is of another topic")));
        }
        let client = self.client.as_ref().ok_or(NotHeard::Nobody)?;
        let url = notice.cert_url().map_err(NotHeard::Forged)?;
        let known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).get(&url).cloned();
        let pem = match known {
            Some(pem) => pem,
            None => {
                let pem =
                    client.get(&url, &[], |answer| (answer.status == 200).then(|| answer.body.to_vec()));
                pem.await.map_err(NotHeard::Away)?
            }
        };
        notice.verify(account.events_secret.reveal(), &pem, now).map_err(NotHeard::Forged)?;
        self.keep(url, pem);
        if let Some(url) = notice.confirm_url() {
            client
                .get(&url, &[], |answer| (answer.status == 200).then_some(()))
                .await
                .map_err(NotHeard::Away)?;
            tracing::info!("a topic of Amazon's was subscribed to");
        }
        Ok(notice.events())
    }

    /// Certificates change now and then; there is never more than a handful.
    fn keep(&self, url: String, pem: Vec<u8>) {
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > 8 {
            known.clear();
        }
        known.insert(url, pem);
    }
}

/// Writes down one event; false when it was heard before.
fn note(
    tx: &mut db::Tx<'_>,
    provider: &str,
    key: fn(&str) -> String,
    event: &Event,
    now: Timestamp,
) -> db::Result<bool> {
    let digest = sha256(format!("{provider}\n{}", event.id).as_bytes());
    if tx.opt::<(Timestamp,)>(&store::HEARD, params![digest, now + KNOWN])?.is_none() {
        return Ok(false);
    }
    let (recipient, since) = (key(&event.address), now - REMEMBERED);
    let detail = line(&event.detail);
    let state = match event.what {
        What::Delivered => "delivered",
        What::Bounced => "bounced",
        What::Complained => "complained",
        What::Deferred => "sent",
    };
    metrics::counter!("mail_events_total", "provider" => provider.to_owned(), "event" => state).increment(1);
    // Some name a mail as we do.
    let named: Id<MailRow> = event.reference.parse().unwrap_or(Id::from_bytes([0; 16]));
    tx.execute(&store::TOLD, params![recipient, since, event.reference, state, detail, now, named])?;
    let ours: Option<(Id<MailRow>,)> = tx.opt(&store::WAS_SENT, params![recipient, since, provider])?;
    if matches!(event.what, What::Bounced | What::Complained) && ours.is_some() {
        tx.execute(&store::SUPPRESS, params![recipient, state, detail, provider, now, now + UNREACHABLE])?;
    }
    Ok(true)
}
