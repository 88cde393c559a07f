//! What happens to guesses, and to whoever is locked out.

use std::time::Duration;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::jobs::{Handlers, Job, JobError, When};
use foundation::kernel::{Id, Secret, Timestamp};
use foundation::limits::Mode;
use foundation::mail::Mail;
use foundation::params;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::model::{Guesser, PER_DEVICE, PREFIX, Refused, Reserved, Whose, left, pause};
use super::store;
use super::turns::Turn;
use crate::access::By;
use crate::accounts::UserRow;
use crate::app::App;
use crate::limits::{REAUTHENTICATION, SIGN_IN};
use crate::mailed::{self, Asked, in_words};
use crate::sessions::{DeviceRow, SessionRow};

/// A mail is news for so long.
const NEWS: Duration = Duration::from_secs(300);
/// Later than any password is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the link in the mail works (`api.md`, lifetimes).
const LINK: Duration = DAY;
/// What was quiet for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(400 * 86_400);

/// Waits until nobody else's attempt at this password is being looked at; a device with a token waits for its own alone.
/// None when too many wait.
pub async fn turn(app: &App, whose: Whose, device: Option<Id<DeviceRow>>) -> Option<Turn> {
    let device = device.map(|device| device.to_string()).unwrap_or_default();
    app.turns.take(format!("{}/{device}", whose.subject())).await
}

/// Whether strangers are locked out at present: asked before anything is waited for or written. It only refuses; who may
/// try is for the row to say.
///
/// # Errors
/// As every read.
pub async fn locked(app: &App, whose: Whose) -> db::Result<Option<Refused>> {
    let (now, rules) = (app.clock.now(), &app.settings.lockout);
    if rules.mode != Mode::On {
        return Ok(None);
    }
    let (subject, tag, most) = (whose.subject(), whose.tag(), i64::from(rules.strangers));
    let row: Option<(Timestamp,)> =
        app.db.read_one(move |tx| tx.opt(&store::IS_LOCKED, params![subject, tag, now, most])).await?;
    Ok(row.map(|(until,)| {
        metrics::counter!("sign_in_locked_total").increment(1);
        Refused::Locked(left(until, now, rules.longest))
    }))
}

/// Spends one attempt at the password of an account, or of an address that nobody has.
///
/// # Errors
/// As every statement.
pub fn reserve(
    tx: &mut Tx<'_>,
    app: &App,
    (whose, address_key): (Whose, &str),
    device: Option<Id<DeviceRow>>,
) -> db::Result<Result<Reserved, Refused>> {
    let subject = whose.subject();
    let device = match whose {
        Whose::Account(user) => device.map(|device| (user, device)),
        Whose::Nobody(..) => None,
    };
    if let Some(device) = device
        && let Some(reserved) = on_device(tx, app, &subject, device)?
    {
        return Ok(Ok(reserved));
    }
    let counted = match count(tx, app, SIGN_IN.name, address_key.as_bytes())? {
        Ok(counted) => counted,
        Err(refused) => return Ok(Err(refused)),
    };
    let (now, rules) = (app.clock.now(), &app.settings.lockout);
    let mut reserved = Reserved {
        counted,
        device,
        user: whose.account(),
        address_key: address_key.to_owned(),
        ..Reserved::new(subject, Guesser::Stranger)
    };
    if rules.mode == Mode::Off {
        return Ok(Ok(reserved));
    }
    let subject = &reserved.subject;
    let most = if rules.mode == Mode::On { i64::from(rules.strangers) } else { i64::MAX };
    let nth: Option<(i64, i64)> =
        tx.opt(&store::RESERVE, params![subject, whose.tag(), now, now - rules.forget, most])?;
    let Some((nth, in_all)) = nth else {
        if counted {
            app.limits.give_back_in(tx, SIGN_IN.name, address_key.as_bytes())?;
        }
        let until: Option<(Timestamp,)> = tx.opt(&store::LOCKED, params![subject])?;
        let until = until.map_or(now, |(until,)| until);
        metrics::counter!("sign_in_locked_total").increment(1);
        return Ok(Err(Refused::Locked(left(until, now, rules.longest))));
    };
    match pause(nth, rules.after, rules.first, rules.longest) {
        Some(pause) if rules.mode == Mode::On => {
            reserved.locks_until = now + pause;
            tx.execute(&store::LOCK, params![subject, reserved.locks_until])?;
        }
        Some(_) => {
            metrics::counter!("limits_reached_total", "limit" => "lockout", "mode" => "report").increment(1);
        }
        None => {}
    }
    reserved.tells = rules.mode == Mode::On && (nth >= i64::from(rules.after) || in_all == most);
    if reserved.tells {
        // Also when whoever guesses does not wait for an answer.
        let job = LookAgain { address_key: address_key.to_owned() };
        let when =
            When::now(now, 2 * FORGOTTEN).at(now + LOOK_AGAIN).unique(format!("look-again:{address_key}"));
        app.queue.enqueue(tx, &job, &when)?;
    }
    Ok(Ok(reserved))
}

/// A known device's own attempts; none when it has none left, which makes it a stranger.
fn on_device(
    tx: &mut Tx<'_>,
    app: &App,
    subject: &str,
    (user, device): (Id<UserRow>, Id<DeviceRow>),
) -> db::Result<Option<Reserved>> {
    let (now, most) = (app.clock.now(), i64::from(app.settings.lockout.devices));
    if tx.opt::<(i64,)>(&store::RESERVE_DEVICE, params![user, device, PER_DEVICE])?.is_none() {
        return Ok(None);
    }
    if tx.opt::<(i64,)>(&store::RESERVE_OF_DEVICES, params![subject, now, most])?.is_none() {
        tx.execute(&store::UNUSED_ON_DEVICE, params![user, device])?;
        return Ok(None);
    }
    let reserved = Reserved::new(subject.to_owned(), Guesser::Device);
    Ok(Some(Reserved { device: Some((user, device)), ..reserved }))
}

/// Spends one attempt of somebody who is signed in at their own password.
///
/// # Errors
/// As every statement.
pub fn reserve_signed_in(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    session: Id<SessionRow>,
) -> db::Result<Result<Reserved, Refused>> {
    let counted = match count(tx, app, REAUTHENTICATION.name, session.as_bytes())? {
        Ok(counted) => counted,
        Err(refused) => return Ok(Err(refused)),
    };
    let (now, rules, subject) = (app.clock.now(), &app.settings.lockout, Whose::Account(user).subject());
    let most = if rules.mode == Mode::On { i64::from(rules.devices) } else { i64::MAX };
    if tx.opt::<(i64,)>(&store::RESERVE_OF_DEVICES, params![subject, now, most])?.is_none() {
        if counted {
            app.limits.give_back_in(tx, REAUTHENTICATION.name, session.as_bytes())?;
        }
        return Ok(Err(Refused::Locked(rules.longest)));
    }
    Ok(Ok(Reserved { counted, ..Reserved::new(subject, Guesser::Session(session)) }))
}

/// Spends one of a limit in the transaction: whether it counts.
fn count(
    tx: &mut Tx<'_>,
    app: &App,
    name: &'static str,
    subject: &[u8],
) -> db::Result<Result<bool, Refused>> {
    let taken = app.limits.take_in(tx, name, subject)?;
    Ok(match taken {
        Some(taken) if taken.refused() => Err(Refused::TooMany(taken)),
        Some(taken) => Ok(taken.standing.allowed),
        None => Ok(false),
    })
}

/// The password was right: the attempt is given back, and what failed before counts no more.
///
/// # Errors
/// As every statement.
pub fn right(tx: &mut Tx<'_>, app: &App, reserved: &Reserved) -> db::Result<()> {
    give_back(tx, app, reserved)?;
    if let Some((user, device)) = reserved.device {
        tx.execute(&store::RIGHT_ON_DEVICE, params![user, device])?;
    }
    if let Some(user) = reserved.user.filter(|_| reserved.tells) {
        // The lock is over: when another begins, that is news again.
        tx.execute(&store::DROP_LINK, params![user])?;
    }
    let statement = match reserved.guesser {
        // It heals what was used up on devices, too: there is no other way back from that but a mail.
        Guesser::Stranger => &store::RIGHT,
        Guesser::Device | Guesser::Session(_) => &store::RIGHT_OF_DEVICES,
    };
    tx.execute(statement, params![reserved.subject]).map(|_| ())
}

/// Nobody looked at the password (the server was too busy): the attempt never was.
///
/// # Errors
/// As every statement.
pub fn unused(tx: &mut Tx<'_>, app: &App, reserved: &Reserved) -> db::Result<()> {
    give_back(tx, app, reserved)?;
    if reserved.guesser == Guesser::Stranger {
        return tx.execute(&store::UNUSED, params![reserved.subject, reserved.locks_until]).map(|_| ());
    }
    if let Some((user, device)) = reserved.device {
        tx.execute(&store::UNUSED_ON_DEVICE, params![user, device])?;
    }
    tx.execute(&store::UNUSED_OF_DEVICES, params![reserved.subject]).map(|_| ())
}

fn give_back(tx: &mut Tx<'_>, app: &App, reserved: &Reserved) -> db::Result<()> {
    if !reserved.counted {
        return Ok(());
    }
    match reserved.guesser {
        Guesser::Session(session) => app.limits.give_back_in(tx, REAUTHENTICATION.name, session.as_bytes()),
        _ => app.limits.give_back_in(tx, SIGN_IN.name, reserved.address_key.as_bytes()),
    }
}

/// Tells the owner of an address that strangers are locked out, if somebody has proven it. Enqueued for every address:
/// whether there is anybody is found out where nobody can measure it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tell {
    address_key: String,
}

impl Job for Tell {
    const KIND: &'static str = "lockout.tell";
}

/// The password was wrong. The owner is told when a lock began with it.
///
/// # Errors
/// As every statement.
pub fn wrong(tx: &mut Tx<'_>, app: &App, reserved: &Reserved) -> db::Result<()> {
    let address_key = &reserved.address_key;
    if reserved.tells {
        let job = Tell { address_key: address_key.to_owned() };
        let when = When::now(app.clock.now(), LINK).urgent().unique(format!("locked:{address_key}"));
        app.queue.enqueue(tx, &job, &when)?;
    }
    Ok(())
}

/// The same a minute later, when an attempt was spent that nobody waited for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LookAgain {
    address_key: String,
}

impl Job for LookAgain {
    const KIND: &'static str = "lockout.look_again";
}

/// Once for as long as the link in the mail works, however long the lock goes on.
async fn tell(app: App, address_key: String) -> Result<(), JobError> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let owner: Option<(Id<UserRow>, String)> = tx.opt(&store::OWNER, params![address_key])?;
            let Some((user, to)) = owner else { return Ok(()) };
            let (subject, after) = (Whose::Account(user).subject(), inner.settings.lockout.after);
            let most = i64::from(inner.settings.lockout.strangers);
            let locked: Option<(bool,)> =
                tx.opt(&store::GOES_ON, params![subject, i64::from(after), most])?;
            let told: Option<(Timestamp,)> = tx.opt(&store::TOLD, params![user, inner.clock.now()])?;
            let Some((closed,)) = locked else { return Ok(()) };
            // One link at a time; but that nobody may try any more is said when it happens.
            let newest = |told: Option<(Timestamp,)>| {
                told.is_some_and(|(until,)| until + NEWS > inner.clock.now() + LINK)
            };
            if newest(told) || (told.is_some() && !closed) {
                return Ok(());
            }
            inner.audit(tx, &Stream::of(user), "account_locked", ClientAddress::NOWHERE, json!({}))?;
            if !mailed::may_ask(tx, &inner, &address_key, Asked::Unlock)? {
                return Ok(());
            }
            mailed::lock_person(tx, user)?;
            // Whoever looks again may tell at this very moment, and the newer link would make the older one useless.
            if newest(tx.opt(&store::TOLD, params![user, inner.clock.now()])?) {
                return Ok(());
            }
            let token = Secret::encode(PREFIX, &inner.chance.bytes::<32>());
            let now = inner.clock.now();
            tx.execute(&store::OPEN, params![user, token.digest(), now + LINK])?;
            let values = json!({
                "service_name": inner.settings.service_name,
                "link": format!("{}/unlock?token={}", inner.settings.public_url, token.reveal()),
                "link_expires_in": in_words(LINK), "closed": closed,
            });
            inner.postman.send_first(tx, &Mail { kind: "account_locked".into(), to, values }, now, LINK)
        })
        .await?;
    Ok(())
}

/// Adds this slice's jobs to a worker's handlers.
#[must_use]
pub fn handle(app: &App, handlers: Handlers) -> Handlers {
    let (app, later) = (app.clone(), app.clone());
    handlers
        .on(move |job: Tell| tell(app.clone(), job.address_key))
        .on(move |job: LookAgain| tell(later.clone(), job.address_key))
}

/// Somebody begins to register an address that nobody had: what was counted against it counts against the account, so
/// that a lock does not tell whether there was one.
///
/// # Errors
/// As every statement.
pub fn adopt(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>, address_key: &str) -> db::Result<()> {
    let nobody = Whose::at(app.code_key.current(), None, address_key);
    let account = Whose::Account(user).subject();
    tx.execute(&store::ADOPT, params![account, nobody.subject(), nobody.tag()]).map(|_| ())
}

/// Somebody who never proved their address is forgotten: what was counted against them counts against the address again.
///
/// # Errors
/// As every statement.
pub fn disown(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    let Some(address_key) = mailed::address_key(tx, user)? else {
        return Ok(());
    };
    let nobody = Whose::at(app.code_key.current(), None, &address_key);
    let account = Whose::Account(user).subject();
    tx.execute(&store::DISOWN, params![nobody.subject(), nobody.tag(), account])?;
    tx.opt::<(i64,)>(&store::FORGET, params![account]).map(|_| ())
}

/// A new password: nobody has guessed at it yet. True when something was forgotten.
///
/// # Errors
/// As every statement.
pub fn forget(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<bool> {
    if let Some(address_key) = mailed::address_key(tx, user)? {
        app.limits.forget_in(tx, SIGN_IN.name, address_key.as_bytes())?;
    }
    let had: Option<(i64,)> = tx.opt(&store::FORGET, params![Whose::Account(user).subject()])?;
    let on_devices = tx.execute(&store::FORGET_ON_DEVICES, params![user])?;
    tx.execute(&store::DROP_LINK, params![user])?;
    Ok(had.is_some() || on_devices > 0)
}

/// An operator unlocks an account. False when nothing was counted against it.
///
/// # Errors
/// As every statement.
pub async fn unlock(app: &App, user: Id<UserRow>) -> db::Result<bool> {
    let inner = app.clone();
    app.db.write(move |tx| unlock_in(tx, &inner, &By::console(), user)).await
}

/// The same in the transaction of whoever does it.
///
/// # Errors
/// As every statement.
pub fn unlock_in(tx: &mut Tx<'_>, app: &App, by: &By, user: Id<UserRow>) -> db::Result<bool> {
    let had = forget(tx, app, user)?;
    if had {
        app.audit_by(tx, &Stream::of(user), "account_unlocked", by, json!({ "by": "operator" }))?;
    }
    Ok(had)
}

/// What the owner says about the attempts that their mail told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// They forgot their password, or mistyped it.
    ItWasMe,
    /// Somebody else tried.
    NotMe,
}

/// The owner of the mailbox answers the mail. False when the link does not work.
///
/// # Errors
/// As every statement.
pub(super) async fn answer(app: &App, token: &Secret, said: Said, from: ClientAddress) -> db::Result<bool> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(false);
    }
    let (inner, digest) = (app.clone(), token.digest());
    app.db
        .write(move |tx| {
            let now = inner.clock.now();
            let whose: Option<(Id<UserRow>, String)> = tx.opt(&store::BY_LINK, params![digest, now])?;
            let Some((user, _)) = whose else { return Ok(false) };
            mailed::lock_person(tx, user)?;
            if said == Said::NotMe {
                // The link stays good: they may want to sign in on a new device before the day is over.
                let subject = Whose::Account(user).subject();
                tx.execute(&store::KEEP_OUT, params![subject, now + DAY, now])?;
                inner.audit_own(tx, user, "attempts_disowned", from, json!({}))?;
                return Ok(true);
            }
            if tx.opt::<(Id<UserRow>,)>(&store::CONSUME, params![user, digest, now])?.is_none() {
                return Ok(false);
            }
            forget(tx, &inner, user)?;
            inner.audit_own(tx, user, "account_unlocked", from, json!({ "by": "mail" }))?;
            Ok(true)
        })
        .await
}

/// The address whose account a link would unlock; consumes nothing.
///
/// # Errors
/// As every read.
pub(super) async fn open_for(app: &App, token: &Secret) -> db::Result<Option<String>> {
    if !mailed::is_token(PREFIX, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open =
        app.db.read_one(move |tx| tx.opt::<(Id<UserRow>, String)>(&store::BY_LINK, params![digest, now]));
    Ok(open.await?.map(|(_, address)| address))
}

/// Forgets what is too old to matter. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    let links = tx.execute(&store::SWEEP_LINKS, params![now])?;
    let guesses = tx.execute(&store::SWEEP, params![now - FORGOTTEN])?;
    Ok(links >= 500 || guesses >= 500)
}
