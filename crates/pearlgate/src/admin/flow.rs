//! Looking for people, and doing something to one.

use foundation::db::{self, Tx};
use foundation::kernel::{Id, Page, PageRequest, Problem};
use foundation::params;

use super::model::after_all;
use super::store::{self, Found};
use crate::access::{By, Denied, may_act_on};
use crate::accounts::{UserRow, address_key, name_key};
use crate::app::App;

/// Does something to somebody, in the transaction in which it is decided that whoever does it may.
///
/// # Errors
/// As every statement.
pub async fn on_person<T: Send + 'static>(
    app: &App,
    by: By,
    permission: &'static str,
    user: Id<UserRow>,
    act: impl Fn(&mut Tx<'_>, &App, &By) -> db::Result<Result<T, Denied>> + Send + 'static,
) -> db::Result<Result<T, Denied>> {
    let inner = app.clone();
    app.db
        .write(move |tx| match may_act_on(tx, &inner, &by, permission, user)? {
            Ok(_) => act(tx, &inner, &by),
            Err(denied) => Ok(Err(denied)),
        })
        .await
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Everybody, the newest first.
    Everybody,
    /// Whose address begins like this.
    Address(String),
    /// Whose name begins like this.
    Name(String),
    /// Whose id this is.
    Id(Id<UserRow>),
}

/// A search and the page of it.
#[derive(Debug, Clone)]
pub struct Search {
    /// What.
    pub look: Look,
    /// Which page.
    pub page: PageRequest,
}

/// Somebody; none when there is nobody with this id.
///
/// # Errors
/// As every read.
pub async fn one(app: &App, user: Id<UserRow>) -> db::Result<Option<Found>> {
    app.db.read_one(move |tx| tx.opt(&store::ONE, params![user])).await
}

/// People, a page at a time.
///
/// # Errors
/// 422 for a cursor of another list, 503.
pub async fn people(app: &App, search: Search) -> Result<Page<Found>, Problem> {
    let list = format!("users:{:?}", search.look);
    let (limit, after) = app.cursors.open_text(&list, &search.page)?;
    let look = search.look;
    let found = app.db.read(move |tx| {
        let mut ids = ids(tx, &look, &after, i64::from(limit) + 1)?;
        let more = ids.len() > usize::from(limit);
        ids.truncate(limit.into());
        let next = ids.last().filter(|_| more).map(|(_, position)| position.clone());
        let mut people = Vec::with_capacity(ids.len());
        for (id, _) in ids {
            people.extend(tx.opt::<Found>(&store::ONE, params![id])?);
        }
        Ok((people, next))
    });
    let (items, next) = found.await.map_err(|e| e.to_problem())?;
    let next_cursor = next.map(|position| app.cursors.issue_text(&list, &position)).unwrap_or_default();
    Ok(Page { items, next_cursor })
}

/// Who is found, each with the position to go on from.
fn ids(tx: &mut Tx<'_>, look: &Look, after: &str, most: i64) -> db::Result<Vec<(Id<UserRow>, String)>> {
    let last: Id<UserRow> = Id::from_bytes([0xff; 16]);
    match look {
        Look::Id(id) if after.is_empty() => Ok(vec![(*id, id.to_string())]),
        Look::Id(_) => Ok(Vec::new()),
        Look::Everybody => {
            let before = after.parse().unwrap_or(last);
            let found: Vec<(Id<UserRow>,)> = tx.all(&store::NEWEST, params![before, most])?;
            Ok(found.into_iter().map(|(id,)| (id, id.to_string())).collect())
        }
        Look::Address(prefix) => {
            let prefix = address_key(prefix);
            let end = after_all(&prefix);
            if after.is_empty() {
                return tx.all(&store::BY_ADDRESS_FROM, params![prefix, end, most]);
            }
            tx.all(&store::BY_ADDRESS, params![after, end, most])
        }
        Look::Name(prefix) => {
            let prefix = name_key(prefix);
            let end = after_all(&prefix);
            // The position is the id and the name: neither has a line break.
            let (id, from) = after.split_once('\n').unwrap_or_default();
            let id: Id<UserRow> = id.parse().unwrap_or(Id::from_bytes([0; 16]));
            let from = if after.is_empty() { prefix.as_str() } else { from };
            let found: Vec<(Id<UserRow>, String)> = tx.all(&store::BY_NAME, params![from, id, end, most])?;
            Ok(found.into_iter().map(|(id, name)| (id, format!("{id}\n{name}"))).collect())
        }
    }
}
