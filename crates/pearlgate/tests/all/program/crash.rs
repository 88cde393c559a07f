//! `kill -9` in the middle of everything: nothing acknowledged is missing, nothing is half done. Clients write down
//! every answer they got; after each kill the server starts again at once, on the same port and data, and must know
//! all of it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foundation::kernel::Entropy;
use serde_json::json;
use tokio::task::JoinSet;

use super::api::{Api, registration};
use super::child::{Call, PATIENCE, Server, serve_on, until};
use super::smtp::SmtpServer;

/// How often the server is killed; `PEARLGATE_KILLS` says otherwise.
const KILLS: usize = 20;
const REGISTERING: usize = 6;
const REFRESHING: usize = 6;
const COMING_AND_GOING: usize = 3;

/// A session as its client knows it.
#[derive(Debug, Clone, PartialEq)]
struct Session {
    refresh: String,
    access: String,
}

/// What was acknowledged since the last kill, and what still holds from before.
#[derive(Debug, Default)]
struct Ledger {
    registered: Vec<String>,
    /// Every client's session: it has presented no newer token than this one that was answered.
    living: Vec<Session>,
    logged_out: Vec<Session>,
    refreshes: usize,
}

type Shared = Arc<Mutex<Ledger>>;

/// Registers one person after the other until the server is gone.
async fn register(api: Api, ledger: Shared, name: String) {
    for number in 0.. {
        let email = format!("{name}-{number}@example.com");
        let Some(answer) = api.try_post("/v1/auth/register", &registration(&email)).await else { return };
        assert_eq!(answer.status, 202, "{}", answer.text);
        ledger.lock().unwrap().registered.push(email);
    }
}

/// Refreshes one session again and again until the server is gone.
async fn refresh(api: Api, ledger: Shared, place: usize) {
    loop {
        let token = ledger.lock().unwrap().living[place].refresh.clone();
        let Some(answer) = api.try_post("/v1/auth/refresh", &json!({ "refresh_token": token })).await else {
            return;
        };
        assert_eq!(answer.status, 200, "an acknowledged token refreshes: {}", answer.text);
        let mut ledger = ledger.lock().unwrap();
        ledger.living[place] =
            Session { refresh: answer.str("/refresh_token"), access: answer.str("/access_token") };
        ledger.refreshes += 1;
    }
}

/// Served to a few who do more in a minute, from one address, than anybody does in an hour. What was being checked when
/// the process died stays spent, so `sign_in` and the lockout are off, too.
fn in_a_hurry(data: &Path, port: u16) -> Call {
    ["registration_network", "sign_in_network", "proof_network", "refresh", "sign_in"]
        .into_iter()
        .fold(serve_on(data, port).set("lockout.mode", "off"), |call, limit| {
            call.set(&format!("limits.{limit}.mode"), "off")
        })
}

/// Signs in and out until the server is gone. Of a sign-out without an answer nobody knows what it did.
async fn come_and_go(api: Api, ledger: Shared) {
    let credentials = json!({ "email": "regular@example.com", "password": crate::support::PASSWORD });
    loop {
        let Some(login) = api.try_post("/v1/auth/login", &credentials).await else { return };
        assert_eq!(login.status, 200, "{}", login.text);
        let session = Session { refresh: login.str("/refresh_token"), access: login.str("/access_token") };
        let Some(out) = api.try_post("/v1/auth/logout", &json!({ "refresh_token": session.refresh })).await
        else {
            return;
        };
        assert_eq!(out.status, 204, "{}", out.text);
        ledger.lock().unwrap().logged_out.push(session);
    }
}

/// Everybody at once, for a random moment; then `kill -9`.
async fn live_and_die(server: &mut Server, ledger: &Shared, round: usize) {
    let mut clients = JoinSet::new();
    for n in 0..REGISTERING {
        clients.spawn(register(server.api.clone(), ledger.clone(), format!("r{round}-c{n}")));
    }
    for place in 0..REFRESHING {
        clients.spawn(refresh(server.api.clone(), ledger.clone(), place));
    }
    for _ in 0..COMING_AND_GOING {
        clients.spawn(come_and_go(server.api.clone(), ledger.clone()));
    }
    // However slow the machine: three of four are killed in the middle of their work, and the fourth wherever it is.
    if !round.is_multiple_of(4) {
        until("it works", PATIENCE, || async {
            let ledger = ledger.lock().unwrap();
            (ledger.registered.len() >= 2 && !ledger.logged_out.is_empty()).then_some(())
        })
        .await;
    }
    // The one sleep: how long a life lasts.
    tokio::time::sleep(Duration::from_millis(100 + u64::from(Entropy::System.below(400)))).await;
    server.kill();
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

/// What was being registered when the process died is tried again when its lease is over. Nobody waits for that here.
fn as_if_leases_were_over(data: &Path) {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    file.execute("UPDATE jobs SET run_at = created_at WHERE kind = 'registration.register'", []).unwrap();
}

/// Whoever was acknowledged is stored, or is a job: until there is none left.
async fn all_is_registered(data: &Path) {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    until("all that was acknowledged is stored", PATIENCE, || async {
        let waiting = "SELECT COUNT(*) FROM jobs WHERE kind = 'registration.register'";
        let waiting: i64 = file.query_row(waiting, [], |row| row.get(0)).ok()?;
        (waiting == 0).then_some(())
    })
    .await;
}

/// The right password shows that somebody is there whose address is not proven yet.
async fn is_waiting(api: Api, email: String) {
    assert_eq!(api.login(&email).await.refusal(), "403 email_not_verified", "{email} was acknowledged");
}

/// What the ledger says, asked of the server that has just come back.
async fn remembered(api: &Api, ledger: &Shared) {
    let (registered, logged_out) = {
        let mut ledger = ledger.lock().unwrap();
        (std::mem::take(&mut ledger.registered), std::mem::take(&mut ledger.logged_out))
    };
    for some in registered.chunks(32) {
        let mut asking: JoinSet<_> =
            some.iter().cloned().map(|email| is_waiting(api.clone(), email)).collect();
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
    }
    for gone in &logged_out {
        let answers = [api.refresh(&gone.refresh).await, api.get_as("/v1/me", &gone.access).await];
        for answer in answers {
            assert_eq!(
                (answer.refusal().as_str(), answer.str("/reason").as_str()),
                ("401 session_ended", "logged_out")
            );
        }
    }
    let living = ledger.lock().unwrap().living.clone();
    for session in &living {
        assert_eq!(
            api.get_as("/v1/me", &session.access).await.status,
            200,
            "an access token outlives the process"
        );
    }
    // Each of them goes on from its last acknowledged token: see `refresh`.
    for (place, session) in living.iter().enumerate() {
        let answer = api.refresh(&session.refresh).await;
        assert_eq!(answer.status, 200, "an acknowledged token refreshes: {}", answer.text);
        let again = Session { refresh: answer.str("/refresh_token"), access: answer.str("/access_token") };
        ledger.lock().unwrap().living[place] = again;
    }
}

/// Questions to the file itself, each answered with 0 when nothing is half done.
const HALF_DONE: [(&str, &str); 8] = [
    (
        "people without an address",
        "SELECT COUNT(*) FROM users WHERE id NOT IN (SELECT user_id FROM user_emails)",
    ),
    (
        "people neither proven nor waiting for it",
        "SELECT COUNT(*) FROM users WHERE id NOT IN (SELECT user_id FROM verified_emails)
        AND id NOT IN (SELECT user_id FROM email_verification_tokens)",
    ),
    (
        "people both proven and waiting for it",
        "SELECT COUNT(*) FROM verified_emails v JOIN email_verification_tokens t USING (user_id)",
    ),
    (
        "proven people without a password",
        "SELECT COUNT(*) FROM verified_emails WHERE user_id NOT IN (SELECT user_id FROM password_credentials)",
    ),
    (
        "sessions without a refresh token",
        "SELECT COUNT(*) FROM sessions WHERE id NOT IN (SELECT session_id FROM refresh_tokens)",
    ),
    ("sessions both living and ended", "SELECT COUNT(*) FROM sessions s JOIN ended_sessions e USING (id)"),
    (
        "registrations that nobody wrote down",
        "SELECT (SELECT COUNT(*) FROM users) - (SELECT COUNT(*) FROM audit_events WHERE kind = 'registration')",
    ),
    (
        "chains that end elsewhere than their head",
        "SELECT COUNT(*) FROM audit_streams s WHERE NOT EXISTS
        (SELECT 1 FROM audit_events e WHERE e.stream = s.stream AND e.seq = s.seq AND e.hash = s.hash)
        OR s.seq <> (SELECT MAX(seq) FROM audit_events e WHERE e.stream = s.stream)",
    ),
];

fn nothing_is_half_done(file: &rusqlite::Connection) {
    let integrity: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    assert!(
        !file.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap(),
        "a foreign key leads nowhere"
    );
    for (what, question) in HALF_DONE {
        let count: i64 = file.query_row(question, [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{what}");
    }
}

/// Every open verification has its mail: delivered, or waiting in a job. (Which job is whose is sealed.)
async fn every_mail_is_sent_or_waiting(file: &rusqlite::Connection, smtp: &SmtpServer) {
    let mut dead = file.prepare("SELECT reason FROM dead_jobs").unwrap();
    let dead: Vec<String> = dead.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(dead.is_empty(), "{dead:?}");
    // A delivery leaves the table a moment after the message stood in the mail server's output; not before.
    until("every registration's mail is sent or waiting", PATIENCE, || async {
        let read = file.unchecked_transaction().unwrap();
        let jobs: u32 = read
            .query_row("SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver'", [], |row| row.get(0))
            .unwrap();
        let mut open = read
            .prepare("SELECT e.address FROM email_verification_tokens t JOIN user_emails e USING (user_id)")
            .unwrap();
        let open: Vec<String> = open.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let messages = smtp.messages();
        let sent: HashSet<&String> = messages.iter().flat_map(|message| &message.to).collect();
        (open.iter().filter(|address| !sent.contains(address)).count() <= jobs as usize).then_some(())
    })
    .await;
}

/// When the leases that the killed processes held are over, which a test does not wait for, nothing is left to send.
async fn every_mail_is_sent_in_the_end(data: &Path, smtp: &SmtpServer, kills: u32) {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    file.execute("UPDATE jobs SET run_at = 0 WHERE kind = 'mail.deliver'", []).unwrap();
    let server = SmtpServer::tell(smtp.port, in_a_hurry(data, 0)).start().await;
    let count = |sql| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let none_waits =
        || async { (count("SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver'") == 0).then_some(()) };
    // The more often it was killed, the more mail is left: hundreds of rounds leave thousands.
    until("no mail is waiting", PATIENCE * (1 + kills / 20), none_waits).await;
    every_mail_is_sent_or_waiting(&file, smtp).await;
    server.stop().await;
}

/// Registers somebody and proves the address with the code in the mail.
async fn prove(api: &Api, smtp: &SmtpServer, email: &str) -> Session {
    let verification = api.register(email).await.str("/verification_id");
    let verified = api.verify(&verification, &smtp.message_to(email, 1).await.code()).await;
    assert_eq!(verified.status, 200, "{}", verified.text);
    Session { refresh: verified.str("/refresh_token"), access: verified.str("/access_token") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let kills = std::env::var("PEARLGATE_KILLS")
        .map_or(KILLS, |kills| kills.parse().expect("PEARLGATE_KILLS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&[]).await;
    let mut server = SmtpServer::tell(smtp.port, in_a_hurry(dir.path(), 0)).start().await;
    let ledger = Shared::default();
    prove(&server.api, &smtp, "regular@example.com").await;
    for n in 0..REFRESHING {
        let session = prove(&server.api, &smtp, &format!("refreshing-{n}@example.com")).await;
        ledger.lock().unwrap().living.push(session);
    }
    let port = server.port;
    let (mut registered, mut logged_out) = (0, 0);
    for round in 0..kills {
        live_and_die(&mut server, &ledger, round).await;
        registered += ledger.lock().unwrap().registered.len();
        logged_out += ledger.lock().unwrap().logged_out.len();
        as_if_leases_were_over(dir.path());
        server = SmtpServer::tell(smtp.port, in_a_hurry(dir.path(), port)).start().await;
        all_is_registered(dir.path()).await;
        remembered(&server.api, &ledger).await;
        let file = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
        nothing_is_half_done(&file);
        every_mail_is_sent_or_waiting(&file, &smtp).await;
    }
    server.stop().await;
    every_mail_is_sent_in_the_end(dir.path(), &smtp, u32::try_from(kills).unwrap()).await;
    let refreshes = ledger.lock().unwrap().refreshes;
    println!("{kills} kills: {registered} registrations, {refreshes} refreshes, {logged_out} sign-outs");
    assert!(
        registered >= kills && refreshes >= kills && logged_out >= kills / 2,
        "the server was killed while it worked"
    );
}
