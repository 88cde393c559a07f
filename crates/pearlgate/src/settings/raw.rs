//! The settings as they stand in TOML, before anybody has checked them: one field for each key of `default.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use foundation::kernel::Secret;
use serde::Deserialize;

/// The settings as they stand in TOML.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml explains each of them")]
pub struct Raw {
    pub server: RawServer,
    pub service: RawService,
    pub data: RawData,
    pub database: RawDatabase,
    pub secrets: RawSecrets,
    pub mail: RawMail,
    pub mailers: BTreeMap<String, RawMailer>,
    pub tokens: RawTokens,
    pub audit: RawAudit,
    pub mfa: RawMfa,
    pub passkeys: RawPasskeys,
    pub federation: RawFederation,
    pub providers: BTreeMap<String, RawProvider>,
    pub operators: RawOperators,
    pub cors: RawCors,
    pub devices: RawDevices,
    pub verification: RawVerification,
    pub recovery: RawRecovery,
    pub magic_link: RawMagicLink,
    pub limits: RawLimits,
    pub lockout: RawLockout,
    pub alarms: RawAlarms,
    pub redis: RawRedis,
    pub webhooks: RawWebhooks,
    pub email_change: RawEmailChange,
    pub registration: RawRegistration,
    pub invitations: RawInvitations,
    pub impersonation: RawImpersonation,
    pub closing: RawClosing,
    pub passwords: RawPasswords,
    pub hashing: RawHashing,
    pub docs: RawDocs,
    pub log: RawLog,
}

macro_rules! section {
    ($name:ident { $($field:ident: $ty:ty),+ $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(missing_docs, reason = "default.toml explains each of them")]
        pub struct $name { $(pub $field: $ty),+ }
    };
}

section!(RawServer {
    listen: String,
    internal_listen: String,
    public_url: String,
    allowed_hosts: Vec<String>,
    trusted_proxies: Vec<String>,
    max_connections: usize,
    max_connections_per_address: usize,
    drain: String,
});
section!(RawService { name: String });
section!(RawData { dir: PathBuf });
section!(RawDatabase { url: String, ca_file: String, connections: usize });
section!(RawSecrets { master_key: Secret, old_master_keys: Vec<Secret> });
section!(RawMail { from: String, chain: Vec<String>, per_domain: String, smtp: RawSmtp });
section!(RawSmtp {
    host: String,
    port: u16,
    tls: String,
    username: String,
    password: Secret,
    ca_file: String,
    rate: String,
    quota: String
});
section!(RawMailer {
    kind: String,
    key: Secret,
    id: String,
    region: String,
    url: String,
    events_secret: Secret,
    host: String,
    port: u16,
    tls: String,
    username: String,
    password: Secret,
    ca_file: String,
    rate: String,
    quota: String
});
section!(RawAudit { keep: String });
section!(RawTokens {
    audience: String,
    client_id: String,
    access: String,
    refresh_idle: String,
    session: String,
    fresh: String,
    max_sessions: usize,
    algorithm: String,
    rotate_keys: String,
    permissions: bool
});
section!(RawMfa {
    required: String,
    required_roles: Vec<String>,
    operators: bool,
    grace: String,
    token: String,
    email_code: bool,
    email_code_lifetime: String,
    trusted_device: String,
    reset_after: String,
});
section!(RawPasskeys { rp_id: String, origins: Vec<String> });
section!(RawFederation { return_origins: Vec<String>, private_hosts: Vec<String> });
section!(RawProvider {
    enabled: bool,
    preset: String,
    name: String,
    issuer: String,
    tenant: String,
    client_id: String,
    client_secret: Secret,
    client_auth: String,
    native_client_ids: Vec<String>,
    scopes: Vec<String>,
    authoritative_for: Vec<String>,
    believe_email: bool,
    trusted_amr: Vec<String>,
    trusted_acr: Vec<String>,
    max_age: String,
    team_id: String,
    key_id: String,
    private_key: Secret,
});
section!(RawOperators { roles: Vec<String>, session: String, refresh_idle: String });
section!(RawCors { origins: Vec<String> });
section!(RawDevices { places_file: String });
section!(RawVerification { lifetime: String });
section!(RawRecovery { lifetime: String });
section!(RawMagicLink { enabled: bool, lifetime: String });
section!(RawLimits {
    store: String,
    sign_in: RawLimit,
    sign_in_network: RawLimit,
    sign_in_everybody: RawLimit,
    registration_network: RawLimit,
    mail_network: RawLimit,
    proof_network: RawLimit,
    refresh: RawLimit,
    reauthentication: RawLimit,
    factor_changes: RawLimit,
    exports: RawLimit,
    mails: RawMails,
    history: RawHistory,
});
section!(RawLimit { count: u32, per: String, mode: String });
section!(RawMails { per_hour: u32, per_day: u32, mode: String });
section!(RawHistory { keep: String, per_day: u32 });
section!(RawLockout {
    mode: String,
    after: u32,
    first: String,
    longest: String,
    forget: String,
    strangers: u32,
    devices: u32
});
section!(RawAlarms {
    window: String,
    failure_ratio: f64,
    at_least: u32,
    accounts_per_network: u32,
    accounts_per_password: u32,
    answer: String
});
section!(RawRedis { url: Secret });
section!(RawWebhooks { private_hosts: Vec<String>, keep: String });
section!(RawEmailChange { lifetime: String, undo: String });
section!(RawRegistration { open: bool, domains: Vec<String> });
section!(RawInvitations { lifetime: String });
section!(RawImpersonation { lifetime: String });
section!(RawClosing { grace: String });
section!(RawPasswords { min_length: usize, min_length_with_mfa: usize, breach: RawBreach });
section!(RawBreach { url: String, timeout: String, filter_file: String });
section!(RawHashing {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
    threads: usize,
    queue: usize,
    pepper: Secret,
    old_peppers: Vec<Secret>
});
section!(RawDocs { enabled: bool });
section!(RawLog { format: String, level: String });
