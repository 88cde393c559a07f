//! What a provider says of itself, and its keys: asked for once for everybody, kept for a while, used longer while it is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foundation::kernel::{Clock, Secret, Timestamp};
use foundation::outbound::{Answer, Asking, CallError};
use serde::Deserialize;
use serde_json::Value;

use super::provider::Issuer;
use super::tokens::{Claims, Expected, Flaw, Key, check};

/// How long either is taken as it is.
const FRESH: Duration = Duration::from_secs(3_600);
/// And how long while the provider does not answer.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// A provider that did not answer is not asked again for this long, while there is something to use.
const AGAIN: Duration = Duration::from_secs(30);
/// An id that no key has is asked about this often: whoever makes them up has nothing asked in their place.
const UNKNOWN: Duration = Duration::from_secs(30);
/// How long is waited for something newer than what there is.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same of keys when one is not among them.
const PATIENCE_FOR_KEYS: Duration = Duration::from_secs(3);
/// Keys of one provider.
const MOST_KEYS: usize = 100;

/// A provider's description (OpenID Connect Discovery §3; RFC 8414).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    pub(super) userinfo_endpoint: Option<String>,
    /// RFC 9207.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: Option<bool>,
}

/// What is known of one provider.
#[derive(Debug)]
pub(super) struct Metadata {
    clock: Clock,
    discovery: Kept<Discovery>,
    keys: Arc<Kept<Vec<Key>>>,
    /// When an unknown key was last asked for.
    unknown: Arc<Mutex<Option<Timestamp>>>,
}

#[derive(Debug)]
struct Kept<T> {
    now: Mutex<Option<Known<T>>>,
    /// Whoever asks; everybody else waits for the answer. How often there was none.
    asking: tokio::sync::Mutex<()>,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Known<T> {
    what: Arc<T>,
    since: Timestamp,
    ask_again: Timestamp,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { now: Mutex::default(), asking: tokio::sync::Mutex::default(), failures: AtomicU64::new(0) }
    }
}

impl<T> Kept<T> {
    /// What there is: with whether it is to be asked for again.
    fn get(&self, now: Timestamp) -> Option<(Arc<T>, bool, Timestamp)> {
        let held = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.as_ref().filter(|known| now < known.since + STALE)?;
        // A clock that was put back makes nothing fresh for longer.
        let again = now >= known.ask_again || known.ask_again > now + FRESH;
        Some((known.what.clone(), again, known.since))
    }

    fn put(&self, what: T, now: Timestamp) -> Arc<T> {
        let what = Arc::new(what);
        let known = Known { what: what.clone(), since: now, ask_again: now + FRESH };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        what
    }

    fn failed(&self, now: Timestamp) {
        if let Some(known) = self.now.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            known.ask_again = now + AGAIN;
        }
    }

    /// What there is, or what is asked for: once, however many want it. Something older does while nothing newer comes.
    async fn current(
        &self,
        clock: &Clock,
        anew: bool,
        ask: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Arc<T>, CallError> {
        let before = self.get(clock.now());
        if let Some((what, false, _)) = before.as_ref().filter(|_| !anew) {
            return Ok(what.clone());
        }
        let since = before.as_ref().map(|(.., since)| *since);
        let failures = self.failures.load(Ordering::SeqCst);
        let _one = self.asking.lock().await;
        if let Some((what, again, now)) = self.get(clock.now())
            && (Some(now) != since || (!again && !anew))
        {
            // Somebody else asked meanwhile.
            return Ok(what);
        }
        match before {
            Some((older, ..)) if !anew => {
                if let Ok(Ok(newer)) = tokio::time::timeout(PATIENCE, ask).await {
                    return Ok(self.put(newer, clock.now()));
                }
                self.failed(clock.now());
                Ok(older)
            }
            // Whoever waited for an answer that did not come has the same.
            _ if self.failures.load(Ordering::SeqCst) != failures => {
                Err(CallError::Away("it did not answer somebody else either".into()))
            }
            _ => match ask.await {
                Ok(newer) => Ok(self.put(newer, clock.now())),
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::SeqCst);
                    Err(error)
                }
            },
        }
    }

    /// Something newer than what somebody has seen: what another one has asked for meanwhile, or what is asked for now, if
    /// `may` says so. None when it may not.
    async fn newer(
        &self,
        clock: &Clock,
        seen: &Arc<T>,
        may: impl FnOnce() -> bool,
        ask: impl Future<Output = Result<T, CallError>>,
    ) -> Result<Option<Arc<T>>, CallError> {
        let _one = self.asking.lock().await;
        if let Some((what, ..)) = self.get(clock.now()).filter(|(what, ..)| !Arc::ptr_eq(what, seen)) {
            return Ok(Some(what));
        }
        if !may() {
            return Ok(None);
        }
        let newer = tokio::time::timeout(PATIENCE_FOR_KEYS, ask).await;
        let late = |_| Err(CallError::Away("it did not show its keys in time".into()));
        Ok(Some(self.put(newer.unwrap_or_else(late)?, clock.now())))
    }
}

impl Metadata {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, discovery: Kept::default(), keys: Arc::default(), unknown: Arc::default() }
    }

    /// The provider's description; `anew` when it is to be seen whether it answers.
    pub(super) async fn discovery(
        &self,
        asking: &Asking,
        issuer: &Issuer,
        anew: bool,
    ) -> Result<Arc<Discovery>, CallError> {
        let ask = async {
            let answer = asking.get(&issuer.discovery, &[("accept", "application/json")]).await?;
            let found: Discovery = read(&answer)?;
            // To the letter (§4.3; RFC 8414 §3.3): whoever describes somebody else is not asked.
            if found.issuer != issuer.name {
                return Err(CallError::Away(
                    "it describes another issuer than the one in the settings".into(),
                ));
            }
            Ok(found)
        };
        self.discovery.current(&self.clock, anew, ask).await
    }

    /// Checks a token with the provider's keys, which are asked for again when it names one that is not among them.
    pub(super) async fn check(
        &self,
        asking: &Asking,
        discovery: &Discovery,
        expected: &Expected<'_>,
        token: &Secret,
    ) -> Result<Result<Claims, Flaw>, CallError> {
        let ask =
            || async { keys_of(&asking.get(&discovery.jwks_uri, &[("accept", "application/json")]).await?) };
        let keys = self.keys.current(&self.clock, false, ask()).await?;
        let found = check(expected, &keys, token);
        if !matches!(found, Err(Flaw::Key)) {
            return Ok(found);
        }
        // A task of its own: whoever asks and goes away has asked for everybody all the same.
        let (all, unknown, clock) = (self.keys.clone(), self.unknown.clone(), self.clock.clone());
        let (asking, uri) = (asking.clone(), discovery.jwks_uri.clone());
        let newer = tokio::spawn(async move {
            let ask = async { keys_of(&asking.get(&uri, &[("accept", "application/json")]).await?) };
            all.newer(&clock, &keys, || may_ask(&unknown, clock.now()), ask).await
        });
        let newer = newer.await.map_err(|_| CallError::Away("its keys were not asked for".into()))??;
        Ok(newer.map_or(found, |keys| check(expected, &keys, token)))
    }

    /// What there is to check a token with, without asking anybody, says of it; none when that does not decide it.
    pub(super) fn check_known(
        &self,
        expected: &Expected<'_>,
        token: &Secret,
    ) -> Option<Result<Claims, Flaw>> {
        let now = self.clock.now();
        let keys = self.keys.get(now).filter(|(_, again, _)| !again).map(|(keys, ..)| keys)?;
        self.discovery.get(now).filter(|(_, again, _)| !again)?;
        Some(check(expected, &keys, token)).filter(|found| !matches!(found, Err(Flaw::Key)))
    }
}

/// One of all who want to know asks, now and then.
fn may_ask(unknown: &Mutex<Option<Timestamp>>, now: Timestamp) -> bool {
    let mut last = unknown.lock().unwrap_or_else(PoisonError::into_inner);
    let rested = last.is_none_or(|last| now >= last + UNKNOWN || now < last);
    if rested {
        *last = Some(now);
    }
    rested
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, CallError> {
    let sense = (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
    sense.ok_or_else(|| CallError::Away("its answer makes no sense".into()))
}

/// The keys that we understand; others may be for somebody else. One that stands there twice is one.
fn keys_of(answer: &Answer) -> Result<Vec<Key>, CallError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let mut set: Vec<Value> = Vec::new();
    for key in read::<Set>(answer)?.keys.into_iter().take(MOST_KEYS) {
        if !set.contains(&key) {
            set.push(key);
        }
    }
    let known = set.into_iter().filter_map(|key| {
        let issuer = key.get("issuer").and_then(Value::as_str).map(str::to_owned);
        Some(Key { jwk: serde_json::from_value(key).ok()?, issuer })
    });
    Ok(known.collect())
}
