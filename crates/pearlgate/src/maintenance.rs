//! Hygiene: what expired is swept away now and then. Nothing depends on it; expiry is checked when something is read.

use std::time::Duration;

use foundation::audit;
use foundation::http::sweep as sweep_idempotency;
use foundation::jobs::{Handlers, Job, JobError};
use foundation::limits::sweep as sweep_limits;
use foundation::mail::sweep as sweep_mails;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::{
    access, accounts, admin, federation, invitations, lockout, magic_links, mailed, mfa, passkeys, passwords,
    recovery, registration, sessions, sign_in, webhooks,
};

/// Batches of old events that one sweep removes: 100,000 events. The next sweep goes on.
const MOST_BATCHES: u32 = 200;
const EVERY: Duration = Duration::from_secs(600);

/// Sweeps what expired, in small batches.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sweep {}

impl Job for Sweep {
    const KIND: &'static str = "maintenance.sweep";
}

/// Every job of this server and who does it.
pub fn handlers(app: &App) -> Handlers {
    let inner = app.clone();
    let mut handlers = app.postman.handle(Handlers::default());
    for slice in [
        accounts::handle,
        registration::handle,
        recovery::handle,
        magic_links::handle,
        sessions::handle,
        lockout::handle,
        mfa::handle,
        webhooks::handle,
        admin::handle,
    ] {
        handlers = slice(app, handlers);
    }
    handlers.on(move |_: Sweep| sweep(inner.clone())).recurring(&Sweep {}, EVERY)
}

async fn sweep(app: App) -> Result<(), JobError> {
    loop {
        let inner = app.clone();
        let more = app.db.write(move |tx| {
            sweep_idempotency(tx, inner.clock.now())?;
            let sessions = sessions::sweep(tx, &inner)?;
            let people = registration::sweep(tx, &inner)?;
            let secrets = mailed::sweep(tx, inner.clock.now())?;
            mfa::sweep(tx, inner.clock.now())?;
            passkeys::sweep(tx, inner.clock.now())?;
            let sign_ins = federation::sweep(tx, inner.clock.now())?;
            let invited = invitations::sweep(tx, inner.clock.now())?;
            let guesses = lockout::sweep(tx, inner.clock.now())?;
            let attempts = sign_in::sweep(tx, &inner)?;
            let told = webhooks::sweep(tx, &inner)?;
            let mails = sweep_mails(tx, inner.clock.now())?;
            let limits = sweep_limits(tx, inner.clock.now())?;
            access::sweep(tx, &inner)?;
            let many = admin::sweep(tx, inner.clock.now())?;
            Ok(sessions
                || people
                || secrets
                || guesses
                || attempts
                || limits
                || sign_ins
                || told
                || mails
                || many
                || invited)
        });
        if !more.await? {
            forget_events(&app).await?;
            passwords::learn_foreign(&app).await?;
            return Ok(());
        }
    }
}

/// Removes events that are older than they are to be kept. A transaction for each batch: it locks heads of chains, and
/// recording waits for those.
async fn forget_events(app: &App) -> Result<(), JobError> {
    let Some(keep) = app.settings.audit_keep else { return Ok(()) };
    let before = app.clock.now() - keep;
    for _ in 0..MOST_BATCHES {
        if !app.db.write(move |tx| audit::prune(tx, before)).await? {
            break;
        }
    }
    Ok(())
}
