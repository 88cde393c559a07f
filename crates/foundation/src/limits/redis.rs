//! Counters in Redis or Valkey, which all processes share: one script, atomic there, within the dependency's budget. It
//! may forget everything at any time: whoever asks says what it knows, and the larger number counts.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, Script};
use tokio::sync::watch;

use super::Key;
use super::gcra::Quota;
use crate::kernel::{Secret, Timestamp};
use crate::outbound::{CallError, Dependency};

/// How long a new connection may take; nobody waits for it longer than for any answer.
const CONNECT: Duration = Duration::from_secs(2);

/// The numbers are whole microseconds below 2^53, which Lua's numbers hold exactly.
const TAKE: &str = r"
local free_at = tonumber(redis.call('GET', KEYS[1]) or '0')
local now, interval, window, known = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if free_at > now + 2 * window then free_at = 0 end
local from = math.max(free_at, known, now)
local following = from + interval
if following - now > window then return {0, string.format('%.0f', from)} end
redis.call('SET', KEYS[1], string.format('%.0f', following), 'PX', math.ceil((following - now) / 1000))
return {1, string.format('%.0f', following)}
";

/// A Redis. Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    dependency: Dependency,
    client: Client,
    script: Arc<Script>,
    connection: Arc<Mutex<Slot>>,
}

type Opened = Result<MultiplexedConnection, CallError>;

#[derive(Default)]
struct Slot {
    /// The connection, and the how manieth it is.
    open: Option<(u64, MultiplexedConnection)>,
    number: u64,
    /// While one is being made: whoever comes waits for the same, as long as their budget lasts.
    opening: Option<watch::Receiver<Option<Opened>>>,
}

impl Redis {
    /// Whether a text is an address that can be used.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn check(url: &Secret) -> Result<(), String> {
        open(url).map(|_| ())
    }

    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// As [`Redis::check`].
    pub fn new(url: &Secret, dependency: Dependency) -> Result<Self, String> {
        let (client, script) = (open(url)?, Arc::new(Script::new(TAKE)));
        Ok(Self { dependency, client, script, connection: Arc::default() })
    }

    /// Tries once, from `known` at the earliest: whether it is allowed, and the number after it.
    pub(super) async fn take(
        &self,
        key: Key,
        quota: &Quota,
        now: Timestamp,
        known: i64,
    ) -> Result<(bool, i64), CallError> {
        let used = AtomicU64::new(0);
        let call = async {
            let (number, mut connection) = self.connection().await?;
            used.store(number, Ordering::Relaxed);
            let mut attempt = self.script.key(format!("pearlgate:limit:{:x}", key.0));
            attempt.arg(now.micros()).arg(quota.interval()).arg(quota.window()).arg(known);
            let answer: redis::RedisResult<(u8, i64)> = attempt.invoke_async(&mut connection).await;
            let (allowed, free_at) = answer.map_err(|e| CallError::Away(e.to_string()))?;
            // What cannot be the answer is none: something else may be listening there.
            let from = quota.from(known, now);
            let sensible = match allowed {
                1 => (from + quota.interval()..=now.micros() + quota.window()).contains(&free_at),
                _ => (from..=quota.latest(now)).contains(&free_at),
            };
            if !sensible {
                return Err(CallError::Away("its answer makes no sense".into()));
            }
            Ok((allowed == 1, free_at))
        };
        let answer = self.dependency.call(call).await;
        if answer.is_err() {
            // The connection that was used is not used again; a newer one stays.
            let mut slot = self.slot();
            let used = used.load(Ordering::Relaxed);
            slot.open.take_if(|(number, _)| *number == used);
        }
        answer
    }

    /// The connection, or a new one. It is made by a task of its own, so that it is there for the next call when this
    /// one does not wait for it.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection), CallError> {
        let mut opening = {
            let mut slot = self.slot();
            if let Some((number, open)) = &slot.open {
                return Ok((*number, open.clone()));
            }
            match &slot.opening {
                // One that ended without a word is not waited for.
                Some(opening) if opening.has_changed().is_ok() => opening.clone(),
                _ => {
                    let (tell, opening) = watch::channel(None);
                    slot.opening = Some(opening.clone());
                    tokio::spawn(open_one(self.clone(), tell));
                    opening
                }
            }
        };
        let ended = |_| CallError::Away("it could not be connected to".into());
        let opened = opening.wait_for(Option::is_some).await.map_err(ended)?.clone();
        let connection =
            opened.unwrap_or_else(|| Err(CallError::Away("it could not be connected to".into())))?;
        Ok((self.slot().number, connection))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(url: &Secret) -> Result<Client, String> {
    let wrong =
        |_| "is not an address such as redis://host:6379 or rediss://user:password@host:6379/0".to_owned();
    let info = url.reveal().into_connection_info().map_err(wrong)?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err("asks for TLS without looking at the certificate, which protects from nobody".into())
        }
        ConnectionAddr::Tcp(host, _) if info.redis_settings().password().is_some() && !is_here(host) => {
            Err("would send its password over the network in plain text: use rediss://".into())
        }
        _ => Client::open(info).map_err(|e| e.to_string()),
    }
}

fn is_here(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn open_one(redis: Redis, tell: watch::Sender<Option<Opened>>) {
    let made = tokio::time::timeout(CONNECT, redis.client.get_multiplexed_async_connection()).await;
    let opened = match made {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(CallError::Away(error.to_string())),
        Err(_) => Err(CallError::Away("it could not be connected to in time".into())),
    };
    let mut slot = redis.slot();
    slot.number += 1;
    slot.open = opened.as_ref().ok().map(|connection| (slot.number, connection.clone()));
    slot.opening = None;
    drop(slot);
    let _ = tell.send(Some(opened));
}
