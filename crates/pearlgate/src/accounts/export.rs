//! Everything that is stored about somebody, as one document for themselves.
//!
//! * It is what the database holds at one moment, and their own history.
//! * No secret is in it, nor what one could be tried against: no password's hash, no seed, no digest of a token.
//! * Of what others did it is not shown from where, in which session, and why, as in their history.
//! * What is left out, and why, stands table by table in the test that reads the schema
//!   (`tests/all/journeys/closing.rs`); it fails for a table that nobody thought of.

use foundation::audit::{self, Recorded, Stream};
use foundation::db::{self, Tx};
use foundation::kernel::{Id, Problem, Timestamp};
use foundation::params;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::http::Activity;
use super::model::UserRow;
use super::store::{self, Device, Factors, MadeKey, Passkey, Person, Session};
use crate::app::App;
use crate::sessions::{Proof, SessionRow};

/// Events that are read at once.
const PAGE: u16 = 1_000;
/// Before everything.
const EVER: Timestamp = Timestamp::from_micros(0);

/// Everything that is stored about somebody. What is not there is left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct Export {
    /// When this was written.
    made_at: String,
    /// What they are called, and what the application keeps.
    profile: ExportedProfile,
    /// Their address.
    address: ExportedAddress,
    /// The password, which is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    password: Option<ExportedPassword>,
    /// Second factors.
    second_factors: ExportedFactors,
    /// Passkeys.
    passkeys: Vec<ExportedPasskey>,
    /// Sign-ins at other providers.
    identities: Vec<ExportedIdentity>,
    /// Where they are signed in.
    sessions: Vec<ExportedSession>,
    /// Where they were, as long as that is remembered.
    ended_sessions: Vec<ExportedEnd>,
    /// Devices on which they signed in.
    devices: Vec<ExportedDevice>,
    /// Roles.
    roles: Vec<ExportedRole>,
    /// Keys of machines that they made.
    api_keys: Vec<ExportedKey>,
    /// The system that they came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    import: Option<ExportedImport>,
    /// Mails of the last 30 days to their address.
    mails: Vec<ExportedMail>,
    /// Links in mails with which they can still say that something was not them.
    notices: Vec<ExportedNotice>,
    /// Sign-ins by password, as long as they are written down for the replay of other limits.
    sign_in_attempts: Vec<ExportedAttempt>,
    /// Wrong passwords and codes that count against the account at present.
    wrong: ExportedWrong,
    /// Their own history, newest first: all of it.
    activity: Vec<Activity>,
}

/// A profile.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedProfile {
    /// `usr_…`
    id: String,
    /// What they want to be called; may be empty.
    display_name: String,
    /// A language tag, or empty.
    locale: String,
    /// What the application keeps.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
    /// Since when they have an account.
    created_at: String,
}

/// An address.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedAddress {
    /// As it was typed.
    email: String,
    /// In the form in which it is compared with others.
    compared_as: String,
    /// When it was proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    verified_at: Option<String>,
    /// Another one, which they asked for and have yet to prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    changes_to: Option<ExportedChange>,
    /// Mail does not reach them there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unreachable: Option<ExportedUnreachable>,
}

/// An address that is to become the account's.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedChange {
    /// The address.
    email: String,
    /// Until when it can be proven.
    expires_at: String,
}

/// Mail came back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedUnreachable {
    /// `bounced` or `complained`.
    reason: String,
    /// Since when.
    since: String,
    /// Until when it is not tried again.
    until: String,
}

/// A password, which is not shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedPassword {
    /// When it was set.
    set_at: String,
    /// Why it has to be replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    must_be_replaced: Option<String>,
}

/// Second factors.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedFactors {
    /// Since when there is an authenticator app.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    totp_since: Option<String>,
    /// Since when they are asked for a mailed code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email_code_since: Option<String>,
    /// How many recovery codes are left.
    recovery_codes: i64,
    /// Until when they may go on without a factor that they have to set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    due_until: Option<String>,
    /// When an operator takes them away, who was asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reset_due_at: Option<String>,
}

/// A passkey.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedPasskey {
    /// `psk_…`
    id: String,
    /// As they call it; may be empty.
    name: String,
    /// How browsers may reach it.
    transports: Vec<String>,
    /// Whether it may be on several devices.
    backup_eligible: bool,
    /// Whether it is.
    backed_up: bool,
    /// When it was added.
    created_at: String,
    /// When it was used last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_used_at: Option<String>,
}

/// A sign-in at another provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedIdentity {
    /// The provider.
    provider: String,
    /// What it calls them.
    subject: String,
    /// When it was linked.
    linked_at: String,
}

/// A living session.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedSession {
    /// `ses_…`
    id: String,
    /// `dev_…`
    device: String,
    /// What the device is called; may be empty.
    device_name: String,
    /// Roughly where it began; empty when nobody knows.
    place: String,
    /// The network address that it began from; empty for an operator's.
    address: String,
    /// When it began.
    created_at: String,
    /// When they last proved who they are.
    authenticated_at: String,
    /// When it was last used, to the minute.
    last_seen_at: String,
    /// When it ends at the latest.
    expires_at: String,
    /// Authenticator assurance level (NIST SP 800-63B-4).
    aal: i64,
    /// Authentication methods (RFC 8176).
    amr: Vec<String>,
}

/// A session that is over.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedEnd {
    /// `ses_…`
    id: String,
    /// Why.
    reason: String,
    /// When.
    ended_at: String,
}

/// A device.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedDevice {
    /// `dev_…`
    id: String,
    /// When they first signed in on it.
    first_seen_at: String,
    /// When it was last seen.
    last_seen_at: String,
    /// Until when it need not show the second factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trusted_until: Option<String>,
    /// Wrong passwords in a row on it.
    wrong_passwords: i64,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedRole {
    /// Its name.
    role: String,
    /// Where: everywhere when it is empty.
    resource: String,
    /// Since when.
    granted_at: String,
}

/// A key of a machine.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedKey {
    /// `key_…`
    id: String,
    /// What it is for.
    name: String,
    /// How it begins.
    prefix: String,
    /// What it may do.
    permissions: Vec<String>,
    /// When it was made.
    created_at: String,
    /// Until when it is good.
    expires_at: String,
    /// When it was used last, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_used_at: Option<String>,
}

/// Where they came from.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedImport {
    /// The system.
    source: String,
    /// When.
    imported_at: String,
}

/// A mail.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedMail {
    /// Which, such as `new_device`.
    kind: String,
    /// What became of it.
    state: String,
    /// When it was written.
    created_at: String,
    /// When it became so.
    changed_at: String,
}

/// A link in a mail with which they can say that something was not them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedNotice {
    /// What it gives back, or the device that it tells of.
    about: String,
    /// Until when it works.
    expires_at: String,
}

/// A sign-in by password.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedAttempt {
    /// When.
    at: String,
    /// From which network.
    network: String,
    /// Whether on a known device.
    known_device: bool,
    /// `right`, `wrong`, `locked` or `limited`.
    outcome: String,
}

/// What counts against the account at present.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedWrong {
    /// Passwords, on devices that nobody knew.
    passwords_of_strangers: i64,
    /// Passwords, on known devices and in sessions.
    passwords_on_devices: i64,
    /// Until when strangers are kept out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    locked_until: Option<String>,
    /// Codes of mails, in a row.
    mailed_codes: i64,
    /// Codes of second factors.
    codes: Vec<ExportedWrongCodes>,
}

/// Wrong codes of a factor.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExportedWrongCodes {
    /// Of which.
    factor: String,
    /// Since the last right one.
    failures: i64,
    /// Until when none is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    blocked_until: Option<String>,
}

/// A moment that there was.
fn given(at: Timestamp) -> Option<String> {
    (at.micros() > 0).then(|| at.to_string())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Everything about somebody who is there.
///
/// # Errors
/// 404 when they are not any more, 503.
pub(super) async fn everything(app: &App, user: Id<UserRow>) -> Result<Export, Problem> {
    let now = app.clock.now();
    let found = app.db.scan(move |tx| stored(tx, user, now)).await.map_err(|e| e.to_problem())?;
    let export = found.ok_or_else(Problem::not_found)?;
    Ok(Export { activity: history(app, user).await?, ..export })
}

/// So many events at most: whoever makes more of them on purpose costs no more.
const MOST: usize = 50_000;

/// Their events, newest first.
async fn history(app: &App, user: Id<UserRow>) -> Result<Vec<Activity>, Problem> {
    let stream = Stream::of(user);
    let (mut all, mut before) = (Vec::new(), i64::MAX);
    loop {
        let events: Vec<Recorded> =
            audit::list(&app.db, &stream, before, PAGE).await.map_err(|e| e.to_problem())?;
        let full = events.len() >= usize::from(PAGE);
        before = events.last().map_or(before, |event| event.seq);
        all.extend(events.into_iter().map(|event| Activity::of(event, stream.name())));
        if !full || all.len() >= MOST {
            return Ok(all);
        }
    }
}

/// What the tables hold, all at one moment; the history comes after.
fn stored(tx: &mut Tx<'_>, user: Id<UserRow>, now: Timestamp) -> db::Result<Option<Export>> {
    let Some(person) = tx.opt::<Person>(&store::PERSON, params![user])? else { return Ok(None) };
    let subject = user.to_string();
    let import = given(person.imported_at)
        .map(|imported_at| ExportedImport { source: person.source.clone(), imported_at });
    let password = given(person.password_set_at).map(|set_at| ExportedPassword {
        set_at,
        must_be_replaced: Some(person.change_demanded.clone()).filter(|why| !why.is_empty()),
    });
    Ok(Some(Export {
        made_at: now.to_string(),
        address: address(tx, &person, now)?,
        password,
        second_factors: factors(tx, user)?,
        passkeys: passkeys(tx, user)?,
        identities: identities(tx, user)?,
        sessions: sessions(tx, user)?,
        ended_sessions: ends(tx, user)?,
        devices: devices(tx, user, now)?,
        roles: roles(tx, user)?,
        api_keys: keys(tx, user)?,
        import,
        mails: mails(tx, &person.address_key)?,
        notices: notices(tx, user, now)?,
        sign_in_attempts: attempts(tx, &subject)?,
        wrong: wrong(tx, user, (&subject, now))?,
        activity: Vec::new(),
        profile: ExportedProfile {
            id: person.id.to_string(),
            display_name: person.display_name,
            locale: person.locale,
            metadata: serde_json::from_str(&person.metadata).unwrap_or_default(),
            created_at: person.created_at.to_string(),
        },
    }))
}

fn address(tx: &mut Tx<'_>, person: &Person, now: Timestamp) -> db::Result<ExportedAddress> {
    let pending: Option<(String, Timestamp)> = tx.opt(&store::PENDING_ADDRESS, params![person.id, now])?;
    let unreachable: Option<(String, Timestamp, Timestamp)> =
        tx.opt(&store::UNREACHABLE, params![person.address_key, now])?;
    Ok(ExportedAddress {
        email: person.address.clone(),
        compared_as: person.address_key.clone(),
        verified_at: given(person.verified_at),
        changes_to: pending.map(|(email, at)| ExportedChange { email, expires_at: at.to_string() }),
        unreachable: unreachable.map(|(reason, since, until)| ExportedUnreachable {
            reason,
            since: since.to_string(),
            until: until.to_string(),
        }),
    })
}

fn factors(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<ExportedFactors> {
    let row: Factors = tx.one(&store::FACTORS, params![user])?;
    Ok(ExportedFactors {
        totp_since: given(row.totp_since),
        email_code_since: given(row.email_code_since),
        recovery_codes: row.recovery_codes,
        due_until: given(row.grace_until),
        reset_due_at: given(row.reset_due_at),
    })
}

fn passkeys(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedPasskey>> {
    let rows: Vec<Passkey> = tx.all(&store::PASSKEYS, params![user])?;
    let shown = |row: Passkey| ExportedPasskey {
        id: row.id.to_string(),
        name: row.name,
        transports: words(&row.transports),
        backup_eligible: row.backup_eligible,
        backed_up: row.backed_up,
        created_at: row.created_at.to_string(),
        last_used_at: given(row.last_used_at),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn identities(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedIdentity>> {
    let rows: Vec<(String, String, Timestamp)> = tx.all(&store::IDENTITIES, params![user])?;
    let shown = |(provider, subject, at): (String, String, Timestamp)| ExportedIdentity {
        provider,
        subject,
        linked_at: at.to_string(),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn sessions(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedSession>> {
    let rows: Vec<Session> = tx.all(&store::SESSIONS, params![user])?;
    let shown = |row: Session| ExportedSession {
        id: row.id.to_string(),
        device: row.device_id.to_string(),
        device_name: row.device_name,
        place: row.place,
        // Where an operator sits who is them for a while is nothing about them.
        address: if row.amr == Proof::IMPERSONATION.amr { String::new() } else { row.address },
        created_at: row.created_at.to_string(),
        authenticated_at: row.authenticated_at.to_string(),
        last_seen_at: row.last_seen_at.to_string(),
        expires_at: row.expires_at.to_string(),
        aal: row.aal,
        amr: words(&row.amr),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn ends(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedEnd>> {
    let rows: Vec<(Id<SessionRow>, String, Timestamp)> = tx.all(&store::ENDED_SESSIONS, params![user])?;
    let shown = |(id, reason, at): (Id<SessionRow>, String, Timestamp)| ExportedEnd {
        id: id.to_string(),
        reason,
        ended_at: at.to_string(),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn devices(tx: &mut Tx<'_>, user: Id<UserRow>, now: Timestamp) -> db::Result<Vec<ExportedDevice>> {
    let rows: Vec<Device> = tx.all(&store::DEVICES, params![user])?;
    let shown = |row: Device| ExportedDevice {
        id: row.id.to_string(),
        first_seen_at: row.first_seen_at.to_string(),
        last_seen_at: row.last_seen_at.to_string(),
        trusted_until: given(row.trusted_until).filter(|_| row.trusted_until > now),
        wrong_passwords: row.failures,
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn roles(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedRole>> {
    let rows: Vec<(String, String, Timestamp)> = tx.all(&store::ROLES_OF, params![user])?;
    let shown = |(role, resource, at): (String, String, Timestamp)| ExportedRole {
        role,
        resource,
        granted_at: at.to_string(),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn keys(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Vec<ExportedKey>> {
    let rows: Vec<MadeKey> = tx.all(&store::KEYS_OF, params![user])?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let may: Vec<(String,)> = tx.all(&store::KEY_MAY, params![row.id])?;
        keys.push(ExportedKey {
            id: row.id.to_string(),
            name: row.name,
            prefix: row.prefix,
            permissions: may.into_iter().map(|(permission,)| permission).collect(),
            created_at: row.created_at.to_string(),
            expires_at: row.expires_at.to_string(),
            last_used_at: given(row.last_used_at),
        });
    }
    Ok(keys)
}

fn mails(tx: &mut Tx<'_>, address_key: &str) -> db::Result<Vec<ExportedMail>> {
    let rows: Vec<(String, String, Timestamp, Timestamp)> = tx.all(&store::MAILS, params![address_key])?;
    let shown = |(kind, state, created, changed): (String, String, Timestamp, Timestamp)| ExportedMail {
        kind,
        state,
        created_at: created.to_string(),
        changed_at: changed.to_string(),
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn notices(tx: &mut Tx<'_>, user: Id<UserRow>, now: Timestamp) -> db::Result<Vec<ExportedNotice>> {
    let addresses: Vec<(String, Timestamp, Timestamp)> = tx.all(&store::NOT_ME_LINKS, params![user, now])?;
    let devices: Vec<(String, Timestamp)> = tx.all(&store::DEVICE_NOTICES, params![user, now])?;
    let all = addresses.into_iter().map(|(address, _, until)| (address, until)).chain(devices);
    Ok(all.map(|(about, until)| ExportedNotice { about, expires_at: until.to_string() }).collect())
}

fn attempts(tx: &mut Tx<'_>, subject: &str) -> db::Result<Vec<ExportedAttempt>> {
    let rows: Vec<(Timestamp, String, bool, String)> = tx.all(&store::ATTEMPTS, params![EVER, subject])?;
    let shown = |(at, network, known_device, outcome): (Timestamp, String, bool, String)| ExportedAttempt {
        at: at.to_string(),
        network,
        known_device,
        outcome,
    };
    Ok(rows.into_iter().map(shown).collect())
}

fn wrong(tx: &mut Tx<'_>, user: Id<UserRow>, (subject, now): (&str, Timestamp)) -> db::Result<ExportedWrong> {
    let passwords: Option<(i64, i64, Timestamp, Timestamp)> =
        tx.opt(&store::WRONG_PASSWORDS, params![subject])?;
    let (strangers, devices, locked, _) = passwords.unwrap_or((0, 0, EVER, EVER));
    let mailed: Option<(i64, i64)> = tx.opt(&store::WRONG_MAILED_CODES, params![user])?;
    let codes: Vec<(String, i64, Timestamp)> = tx.all(&store::WRONG_CODES, params![user])?;
    let shown = |(factor, failures, until): (String, i64, Timestamp)| ExportedWrongCodes {
        factor,
        failures,
        blocked_until: given(until).filter(|_| until > now),
    };
    Ok(ExportedWrong {
        passwords_of_strangers: strangers,
        passwords_on_devices: devices,
        locked_until: given(locked).filter(|_| locked > now),
        mailed_codes: mailed.map_or(0, |(in_a_row, _)| in_a_row),
        codes: codes.into_iter().map(shown).collect(),
    })
}
