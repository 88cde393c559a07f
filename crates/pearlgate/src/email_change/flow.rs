//! What a person does who wants another address.

use std::time::Duration;

use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{FieldError, Id, Problem, Secret};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::model::Refusal;
use super::store::{self, Address, Holder};
use crate::accounts::{EmailAddress, UserRow};
use crate::app::App;
use crate::errors;
use crate::mailed::{self, Asked, EMAIL_CHANGE, Proofs, Shown, code_digest, in_words};
use crate::registration::{self, Way};
use crate::sessions::{self, Current, Own};

/// A notice of something that really happened is worth sending for this long (`outages.md`).
const NOTICE: Duration = Duration::from_secs(72 * 3600);

/// Asks for another address: a mail to it says how to prove it.
///
/// # Errors
/// 401 for a session that ended, 403 for one that is not fresh, 422 for the address the account has and for one that accounts
/// here do not have, 503.
pub(super) async fn ask(
    app: &App,
    current: &Current,
    to: EmailAddress,
    from: ClientAddress,
) -> Result<(), Problem> {
    current.must_be_fresh(app)?;
    if current.row.address == to.as_str() {
        let message = "this is your address already";
        return Err(Problem::invalid(vec![FieldError::new("email", "invalid", message)]));
    }
    registration::admits(&app.settings.people, &to, Way::Asked)?;
    let (inner, user, session) = (app.clone(), current.row.user_id, current.row.session_id);
    let opened = app.db.write(move |tx| {
        // Whoever asks sees what became of it, and must not see by it what others had sent to that mailbox: only the mail
        // itself depends on the cap, and the change that was mailed last stays what it was when it was to this address.
        let may = mailed::may_ask(tx, &inner, to.key(), Asked::Notice)?;
        mailed::lock_person(tx, user)?;
        let before: Option<Address> = tx.opt(&store::PENDING, params![user])?;
        let keep = !may && before.is_some_and(|before| before.address_key == to.key());
        let proofs = Proofs::new(EMAIL_CHANGE.prefix, &inner.chance);
        let code = code_digest(inner.code_key.current(), EMAIL_CHANGE.purpose, user.as_bytes(), &proofs.code);
        let (now, lifetime) = (inner.clock.now(), inner.settings.email_change_lifetime);
        let open: Option<(i64,)> = match keep {
            true => tx.opt(&store::STILL_MAY, params![user, session])?,
            false => tx.opt(
                &store::OPEN,
                params![user, to.as_str(), to.key(), proofs.token.digest(), code, now + lifetime, session],
            )?,
        };
        if open.is_none() {
            return Ok(false);
        }
        // The same work either way; only the mail differs, and of a taken address nobody learns the secrets.
        let holder: Option<Holder> = tx.opt(&store::PROVEN_HOLDER, params![to.key()])?;
        let (kind, address) = match holder {
            Some(holder) if holder.user_id != user => ("email_change_taken", holder.address),
            _ => ("email_change", to.as_str().to_owned()),
        };
        let service_name = &inner.settings.service_name;
        let values = if kind == "email_change" {
            json!({
                "link": format!("{}/email-change?token={}", inner.settings.public_url, proofs.token.reveal()),
                "code": proofs.code.reveal(), "expires_in": in_words(lifetime), "service_name": service_name,
            })
        } else {
            json!({ "service_name": service_name })
        };
        if may {
            inner.postman.send(tx, &Mail { kind: kind.into(), to: address, values }, now, lifetime)?;
        }
        inner.audit_own(tx, (user, Some(session)), "email_change_requested", from, json!({}))?;
        Ok(true)
    });
    if opened.await.map_err(|e| e.to_problem())? {
        return Ok(());
    }
    Err(errors::session_ended(&sessions::end_reason(app, session, from).await?))
}

/// Proves the new address, by the link or, for the person who asked, by the code; from then on it is the account's.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn confirm(
    app: &App,
    shown: Shown,
    whose: Option<Own>,
    from: ClientAddress,
) -> Result<(), Refusal> {
    let inner = app.clone();
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        let found = mailed::find(tx, &inner, &EMAIL_CHANGE, &shown)?;
        let Some((user, digest)) = found.filter(|(user, _)| whose.is_none_or(|whose| whose.user == *user))
        else {
            if let Some(own) = whose {
                inner.audit_own(tx, own, "email_change_failed", from, json!({}))?;
            }
            return Ok(Err(Refusal::Invalid));
        };
        let Some(new) = tx.opt::<Address>(&store::PENDING, params![user])? else {
            return Ok(Err(Refusal::Invalid));
        };
        if !mailed::consume(tx, &EMAIL_CHANGE, user, digest, now)? {
            return Ok(Err(Refusal::Invalid));
        }
        let Some(old) = swap(tx, user, &new)? else { return Ok(Err(Refusal::Taken)) };
        let undo_lifetime = inner.settings.email_change_undo;
        let address = (old.address.as_str(), old.address_key.as_str());
        let undo = mailed::not_me_link(tx, &inner, user, address, ("/email-change", undo_lifetime), now)?;
        tx.execute(&store::PROVEN, params![user, now])?;
        mailed::kill_all(tx, user)?;
        mailed::forget_failures(tx, user)?;
        let values = json!({
            "service_name": inner.settings.service_name, "at": now.to_string(), "link": undo,
            "link_expires_in": in_words(undo_lifetime),
        });
        let notice = Mail { kind: "email_changed".into(), to: old.address, values };
        inner.postman.send_first(tx, &notice, now, NOTICE)?;
        inner.audit_own(tx, whose.unwrap_or(user.into()), "email_changed", from, json!({}))?;
        Ok(Ok(()))
    });
    done.await?
}

/// Gives the account the address and lets the old one go; none, and nothing changed, when somebody else proved it.
/// Whoever holds it without ever having proven it is no obstacle.
fn swap(tx: &mut Tx<'_>, user: Id<UserRow>, new: &Address) -> db::Result<Option<Address>> {
    let old: Address = tx.one(&store::LET_GO, params![user])?;
    // Twice: somebody may register the address, unproven, between the look and the taking.
    for _ in 0..2 {
        let holder: Option<(Id<UserRow>,)> = tx.opt(&store::HOLDER, params![new.address_key])?;
        if let Some((stranger,)) = holder
            && mailed::lock_person(tx, stranger)?
            && tx.opt::<(i64,)>(&store::IS_VERIFIED, params![stranger])?.is_none()
        {
            tx.execute(&store::FORGET_STRANGER, params![stranger])?;
        }
        if take(tx, user, new)? {
            return Ok(Some(old));
        }
    }
    take(tx, user, &old)?;
    Ok(None)
}

fn take(tx: &mut Tx<'_>, user: Id<UserRow>, address: &Address) -> db::Result<bool> {
    let taken: Option<(Id<UserRow>,)> =
        tx.opt(&store::TAKE, params![user, address.address, address.address_key])?;
    Ok(taken.is_some())
}

/// Gives an account back the address it had; false when somebody else has proven it by now.
///
/// # Errors
/// As every statement.
pub fn give_back(tx: &mut Tx<'_>, user: Id<UserRow>, address: &str, address_key: &str) -> db::Result<bool> {
    let before = Address { address: address.to_owned(), address_key: address_key.to_owned() };
    Ok(swap(tx, user, &before)?.is_some())
}

/// The new address that a link would confirm; consumes nothing.
///
/// # Errors
/// [`Refusal::Fault`].
pub(super) async fn open_for(app: &App, token: &Secret) -> Result<Option<String>, Refusal> {
    if !mailed::is_token(EMAIL_CHANGE.prefix, token) {
        return Ok(None);
    }
    let (digest, now) = (token.digest(), app.clock.now());
    let open =
        app.db.read_one(move |tx| tx.opt::<(String,)>(&store::OPEN_ADDRESS, params![digest, now])).await?;
    Ok(open.map(|(address,)| address))
}
