//! The templates, compiled into the program.

use minijinja::{Environment, UndefinedBehavior};

macro_rules! embed {
    ($($name:literal),+ $(,)?) => {
        const TEMPLATES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../templates/", $name)))),+];
    };
}

embed!(
    "mails/layout.html",
    "mails/verify_email/subject.txt",
    "mails/verify_email/text.txt",
    "mails/verify_email/html.html",
    "mails/already_registered/subject.txt",
    "mails/already_registered/text.txt",
    "mails/already_registered/html.html",
    "mails/new_device/subject.txt",
    "mails/new_device/text.txt",
    "mails/new_device/html.html",
    "mails/refresh_token_reused/subject.txt",
    "mails/refresh_token_reused/text.txt",
    "mails/refresh_token_reused/html.html",
    "mails/password_reset/subject.txt",
    "mails/password_reset/text.txt",
    "mails/password_reset/html.html",
    "mails/password_changed/subject.txt",
    "mails/password_changed/text.txt",
    "mails/password_changed/html.html",
    "mails/magic_link/subject.txt",
    "mails/magic_link/text.txt",
    "mails/magic_link/html.html",
    "mails/email_change/subject.txt",
    "mails/email_change/text.txt",
    "mails/email_change/html.html",
    "mails/email_changed/subject.txt",
    "mails/email_changed/text.txt",
    "mails/email_changed/html.html",
    "mails/email_change_taken/subject.txt",
    "mails/email_change_taken/text.txt",
    "mails/email_change_taken/html.html",
    "mails/password_breached/subject.txt",
    "mails/password_breached/text.txt",
    "mails/password_breached/html.html",
    "mails/account_locked/subject.txt",
    "mails/account_locked/text.txt",
    "mails/account_locked/html.html",
    "mails/mfa_changed/subject.txt",
    "mails/mfa_changed/text.txt",
    "mails/mfa_changed/html.html",
    "mails/recovery_code_used/subject.txt",
    "mails/recovery_code_used/text.txt",
    "mails/recovery_code_used/html.html",
    "mails/mfa_failures/subject.txt",
    "mails/mfa_failures/text.txt",
    "mails/mfa_failures/html.html",
    "mails/mfa_code/subject.txt",
    "mails/mfa_code/text.txt",
    "mails/mfa_code/html.html",
    "mails/factor_reset/subject.txt",
    "mails/factor_reset/text.txt",
    "mails/factor_reset/html.html",
    "mails/invitation/subject.txt",
    "mails/invitation/text.txt",
    "mails/invitation/html.html",
    "mails/account_closing/subject.txt",
    "mails/account_closing/text.txt",
    "mails/account_closing/html.html",
    "mails/account_kept/subject.txt",
    "mails/account_kept/text.txt",
    "mails/account_kept/html.html",
    "mails/impersonated/subject.txt",
    "mails/impersonated/text.txt",
    "mails/impersonated/html.html",
    "mails/api_key_made/subject.txt",
    "mails/api_key_made/text.txt",
    "mails/api_key_made/html.html",
    "mails/identity_changed/subject.txt",
    "mails/identity_changed/text.txt",
    "mails/identity_changed/html.html",
    "pages/accept_invitation.html",
    "pages/keep_account.html",
    "pages/layout.html",
    "pages/mfa.html",
    "pages/passkeys.html",
    "pages/verify_email.html",
    "pages/reset_password.html",
    "pages/setup.html",
    "pages/magic_link.html",
    "pages/email_change.html",
    "pages/not_me.html",
    "pages/unlock.html",
    "pages/problem.html",
    "pages/error_code.html",
    "pages/error_index.html",
    "pages/docs.html",
    "pages/mailbox.html",
    "pages/dev_provider.html",
    "pages/continue.html",
);

/// All templates; names that end in `.html` are escaped, and a value that is missing is an error.
///
/// # Errors
/// When one does not compile.
pub fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// The mails there are, by name.
pub fn mails() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().filter_map(|(name, _)| name.strip_prefix("mails/")?.strip_suffix("/subject.txt"))
}
