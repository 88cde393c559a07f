//! The settings as types, checked: what contradicts itself is refused at start with the key, the place and the
//! remedy.

mod federation;
mod limits;
mod mail;
mod mfa;
mod people;
mod raw;
mod webhooks;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use foundation::config::{ConfigError, Layers, Shown};
use foundation::db::PostgresOptions;
use foundation::http::Proxies;
use foundation::kernel::{MasterKeys, Secret, WrongSetting};

use crate::passkeys::Party;
pub use federation::{FederationSettings, provider_of};
pub use limits::{AlarmAnswer, AlarmSettings, LimitSettings, LockoutSettings, MailCaps, Store};
pub use mail::{MailHop, MailSettings, MailWay};
pub use mfa::MfaSettings;
pub use people::PeopleSettings;
use raw::*;
pub use raw::{Raw, RawProvider};
pub use webhooks::WebhookSettings;

use crate::passwords::{Pepper, Peppers};

/// The commented default file.
pub const DEFAULTS: &str = include_str!("default.toml");
/// What environment variables begin with.
pub const ENVIRONMENT: &str = "PEARLGATE";
/// Where the default settings ask about breaches.
const PUBLIC_RANGES: &str = "https://api.pwnedpasswords.com/range/";
/// Keys whose values are never shown.
pub const SECRETS: [&str; 12] = [
    "providers.*.client_secret",
    "providers.*.private_key",
    "redis.url",
    "secrets.master_key",
    "secrets.old_master_keys",
    "mail.smtp.password",
    "mailers.*.password",
    "mailers.*.key",
    "mailers.*.events_secret",
    "database.url",
    "hashing.pepper",
    "hashing.old_peppers",
];

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Dev mode: `--dev`.
    pub dev: bool,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to listen for what is not public.
    pub internal_listen: Option<SocketAddr>,
    /// `https://host`, without a slash at the end; empty in dev mode until the port is known.
    pub public_url: String,
    /// Further hosts.
    pub allowed_hosts: Vec<String>,
    /// Declared proxies.
    pub proxies: Proxies,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
    /// How long a stop waits.
    pub drain: Duration,
    /// How the service calls itself.
    pub service_name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// PostgreSQL's address; none for SQLite.
    pub database_url: Option<String>,
    /// Who vouches for PostgreSQL.
    pub database_ca_file: Option<PathBuf>,
    /// Connections to PostgreSQL.
    pub database_connections: usize,
    /// The master key; none in dev mode until it is made.
    pub master_key: Option<[u8; 32]>,
    /// Master keys of before, under which something may still rest.
    pub old_master_keys: OldMasterKeys,
    /// Who is given mails, unless it is dev mode.
    pub mail: MailSettings,
    /// `aud`; empty for the public URL.
    pub audience: String,
    /// `client_id`.
    pub client_id: String,
    /// Life of an access token.
    pub access_lifetime: Duration,
    /// Life of an unused refresh token.
    pub refresh_idle: Duration,
    /// Life of a session.
    pub session_lifetime: Duration,
    /// Sessions of one person at a time; 0 for any number.
    pub max_sessions: usize,
    /// What new signing keys are for.
    pub signing_algorithm: SigningAlgorithm,
    /// After which age a signing key is replaced.
    pub rotate_keys: Duration,
    /// For how long events of the audit trail are kept; none for ever.
    pub audit_keep: Option<Duration>,
    /// Whether access tokens say what their person may do.
    pub permissions_in_tokens: bool,
    /// Second factors.
    pub mfa: MfaSettings,
    /// Who we are to an authenticator; in dev mode as soon as the port is known.
    pub party: Party,
    /// Who signs people in beside us.
    pub federation: FederationSettings,
    /// Applications that are told what happens.
    pub webhooks: WebhookSettings,
    /// Who is an operator: people with one of these roles.
    pub operator_roles: Vec<String>,
    /// Life of an operator's session at assurance level 2.
    pub operator_session: Duration,
    /// Life of its unused refresh token.
    pub operator_idle: Duration,
    /// Origins of applications that may call from a browser.
    pub cors_origins: Vec<String>,
    /// Which place a network address belongs to: a MaxMind database.
    pub places_file: Option<PathBuf>,
    /// Life of a verification.
    pub verification_lifetime: Duration,
    /// For how long after a proof a session is fresh.
    pub freshness: Duration,
    /// Life of a password reset.
    pub reset_lifetime: Duration,
    /// Whether magic links are offered.
    pub magic_links: bool,
    /// Life of a magic link.
    pub magic_link_lifetime: Duration,
    /// How often something may be done.
    pub limits: LimitSettings,
    /// When strangers are kept out of an account.
    pub lockout: LockoutSettings,
    /// When so many go wrong that it is no accident.
    pub alarms: AlarmSettings,
    /// Redis, if there is one.
    pub redis: Option<Secret>,
    /// Life of an e-mail change before it is proven.
    pub email_change_lifetime: Duration,
    /// For how long the old address can undo it.
    pub email_change_undo: Duration,
    /// How people come and go.
    pub people: PeopleSettings,
    /// Fewest characters of a password that stands alone.
    pub min_password_length: usize,
    /// Fewest characters of a password beside a second factor.
    pub min_password_length_with_mfa: usize,
    /// Who is asked about breaches.
    pub breach_service: BreachService,
    /// How long that may take.
    pub breach_timeout: Duration,
    /// A local filter of breached passwords.
    pub breach_filter: Option<PathBuf>,
    /// Keys that go into hashes.
    pub peppers: Peppers,
    /// Argon2id: KiB, passes, lanes.
    pub hash_cost: (u32, u32, u32),
    /// Hashes at a time.
    pub hash_threads: usize,
    /// Hashes that may wait.
    pub hash_queue: usize,
    /// Whether the docs answer.
    pub docs: bool,
    /// Logs as JSON.
    pub log_json: bool,
    /// Log level.
    pub log_level: tracing::level_filters::LevelFilter,
    /// All of them as they were set, for operators.
    pub shown: ShownSettings,
}

/// The settings as they were set, secrets hidden; not printed, because where they were set is no setting.
#[derive(Clone, Default)]
pub struct ShownSettings(pub Vec<Shown>);

impl std::fmt::Debug for ShownSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShownSettings({})", self.0.len())
    }
}

/// Master keys of before; never printed.
#[derive(Clone, Default)]
pub struct OldMasterKeys(pub Vec<[u8; 32]>);

impl std::fmt::Debug for OldMasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OldMasterKeys({})", self.0.len())
    }
}

/// How access tokens are signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// ECDSA with P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA PKCS#1 v1.5 with 3,072 bits, for libraries that know nothing else.
    Rs256,
}

/// The largest Argon2 memory that a setting or a stored hash may ask for, in KiB.
pub const MAX_HASH_MEMORY: u32 = 1 << 20;
/// Passes that a setting or a stored hash may ask for.
pub const MAX_HASH_PASSES: u32 = 64;
/// KiB, and KiB times passes, that a stored hash may ask for when the settings do not ask for more: about three
/// seconds of one core.
pub const MAX_STORED_MEMORY: u32 = 1 << 17;
/// See [`MAX_STORED_MEMORY`].
pub const MAX_STORED_WORK: u64 = 1 << 21;
/// Lanes that a setting or a stored hash may ask for.
pub const MAX_HASH_LANES: u32 = 16;

/// Who is asked whether a password was in a breach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreachService {
    /// Nobody: local lists decide.
    Off,
    /// Dev mode's own: nothing leaves the machine.
    Pretend,
    /// A range service at this address.
    Range(String),
}

/// What the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Serving in production: needs a public URL and a master key.
    Production,
    /// Serving in dev mode: needs nothing, and stays on this machine.
    Dev,
    /// A command that only looks at the data: needs nothing.
    Tool,
}

impl Settings {
    /// Checks the layers.
    ///
    /// # Errors
    /// The first setting that cannot stand, with its place and a remedy.
    pub fn check(layers: &Layers, purpose: Purpose) -> Result<Self, ConfigError> {
        let raw: Raw = layers.build()?;
        let dev = purpose == Purpose::Dev;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let hash_threads = if raw.hashing.threads == 0 { cores } else { raw.hashing.threads };
        let people = people::read(layers, &raw)?;
        let settings = Self {
            dev,
            listen: address(layers, "server.listen", &raw.server.listen)?,
            internal_listen: match raw.server.internal_listen.as_str() {
                "" => None,
                text => Some(address(layers, "server.internal_listen", text)?),
            },
            public_url: public_url(layers, &raw.server.public_url, purpose)?,
            allowed_hosts: raw.server.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            proxies: Proxies::parse(&raw.server.trusted_proxies)
                .map_err(|why| layers.refuse("server.trusted_proxies", why))?,
            max_connections: at_least_one(layers, "server.max_connections", raw.server.max_connections)?,
            max_connections_per_address: at_least_one(
                layers,
                "server.max_connections_per_address",
                raw.server.max_connections_per_address,
            )?,
            drain: duration(layers, "server.drain", &raw.server.drain)?,
            service_name: one_line(layers, "service.name", &raw.service.name)?,
            mail: mail::read(layers, &raw)?,
            data_dir: raw.data.dir,
            database_url: some(&raw.database.url),
            database_ca_file: some(&raw.database.ca_file).map(PathBuf::from),
            database_connections: at_least_one(layers, "database.connections", raw.database.connections)?,
            master_key: master_key(layers, &raw.secrets.master_key, purpose)?,
            old_master_keys: old_master_keys(layers, &raw.secrets.old_master_keys)?,
            audience: raw.tokens.audience,
            client_id: some(&raw.tokens.client_id).unwrap_or_else(|| "pearlgate".into()),
            access_lifetime: duration(layers, "tokens.access", &raw.tokens.access)?,
            refresh_idle: duration(layers, "tokens.refresh_idle", &raw.tokens.refresh_idle)?,
            session_lifetime: duration(layers, "tokens.session", &raw.tokens.session)?,
            max_sessions: raw.tokens.max_sessions,
            signing_algorithm: match raw.tokens.algorithm.as_str() {
                "ES256" => SigningAlgorithm::Es256,
                "EdDSA" => SigningAlgorithm::EdDsa,
                "RS256" => SigningAlgorithm::Rs256,
                _ => return Err(layers.refuse("tokens.algorithm", "is \"ES256\", \"EdDSA\" or \"RS256\"")),
            },
            rotate_keys: duration(layers, "tokens.rotate_keys", &raw.tokens.rotate_keys)?,
            audit_keep: match raw.audit.keep.as_str() {
                "0" | "0s" => None,
                text => Some(duration(layers, "audit.keep", text)?),
            },
            permissions_in_tokens: raw.tokens.permissions,
            mfa: mfa::read(layers, &raw.mfa, &raw.operators.roles)?,
            party: mfa::party(layers, &raw.passkeys, &raw.server.public_url)?,
            federation: federation::read(layers, &raw.federation, &raw.providers, dev)?,
            webhooks: webhooks::read(layers, &raw.webhooks, dev)?,
            operator_roles: raw.operators.roles,
            operator_session: duration(layers, "operators.session", &raw.operators.session)?,
            operator_idle: duration(layers, "operators.refresh_idle", &raw.operators.refresh_idle)?,
            cors_origins: origins(layers, "cors.origins", &raw.cors.origins)?,
            places_file: some(&raw.devices.places_file).map(PathBuf::from),
            verification_lifetime: duration(layers, "verification.lifetime", &raw.verification.lifetime)?,
            freshness: duration(layers, "tokens.fresh", &raw.tokens.fresh)?,
            reset_lifetime: duration(layers, "recovery.lifetime", &raw.recovery.lifetime)?,
            magic_links: raw.magic_link.enabled,
            magic_link_lifetime: duration(layers, "magic_link.lifetime", &raw.magic_link.lifetime)?,
            limits: limits::read(layers, &raw.limits, dev, &raw.redis.url)?,
            lockout: limits::lockout(layers, &raw.lockout)?,
            alarms: limits::alarms(layers, &raw.alarms)?,
            redis: limits::redis(layers, raw.redis.url)?,
            email_change_lifetime: duration(layers, "email_change.lifetime", &raw.email_change.lifetime)?,
            email_change_undo: duration(layers, "email_change.undo", &raw.email_change.undo)?,
            people,
            min_password_length: min_length(layers, "passwords.min_length", raw.passwords.min_length)?,
            min_password_length_with_mfa: min_length(
                layers,
                "passwords.min_length_with_mfa",
                raw.passwords.min_length_with_mfa,
            )?,
            breach_service: breach_service(layers, &raw.passwords.breach.url, dev)?,
            breach_timeout: duration(layers, "passwords.breach.timeout", &raw.passwords.breach.timeout)?,
            breach_filter: some(&raw.passwords.breach.filter_file).map(PathBuf::from),
            peppers: peppers(layers, &raw.hashing)?,
            hash_cost: hash_cost(layers, &raw.hashing)?,
            hash_threads,
            hash_queue: if raw.hashing.queue == 0 { hash_threads * 128 } else { raw.hashing.queue },
            docs: raw.docs.enabled || dev,
            log_json: match raw.log.format.as_str() {
                "json" => true,
                "text" => false,
                _ => return Err(layers.refuse("log.format", "is \"text\" or \"json\"")),
            },
            log_level: raw
                .log
                .level
                .parse()
                .map_err(|_| layers.refuse("log.level", "is error, warn, info or debug"))?,
            shown: ShownSettings(layers.shown(&SECRETS)),
        };
        settings.contradictions(layers)?;
        let placed = |wrong: WrongSetting| layers.refuse(wrong.key, wrong.what);
        for hop in &settings.mail.hops {
            if let MailWay::Smtp(options) = &hop.way {
                options.check().map_err(placed)?;
            }
        }
        settings.postgres().map_or(Ok(()), |options| options.check().map_err(placed))?;
        Ok(settings)
    }

    fn contradictions(&self, layers: &Layers) -> Result<(), ConfigError> {
        if self.dev && !self.listen.ip().is_loopback() {
            return Err(layers.refuse(
                "server.listen",
                "is not on this machine, and --dev opens doors that nobody else may use. Listen on 127.0.0.1, or serve without --dev.",
            ));
        }
        if self.alarms.answer == AlarmAnswer::MailedCode && !self.magic_links {
            let what = "is \"mailed_code\", which is taken where magic links are: set magic_link.enabled, or another answer";
            return Err(layers.refuse("alarms.answer", what));
        }
        if self.access_lifetime > self.refresh_idle {
            return Err(layers.refuse("tokens.access", "is longer than tokens.refresh_idle: make it shorter"));
        }
        if self.refresh_idle > self.session_lifetime {
            return Err(
                layers.refuse("tokens.refresh_idle", "is longer than tokens.session: make it shorter")
            );
        }
        if self.operator_idle > self.operator_session || self.access_lifetime > self.operator_idle {
            return Err(layers.refuse(
                "operators.refresh_idle",
                "must be from tokens.access to operators.session: an access token is not good for longer than the session",
            ));
        }
        if self.rotate_keys < Duration::from_secs(3600) {
            return Err(layers.refuse(
                "tokens.rotate_keys",
                "is shorter than an hour, and others keep the public keys for minutes: make it days",
            ));
        }
        Ok(())
    }

    /// The master key and those before it; none in dev mode until it is made.
    pub fn master_keys(&self) -> Option<MasterKeys> {
        self.master_key.map(|current| MasterKeys::new(current, &self.old_master_keys.0))
    }

    /// How to reach PostgreSQL; none for SQLite.
    pub fn postgres(&self) -> Option<PostgresOptions> {
        let url = self.database_url.clone()?;
        Some(PostgresOptions {
            url,
            ca_file: self.database_ca_file.clone(),
            connections: self.database_connections,
        })
    }

    /// The host and port of the public URL.
    pub fn public_host(&self) -> &str {
        self.public_url.split_once("://").map_or("", |(_, host)| host)
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn address(layers: &Layers, key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    let readable =
        text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    readable.parse().map_err(|_| {
        layers.refuse(key, format!("is {text:?}; give an address and a port such as 127.0.0.1:8080"))
    })
}

const LONGEST: Duration = Duration::from_secs(3_660 * 86_400);

fn duration(layers: &Layers, key: &str, text: &str) -> Result<Duration, ConfigError> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => {
            Err(layers.refuse(key, format!("is {text:?}; nothing here lasts longer than ten years")))
        }
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(layers.refuse(key, format!("is {text:?}; give a duration such as \"10m\" or \"30d\""))),
    }
}

fn at_least_one(layers: &Layers, key: &str, number: usize) -> Result<usize, ConfigError> {
    if number == 0 { Err(layers.refuse(key, "must be at least 1")) } else { Ok(number) }
}

fn one_line(layers: &Layers, key: &str, text: &str) -> Result<String, ConfigError> {
    let fine = !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control);
    if fine {
        Ok(text.to_owned())
    } else {
        Err(layers.refuse(key, "must be one line of 1 to 100 characters"))
    }
}

fn min_length(layers: &Layers, key: &str, number: usize) -> Result<usize, ConfigError> {
    if (8..=64).contains(&number) {
        return Ok(number);
    }
    Err(layers.refuse(
        key,
        "must be from 8 to 64; NIST asks for 15 of a password that stands alone, for 8 beside a second factor",
    ))
}

fn breach_service(layers: &Layers, url: &str, dev: bool) -> Result<BreachService, ConfigError> {
    const KEY: &str = "passwords.breach.url";
    if url.is_empty() {
        return Ok(BreachService::Off);
    }
    if dev && url == PUBLIC_RANGES {
        return Ok(BreachService::Pretend);
    }
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let plain = url.ends_with('/') && !url.contains(['?', '#', '@', ' ']) && !host.is_empty();
    if !plain || !(url.starts_with("https://") || (url.starts_with("http://") && is_local_host(host))) {
        return Err(
            layers.refuse(KEY, "is an https address that ends with a slash; five digits are put behind it")
        );
    }
    Ok(BreachService::Range(url.to_owned()))
}

fn peppers(layers: &Layers, raw: &RawHashing) -> Result<Peppers, ConfigError> {
    let read = |key: &str, text: &Secret| {
        let wrong = || {
            layers.refuse(
                key,
                "is an id of one to eight letters, digits or dashes, a colon, and 32 bytes in base64 as `pearlgate keys generate` makes them: \"2026-a:…\"",
            )
        };
        let (id, encoded) = text.reveal().split_once(':').ok_or_else(wrong)?;
        let plain = (1..=8).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain {
            return Err(wrong());
        }
        // One key has one spelling.
        let key = parse_master_key(encoded).map(|key| BASE64.encode(&key)).ok_or_else(wrong)?;
        Ok(Pepper { id: id.to_owned(), key: Secret::new(key) })
    };
    let current = Some(&raw.pepper).filter(|text| !text.reveal().is_empty());
    let current = current.map(|text| read("hashing.pepper", text)).transpose()?;
    let older = raw.old_peppers.iter().map(|text| read("hashing.old_peppers", text));
    let older = older.collect::<Result<Vec<_>, _>>()?;
    let mut ids: Vec<&str> = current.iter().chain(&older).map(|pepper| pepper.id.as_str()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(layers.refuse("hashing.old_peppers", "has an id twice: every pepper has its own"));
    }
    Ok(Peppers { current, older })
}

fn hash_cost(layers: &Layers, raw: &RawHashing) -> Result<(u32, u32, u32), ConfigError> {
    let (m, t, p) = (raw.memory_kib, raw.iterations, raw.parallelism);
    if !(1..=MAX_HASH_LANES).contains(&p)
        || !(1..=MAX_HASH_PASSES).contains(&t)
        || m < 8 * p
        || m > MAX_HASH_MEMORY
    {
        return Err(layers.refuse(
            "hashing.memory_kib",
            "or its neighbours are out of range: memory from 8 KiB per lane to 1 GiB, 1 to 64 iterations, 1 to 16 lanes",
        ));
    }
    Ok((m, t, p))
}

fn is_local_host(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name.ends_with(".localhost")
}

fn public_url(layers: &Layers, text: &str, purpose: Purpose) -> Result<String, ConfigError> {
    const KEY: &str = "server.public_url";
    if text.is_empty() {
        return if purpose != Purpose::Production {
            Ok(String::new())
        } else {
            Err(layers.refuse(KEY, "is not set. It is the address under which people reach this server, such as \
                https://accounts.example.com: set it in a file given with --config, or with \
                PEARLGATE__SERVER__PUBLIC_URL. To try the server out without any settings: `pearlgate serve --dev`."))
        };
    }
    let url = text.trim_end_matches('/').to_ascii_lowercase();
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    if !plain {
        return Err(layers.refuse(
            KEY,
            format!("is {text:?}; give scheme and host only, such as https://accounts.example.com"),
        ));
    }
    if url.starts_with("http://") && !is_local_host(host) {
        return Err(layers.refuse(KEY, "is http on another machine's name. Browsers would not keep its cookies and anybody on the way could read passwords: use https."));
    }
    Ok(url)
}

fn master_key(layers: &Layers, text: &Secret, purpose: Purpose) -> Result<Option<[u8; 32]>, ConfigError> {
    const KEY: &str = "secrets.master_key";
    if text.reveal().is_empty() {
        return if purpose != Purpose::Production {
            Ok(None)
        } else {
            Err(layers.refuse(KEY, "is not set. Make one with `pearlgate keys generate > master.key`, keep it apart from the \
                database, and set PEARLGATE__SECRETS__MASTER_KEY_FILE=master.key. To try the server out without any \
                settings: `pearlgate serve --dev`."))
        };
    }
    parse_master_key(text.reveal()).map(Some).ok_or_else(|| {
        layers.refuse(KEY, "is not 32 bytes in base64. Make one with `pearlgate keys generate`.")
    })
}

fn old_master_keys(layers: &Layers, texts: &[Secret]) -> Result<OldMasterKeys, ConfigError> {
    let read = |text: &Secret| {
        parse_master_key(text.reveal()).ok_or_else(|| {
            layers.refuse("secrets.old_master_keys", "holds something that is not 32 bytes in base64")
        })
    };
    texts.iter().map(read).collect::<Result<_, _>>().map(OldMasterKeys)
}

/// Origins as browsers send them: scheme, host, and a port that is not the scheme's own.
fn origins(layers: &Layers, key: &str, texts: &[String]) -> Result<Vec<String>, ConfigError> {
    let plain = |text: &String| {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://").filter(|host| is_local_host(host)));
        host.is_some_and(|host| {
            let (name, port) = host.rsplit_once(':').map_or((host, ""), |(name, port)| (name, port));
            // A browser leaves out the port that goes without saying, and knows no dot at the end.
            let said =
                !(port == "443" && text.starts_with("https:") || port == "80" && text.starts_with("http:"));
            !name.is_empty()
                && !name.ends_with('.')
                && !host.ends_with(':')
                && said
                && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
        })
    };
    match texts.iter().find(|text| !plain(text)) {
        None => Ok(texts.to_vec()),
        Some(wrong) => Err(layers.refuse(
            key,
            format!("holds {wrong:?}; give origins as browsers send them, such as \"https://app.example.com\": https, in small letters, without a path or a wildcard"),
        )),
    }
}

/// A master key from its text.
pub fn parse_master_key(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let bytes = BASE64
        .decode(text.as_bytes())
        .or_else(|_| BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()));
    bytes.ok()?.try_into().ok()
}

/// The defaults, then the file, then the environment.
///
/// # Errors
/// The first thing that cannot stand.
pub fn layers(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Layers, ConfigError> {
    let mut layers = Layers::new(DEFAULTS)?;
    if let Some(file) = file {
        layers.file(file)?;
    }
    layers.environment(ENVIRONMENT, variables)?;
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom mails are from.
    fn from(settings: &Settings) -> String {
        match &settings.mail.hops[0].way {
            MailWay::Smtp(options) => options.from.clone(),
            MailWay::Api(account) => account.from.to_string(),
        }
    }

    fn check(purpose: Purpose, text: &str) -> Result<Settings, String> {
        let mut layers = layers(None, []).unwrap();
        layers.text("pearlgate.toml", text).map_err(|e| e.to_string())?;
        Settings::check(&layers, purpose).map_err(|e| e.to_string())
    }

    #[test]
    fn the_default_file_is_the_default() {
        let settings = check(Purpose::Dev, "").unwrap();
        assert_eq!(settings.hash_cost, (19_456, 2, 1));
        assert_eq!((settings.access_lifetime.as_secs(), settings.refresh_idle.as_secs()), (600, 2_592_000));
        assert_eq!(from(&settings), "\"Pearlgate\" <no-reply@localhost>");
        let whole = check(Purpose::Dev, DEFAULTS).unwrap();
        assert_eq!(format!("{whole:?}"), format!("{settings:?}"), "the file read as a file changes nothing");
        for section in ["server", "secrets", "hashing"] {
            assert!(DEFAULTS.contains(&format!("[{section}]")));
        }
    }

    #[test]
    fn production_needs_an_address_and_a_key_and_says_how_to_get_them() {
        let refused = check(Purpose::Production, "").unwrap_err();
        assert!(refused.contains("server.public_url") && refused.contains("--dev"), "{refused}");
        let refused =
            check(Purpose::Production, "server.public_url = \"https://accounts.example.com\"").unwrap_err();
        assert!(
            refused.contains("secrets.master_key") && refused.contains("pearlgate keys generate"),
            "{refused}"
        );
        let key = BASE64.encode(&[7; 32]);
        let fine =
            format!("server.public_url = \"https://Accounts.example.com/\"\nsecrets.master_key = \"{key}\"");
        let settings = check(Purpose::Production, &fine).unwrap();
        assert_eq!(
            (settings.public_url.as_str(), settings.public_host()),
            ("https://accounts.example.com", "accounts.example.com")
        );
        assert_eq!(from(&settings), "\"Pearlgate\" <no-reply@accounts.example.com>");
    }

    #[test]
    fn a_tool_needs_neither_and_takes_a_production_file() {
        let settings = check(Purpose::Tool, "server.listen = \"0.0.0.0:80\"").unwrap();
        assert!(!settings.dev && settings.master_key.is_none());
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_key() {
        for (text, key) in [
            ("server.public_url = \"http://accounts.example.com\"", "server.public_url"),
            ("server.public_url = \"https://example.com/path\"", "server.public_url"),
            ("server.public_url = \"ftp://example.com\"", "server.public_url"),
            ("server.listen = \"0.0.0.0:80\"", "server.listen"),
            ("server.listen = \"nonsense\"", "server.listen"),
            ("server.trusted_proxies = [\"10.0.0.0/99\"]", "server.trusted_proxies"),
            ("server.max_connections = 0", "server.max_connections"),
            ("service.name = \"two\\nlines\"", "service.name"),
            ("secrets.master_key = \"short\"", "secrets.master_key"),
            ("mail.smtp.host = \"smtp.example.com\"", "mail.smtp.host"),
            ("mail.smtp.tls = \"maybe\"", "mail.smtp.tls"),
            ("mail.smtp.username = \"ada\"", "mail.smtp.username"),
            ("tokens.access = \"60d\"", "tokens.access"),
            ("tokens.refresh_idle = \"365d\"", "tokens.refresh_idle"),
            ("tokens.session = \"soon\"", "tokens.session"),
            ("tokens.access = \"0s\"", "tokens.access"),
            ("tokens.algorithm = \"HS256\"", "tokens.algorithm"),
            ("tokens.rotate_keys = \"10m\"", "tokens.rotate_keys"),
            ("operators.refresh_idle = \"48h\"", "operators.refresh_idle"),
            ("operators.refresh_idle = \"5m\"", "operators.refresh_idle"),
            ("cors.origins = [\"*\"]", "cors.origins"),
            ("cors.origins = [\"https://app.example.com/\"]", "cors.origins"),
            ("cors.origins = [\"http://app.example.com\"]", "cors.origins"),
            ("cors.origins = [\"null\"]", "cors.origins"),
            ("cors.origins = [\"https://:\"]", "cors.origins"),
            ("cors.origins = [\"https://app.example.com:443\"]", "cors.origins"),
            ("cors.origins = [\"https://app.example.com.\"]", "cors.origins"),
            ("tokens.refresh_idle = \"300000y\"", "tokens.refresh_idle"),
            ("secrets.old_master_keys = [\"short\"]", "secrets.old_master_keys"),
            ("passwords.min_length = 7", "passwords.min_length"),
            ("passwords.min_length_with_mfa = 7", "passwords.min_length_with_mfa"),
            ("passwords.breach.url = \"http://ranges.example.com/\"", "passwords.breach.url"),
            ("passwords.breach.url = \"https://ranges.example.com/range\"", "passwords.breach.url"),
            ("passwords.breach.timeout = \"0s\"", "passwords.breach.timeout"),
            ("hashing.pepper = \"short\"", "hashing.pepper"),
            ("hashing.pepper = \"a:c2hvcnQ=\"", "hashing.pepper"),
            ("hashing.old_peppers = [\"much-too-long:c2hvcnQ=\"]", "hashing.old_peppers"),
            ("magic_link.lifetime = \"soon\"", "magic_link.lifetime"),
            ("hashing.memory_kib = 4194304", "hashing.memory_kib"),
            ("log.level = \"loud\"", "log.level"),
            ("log.format = \"xml\"", "log.format"),
        ] {
            let refused = check(Purpose::Dev, text).unwrap_err();
            assert!(
                refused.starts_with("pearlgate.toml, line 1: ") && refused.contains(&format!("`{key}`")),
                "{text}: {refused}"
            );
        }
    }
}
