//! From a password to a session.

use foundation::audit::Stream;
use foundation::http::ClientAddress;
use foundation::kernel::Secret;
use foundation::params;
use serde_json::json;

use super::model::Refusal;
use super::store::{self, Candidate};
use crate::accounts::EmailAddress;
use crate::app::App;
use crate::passwords::{Attempt, Verdict};
use crate::sessions::{self, Beginning, Proof, Started};

/// Somebody who wants in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) email: EmailAddress,
    pub(super) password: Attempt,
    pub(super) device_name: String,
    pub(super) device_token: Option<Secret>,
    pub(super) from: ClientAddress,
}

/// Checks a password and begins a session.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn login(app: &App, login: Login) -> Result<Started, Refusal> {
    let key = login.email.key().to_owned();
    let candidate: Option<Candidate> = app.db.read_one(move |tx| tx.opt(&store::FIND, params![key])).await?;
    let stored = candidate.as_ref().map(|c| c.password_hash.as_str()).filter(|hash| !hash.is_empty());
    let verdict = app.hashes.verify(&login.password, stored).await?;
    match candidate {
        Some(candidate) if verdict == Verdict::Right && candidate.has_credential => {
            begin(app, candidate, login).await
        }
        candidate => {
            let unproven = verdict == Verdict::Right;
            refused(app, candidate, &login, unproven).await?;
            Err(if unproven { Refusal::EmailNotVerified } else { Refusal::InvalidCredentials })
        }
    }
}

async fn begin(app: &App, candidate: Candidate, login: Login) -> Result<Started, Refusal> {
    let inner = app.clone();
    let begun = app.db.write(move |tx| {
        let user = candidate.user_id;
        let (device, known) =
            sessions::known_device(&inner.device_key, user, login.device_token.as_ref(), &inner.chance);
        let with = Beginning {
            user,
            password_hash: candidate.password_hash.clone(),
            proof: Proof::PASSWORD,
            device,
            device_name: login.device_name.clone(),
            from: login.from,
        };
        let begun = match sessions::begin(tx, &inner, &with)? {
            Some(started) => Ok(started),
            None if tx.opt::<(i64,)>(&store::SUSPENDED, params![user])?.is_some() => Err(Refusal::Suspended),
            // The password was changed between our check and now.
            None => Err(Refusal::InvalidCredentials),
        };
        let kind = if begun.is_ok() { "sign_in" } else { "sign_in_refused" };
        inner.audit_own(tx, user, kind, login.from, json!({ "known_device": known }))?;
        Ok(begun)
    });
    begun.await?
}

/// Writes a failure down, in the person's own history or, when there is nobody, in the shard of the address.
async fn refused(
    app: &App,
    candidate: Option<Candidate>,
    login: &Login,
    unproven: bool,
) -> Result<(), Refusal> {
    let (inner, from) = (app.clone(), login.from);
    let stream = candidate.map_or_else(|| Stream::shard(login.email.key()), |c| Stream::of(c.user_id));
    let reason = if unproven { "email_not_verified" } else { "invalid_credentials" };
    app.db
        .write(move |tx| inner.audit(tx, &stream, "sign_in_failed", from, json!({ "reason": reason })))
        .await?;
    Ok(())
}
