//! How long a decision takes, and how long it takes to find people among a million.

use std::sync::Arc;
use std::time::Duration;

use foundation::db::{Db, Statement};
use foundation::kernel::{Clock, Entropy, Id, MasterKeys, PageRequest};
use pearlgate::access::{self, By, Permission, Resource, RolesFile};
use pearlgate::accounts::UserRow;
use pearlgate::admin::{self, Look, Search};
use pearlgate::app::{App, MIGRATIONS};
use pearlgate::settings::{self, Purpose, Settings};

use crate::Measured;
use crate::measures::temporary;
use crate::size::fill;
use crate::table::{Table, quantile};

const PEOPLE: usize = 1_000_000;
const DECISIONS: usize = 50_000;
const SEARCHES: usize = 2_000;
const ACADEMY: &str = include_str!("../../examples/academy/roles.toml");
const READ: Statement = Statement { name: "READ", text: "SELECT created_at FROM users WHERE id = $1" };

pub(crate) async fn access(table: &mut Table) -> Measured<()> {
    let data = temporary()?;
    println!("making {PEOPLE} people …");
    fill(data.path(), PEOPLE).await?;
    let words = |e: &dyn std::fmt::Display| e.to_string();
    let layers = settings::layers(None, Vec::new()).map_err(|e| words(&e))?;
    let settings = Settings::check(&layers, Purpose::Tool).map_err(|e| words(&e))?;
    let db = Db::sqlite(&data.path().join("pearlgate.db"), true).map_err(|e| words(&e))?;
    db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| words(&e))?;
    let master = MasterKeys::new([7; 32], &[]);
    let app = App::new(settings, db, Clock::System, Entropy::System, &master)?;
    let file = RolesFile::parse(ACADEMY)?;
    let applied = access::apply(&app, By::console(), file, false).await.map_err(|e| words(&e))?;
    applied.map_err(|denied| denied.words())?;
    // Everybody is a student, and one in ten teaches ten courses.
    for first in (0..PEOPLE).step_by(100_000) {
        app.db.batch(grants(first, first + 100_000)).await.map_err(|e| words(&e))?;
    }
    let ids: Arc<Vec<Id<UserRow>>> = Arc::new(some(&app, 5_000).await?);
    decisions(table, &app, &ids).await?;
    searches(table, &app, &ids).await
}

fn grants(first: usize, last: usize) -> String {
    format!(
        "INSERT INTO user_roles (user_id, role, granted_at, resource, granted_by)
            SELECT user_id, 'student', 1, '', 'default' FROM user_emails e
            WHERE CAST(substr(e.address, 9) AS INTEGER) >= {first} AND CAST(substr(e.address, 9) AS INTEGER) < {last};
         INSERT INTO user_roles (user_id, role, granted_at, resource, granted_by)
            SELECT user_id, 'instructor', 1, 'course/' || c.n, 'console' FROM user_emails e,
                (WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < 9) SELECT n FROM c) c
            WHERE CAST(substr(e.address, 9) AS INTEGER) >= {first} AND CAST(substr(e.address, 9) AS INTEGER) < {last}
                AND CAST(substr(e.address, 9) AS INTEGER) % 10 = 0;
         UPDATE users SET display_name = 'Person ' || (SELECT substr(e.address, 9) FROM user_emails e WHERE e.user_id = users.id),
                name_key = 'person ' || (SELECT substr(e.address, 9) FROM user_emails e WHERE e.user_id = users.id)
            WHERE id IN (SELECT e.user_id FROM user_emails e
                WHERE CAST(substr(e.address, 9) AS INTEGER) >= {first} AND CAST(substr(e.address, 9) AS INTEGER) < {last});"
    )
}

/// People from all over the table.
async fn some(app: &App, most: usize) -> Measured<Vec<Id<UserRow>>> {
    let mut ids = Vec::new();
    for n in (0..PEOPLE).step_by(PEOPLE / most) {
        let found = pearlgate::accounts::find(app, &format!("somebody{n}@example.com")).await;
        ids.extend(found.map_err(|e| e.to_string())?);
    }
    Ok(ids)
}

async fn decisions(table: &mut Table, app: &App, ids: &Arc<Vec<Id<UserRow>>>) -> Measured<()> {
    let publish = Permission::parse("permission", "course:publish").map_err(|e| e.message)?;
    let course = Resource::parse("resource", "course/7").map_err(|e| e.message)?;
    let (mut decided, mut read, mut allowed) = (Vec::new(), Vec::new(), 0_u32);
    for id in ids.iter().copied().cycle().take(DECISIONS) {
        let started = Clock::stopwatch();
        let decision = access::decide(app, id, &publish, Some(&course)).await.map_err(|e| e.to_string())?;
        decided.push(micros(started.elapsed()));
        allowed += u32::from(decision.allowed);
        let started = Clock::stopwatch();
        let found = app.db.read_one(move |tx| tx.opt::<(i64,)>(&READ, foundation::params![id])).await;
        found.map_err(|e| e.to_string())?;
        read.push(micros(started.elapsed()));
    }
    let (half, tail) = (quantile(&mut decided, 0.5), quantile(&mut decided, 0.99));
    table.judged(
        "a decision",
        format!("{half:.1} µs, p99 {tail:.1} µs; {:.1} reads by key", half / quantile(&mut read, 0.5)),
        "tens of microseconds",
        half < 100.0,
        &format!(
            "course:publish on a course, of 1,000,000 people with 2,000,000 roles, one in ten of whom has ten; {allowed} of {DECISIONS} allowed; in this process, one after the other, SQLite FULL"
        ),
    );
    Ok(())
}

async fn searches(table: &mut Table, app: &App, ids: &Arc<Vec<Id<UserRow>>>) -> Measured<()> {
    for kind in ["address", "name", "id", "everybody"] {
        let mut times = Vec::new();
        for n in 0..SEARCHES {
            let number = n * 7_919 % PEOPLE;
            let prefix = number.to_string();
            let prefix = prefix.get(..prefix.len().min(1 + n % 5)).unwrap_or_default();
            let look = match kind {
                "address" => Look::Address(format!("somebody{prefix}")),
                "name" => Look::Name(format!("Person {prefix}")),
                "id" => ids.get(n % ids.len()).map_or(Look::Everybody, |id| Look::Id(*id)),
                _ => Look::Everybody,
            };
            let search = Search { look, page: PageRequest { limit: Some(50), cursor: None } };
            let started = Clock::stopwatch();
            let page = admin::people(app, search).await.map_err(|problem| problem.detail)?;
            times.push(micros(started.elapsed()) / 1_000.0);
            if page.items.is_empty() {
                return Err(format!("nobody was found by {kind}"));
            }
        }
        let (half, tail) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        table.judged(
            &format!("finding people by {kind}"),
            format!("{half:.2} ms, p99 {tail:.2} ms"),
            "p99 ≤ 20 ms",
            tail <= 20.0,
            "pages of 50 among 1,000,000, with everything that operators see; in this process, one after the other, SQLite FULL",
        );
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
