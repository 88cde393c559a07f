//! What an operator does about addresses at which nobody could be reached.

use foundation::audit::Stream;
use foundation::db;
use foundation::http::ClientAddress;
use foundation::mail;
use serde_json::json;

use crate::accounts;
use crate::app::App;

/// Writes to an address again at which nobody could be reached. False when it was not left alone.
///
/// # Errors
/// As every statement.
pub async fn lift(app: &App, address: &str) -> db::Result<bool> {
    let (inner, key) = (app.clone(), accounts::address_key(address));
    let done = app.db.write(move |tx| {
        let lifted = mail::lift(tx, &key)?;
        if lifted {
            inner.audit(
                tx,
                &Stream::server(),
                "mail_suppression_lifted",
                ClientAddress::NOWHERE,
                json!({ "address": key }),
            )?;
        }
        Ok(lifted)
    });
    done.await
}
