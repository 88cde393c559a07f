//! Signing in with a passkey, showing one beside a password, and keeping them.

use data_encoding::BASE64URL_NOPAD;
use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Secret, Timestamp, sha256};
use foundation::params;
use serde_json::{Value, json};

use super::ceremony::{self, Assertion, Flaw, KnownKey, NewKey, Registration, Used};
use super::cose::ALGORITHMS;
use super::model::{self, Bound, Challenge, LIFETIME, MOST, PasskeyRow, Presented, Refusal};
use super::store::{self, Kept, Listed};
use crate::accounts::{DisplayName, EmailAddress, UserRow};
use crate::app::App;
use crate::federation;
use crate::mailed;
use crate::mfa::{self, Entered};
use crate::sessions::http::Transport;
use crate::sessions::{self, Beginning, Current, Proof, Visit};

/// What a key that was shown proves, and the challenge that it answered.
#[derive(Debug, Clone)]
pub struct Use {
    /// What the browser gave.
    pub presented: Presented,
    /// What it was to sign, under each master key that this may have been made with.
    pub challenges: Vec<[u8; 32]>,
    /// The challenge, when it is not used up by something else.
    pub once: Option<Challenge>,
}

fn encoded(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// How a browser is asked for a key (`PublicKeyCredentialRequestOptionsJSON`).
fn request(app: &App, challenge: &[u8], keys: &[Vec<u8>], verification: &str) -> Value {
    let allowed: Vec<Value> =
        keys.iter().map(|id| json!({ "type": "public-key", "id": encoded(id) })).collect();
    json!({
        "challenge": encoded(challenge), "rpId": app.settings.party.id, "timeout": LIFETIME.as_millis(),
        "userVerification": verification, "allowCredentials": allowed,
    })
}

/// Asks for a key of whoever will sign in. With an address, for those who have keys that do not know whose they are: an
/// address without keys, or without anybody, has one that does not exist.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn start(app: &App, email: Option<EmailAddress>) -> Result<(Challenge, Value), Refusal> {
    let key = app.passkey_key.current();
    let bound = if email.is_some() { Bound::Named } else { Bound::SignIn };
    let challenge = model::challenge(key, bound, app.chance.bytes(), app.clock.now());
    let mut keys: Vec<Vec<u8>> = Vec::new();
    if let Some(email) = email {
        let address = email.key().to_owned();
        let found = app.db.read_one(move |tx| tx.all::<(Vec<u8>,)>(&store::IDS_AT, params![address]));
        keys = found.await?.into_iter().map(|(id,)| id).collect();
        if keys.is_empty() {
            keys.push(model::decoy(key, email.key()).to_vec());
        }
    }
    let options = request(app, &challenge.bytes, &keys, "required");
    Ok((challenge, options))
}

/// Signs in with a key and nothing else: the authenticator has checked who uses it.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn finish(
    app: &App,
    challenge_id: &Secret,
    presented: &Presented,
    (visit, transport): (Visit, Transport),
) -> Result<Entered, Refusal> {
    let open = |bound| model::open(&app.passkey_key, bound, challenge_id, app.clock.now());
    let (challenge, named) = match open(Bound::SignIn) {
        Some(challenge) => (challenge, false),
        None => (open(Bound::Named).ok_or(Refusal::Challenge)?, true),
    };
    let answer: Assertion = read(presented)?;
    let id = answer.credential_id()?;
    let kept = app.db.read_one(move |tx| tx.opt::<Kept>(&store::BY_CREDENTIAL, params![id]));
    let kept = kept.await?.ok_or(Refusal::Unknown)?;
    let (user, from) = (kept.user_id, visit.from);
    let used = check(app, &answer, &challenge.bytes, &kept, (true, named));
    if let Err(flaw) = used
        && !answer.is_signed_by(&kept.public_key)
    {
        // A stranger's: they know the key's name at most, and write nothing into its owner's history.
        return Err(flaw.into());
    }
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        mailed::lock_person(tx, user)?;
        // Somebody who asks twice is told so, and is no clone.
        let holds = matches!(used, Ok(_) | Err(Flaw::Counter));
        if holds && !answered(tx, &challenge)? {
            return Ok(Err(Refusal::Challenge));
        }
        let used = match used {
            Ok(used) => used,
            Err(flaw) => {
                failed(tx, &inner, &kept, flaw, from)?;
                return Ok(Err(Refusal::Flaw(flaw)));
            }
        };
        if !note_use(tx, &kept, used, inner.clock.now())? {
            failed(tx, &inner, &kept, Flaw::Counter, from)?;
            return Ok(Err(Refusal::Flaw(Flaw::Counter)));
        }
        let with = Beginning { user, password_hash: None, proof: proof(&kept, used), visit: visit.clone() };
        mfa::factor_shown(tx, &inner, user, from)?;
        let entered = mfa::enter(tx, &inner, &with, transport)?;
        let kind = entered.as_ref().map_or("sign_in_refused", Entered::event);
        let own = entered.as_ref().map_or(user.into(), |entered| entered.own(user));
        inner.audit_own(tx, own, kind, from, json!({ "by": "passkey", "passkey": kept.id }))?;
        Ok(entered.map_err(Refusal::Barred))
    });
    done.await?
}

fn read<T: serde::de::DeserializeOwned>(presented: &Presented) -> Result<T, Flaw> {
    serde_json::from_value(presented.0.clone()).map_err(|_| Flaw::Unreadable)
}

fn check(
    app: &App,
    answer: &Assertion,
    challenge: &[u8],
    kept: &Kept,
    needs: (bool, bool),
) -> Result<Used, Flaw> {
    let known = KnownKey {
        public_key: kept.public_key.clone(),
        sign_count: kept.sign_count,
        backup_eligible: kept.backup_eligible,
        owner: *kept.user_id.as_bytes(),
    };
    ceremony::assert(answer, challenge, &app.settings.party, &known, needs)
}

/// What a key proves (RFC 8176 for the words): with user verification it is two factors in one.
fn proof(kept: &Kept, used: Used) -> Proof {
    Proof::passkey(kept.backup_eligible, used.user_verified)
}

fn answered(tx: &mut Tx<'_>, challenge: &Challenge) -> db::Result<bool> {
    let digest = sha256(&challenge.bytes);
    Ok(tx.opt::<(Timestamp,)>(&store::ANSWERED, params![digest, challenge.expires_at])?.is_some())
}

/// False when the counter did not go up: somebody else has used it meanwhile, or there are two of it.
fn note_use(tx: &mut Tx<'_>, kept: &Kept, used: Used, now: Timestamp) -> db::Result<bool> {
    let (count, copied) = (i64::from(used.sign_count), i64::from(used.backed_up));
    Ok(tx.opt::<(Id<UserRow>,)>(&store::USED, params![kept.id, count, copied, now])?.is_some())
}

/// A key of somebody's did not do. That its counter went back is an event of its own: there may be two of it.
fn failed(tx: &mut Tx<'_>, app: &App, kept: &Kept, flaw: Flaw, from: ClientAddress) -> db::Result<()> {
    let kind = if flaw == Flaw::Counter { "passkey_counter_regressed" } else { "passkey_failed" };
    if flaw == Flaw::Counter {
        metrics::counter!("passkey_counter_regressed_total").increment(1);
    }
    let details = json!({ "passkey": kept.id, "reason": format!("{flaw:?}") });
    app.audit(tx, &Stream::of(kept.user_id), kind, from, details)
}

/// A challenge for somebody who is known: their keys are named.
///
/// # Errors
/// As every read.
async fn challenge_for(app: &App, user: Id<UserRow>, challenge: &[u8]) -> db::Result<Value> {
    let keys = app.db.read_one(move |tx| tx.all::<(Vec<u8>,)>(&store::IDS_OF, params![user])).await?;
    let keys: Vec<Vec<u8>> = keys.into_iter().map(|(id,)| id).collect();
    Ok(request(app, challenge, &keys, "preferred"))
}

/// Shows a key as the second factor of somebody who is locked. None when it does not do.
///
/// # Errors
/// As every statement.
pub fn use_as_factor(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    shown: &Use,
    from: ClientAddress,
) -> db::Result<Option<Proof>> {
    let Ok(answer) = read::<Assertion>(&shown.presented) else { return Ok(None) };
    let Ok(id) = answer.credential_id() else { return Ok(None) };
    let kept: Option<Kept> = tx.opt(&store::BY_CREDENTIAL, params![id])?;
    let Some(kept) = kept.filter(|kept| kept.user_id == user) else { return Ok(None) };
    let mut used = Err(Flaw::Challenge);
    for challenge in &shown.challenges {
        if used == Err(Flaw::Challenge) {
            used = check(app, &answer, challenge, &kept, (false, true));
        }
    }
    let used = match used {
        Ok(used) => used,
        Err(flaw) => {
            failed(tx, app, &kept, flaw, from)?;
            return Ok(None);
        }
    };
    if let Some(challenge) = &shown.once
        && !answered(tx, challenge)?
    {
        return Ok(None);
    }
    if !note_use(tx, &kept, used, app.clock.now())? {
        failed(tx, app, &kept, Flaw::Counter, from)?;
        return Ok(None);
    }
    Ok(Some(proof(&kept, used)))
}

/// One's own keys.
///
/// # Errors
/// As every read.
pub(super) async fn lists(app: &App, user: Id<UserRow>) -> db::Result<Vec<super::http::Passkey>> {
    let rows = app.db.read_one(move |tx| tx.all::<Listed>(&store::LIST, params![user])).await?;
    Ok(rows.into_iter().map(super::http::Passkey::of).collect())
}

/// Asks for a new key (`PublicKeyCredentialCreationOptionsJSON`).
///
/// # Errors
/// [`Refusal`]; 403 in a session that is not fresh.
pub(super) async fn begin(app: &App, current: &Current) -> Result<(Challenge, Value), Refusal> {
    current.must_be_fresh(app)?;
    let (user, session) = (current.row.user_id, current.row.session_id);
    let bound = Bound::Register(*session.as_bytes());
    let challenge = model::challenge(app.passkey_key.current(), bound, app.chance.bytes(), app.clock.now());
    let known = app.db.read(move |tx| {
        let (address, name): (String, String) = tx.one(&store::NAME_OF, params![user])?;
        let keys: Vec<(Vec<u8>,)> = tx.all(&store::IDS_OF, params![user])?;
        Ok((address, name, keys))
    });
    let (address, name, keys) = known.await?;
    let name = if name.is_empty() { address.clone() } else { name };
    let excluded: Vec<Value> =
        keys.iter().map(|(id,)| json!({ "type": "public-key", "id": encoded(id) })).collect();
    let algorithms = ALGORITHMS.map(|alg| json!({ "type": "public-key", "alg": alg }));
    let options = json!({
        "rp": { "id": app.settings.party.id, "name": app.settings.service_name },
        "user": { "id": encoded(user.as_bytes()), "name": address, "displayName": name },
        "challenge": encoded(&challenge.bytes), "pubKeyCredParams": algorithms, "timeout": LIFETIME.as_millis(),
        "excludeCredentials": excluded, "attestation": "none",
        "authenticatorSelection": {
            "residentKey": "preferred", "requireResidentKey": false, "userVerification": "preferred",
        },
    });
    Ok((challenge, options))
}

/// Keeps a new key. Gives it, and the recovery codes when it is the first factor.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn keep(
    app: &App,
    current: &Current,
    challenge_id: &Secret,
    presented: &Presented,
    (name, from): (String, ClientAddress),
) -> Result<(super::http::Passkey, Vec<Secret>), Refusal> {
    current.must_be_fresh(app)?;
    let (user, session) = (current.row.user_id, current.row.session_id);
    DisplayName::parse("name", &name).map_err(|_| Refusal::Name)?;
    let bound = Bound::Register(*session.as_bytes());
    let challenge = model::open(&app.passkey_key, bound, challenge_id, app.clock.now());
    let challenge = challenge.ok_or(Refusal::Challenge)?;
    let answer: Registration = read(presented)?;
    let key = ceremony::register(&answer, &challenge.bytes, &app.settings.party, false)?;
    let id = Id::<PasskeyRow>::new(&app.clock, &app.chance);
    let inner = app.clone();
    mfa::change_in(app, current, from, move |tx, current| {
        let now = inner.clock.now();
        if tx.one::<(i64,)>(&store::COUNT, params![user])?.0 >= MOST {
            return Ok(Err(Refusal::TooMany));
        }
        if !answered(tx, &challenge)? {
            return Ok(Err(Refusal::Challenge));
        }
        if !add(tx, user, (id, &name), &key, now)? {
            return Ok(Err(Refusal::Taken));
        }
        let codes = mfa::passkey_added(tx, &inner, current.into(), (from, now))?;
        let shown = Proof::passkey(key.backup_eligible, key.user_verified);
        sessions::factor_shown(tx, &inner, current, shown)?;
        let rows: Vec<Listed> = tx.all(&store::LIST, params![user])?;
        let row = rows.into_iter().find(|row| row.id == id);
        Ok(row.map(|row| (super::http::Passkey::of(row), codes)).ok_or(Refusal::NotFound))
    })
    .await
}

fn add(
    tx: &mut Tx<'_>,
    user: Id<UserRow>,
    (id, name): (Id<PasskeyRow>, &str),
    key: &NewKey,
    now: Timestamp,
) -> db::Result<bool> {
    let (eligible, copied) = (i64::from(key.backup_eligible), i64::from(key.backed_up));
    let added: Option<(Id<PasskeyRow>,)> = tx.opt(
        &store::ADD,
        params![
            id,
            user,
            key.credential_id,
            key.public_key,
            i64::from(key.sign_count),
            eligible,
            copied,
            key.transports,
            name,
            now
        ],
    )?;
    Ok(added.is_some())
}

/// Gives a key of one's own another name.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn rename(
    app: &App,
    current: &Current,
    id: Id<PasskeyRow>,
    name: String,
) -> Result<(), Refusal> {
    DisplayName::parse("name", &name).map_err(|_| Refusal::Name)?;
    let user = current.row.user_id;
    let renamed =
        app.db.write(move |tx| tx.opt::<(Id<PasskeyRow>,)>(&store::RENAME, params![id, user, name]));
    renamed.await?.map(|_| ()).ok_or(Refusal::NotFound)
}

/// A key of one's own goes.
///
/// # Errors
/// [`Refusal`]; 403 in a session that is not fresh.
pub(super) async fn remove(
    app: &App,
    current: &Current,
    id: Id<PasskeyRow>,
    from: ClientAddress,
) -> Result<(), Refusal> {
    let (inner, user) = (app.clone(), current.row.user_id);
    mfa::change_in(app, current, from, move |tx, current| {
        let rows: Vec<Listed> = tx.all(&store::LIST, params![user])?;
        if !rows.iter().any(|row| row.id == id) {
            return Ok(Err(Refusal::NotFound));
        }
        if rows.len() == 1 {
            if !mfa::may_lose_passkeys(tx, &inner, user)? {
                return Ok(Err(Refusal::Demanded));
            }
            let password = tx.opt::<(Timestamp,)>(&store::PASSWORD, params![user])?.is_some();
            let other = password || inner.settings.magic_links;
            if !other && federation::signs_in_by(tx, &inner, user)?.is_empty() {
                return Ok(Err(Refusal::LastWayIn));
            }
        }
        tx.opt::<(Id<PasskeyRow>,)>(&store::REMOVE, params![id, user])?;
        mfa::passkey_removed(tx, &inner, current.into(), from)?;
        Ok(Ok(()))
    })
    .await
}

/// A challenge for somebody who proves once more who they are.
///
/// # Errors
/// As every read.
pub(super) async fn begin_again(app: &App, current: &Current) -> Result<(Challenge, Value), Refusal> {
    let bound = Bound::Again(*current.row.session_id.as_bytes());
    let challenge = model::challenge(app.passkey_key.current(), bound, app.chance.bytes(), app.clock.now());
    let options = challenge_for(app, current.row.user_id, &challenge.bytes).await?;
    Ok((challenge, options))
}

impl Use {
    /// In a sign-in between its two steps, whose token is used up by it.
    pub fn in_half(app: &App, token: &Secret, presented: Presented) -> Self {
        let challenges = app.passkey_key.all().map(|key| model::of_half(key, token)).collect();
        Self { presented, challenges, once: None }
    }

    /// In a session, by the id of its challenge; none when that is not one of this session's.
    pub fn again(app: &App, current: &Current, id: &Secret, presented: Presented) -> Option<Self> {
        let bound = Bound::Again(*current.row.session_id.as_bytes());
        let challenge = model::open(&app.passkey_key, bound, id, app.clock.now())?;
        Some(Self { presented, challenges: vec![challenge.bytes], once: Some(challenge) })
    }
}

/// What a sign-in between its two steps asks of a key.
///
/// # Errors
/// As every read.
pub async fn of_half(app: &App, user: Id<UserRow>, token: &Secret) -> db::Result<Value> {
    challenge_for(app, user, &model::of_half(app.passkey_key.current(), token)).await
}

/// Forgets which challenges were answered that nobody could answer any more.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<()> {
    tx.execute(&store::SWEEP, params![now]).map(|_| ())
}
