//! What a provider says of itself, and its keys: asked for once for everybody, kept for a while, used longer while it is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foundation::kernel::{Clock, Secret, Timestamp};
use foundation::outbound::{Answer, Asking, CallError};
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;

use super::provider::Issuer;
use super::tokens::{Claims, Expected, Flaw, check};

/// How long either is taken as it is.
const FRESH: Duration = Duration::from_secs(3_600);
/// And how long while the provider does not answer.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// A provider that did not answer is not asked again for this long, while there is something to use.
const AGAIN: Duration = Duration::from_secs(30);
/// An id that no key has is asked about this often: whoever makes them up has nothing asked in their place.
const UNKNOWN: Duration = Duration::from_secs(30);
/// How long is waited for something newer than what there is.
const PATIENCE: Duration = Duration::from_secs(2);
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
    pub(super) userinfo_endpoint: String,
    /// RFC 9207.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// What is known of one provider.
#[derive(Debug)]
pub(super) struct Metadata {
    clock: Clock,
    discovery: Kept<Discovery>,
    keys: Kept<Vec<Jwk>>,
    /// When an unknown key was last asked for.
    unknown: Mutex<Option<Timestamp>>,
}

#[derive(Debug)]
struct Kept<T> {
    now: Mutex<Option<Known<T>>>,
    /// Whoever asks; everybody else waits for the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Known<T> {
    what: Arc<T>,
    since: Timestamp,
    ask_again: Timestamp,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { now: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }
}

impl<T> Kept<T> {
    /// What there is: with whether it is to be asked for again.
    fn get(&self, now: Timestamp) -> Option<(Arc<T>, bool, Timestamp)> {
        let held = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.as_ref().filter(|known| now < known.since + STALE)?;
        // A clock that was put back makes nothing fresh for longer.
        Some((known.what.clone(), now >= known.ask_again || now < known.since, known.since))
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
            _ => Ok(self.put(ask.await?, clock.now())),
        }
    }

    /// Something newer than what somebody has seen: what another one has asked for meanwhile, or what is asked for now, if
    /// `may` says so. None while there is nothing newer.
    async fn newer(
        &self,
        clock: &Clock,
        seen: &Arc<T>,
        may: impl FnOnce() -> bool,
        ask: impl Future<Output = Result<T, CallError>>,
    ) -> Option<Arc<T>> {
        let _one = self.asking.lock().await;
        if let Some((what, ..)) = self.get(clock.now()).filter(|(what, ..)| !Arc::ptr_eq(what, seen)) {
            return Some(what);
        }
        if !may() {
            return None;
        }
        let newer = tokio::time::timeout(PATIENCE, ask).await.ok()?.ok()?;
        Some(self.put(newer, clock.now()))
    }
}

impl Metadata {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, discovery: Kept::default(), keys: Kept::default(), unknown: Mutex::default() }
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
        let newer = self.keys.newer(&self.clock, &keys, || self.may_ask_for_unknown(), ask()).await;
        Ok(newer.map_or(found, |keys| check(expected, &keys, token)))
    }

    /// One of all who want to know asks, now and then.
    fn may_ask_for_unknown(&self) -> bool {
        let now = self.clock.now();
        let mut last = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = last.is_none_or(|last| now >= last + UNKNOWN || now < last);
        if rested {
            *last = Some(now);
        }
        rested
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, CallError> {
    let sense = (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
    sense.ok_or_else(|| CallError::Away("its answer makes no sense".into()))
}

/// The keys that we understand; others may be for somebody else.
fn keys_of(answer: &Answer) -> Result<Vec<Jwk>, CallError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = read(answer)?;
    Ok(set.keys.into_iter().take(MOST_KEYS).filter_map(|key| serde_json::from_value(key).ok()).collect())
}
