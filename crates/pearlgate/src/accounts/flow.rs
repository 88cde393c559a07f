//! What a person does with their own account.

use foundation::audit::{self, Stream};
use foundation::http::ClientAddress;
use foundation::kernel::{Page, PageRequest, Problem};
use foundation::params;
use serde_json::json;

use super::http::{Activity, Me};
use super::model::{DisplayName, Locale, Metadata};
use super::store;
use crate::app::App;
use crate::sessions::{self, Current};

/// What to change; what is not given stays.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) display_name: Option<DisplayName>,
    pub(super) locale: Option<Locale>,
    pub(super) metadata: Option<Metadata>,
}

/// Changes the profile and gives it as it is then.
pub(super) async fn change_profile(
    app: &App,
    mut current: Current,
    from: ClientAddress,
    change: Change,
) -> Result<Me, Problem> {
    let given = [
        ("display_name", change.display_name.map(|name| name.0)),
        ("locale", change.locale.map(|locale| locale.0)),
        ("metadata", change.metadata.map(|metadata| metadata.0)),
    ];
    let changed: Vec<&str> =
        given.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(Me::of(&current));
    }
    let (inner, user, session) = (app.clone(), current.row.user_id, current.row.session_id);
    let values = given.map(|(_, value)| (i64::from(value.is_some()), value.unwrap_or_default()));
    let stored = app.db.write(move |tx| {
        let [(has_name, name), (has_locale, locale), (has_metadata, metadata)] = &values;
        let row: Option<(String, String, String)> = tx.opt(
            &store::UPDATE_PROFILE,
            params![user, has_name, name, has_locale, locale, has_metadata, metadata, session],
        )?;
        if row.is_some() {
            inner.audit_own(tx, user, "profile_changed", from, json!({ "fields": changed }))?;
        }
        Ok(row)
    });
    let Some((display_name, locale, metadata)) = stored.await.map_err(|e| e.to_problem())? else {
        return Err(crate::errors::session_ended(&sessions::end_reason(app, session).await?));
    };
    (current.row.display_name, current.row.locale, current.row.metadata) = (display_name, locale, metadata);
    Ok(Me::of(&current))
}

/// The person's own events, newest first.
pub(super) async fn activity(
    app: &App,
    current: &Current,
    request: &PageRequest,
) -> Result<Page<Activity>, Problem> {
    let stream = Stream::of(current.row.user_id);
    let list = format!("activity:{}", stream.name());
    let (limit, before) = app.cursors.open(&list, request, i64::MAX)?;
    let events = audit::list(&app.db, &stream, before, limit + 1).await.map_err(|e| e.to_problem())?;
    let more = events.len() > usize::from(limit);
    let last = events.get(usize::from(limit).saturating_sub(1)).map_or(0, |event| event.seq);
    let items = events.into_iter().take(limit.into()).map(Activity::of).collect();
    Ok(Page { items, next_cursor: if more { app.cursors.issue(&list, last) } else { String::new() } })
}
