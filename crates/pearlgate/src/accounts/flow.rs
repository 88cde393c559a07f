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
use crate::sessions::Current;

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
    let mut changed = Vec::new();
    if let Some(name) = change.display_name {
        current.row.display_name = name.0;
        changed.push("display_name");
    }
    if let Some(locale) = change.locale {
        current.row.locale = locale.0;
        changed.push("locale");
    }
    if let Some(metadata) = change.metadata {
        current.row.metadata = metadata.0;
        changed.push("metadata");
    }
    if !changed.is_empty() {
        let (inner, row) = (app.clone(), current.row.clone());
        let stored = app.db.write(move |tx| {
            let user = row.user_id;
            let found: Option<(i64,)> =
                tx.opt(&store::UPDATE_PROFILE, params![user, row.display_name, row.locale, row.metadata])?;
            inner.audit(tx, &Stream::of(user), "profile_changed", from, json!({ "fields": changed }))?;
            Ok(found.is_some())
        });
        if !stored.await.map_err(|e| e.to_problem())? {
            return Err(Problem::not_found());
        }
    }
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
