//! Finding, guessing and taking away what was mailed.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::kernel::{Digest, Id, Secret, Timestamp};
use foundation::params;

use super::model::{Kind, MAX_GUESSES, MAX_WRONG_A_DAY, MAX_WRONG_IN_A_ROW, NOT_ME, code_digest, is_token};
use super::store;
use crate::accounts::UserRow;
use crate::app::App;

const DAY: Duration = Duration::from_secs(24 * 3600);

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
            let user = user.unwrap_or_else(|| Id::from_bytes([0; 16]));
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
    let Some((expected,)) = spent else { return Ok(None) };
    let right = is_code(app, kind.purpose, user.as_bytes(), code, &expected);
    if !spend_account_guess(tx, user, now)? || !right {
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
    all.into_iter().try_for_each(|drop| tx.execute(drop, params![user]).map(|_| ()))
}

/// The mailbox was proven: wrong codes of before count no more.
///
/// # Errors
/// As every statement.
pub fn forget_failures(tx: &mut Tx<'_>, user: Id<UserRow>) -> db::Result<()> {
    tx.execute(&store::FORGET_FAILURES, params![user]).map(|_| ())
}

/// A link with which whoever reads this mailbox, the account's until now, can say later that something was not their
/// doing.
/// It survives other mails and changes: it is the way back from them.
///
/// # Errors
/// As every statement.
pub fn not_me_link(
    tx: &mut Tx<'_>,
    app: &App,
    user: Id<UserRow>,
    (address, address_key): (&str, &str),
    page: &str,
    lifetime: Duration,
) -> db::Result<String> {
    let token = Secret::encode(NOT_ME, &app.chance.bytes::<32>());
    let now = app.clock.now();
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
    let all = [&store::SWEEP_RESETS, &store::SWEEP_MAGIC_LINKS, &store::SWEEP_CHANGES, &store::SWEEP_NOT_ME];
    for statement in all {
        more |= tx.execute(statement, params![now])? >= 500;
    }
    Ok(more)
}
