//! Keys of machines. The database holds a digest; the key itself leaves once.

use std::collections::BTreeSet;
use std::time::Duration;

use foundation::audit::{Event, Stream};
use foundation::db::{self, Tx};
use foundation::http::ClientAddress;
use foundation::kernel::{Entity, Id, Secret, Timestamp};
use foundation::mail::Mail;
use foundation::params;
use serde_json::json;

use super::by::{By, Who};
use super::flow::{Denied, Standing, may, of_key};
use super::store::{self, KeyLine, StoredKey};
use crate::accounts::UserRow;
use crate::app::App;
use crate::invitations::InvitationRow;
use crate::mailed;
use crate::sessions::NOTICE;

/// Ids of keys.
#[derive(Debug)]
pub struct KeyRow;
impl Entity for KeyRow {
    const PREFIX: &'static str = "key";
}

/// How keys begin.
pub(super) const PREFIX: &str = "pga_";
/// The most permissions that one holds.
const MOST: usize = 100;
/// How much of one is shown in lists: too little to guess the rest.
const SHOWN: usize = 6;
/// How exactly it is known when one was used last.
const TO_THE: Duration = Duration::from_secs(60);
/// The longest that one is good.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub permissions: BTreeSet<String>,
    /// How long it is good.
    pub lifetime: Duration,
}

/// A key and what it may do.
#[derive(Debug, Clone)]
pub struct Key {
    /// As it is stored.
    pub row: StoredKey,
    /// What it was given.
    pub permissions: Vec<String>,
}

/// Makes a key; it is shown this once. A key makes no keys.
///
/// # Errors
/// As every statement.
pub async fn make(app: &App, by: By, new: NewKey) -> db::Result<Result<(Key, Secret), Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, "api_keys:write")? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            let Who::Person(maker, _) = by.who else {
                return Ok(Err(Denied::Beyond("keys are made by people".into())));
            };
            if new.permissions.len() > MOST {
                return Ok(Err(Denied::Invalid("permissions", format!("are at most {MOST}"))));
            }
            if let Some(beyond) = new.permissions.iter().find(|one| !standing.may(one)) {
                return Ok(Err(Denied::Beyond(beyond.clone())));
            }
            let now = inner.clock.now();
            let secret = Secret::encode(PREFIX, &inner.chance.bytes::<32>());
            let row = StoredKey {
                id: Id::new(&inner.clock, &inner.chance),
                name: new.name.clone(),
                prefix: secret.reveal().chars().take(PREFIX.len() + SHOWN).collect(),
                created_by: maker,
                created_at: now,
                expires_at: now + new.lifetime.min(LONGEST),
                last_used_at: Timestamp::from_micros(0),
            };
            tx.execute(
                &store::ADD_KEY,
                params![row.id, row.name, row.prefix, secret.digest(), maker, now, row.expires_at],
            )?;
            for permission in &new.permissions {
                tx.execute(&store::ADD_KEY_PERMISSION, params![row.id, permission])?;
            }
            let details = json!({ "key": row.id, "name": row.name, "permissions": new.permissions });
            inner.audit_by(tx, &Stream::of(maker), "api_key_made", &by, details)?;
            tell(tx, &inner, maker, &row, &new.permissions)?;
            Ok(Ok((Key { row, permissions: new.permissions.iter().cloned().collect() }, secret)))
        })
        .await
}

/// Whoever has a thief in their session learns what was made in it.
fn tell(
    tx: &mut Tx<'_>,
    app: &App,
    maker: Id<UserRow>,
    row: &StoredKey,
    permissions: &BTreeSet<String>,
) -> db::Result<()> {
    let Some(to) = mailed::proven_address(tx, maker)? else { return Ok(()) };
    let may = permissions.iter().cloned().collect::<Vec<_>>().join(", ");
    let values = json!({
        "service_name": app.settings.service_name, "at": row.created_at.to_string(), "name": row.name,
        "prefix": row.prefix, "permissions": may,
    });
    app.postman.send_first(tx, &Mail { kind: "api_key_made".into(), to, values }, row.created_at, NOTICE)
}

/// Keys, newest first, before an id.
///
/// # Errors
/// As every read.
pub async fn keys(app: &App, before: Id<KeyRow>, limit: u16) -> db::Result<Vec<Key>> {
    app.db
        .read(move |tx| {
            let rows: Vec<StoredKey> = tx.all(&store::KEYS, params![before, i64::from(limit)])?;
            rows.into_iter()
                .map(|row| {
                    let given: Vec<(String,)> = tx.all(&store::KEY_PERMISSIONS, params![row.id])?;
                    Ok(Key { row, permissions: given.into_iter().map(|(one,)| one).collect() })
                })
                .collect()
        })
        .await
}

/// Ends a key at once. Whoever does it made it, or stands above whoever did.
///
/// # Errors
/// As every statement.
pub async fn revoke(app: &App, by: By, id: Id<KeyRow>) -> db::Result<Result<(), Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| {
            let standing = match may(tx, &inner, &by, "api_keys:write")? {
                Ok(standing) => standing,
                Err(denied) => return Ok(Err(denied)),
            };
            let Some(row) = tx.opt::<StoredKey>(&store::KEY_BY_ID, params![id])? else {
                return Ok(Err(Denied::NotFound));
            };
            let (level,): (i64,) = tx.one(&store::LEVEL, params![row.created_by])?;
            if by.person() != Some(row.created_by) && !standing.is_above(level) {
                return Ok(Err(Denied::Level("Whoever made that key stands as high as you, or higher.")));
            }
            tx.opt::<(String,)>(&store::REMOVE_KEY, params![id])?;
            let details = json!({ "key": id, "name": row.name });
            inner.audit_by(tx, &Stream::of(row.created_by), "api_key_revoked", &by, details)?;
            Ok(Ok(()))
        })
        .await
}

/// Keys end that somebody made since a moment, and their invitations are worth nothing: it was not them, or somebody else had
/// their password. True when there were some keys.
///
/// # Errors
/// As every statement.
pub fn end_keys(
    tx: &mut Tx<'_>,
    app: &App,
    maker: Id<UserRow>,
    (since, from): (Timestamp, ClientAddress),
) -> db::Result<bool> {
    let ended: Vec<(Id<KeyRow>, String)> = tx.all(&store::END_KEYS, params![maker, since])?;
    for (key, name) in &ended {
        let details = json!({ "key": key, "name": name });
        app.audit(tx, &Stream::of(maker), "api_key_revoked", from, details)?;
    }
    let asked: Vec<(Id<InvitationRow>, Timestamp)> =
        tx.all(&store::END_INVITATIONS, params![maker.to_string(), since])?;
    for (invitation, _) in asked {
        let event = Event {
            kind: "invitation_revoked",
            actor: maker.to_string(),
            address: String::new(),
            details: json!({ "invitation": invitation, "because": "it may not have been them" }),
        };
        app.trail.record(tx, &Stream::server(), &event)?;
    }
    Ok(!ended.is_empty())
}

/// Whose key it is and what it may do now; nothing for one that is unknown, expired, or made by somebody who is
/// suspended.
///
/// # Errors
/// As every statement.
pub(super) async fn find(app: &App, key: &Secret) -> db::Result<Option<(Who, Standing)>> {
    if key.decode::<32>(PREFIX).is_none() {
        return Ok(None);
    }
    let (digest, now) = (key.digest(), app.clock.now());
    let found = app.db.read(move |tx| {
        let lines: Vec<KeyLine> = tx.all(&store::KEY, params![digest, now])?;
        let Some((id, owner, used, _)) = lines.first().cloned() else { return Ok(None) };
        let maker = super::flow::standing_of(tx, owner)?;
        let standing = of_key(lines.into_iter().map(|(.., permission)| permission), &maker);
        Ok(Some((id, owner, used, standing)))
    });
    let Some((id, owner, used, standing)) = found.await? else { return Ok(None) };
    if used + TO_THE <= now {
        app.db.write_one(move |tx| tx.execute(&store::KEY_USED, params![id, now, now - TO_THE])).await?;
    }
    Ok(Some((Who::Key(id, owner), standing)))
}
