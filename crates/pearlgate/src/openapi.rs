//! The API's own description: OpenAPI 3.1, generated from the handlers.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::{
    access, accounts, admin, email_change, federation, invitations, lockout, magic_links, mailing, mfa,
    passkeys, passwords, recovery, registration, server, sessions, sign_in,
};

/// One refused field.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The field's name.
    field: String,
    /// A stable code.
    code: String,
    /// Words for a person.
    message: String,
}

/// What every refusal looks like (RFC 9457, `application/problem+json`).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// A page that explains the code.
    r#type: String,
    /// What happened, the same for every problem of this code.
    title: String,
    /// The status again.
    status: u16,
    /// What happened this time, and what to do.
    detail: String,
    /// The stable code to switch on.
    code: String,
    /// The refused fields.
    fields: Vec<FieldProblem>,
    /// For the log.
    request_id: String,
    /// Seconds after which trying again makes sense.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Why a session ended.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Where the mailed code goes, with `/v1/auth/magic-link/consume`.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    magic_link_id: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Pearlgate", description = "An accounts server: registration, sign-in, sessions.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    tags(
        (name = "registration", description = "From a form to a verified account"),
        (name = "sign-in", description = "Getting in and out"),
        (name = "recovery", description = "The way back in"),
        (name = "account", description = "One's own account"),
        (name = "access", description = "Who may do what"),
        (name = "admin", description = "For operators: a session with a second factor, or a key"),
        (name = "server", description = "The server's own"),
    ),
    paths(
        registration::http::register, registration::http::verify_email, registration::http::resend_verification,
        registration::http::waiting, invitations::http::accept_invitation, mailing::http::hear,
        sign_in::http::login, sign_in::http::challenge, magic_links::http::ask, magic_links::http::consume, passkeys::http::start, passkeys::http::finish,
        mfa::http::second_step, mfa::http::challenge,
        mfa::http::enrol, mfa::http::confirm_enrolment, sessions::http::refresh, sessions::http::logout, recovery::http::forgot_password, recovery::http::reset_password,
        lockout::http::unlock,
        passwords::http::change_password, email_change::http::change_email, email_change::http::confirm_email,
        accounts::http::delete_me, accounts::http::export_me, accounts::http::keep_account,
        accounts::http::me, accounts::http::change_me, accounts::http::my_activity, sign_in::http::reauthenticate,
        passkeys::http::my_passkeys, passkeys::http::begin, passkeys::http::keep, passkeys::http::rename,
        passkeys::http::remove, passkeys::http::begin_again,
        mfa::http::my_factors, mfa::http::begin_totp, mfa::http::confirm_totp, mfa::http::remove_totp,
        mfa::http::new_recovery_codes, mfa::http::choose_email_code, mfa::http::remove_email_code,
        federation::http::methods, federation::http::start, federation::http::callback, federation::http::posted,
        federation::http::exchange, federation::http::complete, federation::http::id_token,
        federation::http::my_identities, federation::http::begin_link, federation::http::link_token, federation::http::unlink,
        sessions::http::my_sessions, sessions::http::end_my_session, sessions::http::end_my_other_sessions,
        access::http::authorize, access::http::authorize_batch, access::http::set_up,
        access::http::roles_of_user, access::http::set_roles_of_user, access::http::list_roles, access::http::add_role,
        access::http::one_role, access::http::change_role, access::http::remove_role, invitations::http::list_invitations, invitations::http::add_invitation,
        invitations::http::revoke_invitation,
        admin::http::list_users, admin::newcomers::add_user, admin::closing::delete_user, admin::closing::restore_user, admin::http::one_user, admin::http::change_user, admin::http::suspend, admin::http::unsuspend,
        admin::impersonate::impersonate, admin::bulk::list_bulk, admin::bulk::begin_bulk,
        admin::bulk::one_bulk, admin::bulk::stop_bulk, admin::http::unlock, admin::http::force_reset, admin::http::reset_factors, admin::http::sessions_of_user,
        admin::http::end_sessions_of_user, admin::http::end_session_of_user,
        admin::audit::list_events, admin::audit::verify, admin::jobs::list_jobs, admin::jobs::one_job, admin::jobs::remove_job, admin::jobs::retry_job,
        admin::mail::list_mail, admin::mail::one_mail,
        admin::webhooks::list_webhooks, admin::webhooks::add_webhook, admin::webhooks::one_webhook,
        admin::webhooks::change_webhook, admin::webhooks::remove_webhook, admin::webhooks::webhook_deliveries,
        admin::webhooks::replay_webhook,
        admin::providers::list_providers, admin::providers::add_provider, admin::providers::change_provider,
        admin::providers::remove_provider,
        admin::server::list_dependencies, admin::server::list_signing_keys, admin::server::rotate_signing_keys,
        admin::server::list_settings,
        access::http::list_keys, access::http::make_key, access::http::revoke_key,
        sessions::http::revocations, sessions::http::introspect,
        sessions::http::jwks, server::http::openid_configuration, server::http::live, server::http::ready,
        server::http::openapi,
    ),
    modifiers(&AccessToken),
)]
struct Api;

struct AccessToken;
impl Modify for AccessToken {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("access_token", SecurityScheme::Http(bearer));
    }
}

/// The document for a server at this address. Problems are given their own media type.
#[expect(
    clippy::indexing_slicing,
    reason = "JSON indexed by name gives null, not a panic; the document is an object"
)]
pub fn document(public_url: &str) -> Value {
    let mut document = serde_json::to_value(Api::openapi()).unwrap_or_default();
    document["servers"] = serde_json::json!([{ "url": public_url }]);
    let operations = document["paths"]
        .as_object_mut()
        .into_iter()
        .flatten()
        .flat_map(|(_, path)| path.as_object_mut())
        .flatten();
    for (_, operation) in operations {
        let responses = operation["responses"].as_object_mut().into_iter().flatten();
        for (status, response) in responses.filter(|(status, _)| !status.starts_with('2')) {
            if let Some(content) = response["content"].as_object_mut()
                && let Some(json) = content.remove("application/json")
            {
                content.insert("application/problem+json".into(), json);
            }
            if response["description"] == "" {
                response["description"] = format!("{status}: a problem; see `code`").into();
            }
        }
    }
    document
}
