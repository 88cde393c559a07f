//! The whole URL map on one page. Every door is closed; each is opened by name, with its guard beside it.
//!
//! `open`: anybody. `signed_in`: a good access token, or the cookie, of a living session. `operator`: the same with a second
//! factor, or a key, that holds a permission. `internal`: the internal listener (in dev mode the public one too). `dev`: mounted
//! in dev mode alone.
//! After the guard stand the route's limits. Those by network and for everybody are spent here, before anything is read;
//! those by address and session where it is known whose it is.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use foundation::http::{ClientAddress, Finish, Peer, cross_origin, finish};
use foundation::kernel::{Clock, Problem};

use tower_http::cors::{AllowCredentials, AllowOrigin, CorsLayer};

use crate::app::App;
use crate::limits::{
    By, Limit, MAIL_NETWORK, PROOF_NETWORK, REAUTHENTICATION, REFRESH, REGISTRATION_NETWORK, SIGN_IN,
    SIGN_IN_EVERYBODY, SIGN_IN_NETWORK,
};
use crate::{
    access, accounts, admin, dev, email_change, errors, federation, invitations, limits, lockout,
    magic_links, mailing, mfa, pages, passkeys, passwords, recovery, registration, server, sessions, sign_in,
};

/// Where providers have browsers post to: the one form of other sites that is read. It is sent on, and does nothing else.
const POSTED: &str = "/v1/auth/oauth/{provider}/callback";

/// How long a browser may remember what an application on another origin may do.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Anybody.
    Open,
    /// Whoever holds a good access token, or the cookie, of a living session.
    SignedIn,
    /// A session with a second factor, or a key, that holds this permission.
    Operator(&'static str),
    /// Whoever is signed in, or holds a key.
    Caller,
    /// The internal listener; and the public one for a key or an operator with this permission.
    InternalOr(&'static str),
    /// The internal listener.
    Internal,
    /// Dev mode alone.
    Dev,
}

/// A route as it was mounted.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{names}`.
    pub path: &'static str,
    /// Its guard.
    pub guard: Guard,
    /// Its limits.
    pub limits: &'static [Limit],
}

/// The routers of the two listeners and the list of what they hold.
pub struct Doors {
    /// For everybody.
    pub public: Router,
    /// For the internal listener.
    pub internal: Router,
    /// Every route of both.
    pub routes: Vec<Route>,
}

/// Mounts everything.
pub fn doors(app: &App) -> Doors {
    let mut map =
        Map { app: app.clone(), public: Router::new(), internal: Router::new(), routes: Vec::new() };
    use Guard::{Caller, Dev, Internal, InternalOr, Open, Operator, SignedIn};
    use Method as M;

    // Getting in and out
    map.add(M::POST, "/v1/auth/register", Open, &[REGISTRATION_NETWORK], post(registration::http::register));
    map.add(M::POST, "/v1/auth/verify-email", Open, &[PROOF_NETWORK], post(registration::http::verify_email));
    map.add(
        M::POST,
        "/v1/auth/accept-invitation",
        Open,
        &[PROOF_NETWORK],
        post(invitations::http::accept_invitation),
    );
    map.add(
        M::POST,
        "/v1/auth/resend-verification",
        Open,
        &[MAIL_NETWORK],
        post(registration::http::resend_verification),
    );
    map.add(M::GET, "/v1/auth/verifications/{id}", Open, &[], get(registration::http::waiting));
    map.add(
        M::POST,
        "/v1/auth/login",
        Open,
        &[SIGN_IN_NETWORK, SIGN_IN_EVERYBODY, SIGN_IN],
        post(sign_in::http::login),
    );
    map.add(M::GET, "/v1/auth/challenge", Open, &[], get(sign_in::http::challenge));
    map.add(M::POST, "/v1/auth/magic-link", Open, &[MAIL_NETWORK], post(magic_links::http::ask));
    map.add(M::POST, "/v1/auth/magic-link/consume", Open, &[PROOF_NETWORK], post(magic_links::http::consume));
    map.add(
        M::POST,
        "/v1/auth/forgot-password",
        Open,
        &[MAIL_NETWORK],
        post(recovery::http::forgot_password),
    );
    map.add(M::POST, "/v1/auth/reset-password", Open, &[PROOF_NETWORK], post(recovery::http::reset_password));
    map.add(M::POST, "/v1/auth/unlock", Open, &[PROOF_NETWORK], post(lockout::http::unlock));
    map.add(M::POST, "/v1/auth/keep-account", Open, &[PROOF_NETWORK], post(accounts::http::keep_account));
    map.add(M::POST, "/v1/auth/mfa", Open, &[PROOF_NETWORK], post(mfa::http::second_step));
    map.add(M::POST, "/v1/auth/mfa/challenge", Open, &[PROOF_NETWORK], post(mfa::http::challenge));
    map.add(M::POST, "/v1/auth/mfa/totp", Open, &[PROOF_NETWORK], post(mfa::http::enrol));
    map.add(M::POST, "/v1/auth/mfa/totp/confirm", Open, &[PROOF_NETWORK], post(mfa::http::confirm_enrolment));
    map.add(M::POST, "/v1/auth/passkey/start", Open, &[], post(passkeys::http::start));
    map.add(M::POST, "/v1/auth/passkey/finish", Open, &[PROOF_NETWORK], post(passkeys::http::finish));
    map.add(M::GET, "/v1/auth/methods", Open, &[], get(federation::http::methods));
    map.add(
        M::GET,
        "/v1/auth/oauth/{provider}/start",
        Open,
        &[SIGN_IN_NETWORK],
        get(federation::http::start),
    );
    map.add(
        M::GET,
        "/v1/auth/oauth/{provider}/callback",
        Open,
        &[PROOF_NETWORK],
        get(federation::http::callback),
    );
    map.add(M::POST, POSTED, Open, &[PROOF_NETWORK], post(federation::http::posted));
    map.add(M::POST, "/v1/auth/oauth/exchange", Open, &[PROOF_NETWORK], post(federation::http::exchange));
    map.add(
        M::POST,
        "/v1/auth/oauth/complete",
        Open,
        &[REGISTRATION_NETWORK],
        post(federation::http::complete),
    );
    map.add(
        M::POST,
        "/v1/auth/oauth/{provider}/id-token",
        Open,
        &[PROOF_NETWORK],
        post(federation::http::id_token),
    );
    map.add(M::POST, "/v1/auth/refresh", Open, &[REFRESH], post(sessions::http::refresh));
    map.add(M::POST, "/v1/auth/logout", Open, &[], post(sessions::http::logout));

    // One's own account
    map.add(M::GET, "/v1/me", SignedIn, &[], get(accounts::http::me));
    map.add(M::PATCH, "/v1/me", SignedIn, &[], patch(accounts::http::change_me));
    map.add(M::DELETE, "/v1/me", SignedIn, &[], delete(accounts::http::delete_me));
    map.add(M::GET, "/v1/me/export", SignedIn, &[], get(accounts::http::export_me));
    map.add(M::PUT, "/v1/me/password", SignedIn, &[REAUTHENTICATION], put(passwords::http::change_password));
    map.add(M::POST, "/v1/me/email", SignedIn, &[MAIL_NETWORK], post(email_change::http::change_email));
    map.add(
        M::POST,
        "/v1/me/email/confirm",
        SignedIn,
        &[PROOF_NETWORK],
        post(email_change::http::confirm_email),
    );
    map.add(M::GET, "/v1/me/activity", SignedIn, &[], get(accounts::http::my_activity));
    map.add(
        M::POST,
        "/v1/me/reauthenticate",
        SignedIn,
        &[REAUTHENTICATION],
        post(sign_in::http::reauthenticate),
    );
    map.add(M::GET, "/v1/me/mfa", SignedIn, &[], get(mfa::http::my_factors));
    map.add(M::POST, "/v1/me/mfa/totp", SignedIn, &[], post(mfa::http::begin_totp));
    map.add(M::POST, "/v1/me/mfa/totp/confirm", SignedIn, &[], post(mfa::http::confirm_totp));
    map.add(M::DELETE, "/v1/me/mfa/totp", SignedIn, &[], delete(mfa::http::remove_totp));
    map.add(M::POST, "/v1/me/mfa/recovery-codes", SignedIn, &[], post(mfa::http::new_recovery_codes));
    map.add(M::PUT, "/v1/me/mfa/email-code", SignedIn, &[], put(mfa::http::choose_email_code));
    map.add(M::DELETE, "/v1/me/mfa/email-code", SignedIn, &[], delete(mfa::http::remove_email_code));
    map.add(M::GET, "/v1/me/passkeys", SignedIn, &[], get(passkeys::http::my_passkeys));
    map.add(M::POST, "/v1/me/passkeys/start", SignedIn, &[], post(passkeys::http::begin));
    map.add(M::POST, "/v1/me/passkeys/finish", SignedIn, &[], post(passkeys::http::keep));
    map.add(M::PATCH, "/v1/me/passkeys/{id}", SignedIn, &[], patch(passkeys::http::rename));
    map.add(M::DELETE, "/v1/me/passkeys/{id}", SignedIn, &[], delete(passkeys::http::remove));
    map.add(M::POST, "/v1/me/reauthenticate/passkey", SignedIn, &[], post(passkeys::http::begin_again));
    map.add(M::GET, "/v1/me/identities", SignedIn, &[], get(federation::http::my_identities));
    map.add(M::POST, "/v1/me/identities/{provider}/start", SignedIn, &[], post(federation::http::begin_link));
    map.add(M::POST, "/v1/me/identities/{provider}", SignedIn, &[], post(federation::http::link_token));
    map.add(M::DELETE, "/v1/me/identities/{provider}", SignedIn, &[], delete(federation::http::unlink));
    map.add(M::GET, "/v1/me/sessions", SignedIn, &[], get(sessions::http::my_sessions));
    map.add(M::DELETE, "/v1/me/sessions", SignedIn, &[], delete(sessions::http::end_my_other_sessions));
    map.add(M::DELETE, "/v1/me/sessions/{id}", SignedIn, &[], delete(sessions::http::end_my_session));

    // Who may do what
    map.add(M::POST, "/v1/authorize", Caller, &[], post(access::http::authorize));
    map.add(M::POST, "/v1/authorize/batch", Caller, &[], post(access::http::authorize_batch));
    map.add(M::POST, "/v1/setup", Open, &[PROOF_NETWORK], post(access::http::set_up));

    // Operators
    let (users, roles, keys) = ("users:read", "roles:read", "api_keys:read");
    let change = Operator("users:write");
    map.add(M::GET, "/v1/admin/users", Operator(users), &[], get(admin::http::list_users));
    map.add(M::POST, "/v1/admin/users", change, &[], post(admin::newcomers::add_user));
    map.add(M::GET, "/v1/admin/users/{id}", Operator(users), &[], get(admin::http::one_user));
    map.add(M::PATCH, "/v1/admin/users/{id}", change, &[], patch(admin::http::change_user));
    map.add(M::DELETE, "/v1/admin/users/{id}", change, &[], delete(admin::closing::delete_user));
    map.add(M::POST, "/v1/admin/users/{id}/restore", change, &[], post(admin::closing::restore_user));
    map.add(M::POST, "/v1/admin/users/{id}/suspend", change, &[], post(admin::http::suspend));
    map.add(M::POST, "/v1/admin/users/{id}/unsuspend", change, &[], post(admin::http::unsuspend));
    map.add(
        M::POST,
        "/v1/admin/users/{id}/impersonate",
        Operator("users:impersonate"),
        &[],
        post(admin::impersonate::impersonate),
    );
    map.add(M::POST, "/v1/admin/users/{id}/unlock", change, &[], post(admin::http::unlock));
    map.add(M::POST, "/v1/admin/users/{id}/force-reset", change, &[], post(admin::http::force_reset));
    map.add(M::POST, "/v1/admin/users/{id}/reset-factors", change, &[], post(admin::http::reset_factors));
    map.add(
        M::GET,
        "/v1/admin/users/{id}/sessions",
        Operator(users),
        &[],
        get(admin::http::sessions_of_user),
    );
    map.add(
        M::DELETE,
        "/v1/admin/users/{id}/sessions",
        change,
        &[],
        delete(admin::http::end_sessions_of_user),
    );
    map.add(
        M::DELETE,
        "/v1/admin/users/{id}/sessions/{session_id}",
        change,
        &[],
        delete(admin::http::end_session_of_user),
    );
    map.add(M::GET, "/v1/admin/users/{id}/roles", Operator(roles), &[], get(access::http::roles_of_user));
    map.add(
        M::PUT,
        "/v1/admin/users/{id}/roles",
        Operator("roles:write"),
        &[],
        put(access::http::set_roles_of_user),
    );
    map.add(M::GET, "/v1/admin/bulk", Operator(users), &[], get(admin::bulk::list_bulk));
    map.add(M::POST, "/v1/admin/bulk", change, &[], post(admin::bulk::begin_bulk));
    map.add(M::GET, "/v1/admin/bulk/{id}", Operator(users), &[], get(admin::bulk::one_bulk));
    map.add(M::DELETE, "/v1/admin/bulk/{id}", change, &[], delete(admin::bulk::stop_bulk));
    let invite = Operator("invitations:write");
    map.add(
        M::GET,
        "/v1/admin/invitations",
        Operator("invitations:read"),
        &[],
        get(invitations::http::list_invitations),
    );
    map.add(M::POST, "/v1/admin/invitations", invite, &[], post(invitations::http::add_invitation));
    map.add(
        M::DELETE,
        "/v1/admin/invitations/{id}",
        invite,
        &[],
        delete(invitations::http::revoke_invitation),
    );
    map.add(M::GET, "/v1/admin/roles", Operator(roles), &[], get(access::http::list_roles));
    map.add(M::POST, "/v1/admin/roles", Operator("roles:write"), &[], post(access::http::add_role));
    map.add(M::GET, "/v1/admin/roles/{id}", Operator(roles), &[], get(access::http::one_role));
    map.add(M::PATCH, "/v1/admin/roles/{id}", Operator("roles:write"), &[], patch(access::http::change_role));
    map.add(
        M::DELETE,
        "/v1/admin/roles/{id}",
        Operator("roles:write"),
        &[],
        delete(access::http::remove_role),
    );
    map.add(M::GET, "/v1/admin/api-keys", Operator(keys), &[], get(access::http::list_keys));
    map.add(M::POST, "/v1/admin/api-keys", Operator("api_keys:write"), &[], post(access::http::make_key));
    map.add(
        M::DELETE,
        "/v1/admin/api-keys/{id}",
        Operator("api_keys:write"),
        &[],
        delete(access::http::revoke_key),
    );

    // What the server does, and whom it deals with
    let (jobs, hooks, others) = ("jobs:read", "webhooks:read", "providers:read");
    let (jobs_write, hooks_write, others_write) =
        (Operator("jobs:write"), Operator("webhooks:write"), Operator("providers:write"));
    map.add(M::GET, "/v1/admin/jobs", Operator(jobs), &[], get(admin::jobs::list_jobs));
    map.add(M::GET, "/v1/admin/jobs/{id}", Operator(jobs), &[], get(admin::jobs::one_job));
    map.add(M::DELETE, "/v1/admin/jobs/{id}", jobs_write, &[], delete(admin::jobs::remove_job));
    map.add(M::POST, "/v1/admin/jobs/{id}/retry", jobs_write, &[], post(admin::jobs::retry_job));
    map.add(M::GET, "/v1/admin/mail", Operator("mail:read"), &[], get(admin::mail::list_mail));
    map.add(M::GET, "/v1/admin/mail/{id}", Operator("mail:read"), &[], get(admin::mail::one_mail));
    map.add(M::GET, "/v1/admin/webhooks", Operator(hooks), &[], get(admin::webhooks::list_webhooks));
    map.add(M::POST, "/v1/admin/webhooks", hooks_write, &[], post(admin::webhooks::add_webhook));
    map.add(M::GET, "/v1/admin/webhooks/{id}", Operator(hooks), &[], get(admin::webhooks::one_webhook));
    map.add(M::PATCH, "/v1/admin/webhooks/{id}", hooks_write, &[], patch(admin::webhooks::change_webhook));
    map.add(M::DELETE, "/v1/admin/webhooks/{id}", hooks_write, &[], delete(admin::webhooks::remove_webhook));
    map.add(
        M::GET,
        "/v1/admin/webhooks/{id}/deliveries",
        Operator(hooks),
        &[],
        get(admin::webhooks::webhook_deliveries),
    );
    map.add(
        M::POST,
        "/v1/admin/webhooks/{id}/replay",
        hooks_write,
        &[],
        post(admin::webhooks::replay_webhook),
    );
    map.add(M::GET, "/v1/admin/providers", Operator(others), &[], get(admin::providers::list_providers));
    map.add(M::POST, "/v1/admin/providers", others_write, &[], post(admin::providers::add_provider));
    map.add(
        M::PATCH,
        "/v1/admin/providers/{id}",
        others_write,
        &[],
        patch(admin::providers::change_provider),
    );
    map.add(
        M::DELETE,
        "/v1/admin/providers/{id}",
        others_write,
        &[],
        delete(admin::providers::remove_provider),
    );
    map.add(
        M::GET,
        "/v1/admin/dependencies",
        Operator("settings:read"),
        &[],
        get(admin::server::list_dependencies),
    );
    map.add(
        M::GET,
        "/v1/admin/signing-keys",
        Operator("signing_keys:read"),
        &[],
        get(admin::server::list_signing_keys),
    );
    map.add(
        M::POST,
        "/v1/admin/signing-keys/rotate",
        Operator("signing_keys:write"),
        &[],
        post(admin::server::rotate_signing_keys),
    );
    map.add(M::GET, "/v1/admin/audit", Operator("audit:read"), &[], get(admin::audit::list_events));
    map.add(M::POST, "/v1/admin/audit/verify", Operator("audit:read"), &[], post(admin::audit::verify));
    map.add(M::GET, "/v1/admin/settings", Operator("settings:read"), &[], get(admin::server::list_settings));

    // For services that trust our tokens
    map.add(M::GET, "/v1/revocations", InternalOr("revocations:read"), &[], get(sessions::http::revocations));
    map.add(M::POST, "/v1/introspect", Internal, &[], post(sessions::http::introspect));

    // For those who carry our mails; each proves itself
    map.add(M::POST, "/v1/hooks/mail/{provider}", Open, &[], post(mailing::http::hear));

    // Pages behind links in mails
    map.add(M::GET, "/verify-email", Open, &[], get(registration::pages::show));
    map.add(M::POST, "/verify-email", Open, &[PROOF_NETWORK], post(registration::pages::submit));
    map.add(M::GET, "/accept-invitation", Open, &[], get(invitations::pages::show));
    map.add(M::POST, "/accept-invitation", Open, &[PROOF_NETWORK], post(invitations::pages::submit));
    map.add(M::GET, "/reset-password", Open, &[], get(recovery::pages::show_reset));
    map.add(M::POST, "/reset-password", Open, &[PROOF_NETWORK], post(recovery::pages::submit_reset));
    map.add(M::GET, "/magic-link", Open, &[], get(magic_links::pages::show));
    map.add(M::POST, "/magic-link", Open, &[PROOF_NETWORK], post(magic_links::pages::submit));
    map.add(M::GET, "/mfa", Open, &[], get(mfa::pages::show));
    map.add(M::POST, "/mfa", Open, &[PROOF_NETWORK], post(mfa::pages::submit));
    map.add(M::GET, "/email-change", Open, &[], get(email_change::pages::show));
    map.add(M::POST, "/email-change", Open, &[PROOF_NETWORK], post(email_change::pages::submit));
    map.add(M::GET, "/not-me", Open, &[], get(recovery::pages::show_not_me));
    map.add(M::POST, "/not-me", Open, &[PROOF_NETWORK], post(recovery::pages::submit_not_me));

    map.add(M::GET, "/setup", Open, &[], get(access::pages::show));
    map.add(M::POST, "/setup", Open, &[PROOF_NETWORK], post(access::pages::submit));
    map.add(M::GET, "/unlock", Open, &[], get(lockout::pages::show));
    map.add(M::POST, "/unlock", Open, &[PROOF_NETWORK], post(lockout::pages::submit));
    map.add(M::GET, "/keep-account", Open, &[], get(accounts::pages::show));
    map.add(M::POST, "/keep-account", Open, &[PROOF_NETWORK], post(accounts::pages::submit));

    // The server's own
    map.add(M::GET, "/.well-known/jwks.json", Open, &[], get(sessions::http::jwks));
    map.add(M::GET, "/.well-known/openid-configuration", Open, &[], get(server::http::openid_configuration));
    map.add(M::GET, "/health/live", Open, &[], get(server::http::live));
    map.add(M::GET, "/health/ready", Open, &[], get(server::http::ready));
    map.add(
        M::GET,
        "/health/dependencies",
        InternalOr("settings:read"),
        &[],
        get(server::http::dependencies),
    );
    map.add(M::GET, "/metrics", InternalOr("settings:read"), &[], get(server::http::metrics));
    map.add(M::GET, "/errors", Open, &[], get(server::pages::error_index));
    map.add(M::GET, "/errors/{code}", Open, &[], get(server::pages::error_code));
    map.add(M::GET, "/openapi.json", Open, &[], get(server::http::openapi));
    if app.settings.docs {
        map.add(M::GET, "/docs", Open, &[], get(server::pages::docs));
    }

    // Dev mode
    if app.settings.dev {
        map.add(M::GET, "/", Dev, &[], get(dev::http::start));
        map.add(M::GET, "/dev/mailbox", Dev, &[], get(dev::http::mailbox));
        map.add(M::GET, "/dev/passkeys", Dev, &[], get(dev::http::passkeys));
        map.add(M::GET, "/dev/v1/messages", Dev, &[], get(dev::http::messages));
        map.add(M::POST, "/dev/v1/clock", Dev, &[], post(dev::http::clock));
        map.add(M::PUT, "/dev/v1/faults/{dependency}", Dev, &[], put(dev::http::fault));
    }
    map.finish()
}

struct Map {
    app: App,
    public: Router<App>,
    internal: Router<App>,
    routes: Vec<Route>,
}

impl Map {
    fn add(
        &mut self,
        method: Method,
        path: &'static str,
        guard: Guard,
        limits: &'static [Limit],
        handler: MethodRouter<App>,
    ) {
        self.routes.push(Route { method, path, guard, limits });
        let handler = match guard {
            Guard::SignedIn => {
                handler.layer(middleware::from_fn_with_state(self.app.clone(), sessions::require))
            }
            Guard::Operator(permission) => {
                handler.layer(middleware::from_fn_with_state((self.app.clone(), permission), access::require))
            }
            Guard::Caller => {
                handler.layer(middleware::from_fn_with_state(self.app.clone(), access::require_caller))
            }
            Guard::Open | Guard::InternalOr(_) | Guard::Internal | Guard::Dev => handler,
        };
        // Outside the guard: whoever is over a limit costs nobody a look into the database.
        let handler = if limits.iter().any(|limit| limit.by.is_shared()) {
            handler.layer(middleware::from_fn_with_state((self.app.clone(), limits), limited))
        } else {
            handler
        };
        let on_public = guard != Guard::Internal || self.app.settings.dev;
        if matches!(guard, Guard::Internal | Guard::InternalOr(_)) || path.starts_with("/health/") {
            self.internal = std::mem::take(&mut self.internal).route(path, handler.clone());
        }
        let handler = match guard {
            Guard::InternalOr(permission) if !self.app.settings.dev => {
                handler.layer(middleware::from_fn_with_state((self.app.clone(), permission), access::require))
            }
            _ => handler,
        };
        if on_public {
            self.public = std::mem::take(&mut self.public).route(path, handler);
        }
    }

    fn finish(self) -> Doors {
        let layers = |router: Router<App>| {
            let router = router
                .fallback(|| async { Problem::not_found() })
                .method_not_allowed_fallback(|| async { StatusCode::METHOD_NOT_ALLOWED })
                .with_state(self.app.clone());
            let origins = &self.app.settings.cors_origins;
            let router = if origins.is_empty() { router } else { router.layer(shared_with(origins)) };
            router
                .layer(middleware::from_fn_with_state(self.app.clone(), around))
                .layer(middleware::from_fn_with_state(finishing(&self.app), finish))
        };
        Doors { public: layers(self.public), internal: layers(self.internal), routes: self.routes }
    }
}

/// Which origins may read the API's answers, with the session cookie: exactly the configured ones.
fn shared_with(origins: &[String]) -> CorsLayer {
    let origins: Arc<[String]> = origins.into();
    let may = move |origin: &HeaderValue, parts: &Parts| {
        parts.uri.path().starts_with("/v1/")
            && origins.iter().any(|known| known.as_bytes() == origin.as_bytes())
    };
    let allowed = may.clone();
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(may))
        .allow_credentials(AllowCredentials::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(PREFLIGHT)
}

fn finishing(app: &App) -> Finish {
    Finish {
        public_url: Arc::from(app.settings.public_url.as_str()),
        clock: app.clock.clone(),
        chance: app.chance.clone(),
        page: {
            let app = app.clone();
            Arc::new(move |problem, id, headers| pages::problem_page(&app, problem, id, headers))
        },
    }
}

/// Around every handler: is the host one of ours, who is calling, how long did it take, and did it panic.
async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().copied() else {
        return Problem::internal().into_response();
    };
    if let Some(problem) =
        wrong_host(&app, peer, request.headers(), request.uri().authority().map(|a| a.as_str()))
    {
        return problem.into_response();
    }
    // Nothing of ours is called so, and no database has to be asked whether something is.
    if request.uri().path().contains("%00") {
        return Problem::not_found().into_response();
    }
    // Another site's page does nothing here, whatever it carries: neither with a cookie nor by signing somebody in to
    // an account that is not theirs. A page that may is in the settings.
    let unsafe_method = !request.method().is_safe();
    let posted =
        request.extensions().get::<axum::extract::MatchedPath>().is_some_and(|path| path.as_str() == POSTED);
    if unsafe_method
        && !posted
        && cross_origin(request.headers(), &app.settings.public_url, &app.settings.cors_origins)
    {
        return errors::problem("permission_denied")
            .detail("This request was sent by a page of another site. Applications on other addresses are named in cors.origins.")
            .into_response();
    }
    // Probes come from where they come from.
    let is_probe = request.uri().path().starts_with("/health/") || request.uri().path() == "/metrics";
    if !is_probe
        && let Some(one) =
            app.one_for_all.note(&app.settings.proxies, peer.remote.ip(), request.headers(), app.clock.now())
    {
        metrics::counter!("client_address_undeclared_proxy_total").increment(1);
        tracing::error!(
            address = %one,
            "EVERYBODY COMES FROM ONE ADDRESS, which says that it forwards for others and is not declared: limits by network \
             stop all of them together, and the trail names it instead of them. If it is your own proxy, name it \
             in server.trusted_proxies; if you do not know it, one client makes this up: leave it out."
        );
    }
    let client = app.settings.proxies.client(peer.remote.ip(), request.headers());
    request.extensions_mut().insert(client);
    let route =
        request.extensions().get::<axum::extract::MatchedPath>().map_or("(none)", |p| p.as_str()).to_owned();
    let method = known_method(request.method());
    let started = Clock::stopwatch();
    let response = caught(next.run(request)).await.unwrap_or_else(|| {
        metrics::counter!("http_panics_total").increment(1);
        tracing::error!(route, "a handler panicked");
        Problem::internal().into_response()
    });
    let status = response.status().as_u16().to_string();
    metrics::counter!("http_requests_total", "route" => route.clone(), "method" => method, "status" => status).increment(1);
    metrics::histogram!("http_request_seconds", "route" => route).record(started.elapsed().as_secs_f64());
    response
}

/// Spends what a request costs its network and everybody, before anything else is done for it. The answer says how its
/// network stands.
async fn limited(
    State((app, limits)): State<(App, &'static [Limit])>,
    request: Request,
    next: Next,
) -> Response {
    let Some(client) = request.extensions().get::<ClientAddress>().copied() else {
        return Problem::internal().into_response();
    };
    let network = client.network().to_string();
    let mut stands = None;
    for limit in limits {
        let subject = match limit.by {
            By::Network => network.as_bytes(),
            By::Everybody => b"everybody",
            By::Account | By::Session => continue,
        };
        match app.limits.take(limit.name, subject).await {
            Ok(Some(taken)) if taken.refused() => return limits::too_many(&taken).into_response(),
            Ok(taken) => stands = stands.or(taken),
            // Nothing is known, so nothing goes on.
            Err(error) => return error.to_problem().into_response(),
        }
    }
    let mut response = next.run(request).await;
    if let Some(taken) = stands {
        for (name, value) in taken.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
    }
    response
}

/// Runs a handler to its end; none when it panicked. It is not a task of its own: when its client goes away it is
/// dropped, and a hash that nobody waits for is not computed. What a handler does is one transaction, which is
/// done whole by a database thread or not begun.
async fn caught<T>(handler: impl Future<Output = T>) -> Option<T> {
    let mut handler = std::pin::pin!(handler);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// A label of its own only for methods that exist: strangers do not choose our labels.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

/// No link is ever made from a Host header, and a host that is not ours is not answered at all: neither poisoned
/// links nor DNS rebinding have anything to work with.
fn wrong_host(app: &App, peer: Peer, headers: &HeaderMap, authority: Option<&str>) -> Option<Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let ours = |host: &str| {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(n, _)| n);
        let local = peer.local.ip().to_canonical();
        let address =
            name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == local);
        host == app.settings.public_host()
            || app.settings.allowed_hosts.iter().any(|allowed| allowed == host || allowed == name)
            || address
            || (local.is_loopback() && name == "localhost")
    };
    let authority = authority.map(str::to_ascii_lowercase);
    if ours(&host) && authority.is_none_or(|authority| authority == host) {
        return None;
    }
    Some(Problem::malformed(
        "This server does not answer for the host in the request. Its names are server.public_url and server.allowed_hosts.",
    ))
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct From(pub ClientAddress);

impl<S: Send + Sync> FromRequestParts<S> for From {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<ClientAddress>().copied().map(Self).ok_or_else(Problem::internal)
    }
}

/// For optional fields: what is given must have the type, and `null` is not a way to leave something out.
///
/// # Errors
/// As the type's own.
pub fn present<'de, T: serde::Deserialize<'de>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What a device is called: one line of at most 100 characters.
///
/// # Errors
/// 422.
pub fn device_name(text: &str) -> Result<String, Problem> {
    accounts::DisplayName::parse("device_name", text)
        .map(|name| name.0)
        .map_err(|e| Problem::invalid(vec![e]))
}
