//! `pearlgate user`

use std::process::ExitCode;

use foundation::kernel::{Clock, Entropy, Id};

use super::{Common, Failure, User, block_on, lenient, roles, say};
use crate::access::Denied;
use crate::accounts::{self, UserRow};
use crate::app::{App, MIGRATIONS};
use crate::lockout;
use crate::mfa;
use crate::server::{master_keys, open_database};

/// Said when a mail with a link has to be sent.
const NO_ADDRESS: &str = "Nothing was changed: the mail to the owner needs the server's address. Set server.public_url as for the \
    server, in its file or as PEARLGATE__SERVER__PUBLIC_URL (in --dev: the address that it shows when it starts).";

pub(super) fn run(command: &User) -> Result<ExitCode, Failure> {
    let (who, common) = match command {
        User::Show { who, common, .. }
        | User::Grant { who, common, .. }
        | User::Revoke { who, common, .. }
        | User::Suspend { who, common, .. }
        | User::Unsuspend { who, common }
        | User::Delete { who, common, .. }
        | User::Restore { who, common }
        | User::Unlock { who, common }
        | User::ResetFactors { who, common, .. }
        | User::SignOut { who, common } => (who, common),
    };
    with_app(common, |app| async move {
        let user = roles::person(&app, who).await?;
        act(&app, command, user).await
    })
}

async fn act(app: &App, command: &User, user: Id<UserRow>) -> Result<String, String> {
    let words = |e: foundation::db::Error| e.to_string();
    match command {
        User::Show { json, .. } => roles::show(app, user, *json).await,
        User::Grant { role, on, .. } => roles::grant(app, user, role, on.as_deref()).await,
        User::Revoke { role, on, .. } => roles::revoke(app, user, role, on.as_deref()).await,
        User::Suspend { reason, .. } => {
            accounts::suspend(app, user, reason).await.map_err(words)?.map_err(|denied| nothing(&denied))?;
            Ok(format!(
                "{user} is suspended: every session has ended, and nobody signs in. `pearlgate user unsuspend {user}` lifts it."
            ))
        }
        User::Unsuspend { .. } => {
            let lifted = accounts::unsuspend(app, user).await.map_err(words)?;
            Ok(if lifted.map_err(|denied| nothing(&denied))? {
                format!("{user} may sign in again.")
            } else {
                format!("{user} was not suspended. Nothing was changed.")
            })
        }
        User::Delete { yes: false, .. } => Err(format!(
            "Nothing was changed: this deletes the account {user} and everything that is stored about its person. Look with `pearlgate \
             user show {user}` whether it is the right one, and repeat the command with --yes."
        )),
        User::Delete { .. } | User::ResetFactors { cancel: false, .. }
            if app.settings.public_url.is_empty() =>
        {
            Err(NO_ADDRESS.to_owned())
        }
        User::Delete { .. } => {
            let due = accounts::close(app, user).await.map_err(words)?.map_err(|denied| nothing(&denied))?;
            Ok(format!(
                "{user} is deleted at {due}, unless the owner says no: a mail tells them. Every session has ended, and nobody signs \
                 in. `pearlgate user restore {user}` takes it back until then."
            ))
        }
        User::Restore { .. } => {
            accounts::restore(app, user).await.map_err(words)?.map_err(|denied| nothing(&denied))?;
            Ok(format!("{user} is not deleted."))
        }
        User::Unlock { .. } => Ok(if lockout::unlock(app, user).await.map_err(words)? {
            format!("{user} is unlocked: wrong passwords of before count no more.")
        } else {
            format!("{user} was not locked. Nothing was changed.")
        }),
        User::ResetFactors { cancel: true, .. } => {
            Ok(if mfa::cancel_reset(app, user).await.map_err(words)? {
                format!("The second factors of {user} stay.")
            } else {
                format!("Nobody was to take the second factors of {user} away. Nothing was changed.")
            })
        }
        User::ResetFactors { .. } => Ok(if mfa::announce_reset(app, user).await.map_err(words)? {
            let due = app.clock.now() + app.settings.mfa.reset_after;
            format!(
                "The second factors of {user} go at {due}, unless the owner says no: a mail tells them. `pearlgate user \
                 reset-factors {user} --cancel` takes it back."
            )
        } else {
            format!("{user} has no second factor. Nothing was changed.")
        }),
        User::SignOut { .. } => {
            accounts::sign_out(app, user).await.map_err(words)?;
            Ok(format!("Every session of {user} has ended. They may sign in again."))
        }
    }
}

/// Why a command did nothing.
fn nothing(denied: &Denied) -> String {
    format!("Nothing was changed: {}", denied.words())
}

/// Opens what a command works on, brings it up to date, and says what came of the command.
pub(super) fn with_app<F: Future<Output = Result<String, String>>>(
    common: &Common,
    act: impl FnOnce(App) -> F,
) -> Result<ExitCode, Failure> {
    // Inside: what sends mail wants a runtime around it, also when it sends none.
    block_on(async {
        let app = open(common)?;
        app.db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| other(&e))?;
        say(&act(app).await.map_err(Failure::Other)?);
        Ok(ExitCode::SUCCESS)
    })?
}

pub(super) fn open(common: &Common) -> Result<App, Failure> {
    let settings = lenient(common)?;
    if settings.database_url.is_none() && !settings.data_dir.join("pearlgate.db").exists() {
        return Err(Failure::Other(format!("there is no database in {} yet", settings.data_dir.display())));
    }
    let master = master_keys(&settings)
        .ok_or_else(|| Failure::Other("secrets.master_key is not set: set it as for the server".into()))?;
    let db = open_database(&settings)?;
    App::new(settings, db, Clock::System, Entropy::System, &master).map_err(Failure::Other)
}

pub(super) fn other(e: &dyn std::fmt::Display) -> Failure {
    Failure::Other(e.to_string())
}
