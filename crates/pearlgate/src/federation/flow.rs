//! From a browser that leaves for a provider to somebody who is signed in.

use std::sync::Arc;

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Digest, FieldError, Id, Secret, Timestamp};
use foundation::outbound::CallError;
use foundation::params;
use serde_json::json;
use subtle::ConstantTimeEq;
use url::Url;

use super::model::{
    AT_PROVIDER, CODE, CODE_LIFETIME, Flow, INCOMPLETE, NONCE_KEPT, Refusal, Said, TICKET, challenge_of,
    is_challenge, pressed, return_to, used_nonce, with,
};
use super::own;
use super::registry::Connection;
use super::store::{self, Arrived, Linking, Taken};
use super::talk::{Brought, NoAnswer};
use super::tokens::Flaw;
use super::who::{Came, Who, open, seal};
use crate::accounts::{DisplayName, EmailAddress, Locale};
use crate::app::App;
use crate::registration::{self, Newcomer, VerificationRow, Way};
use crate::sessions::Visit;
use crate::sessions::http::Transport;

/// What a provider may say instead of a code (RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6).
const ERRORS: [&str; 12] = [
    "invalid_request",
    "unauthorized_client",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "account_selection_required",
    "consent_required",
    "invalid_request_object",
    "request_not_supported",
];

/// A browser that may leave.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) connection: Arc<Connection>,
    pub(super) state: Secret,
    /// None for the provider that is a page of ours.
    pub(super) to: Option<Url>,
}

/// Where providers send browsers back to.
fn redirect_uri(app: &App, provider: &str) -> String {
    format!("{}/v1/auth/oauth/{provider}/callback", app.settings.public_url)
}

/// The provider of this name that one may sign in at now.
///
/// # Errors
/// [`Refusal::NoProvider`].
pub(super) async fn provider(app: &App, id: &str) -> Result<Arc<Connection>, Refusal> {
    let (inner, id) = (app.clone(), id.to_owned());
    let found = app.db.read(move |tx| inner.providers.find(tx, &id)).await?;
    found.ok_or(Refusal::NoProvider)
}

/// Whether somebody may be sent back there, and where that is.
pub(super) fn way_back(app: &App, text: Option<&str>) -> Result<String, Refusal> {
    let text = text.unwrap_or("/");
    let origins = &app.settings.federation.return_origins;
    return_to(text, &app.settings.public_url, origins).ok_or(Refusal::ReturnTo)
}

async fn leave(app: &App, connection: Arc<Connection>, browser: &Secret) -> Result<Leaving, Refusal> {
    let state = Secret::encode("", &app.chance.bytes::<32>());
    let redirect = redirect_uri(app, &connection.provider.id);
    let to = connection.authorization(&Flow::new(browser, &state), &state, &redirect).await;
    let to = to.map_err(|error| away(&connection, &error))?;
    Ok(Leaving { connection, state, to })
}

fn away(connection: &Connection, error: &CallError) -> Refusal {
    tracing::warn!(provider = connection.provider.id, %error, "an identity provider gives no answer");
    Refusal::Away(connection.provider.name.clone())
}

/// Begins to sign in.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn begin(
    app: &App,
    connection: Arc<Connection>,
    (back, challenge): (String, Option<String>),
    browser: &Secret,
) -> Result<Leaving, Refusal> {
    let challenge = challenge.unwrap_or_default();
    if !challenge.is_empty() && !is_challenge(&challenge) {
        return Err(Refusal::Challenge);
    }
    let leaving = leave(app, connection, browser).await?;
    let (state, browser) = (leaving.state.digest(), browser.digest());
    let (provider, until) = (leaving.connection.provider.id.clone(), app.clock.now() + AT_PROVIDER);
    let kept = app.db.write_one(move |tx| {
        tx.execute(&store::BEGIN, params![state, browser, provider, back, challenge, until])
    });
    kept.await?;
    Ok(leaving)
}

/// Whose account a ticket links to; consumes nothing.
///
/// # Errors
/// [`Refusal::Invalid`] when it does not any more.
pub(super) async fn ticket_for(app: &App, provider: &str, ticket: &Secret) -> Result<String, Refusal> {
    let (digest, provider, now) = (ticket.digest(), provider.to_owned(), app.clock.now());
    let found =
        app.db.read_one(move |tx| tx.opt::<(String,)>(&store::TICKET_FOR, params![digest, provider, now]));
    found.await?.map(|(address,)| address).ok_or(Refusal::Invalid)
}

/// Begins to link, once its owner has pressed the button in this browser.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn begin_link(
    app: &App,
    connection: Arc<Connection>,
    (ticket, answer): (&Secret, &str),
    browser: &Secret,
) -> Result<Leaving, Refusal> {
    let right = pressed(browser, ticket).as_bytes().ct_eq(answer.as_bytes());
    if !bool::from(right) || ticket.decode::<32>(TICKET).is_none() {
        return Err(Refusal::State);
    }
    let leaving = leave(app, connection, browser).await?;
    let (state, browser, ticket) = (leaving.state.digest(), browser.digest(), ticket.digest());
    let (provider, now) = (leaving.connection.provider.id.clone(), app.clock.now());
    let begun = app.db.write(move |tx| {
        let taken: Option<Linking> = tx.opt(&store::TAKE_TICKET, params![ticket, provider, now])?;
        let Some(linking) = taken else { return Ok(false) };
        let (user, session, back) = (linking.user, linking.session, linking.return_to);
        let until = now + AT_PROVIDER;
        let values = params![state, browser, user, session, provider, back, until];
        tx.execute(&store::BEGIN_LINK, values).map(|_| true)
    });
    if begun.await? { Ok(leaving) } else { Err(Refusal::Invalid) }
}

/// What a browser brought back.
#[derive(Debug, Clone)]
pub(super) struct Back {
    pub(super) state: Option<Secret>,
    pub(super) code: Option<Secret>,
    pub(super) iss: Option<String>,
    pub(super) error: Option<String>,
}

/// Why it had left.
enum Errand {
    SignIn(Arrived),
    Link(Linking),
}

/// A browser comes back. Gives the address that it goes on to.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn arrive(
    app: &App,
    provider_id: &str,
    back: Back,
    browser: Option<Secret>,
    from: ClientAddress,
) -> Result<String, Refusal> {
    let connection = provider(app, provider_id).await?;
    let (Some(state), Some(browser)) = (back.state, browser) else {
        return refused(app, &connection, "state", from, Refusal::State).await;
    };
    let (digest, browser_digest, id, now) =
        (state.digest(), browser.digest(), connection.provider.id.clone(), app.clock.now());
    let errand = app.db.write(move |tx| {
        let of = params![digest, browser_digest, id, now];
        if let Some(arrived) = tx.opt::<Arrived>(&store::ARRIVE, of)? {
            return Ok(Some(Errand::SignIn(arrived)));
        }
        Ok(tx.opt::<Linking>(&store::ARRIVE_LINK, of)?.map(Errand::Link))
    });
    let Some(errand) = errand.await? else {
        return refused(app, &connection, "state", from, Refusal::State).await;
    };
    let return_to = match &errand {
        Errand::SignIn(arrived) => &arrived.return_to,
        Errand::Link(linking) => &linking.return_to,
    };
    let go = |name: &str, value: &str| {
        with(return_to, &app.settings.public_url, name, value).ok_or(Refusal::ReturnTo)
    };
    if back.iss.as_deref().is_some_and(|iss| connection.provider.is_not(iss)) {
        return unproven(app, &connection, Flaw::Issuer, from).await;
    }
    let code = match (back.error.as_deref(), back.code) {
        (None, Some(code)) => code,
        (Some("access_denied"), _) => return go("error", "access_denied"),
        (Some(error), _) => {
            // A browser brings it, so these words are anybody's: only what the standards know is written down.
            let known = ERRORS.into_iter().find(|known| *known == error).unwrap_or("an unknown error");
            return Err(away(&connection, &CallError::Refused(known.to_owned())));
        }
        (None, None) => return refused(app, &connection, "code", from, Refusal::State).await,
    };
    let brought = Brought { code, iss: back.iss };
    let redirect = redirect_uri(app, &connection.provider.id);
    let said = match connection.ask(&Flow::new(&browser, &state), &brought, &redirect, &app.clock).await {
        Ok(said) => said,
        Err(NoAnswer::Away(error)) => return Err(away(&connection, &error)),
        Err(NoAnswer::Flaw(flaw)) => return unproven(app, &connection, flaw, from).await,
    };
    match errand {
        Errand::SignIn(ref arrived) => {
            let code = keep(app, &connection, &said, (browser.digest(), &arrived.challenge)).await?;
            go("code", code.reveal())
        }
        Errand::Link(ref linking) => match own::link_arrived(app, &connection, linking, &said, from).await? {
            None => go("linked", &connection.provider.id),
            Some(error) => go("error", error),
        },
    }
}

/// Writes down that a sign-in came to nothing, and says so.
async fn refused<T>(
    app: &App,
    connection: &Connection,
    reason: &'static str,
    from: ClientAddress,
    refusal: Refusal,
) -> Result<T, Refusal> {
    let (inner, provider) = (app.clone(), connection.provider.id.clone());
    let written = app.db.write(move |tx| {
        let details = json!({ "by": "oauth", "provider": provider, "reason": reason });
        inner.audit(tx, &Stream::shard(&provider), "sign_in_failed", from, details)
    });
    written.await?;
    Err(refusal)
}

async fn unproven<T>(
    app: &App,
    connection: &Connection,
    flaw: Flaw,
    from: ClientAddress,
) -> Result<T, Refusal> {
    let name = connection.provider.name.clone();
    tracing::warn!(provider = connection.provider.id, ?flaw, "what an identity provider said does not hold");
    refused(app, connection, "unproven", from, Refusal::Unproven(name)).await
}

/// Keeps what a provider said for whoever holds the code.
async fn keep(
    app: &App,
    connection: &Connection,
    said: &Said,
    (browser, challenge): (Digest, &str),
) -> Result<Secret, Refusal> {
    let code = Secret::encode(CODE, &app.chance.bytes::<32>());
    let (digest, sealed, until) = (code.digest(), seal(app, said)?, app.clock.now() + CODE_LIFETIME);
    let (provider, challenge) = (connection.provider.id.clone(), challenge.to_owned());
    let kept = app.db.write_one(move |tx| {
        tx.execute(&store::KEEP_CODE, params![digest, browser, challenge, provider, sealed, until])
    });
    kept.await?;
    Ok(code)
}

/// A code is exchanged by whoever began.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn exchange(
    app: &App,
    (code, verifier): (Secret, Option<Secret>),
    browser: Option<Secret>,
    visit: Visit,
    transport: Transport,
) -> Result<Came, Refusal> {
    if code.decode::<32>(CODE).is_none() {
        return Err(Refusal::Invalid);
    }
    let inner = app.clone();
    let came = app.db.write(move |tx| {
        let now = inner.clock.now();
        let taken: Option<Taken> = tx.opt(&store::TAKE_CODE, params![code.digest(), now])?;
        let Some(taken) = taken else { return Ok(Err(Refusal::Invalid)) };
        let bound = match (taken.challenge.as_str(), &verifier) {
            ("", None) => browser.as_ref().is_some_and(|browser| browser.digest() == taken.browser),
            ("", Some(_)) => false,
            (challenge, Some(verifier)) => {
                challenge_of(verifier).as_bytes().ct_eq(challenge.as_bytes()).into()
            }
            (_, None) => false,
        };
        let connection = inner.providers.find(tx, &taken.provider)?;
        let said = open(&inner, &taken.said);
        let (true, Some(connection), Some(said)) = (bound, connection, said) else {
            let details = json!({ "by": "oauth", "provider": taken.provider, "reason": "code" });
            inner.audit(tx, &Stream::shard(&taken.provider), "sign_in_failed", visit.from, details)?;
            return Ok(Err(Refusal::Invalid));
        };
        let who = Who { app: &inner, connection: &connection, said: &said };
        who.enter(tx, &visit, transport)
    });
    came.await?
}

/// An application brings an ID token of its own.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn by_token(
    app: &App,
    provider_id: &str,
    (token, nonce): (Secret, Secret),
    visit: Visit,
    transport: Transport,
) -> Result<Came, Refusal> {
    let (connection, said) = read(app, provider_id, &token, &nonce, visit.from).await?;
    let inner = app.clone();
    let came = app.db.write(move |tx| {
        if !is_first(tx, &inner, &connection, (&said, &nonce))? {
            return Ok(Err(Refusal::Unproven(connection.provider.name.clone())));
        }
        let who = Who { app: &inner, connection: &connection, said: &said };
        who.enter(tx, &visit, transport)
    });
    came.await?
}

/// What an ID token says that somebody brings.
pub(super) async fn read(
    app: &App,
    provider_id: &str,
    token: &Secret,
    nonce: &Secret,
    from: ClientAddress,
) -> Result<(Arc<Connection>, Said), Refusal> {
    let connection = provider(app, provider_id).await?;
    match connection.read(token, nonce.reveal(), &app.clock).await {
        Ok(Some(said)) => Ok((connection, said)),
        Ok(None) => Err(Refusal::NoProvider),
        Err(NoAnswer::Away(error)) => Err(away(&connection, &error)),
        Err(NoAnswer::Flaw(flaw)) => unproven(app, &connection, flaw, from).await,
    }
}

/// Whether a token's nonce is shown for the first time: as it stands in the token, where everybody can read it, and as it was
/// brought.
pub(super) fn is_first(
    tx: &mut Tx<'_>,
    app: &App,
    connection: &Connection,
    (said, brought): (&Said, &Secret),
) -> db::Result<bool> {
    let until = app.clock.now() + NONCE_KEPT;
    let mut first = true;
    let forms = [said.nonce.as_str(), brought.reveal()];
    for nonce in forms.iter().take(if forms[0] == forms[1] { 1 } else { 2 }) {
        let digest = used_nonce(&connection.provider.id, &said.subject, nonce);
        first &= tx.opt::<(Timestamp,)>(&store::USE_NONCE, params![digest, until])?.is_some();
    }
    Ok(first)
}

/// What completes a sign-in.
#[derive(Debug, Clone)]
pub(super) struct Completion {
    pub(super) email: Option<EmailAddress>,
    pub(super) display_name: Option<DisplayName>,
    pub(super) locale: Option<Locale>,
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Completed {
    /// A mail is on its way, whoever has the address.
    Verification(Id<VerificationRow>),
    /// Nothing else was missing.
    Came(Came),
}

/// Completes a sign-in.
///
/// # Errors
/// [`Refusal`].
pub(super) async fn complete(
    app: &App,
    token: &Secret,
    completion: Completion,
    visit: Visit,
    transport: Transport,
) -> Result<Completed, Refusal> {
    if token.decode::<32>(INCOMPLETE).is_none() {
        return Err(Refusal::Invalid);
    }
    let (inner, digest) = (app.clone(), token.digest());
    let id = Id::<VerificationRow>::new(&app.clock, &app.chance);
    let done = app.db.write(move |tx| {
        let now = inner.clock.now();
        let found: Option<(String, Vec<u8>)> = tx.opt(&store::INCOMPLETE, params![digest, now])?;
        let Some((provider, sealed)) = found else { return Ok(Err(Refusal::Invalid)) };
        let connection = inner.providers.find(tx, &provider)?;
        let (Some(connection), Some(mut said)) = (connection, open(&inner, &sealed)) else {
            return Ok(Err(Refusal::Invalid));
        };
        let name =
            completion.display_name.clone().filter(|name| !name.0.is_empty()).or_else(|| said.display_name());
        let Some(name) = name else {
            return Ok(Err(missing("display_name", "say what the person is called")));
        };
        said.name.clone_from(&name.0);
        let who = Who { app: &inner, connection: &connection, said: &said };
        if who.proven_address().is_none() {
            let Some(email) = completion.email.clone() else {
                return Ok(Err(missing("email", "give an address that the person reads")));
            };
            // Whoever has that address: nobody learns it here.
            if let Err(why) = registration::admits(&inner.settings.people, &email, Way::ByThemselves) {
                return Ok(Err(Refusal::Problem(why.into())));
            }
            // The row stays as long as it lives: an address is mistyped easily, and each has its own mail to prove it.
            let newcomer = Newcomer {
                email,
                display_name: name,
                locale: completion.locale.clone().unwrap_or_else(|| said.locale()),
                identity: (provider, said.subject.clone()),
            };
            registration::begin_by_identity(tx, &inner, id, newcomer, visit.from)?;
            return Ok(Ok(Completed::Verification(id)));
        }
        if tx.opt::<(String, Vec<u8>)>(&store::TAKE_INCOMPLETE, params![digest, now])?.is_none() {
            return Ok(Err(Refusal::Invalid));
        }
        Ok(who.enter(tx, &visit, transport)?.map(Completed::Came))
    });
    done.await?
}

fn missing(field: &'static str, message: &'static str) -> Refusal {
    Refusal::Field(FieldError::new(field, "required", message))
}
