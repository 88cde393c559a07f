//! What a million people cost those who are there: the same work on a small and on a large database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foundation::db::Db;
use foundation::kernel::Clock;
use pearlgate::app::MIGRATIONS;

use crate::client::{Answer, load, request};
use crate::measures::{refresh_load, temporary, whole};
use crate::program::{PASSWORD, Person, Program, sign_in};
use crate::table::{Table, median};
use crate::{Measured, ROUNDS};

const SMALL: usize = 1_000;
const LARGE: usize = 1_000_000;
const KINDS: [(&str, f64); 4] =
    [("session check", 1.25), ("login", 1.01), ("refresh", 1.15), ("register", 1.05)];

/// Processor time of the server for each kind of request.
pub(crate) async fn size(table: &mut Table) -> Measured<()> {
    let (small, large) = (temporary()?, temporary()?);
    let empty = fill(small.path(), SMALL).await?;
    let full = fill(large.path(), LARGE).await?;
    let each = (full - empty) / (LARGE - SMALL) as f64;
    let programs = [Program::start(small.path())?, Program::start(large.path())?];
    let mut crowds = Vec::new();
    for program in &programs {
        crowds.push(program.people(32).await?);
    }
    let mut costs: [[Vec<f64>; 4]; 2] = Default::default();
    let count = Arc::new(AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        for ((program, people), costs) in programs.iter().zip(&mut crowds).zip(&mut costs) {
            for (kind, costs) in costs.iter_mut().enumerate() {
                costs.push(cost(program, people, kind, &count).await?);
            }
        }
    }
    let [few, many] = costs;
    for (((what, goal), few), many) in KINDS.into_iter().zip(few).zip(many) {
        let (few, many) = (median(few), median(many));
        table.judged(
            &format!("{what}, CPU at 1,000,000 people ÷ at 1,000"),
            format!("{:.3} ({many:.1} µs ÷ {few:.1} µs)", many / few),
            &format!("≤ {goal}"),
            many / few <= goal,
            "processor time of the server per request, the same requests in turn, SQLite FULL; the large database was read once before",
        );
    }
    table.judged(
        "disk for a person with one session",
        format!("{each:.0} B"),
        "≤ 350 B",
        each <= 350.0,
        "SQLite's file with 1,000,000 people less the one with 1,000, each with a proven address, a password hash of 97 bytes, a device, a session and its token, indexes included",
    );
    Ok(())
}

/// Microseconds of the server's processors for one request of a kind.
async fn cost(
    program: &Program,
    people: &mut [Person],
    kind: usize,
    count: &Arc<AtomicUsize>,
) -> Measured<f64> {
    let (before, time) = (program.cpu()?, Duration::from_secs(2));
    let done = match kind {
        0 => {
            let checks: Arc<Vec<Vec<u8>>> =
                Arc::new(people.iter().map(|p| request("GET", "/v1/me", &p.access, "")).collect());
            let next = move |n: usize, _: Option<&Answer>| checks.get(n).cloned().unwrap_or_default();
            whole(load(program.port, 32, time, next).await?)?.times.len() as f64
        }
        1 => {
            let logins: Arc<Vec<Vec<u8>>> = Arc::new(people.iter().map(|p| sign_in(p, PASSWORD)).collect());
            let next = move |n: usize, _: Option<&Answer>| logins.get(n).cloned().unwrap_or_default();
            whole(load(program.port, 32, time, next).await?)?.times.len() as f64
        }
        2 => {
            let tokens = people.iter().map(|person| person.refresh.clone()).collect();
            let started = Clock::stopwatch();
            let (rate, next) = refresh_load(program.port, tokens).await?;
            let took = started.elapsed().as_secs_f64();
            people.iter_mut().zip(next).for_each(|(person, token)| person.refresh = token);
            rate * took
        }
        _ => {
            let count = count.clone();
            let next = move |_: usize, _: Option<&Answer>| {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let body = format!(r#"{{"email":"newcomer{n}@example.com","password":"{PASSWORD}"}}"#);
                request("POST", "/v1/auth/register", "", &body)
            };
            whole(load(program.port, 32, time, next).await?)?.times.len() as f64
        }
    };
    Ok((program.cpu()? - before) / done * 1e6)
}

/// Makes a database with so many people, and says how many bytes it has.
pub(crate) async fn fill(data: &Path, people: usize) -> Measured<f64> {
    let file = data.join("pearlgate.db");
    let db = Db::sqlite(&file, true).map_err(|e| e.to_string())?;
    db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| e.to_string())?;
    let now = Clock::System.now().micros();
    const BATCH: usize = 50_000;
    for first in (0..people).step_by(BATCH) {
        let last = people.min(first + BATCH);
        db.batch(rows(first, last, now)).await.map_err(|e| e.to_string())?;
    }
    drop(db);
    // Without what waits in the log.
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |data| data.len());
    Ok(bytes(&file) as f64)
}

/// Ids that grow with time, as ours do, and digests that are as random as ours.
fn rows(first: usize, last: usize, now: i64) -> String {
    let hash = format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", "c".repeat(22), "h".repeat(43));
    let until = now + 30 * 86_400_000_000;
    format!(
        "CREATE TEMP TABLE IF NOT EXISTS filling (n INTEGER PRIMARY KEY, id BLOB, session BLOB);
         DELETE FROM filling;
         WITH RECURSIVE n(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {last} - 1)
            INSERT INTO filling SELECT n, unhex(printf('%012x', 1600000000000 + n) || hex(randomblob(10))), unhex(printf('%012x', 1650000000000 + n) || hex(randomblob(10))) FROM n;
         INSERT INTO users (id, display_name, locale, metadata, created_at, name_key) SELECT id, 'Somebody', '', '{{}}', {now}, 'somebody' FROM filling;
         INSERT INTO user_emails (user_id, address, address_key) SELECT id, 'somebody' || n || '@example.com', 'somebody' || n || '@example.com' FROM filling;
         INSERT INTO verified_emails (user_id, verified_at) SELECT id, {now} FROM filling;
         INSERT INTO password_credentials (user_id, password_hash, set_at) SELECT id, '{hash}', {now} FROM filling;
         INSERT INTO devices (user_id, device_id, first_seen_at, last_seen_at) SELECT id, session, {now}, {now} FROM filling;
         INSERT INTO sessions (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address, last_seen_at)
            SELECT session, id, {now}, {now}, {until} + n, 1, 'pwd', session, 'Firefox on Linux', '192.0.2.1', {now} FROM filling;
         INSERT INTO refresh_tokens (session_id, user_id, current_digest, previous_digest, rotated_at, expires_at)
            SELECT session, id, randomblob(32), randomblob(32), {now}, {until} + n FROM filling;"
    )
}
