//! What operators do to a person: to one, or to many one after the other.

use foundation::audit::Stream;
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Id, Timestamp};
use serde_json::{Value, json};

use crate::access::{self, By, Change, Denied, may_act_on, owner_stays};
use crate::accounts::{self, Suspension, UserRow};
use crate::app::App;
use crate::lockout;
use crate::passwords;
use crate::recovery;

/// Something that is done to somebody.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// They are shut out.
    Suspend(Suspension),
    /// They are let in again.
    Unsuspend,
    /// Their wrong passwords are forgotten.
    Unlock,
    /// Every session of theirs ends.
    SignOut,
    /// They choose a new password.
    ForceReset,
    /// They have one role more, or less.
    Roles(Change),
}

impl Act {
    /// What whoever does it must hold.
    pub(super) fn permission(&self) -> &'static str {
        if matches!(self, Self::Roles(_)) { "roles:write" } else { "users:write" }
    }

    /// Whether only somebody may who proved who they are just now: it opens something.
    pub(super) fn needs_fresh(&self) -> bool {
        matches!(self, Self::Unsuspend | Self::ForceReset)
    }

    /// Does it, in the transaction in which it is decided that whoever does it may.
    ///
    /// # Errors
    /// As every statement.
    pub(super) fn apply(
        &self,
        tx: &mut Tx<'_>,
        app: &App,
        by: &By,
        user: Id<UserRow>,
    ) -> db::Result<Result<(), Denied>> {
        if let Self::Roles(change) = self {
            return Ok(access::change_in(tx, app, by, (user, change))?.map(|_| ()));
        }
        if let Err(denied) = may_act_on(tx, app, by, self.permission(), user)? {
            return Ok(Err(denied));
        }
        match self {
            Self::Suspend(suspension) => {
                if let Err(denied) = owner_stays(tx, user)? {
                    return Ok(Err(denied));
                }
                accounts::suspend_in(tx, app, by, user, suspension)?;
            }
            Self::Unsuspend => {
                if let Err(denied) = accounts::unsuspend_in(tx, app, by, user)? {
                    return Ok(Err(denied));
                }
            }
            Self::Unlock => {
                lockout::unlock_in(tx, app, by, user)?;
            }
            Self::SignOut => accounts::sign_out_in(tx, app, by, user)?,
            Self::ForceReset => {
                passwords::demand_change(tx, user, None, "operator", app.clock.now())?;
                accounts::sign_out_in(tx, app, by, user)?;
                access::end_keys(tx, app, user, (Timestamp::from_micros(0), ClientAddress::NOWHERE))?;
                recovery::mail_reset_once(tx, app, user)?;
                app.audit_by(tx, &Stream::of(user), "password_reset_forced", by, json!({}))?;
            }
            Self::Roles(_) => {}
        }
        Ok(Ok(()))
    }

    /// Its name, and what belongs to it, as it waits to be done to many.
    pub(super) fn written(&self) -> (&'static str, Value) {
        match self {
            Self::Suspend(suspension) => {
                let until = suspension.until.map(|until| until.to_string());
                ("suspend", json!({ "reason": suspension.reason, "until": until }))
            }
            Self::Unsuspend => ("unsuspend", json!({})),
            Self::Unlock => ("unlock", json!({})),
            Self::SignOut => ("sign_out", json!({})),
            Self::ForceReset => ("force_reset", json!({})),
            Self::Roles(Change::Take((role, resource))) => {
                ("revoke", json!({ "role": role, "resource": resource }))
            }
            Self::Roles(Change::Add((role, resource))) => {
                ("grant", json!({ "role": role, "resource": resource }))
            }
            // One person's roles are set; many people's are not.
            Self::Roles(Change::To(_)) => ("set_roles", json!({})),
        }
    }

    /// What was written down so; none for what is not known any more.
    pub(super) fn read(name: &str, details: &Value) -> Option<Self> {
        let text = |key: &str| details.get(key).and_then(Value::as_str).map(str::to_owned);
        let place = || Some((text("role")?, text("resource").unwrap_or_default()));
        Some(match name {
            "suspend" => {
                let until = text("until").map(|until| Timestamp::parse(&until).ok_or(())).transpose().ok()?;
                Self::Suspend(Suspension { reason: text("reason")?, until })
            }
            "unsuspend" => Self::Unsuspend,
            "unlock" => Self::Unlock,
            "sign_out" => Self::SignOut,
            "force_reset" => Self::ForceReset,
            "grant" => Self::Roles(Change::Add(place()?)),
            "revoke" => Self::Roles(Change::Take(place()?)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_is_read_as_it_was_written() {
        let until = Timestamp::parse("2026-12-24T18:00:00Z");
        let place = || ("student".to_owned(), "course/42".to_owned());
        for act in [
            Act::Suspend(Suspension { reason: "spam".into(), until }),
            Act::Suspend(Suspension { reason: "spam".into(), until: None }),
            Act::Unsuspend,
            Act::Unlock,
            Act::SignOut,
            Act::ForceReset,
            Act::Roles(Change::Add(place())),
            Act::Roles(Change::Take(place())),
        ] {
            let (name, details) = act.written();
            assert_eq!(format!("{:?}", Act::read(name, &details)), format!("{:?}", Some(act)));
        }
        assert!(Act::read("set_roles", &json!({})).is_none() && Act::read("suspend", &json!({})).is_none());
    }
}
