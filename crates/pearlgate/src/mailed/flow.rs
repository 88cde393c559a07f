//! Finding, guessing and taking away what was mailed.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::kernel::{Digest, Id, Secret, Timestamp};
use foundation::limits::Mode;
use foundation::params;

use super::model::{
    Asked, Kind, MAX_GUESSES, MAX_WRONG_A_DAY, MAX_WRONG_IN_A_ROW, NOT_ME, code_digest, is_token, mailbox,
    share,
};
use super::store;
use crate::accounts::UserRow;
use crate::app::App;

/// What a mailbox is hidden under.
const MAILBOX: &[u8] = b"mailbox";
const SECOND_STEP: &[u8] = b"mailbox, second step";
const OPERATORS: &[u8] = b"mailbox, operators";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Nobody has this id.
pub const NOBODY: Id<UserRow> = Id::from_bytes([0; 16]);

/// What somebody shows.
#[derive(Debug, Clone)]
pub enum Shown {
    /// The link's token, which says by itself whose it is.
    Link(Secret),
    /// The code, together with whose it is said to be; nobody when there is no such person.
    Code(Option<Id<UserRow>>, Secret),
}

/// Whose open secret this is, and the digest with which it can be consumed; the person is locked. Consumes nothing,
/// but a code costs a guess, which is given back when it was right.
///
/// # Errors
/// As every statement.
pub fn find(
    tx: &mut Tx<'_>,
    app: &App,
    kind: &Kind,
    shown: &Shown,
) -> db::Result<Option<(Id<UserRow>, Digest)>> {
    // The person first, whichever was shown: whoever locks in another order waits for each other.
    match shown {
        Shown::Link(token) => {
            let Some(user) = open_person(tx, kind, token, app.clock.now())? else { return Ok(None) };
            lock_person(tx, user)?;
            Ok(Some((user, token.digest())))
        }
        Shown::Code(user, code) => {
            // Nobody's code costs as much as somebody's.
            let user = user.unwrap_or(NOBODY);
            lock_person(tx, user)?;
            Ok(guess(tx, app, kind, user, code)?.map(|digest| (user, digest)))
        }
    }
}

/// Whose open secret a link is.
///
/// # Errors
/// As every statement.
pub fn open_person(
    tx: &mut Tx<'_>,
    kind: &Kind,
    token: &Secret,
    now: Timestamp,
) -> db::Result<Option<Id<UserRow>>> {
    if !is_token(kind.prefix, token) {
        return Ok(None);
    }
    Ok(tx.opt::<(Id<UserRow>,)>(kind.by_link, params![token.digest(), now])?.map(|(user,)| user))
}

/// A guess is spent before it is compared, so that parallel guesses cannot overshoot.
fn guess(
    tx: &mut Tx<'_>,
    app: &App,
    kind: &Kind,
    user: Id<UserRow>,
    code: &Secret,
) -> db::Result<Option<Digest>> {
    let now = app.clock.now();
    let spent: Option<(Digest,)> = tx.opt(kind.spend, params![user, MAX_GUESSES, now])?;
    // Where nothing is open nothing is spent, with as many statements.
    let allowed = spend_account_guess(tx, spent.as_ref().map_or(NOBODY, |_| user), now)?;
    let Some((expected,)) = spent else { return Ok(None) };
    if !is_code(app, kind.purpose, user.as_bytes(), code, &expected) || !allowed {
        return Ok(None);
    }
    tx.execute(kind.give_back, params![user])?;
    tx.execute(&store::GIVE_ACCOUNT_GUESS_BACK, params![user])?;
    Ok(Some(expected))
}

/// Whether a code is the one with this digest, which may have been made under a master key of before.
pub fn is_code(app: &App, purpose: &str, bound_to: &[u8; 16], code: &Secret, expected: &Digest) -> bool {
    app.code_key.all().any(|key| code_digest(key, purpose, bound_to, code) == *expected)
}

/// Spends one of the account's guesses over all its mails; false when there is none left.
///
/// # Errors
/// As every statement.
pub fn spend_account_guess(tx: &mut Tx<'_>, user: Id<UserRow>, now: Timestamp) -> db::Result<bool> {
    let spent: Option<(i64,)> = tx.opt(
        &store::SPEND_ACCOUNT_GUESS,
        params![user, now, now + DAY, MAX_WRONG_IN_A_ROW, MAX_WRONG_A_DAY],
    )?;
    Ok(spent.is_some())
}

/// Takes the secret away; false when somebody else did, or it was replaced meanwhile. The row decides.
///
/// # Errors
/// As every statement.
pub fn consume(
    tx: &mut Tx<'_>,
    kind: &Kind,
    user: Id<UserRow>,
    digest: Digest,
    now: Timestamp,
) -> db::Result<bool> {
    Ok(tx.opt::<(i64,)>(kind.consume, params![user, digest, now])?.is_some())
}

/// Locks a person for a change of what they sign in with; decide in the next statement. False when there is nobody.
///
/// # Errors
/// As every statement.
pub fn lock_person(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<bool> {
    Ok(tx.opt::<(Id<UserRow>,)>(&store::LOCK_PERSON, params![user])?.is_some())
}

/// Where somebody can be told of something: the address that they have proven.
///
/// # Errors
/// As every statement.
pub fn proven_address(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Option<String>> {
    Ok(tx.opt::<(String,)>(&store::PROVEN_ADDRESS, params![user])?.map(|(address,)| address))
}

/// How somebody's address is compared with others, proven or not.
///
/// # Errors
/// As every statement.
pub fn address_key(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<Option<String>> {
    Ok(tx.opt::<(String,)>(&store::ADDRESS_KEY, params![user])?.map(|(key,)| key))
}

/// Everything that was mailed to this person, or on their behalf, is worth nothing any more.
///
/// # Errors
/// As every statement.
pub fn kill_all(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    let all = [
        &store::DROP_VERIFICATIONS,
        &store::DROP_RESETS,
        &store::DROP_MAGIC_LINKS,
        &store::DROP_CHANGES,
        // A new device was told of to the mailbox and of the password of then.
        &store::DROP_NOTICES,
    ];
    all.into_iter().try_for_each(|drop| tx.execute(drop, params![user]).map(|_| ()))?;
    kill_halves(tx, user)
}

/// Sign-ins between their two steps are over, with the code that was mailed for one, and no device is trusted to go
/// without the second.
///
/// # Errors
/// As every statement.
pub fn kill_halves(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    let all = [&store::DROP_HALF_LOGINS, &store::DROP_EMAIL_CODE, &store::DROP_TRUST];
    all.into_iter().try_for_each(|drop| tx.execute(drop, params![user]).map(|_| ()))
}

/// The mailbox was proven: wrong codes of before count no more.
///
/// # Errors
/// As every statement.
pub fn forget_failures(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::FORGET_FAILURES, params![user]).map(|_| ())
}

/// Whether one more mail may go to the mailbox of an address, and counts it: strangers can have so many sent in any hour
/// and any day, of all kinds together. When not, leave everything as it is: what was mailed last stays good. Locks the
/// mailbox: ask before a person is locked.
///
/// # Errors
/// As every statement.
pub fn may_ask(tx: &mut Tx<'_>, app: &App, address_key: &str, what: Asked) -> db::Result<bool> {
    let caps = app.settings.limits.mails;
    if caps.mode == Mode::Off {
        return Ok(true);
    }
    let now = app.clock.now();
    // What follows a right password is nobody's to use up.
    let row = match what {
        Asked::SecondStep => SECOND_STEP,
        // Nor is what operators do: nobody keeps them from it by having mails sent.
        Asked::Operator => OPERATORS,
        _ => MAILBOX,
    };
    let mailbox = app.code_key.current().mac_parts(&[row, mailbox(address_key).as_bytes()]);
    let (number,): (i64,) = tx.one(&store::ASK, params![mailbox, now])?;
    tx.execute(&store::FORGET_ASKED, params![mailbox, now - DAY])?;
    let (hour, day) = (i64::from(caps.per_hour), i64::from(caps.per_day));
    // Where there is one kind, it has all of it.
    let (of_hour, of_day) =
        if what == Asked::Operator { (hour, day) } else { share(caps.per_hour, caps.per_day) };
    let asked: Option<(i64,)> = tx.opt(
        &store::ASKED,
        params![mailbox, number, now, what.as_str(), now - HOUR, hour, of_hour, now - DAY, day, of_day],
    )?;
    if asked.is_none() {
        let mode = if caps.mode == Mode::On { "on" } else { "report" };
        metrics::counter!("limits_reached_total", "limit" => "mails", "mode" => mode).increment(1);
        tracing::debug!(mode, "a mailbox has had as many mails as strangers may ask for");
    }
    Ok(asked.is_some() || caps.mode != Mode::On)
}

/// Somebody asked for a way in that may not be mailed now. When the reset or the magic link that was mailed last has
/// expired within a day, it works once more: of any five mails that others can fill an hour with, two lead in, so nobody
/// is left without a working link. Its code does not: six digits are not for a day.
///
/// # Errors
/// As every statement.
pub fn keep_last(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<()> {
    let (now, settings) = (app.clock.now(), &app.settings);
    for (statement, lifetime) in [
        (&store::KEEP_RESET, settings.reset_lifetime),
        (&store::KEEP_MAGIC_LINK, settings.magic_link_lifetime),
    ] {
        tx.execute(statement, params![user, now + lifetime, now - DAY, now, MAX_GUESSES])?;
    }
    Ok(())
}

/// Why an operator cannot do now what its person would be told of.
pub const TOLD_ENOUGH: &str = "Their mailbox has had as many mails as it may have for now, and they have to be told of this: try again in an hour.";

/// Whether somebody can be told of one more thing that an operator does to them, which is counted as mails are that strangers
/// ask for, apart from those. Locks the mailbox: ask before the person is locked.
///
/// # Errors
/// As every statement.
pub fn may_tell(tx: &mut Tx<'_>, app: &App, user: Id<UserRow>) -> db::Result<bool> {
    match address_key(tx, user)? {
        Some(key) => may_ask(tx, app, &key, Asked::Operator),
        None => Ok(true),
    }
}

/// A link with which whoever reads this mailbox, the account's until now, can say later that something was not their
/// doing.
/// It survives other mails and changes: it is the way back from them, and from what was done since `now`, the moment of what
/// it tells of.
///
/// # Errors
/// As every statement.
pub fn not_me_link(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (address, address_key): (&str, &str),
    (page, lifetime): (&str, Duration),
    now: Timestamp,
) -> db::Result<String> {
    let token = Secret::encode(NOT_ME, &app.chance.bytes::<32>());
    tx.execute(
        &store::OPEN_NOT_ME,
        params![token.digest(), user, address, address_key, now, now + lifetime],
    )?;
    Ok(format!("{}{page}?token={}", app.settings.public_url, token.reveal()))
}

/// Forgets what is too old to be used. True when there is more to do.
///
/// # Errors
/// As every statement.
pub fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> db::Result<bool> {
    let mut more = false;
    more |= tx.execute(&store::SWEEP_MAILBOXES, params![now - DAY])? >= 500;
    // For a day they may be made good again ([`keep_last`]).
    for statement in [&store::SWEEP_RESETS, &store::SWEEP_MAGIC_LINKS] {
        more |= tx.execute(statement, params![now - DAY])? >= 500;
    }
    for statement in [&store::SWEEP_CHANGES, &store::SWEEP_NOT_ME] {
        more |= tx.execute(statement, params![now])? >= 500;
    }
    Ok(more)
}
