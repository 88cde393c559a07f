//! Counters in Redis or Valkey, which all processes share: one script, atomic there, within the dependency's budget. It
//! may forget everything at any time: whoever asks says what it knows, and the larger number counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, Script};

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

#[derive(Default)]
struct Slot {
    open: Option<MultiplexedConnection>,
    opening: bool,
}

impl Redis {
    /// Prepares; nothing is asked yet.
    ///
    /// # Errors
    /// In words, when the address is none.
    pub fn new(url: &Secret, dependency: Dependency) -> Result<Self, String> {
        let wrong = |_| {
            "is not an address such as redis://host:6379 or rediss://user:password@host:6379/0".to_owned()
        };
        let info = url.reveal().into_connection_info().map_err(wrong)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err("asks for TLS without looking at the certificate, which protects from nobody".into());
        }
        let client = Client::open(info).map_err(|e| e.to_string())?;
        let (script, connection) = (Arc::new(Script::new(TAKE)), Arc::default());
        Ok(Self { dependency, client, script, connection })
    }

    /// Tries once, from `known` at the earliest: whether it is allowed, and the number after it.
    pub(super) async fn take(
        &self,
        key: Key,
        quota: &Quota,
        now: Timestamp,
        known: i64,
    ) -> Result<(bool, i64), CallError> {
        let call = async {
            let mut connection = self.connection().await?;
            let mut attempt = self.script.key(format!("pearlgate:limit:{:x}", key.0));
            attempt.arg(now.micros()).arg(quota.interval()).arg(quota.window()).arg(known);
            let answer: redis::RedisResult<(u8, i64)> = attempt.invoke_async(&mut connection).await;
            answer
                .map(|(allowed, free_at)| (allowed == 1, free_at))
                .map_err(|e| CallError::Away(e.to_string()))
        };
        let answer = self.dependency.call(call).await;
        if answer.is_err() {
            self.slot().open = None;
        }
        answer
    }

    /// The connection, or a new one. It is made by a task of its own, so that it is there for the next call when this
    /// one does not wait for it.
    async fn connection(&self) -> Result<MultiplexedConnection, CallError> {
        {
            let mut slot = self.slot();
            if let Some(open) = &slot.open {
                return Ok(open.clone());
            }
            if std::mem::replace(&mut slot.opening, true) {
                return Err(CallError::Away("it is being connected to".into()));
            }
        }
        let this = self.clone();
        let opening = tokio::spawn(async move {
            let made = tokio::time::timeout(CONNECT, this.client.get_multiplexed_async_connection()).await;
            let mut slot = this.slot();
            slot.opening = false;
            match made {
                Ok(Ok(connection)) => {
                    slot.open = Some(connection.clone());
                    Ok(connection)
                }
                Ok(Err(error)) => Err(CallError::Away(error.to_string())),
                Err(_) => Err(CallError::Away("it could not be connected to in time".into())),
            }
        });
        opening.await.unwrap_or_else(|e| Err(CallError::Away(e.to_string())))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
