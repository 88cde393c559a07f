//! People leave: announced, taken back, done; and take with them what is stored about them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation::audit::{self, Checkpoint, Stream, Verdict};
use foundation::db::Statement;
use foundation::kernel::{Id, Secret};
use foundation::mail::Kept;
use pearlgate::access::{self, By, Change, Denied};
use pearlgate::accounts::{self, UserRow};
use pearlgate::webhooks;
use reqwest::Method;
use serde_json::{Value, json};

use super::access::{DENIED, NOT_FRESH, academy, again, call, give, operator, staff};
use super::authenticator::enrol;
use super::passkeys;
use super::steps::{Tab, by_link, ended, forgot, mails, reset, send_as, token_of};
use crate::support::browser::Browser;
use crate::support::receiver::Receiver;
use crate::support::soft_key::SoftKey;
use crate::support::{Answer, Engine, PASSWORD, Person, START, TestApp, together};
use crate::{both, both_with};

const ME: &str = "/v1/me";
const KEEP: &str = "/v1/auth/keep-account";
const DEAD: &str = "422 verification_invalid";
const CONFLICT: &str = "409 conflict";
const SUSPENDED: &str = "403 account_suspended";
const GONE: &str = "401 session_ended";
const DAY: Duration = Duration::from_secs(86_400);
/// As the settings have it.
const GRACE: Duration = Duration::from_secs(14 * 86_400);
const MOMENT: Duration = Duration::from_secs(1);

fn id(person: &Person) -> Id<UserRow> {
    person.id.parse().unwrap()
}

fn of(person: &Person, rest: &str) -> String {
    format!("/v1/admin/users/{}{rest}", person.id)
}

async fn close_own(app: &TestApp, access: &str) -> Answer {
    app.send(app.request(Method::DELETE, ME).bearer_auth(access)).await
}

async fn keep(app: &TestApp, token: &str) -> Answer {
    app.post(KEEP, json!({ "token": token })).await
}

/// Asks for the end of one's own account; the `count`th mail that tells of it.
async fn leave(app: &TestApp, person: &Person, count: usize) -> (Answer, Kept) {
    let asked = close_own(app, &person.access).await;
    assert_eq!((asked.status, asked.str("/status").as_str()), (202, "announced"), "{}", asked.text);
    let mail = app.mail(&person.email, "account_closing", count).await;
    app.quiet().await;
    assert!(mail.links.len() == 1 && mail.links[0].contains("/keep-account?token=pgz_"), "{}", mail.text);
    (asked, mail)
}

async fn there(app: &TestApp, person: &Person) -> bool {
    accounts::find(&app.app, &person.id).await.unwrap().is_some()
}

async fn until_gone(app: &TestApp, person: &Person) {
    app.until("the account is gone", || async { !there(app, person).await }).await;
    app.quiet().await;
}

async fn closings(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM closings").await
}

async fn shut_out(app: &TestApp) -> i64 {
    app.count("SELECT COUNT(*) FROM suspensions").await
}

/// How long an operator's wish takes.
fn soon(app: &TestApp) -> Duration {
    app.app.access_tokens.lifetime() * 2
}

static COLUMNS_SQLITE: Statement = Statement {
    name: "COLUMNS",
    text: "SELECT m.name, c.name, LOWER(c.type) FROM sqlite_master m, pragma_table_info(m.name) c
        WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' ORDER BY m.name, c.cid",
};
static COLUMNS_POSTGRES: Statement = Statement {
    name: "COLUMNS",
    text: "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
        WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position",
};

/// Every column there is: its table, its name, its type.
async fn columns(app: &TestApp) -> Vec<(String, String, String)> {
    let statement = if app.engine == Engine::Sqlite { &COLUMNS_SQLITE } else { &COLUMNS_POSTGRES };
    let columns: Vec<(String, String, String)> =
        app.app.db.read_one(move |tx| tx.all(statement, &[])).await.unwrap();
    assert!(columns.len() > 150, "{}", columns.len());
    columns
}

/// Where something stands, as text or as bytes, in any row of any table.
async fn places(app: &TestApp, what: &str) -> Vec<String> {
    let hex = data_encoding::HEXLOWER.encode(what.as_bytes());
    let mut found = Vec::new();
    for (table, column, kind) in columns(app).await {
        let holds = match (app.engine, kind.as_str()) {
            (Engine::Sqlite, "text" | "blob") => format!("instr(CAST(\"{column}\" AS BLOB), X'{hex}') > 0"),
            (Engine::Postgres, "text") => format!("strpos(\"{column}\", '{what}') > 0"),
            (Engine::Postgres, "bytea") => format!("position(CAST('\\x{hex}' AS BYTEA) IN \"{column}\") > 0"),
            _ => continue,
        };
        let sql = format!("SELECT COUNT(*) FROM \"{table}\" WHERE {holds}");
        if app.count(Box::leak(sql.into_boxed_str())).await > 0 {
            found.push(format!("{table}.{column}"));
        }
    }
    found
}

/// Where every chain is now.
async fn mark(app: &TestApp) -> Checkpoint {
    let mut text = String::new();
    let written = audit::checkpoint(&app.app.db, app.clock.now(), |line| {
        text.push_str(line);
        text.push('\n');
        Ok(())
    });
    written.await.unwrap();
    Checkpoint::read(text.as_bytes()).unwrap()
}

async fn whole(app: &TestApp, against: Option<Checkpoint>) {
    let checked = audit::verify_all(&app.app.db, against, |_| ()).await.unwrap();
    assert!(checked.is_whole(), "{checked:?}");
}

/// Registers an address that was registered before.
async fn anew(app: &TestApp, email: &str) -> Person {
    let verification = app.register(email).await.str("/verification_id");
    let mail = app.mail(email, "verify_email", 2).await;
    let body = json!({ "verification_id": verification, "code": mail.code });
    let verified = app.post("/v1/auth/verify-email", body).await;
    assert_eq!(verified.status, 200, "{}", verified.text);
    Person::of(&verified)
}

const EMAIL: &str = "zebulon.quux@leaving.example";
const NAME: &str = "Zebulon Quuxwright";
const CANARY: &str = "mauve-canary-77";

/// Somebody of whom everything there can be is stored.
struct Full {
    person: Person,
    key: String,
    reset: Kept,
    magic: Kept,
    recovery: String,
    /// As an app shows it: no server ever shows it again.
    seed: String,
}

async fn full(app: &TestApp) -> Full {
    let person = app.person(EMAIL).await;
    let profile = json!({ "display_name": NAME, "locale": "de-CH", "metadata": { "note": CANARY } });
    assert_eq!(send_as(app, Method::PATCH, ME, &person.access, profile).await.status, 200);
    Browser::new(app).link_pretend(&person.access).await;
    let factor = enrol(app, &person).await;
    give(app, &person, "admin", "").await;
    give(app, &person, "instructor", "course/42").await;
    let mut key = SoftKey::p256();
    let strong = again(app, EMAIL, &factor).await;
    passkeys::add(app, &strong.access, &mut key).await;
    let made = json!({ "name": "reports", "permissions": ["users:read"] });
    let made = call(app, Method::POST, "/v1/admin/api-keys", &strong.access, &made).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(app.login(EMAIL, "not the password at all").await.status, 401);
    let reset = forgot(app, EMAIL, 1).await;
    assert_eq!(app.post("/v1/auth/magic-link", json!({ "email": EMAIL })).await.status, 202);
    let magic = app.mail(EMAIL, "magic_link", 1).await;
    app.quiet().await;
    let (recovery, seed) = (factor.recovery[0].clone(), factor.secret.clone());
    Full { person: again(app, EMAIL, &factor).await, key: made.str("/key"), reset, magic, recovery, seed }
}

both! {
    async fn an_account_is_announced_and_then_nothing_is_left_of_it(app: &TestApp) {
        academy(app).await;
        let receiver = Receiver::start().await;
        webhooks::add(&app.app, &receiver.url, "*", "").await.unwrap();
        let (_, factor) = staff(app, "owner@example.com", "owner").await;
        let Full { person, key, reset: reset_mail, magic, .. } = full(app).await;
        let owner = again(app, "owner@example.com", &factor).await;
        for what in [EMAIL, NAME, CANARY] {
            assert!(!places(app, what).await.is_empty(), "the trap: {what} is stored");
        }

        let (asked, mail) = leave(app, &person, 1).await;
        assert_eq!(asked.str("/due_at"), (app.clock.now() + GRACE).to_string());
        assert!(mail.text.contains(&asked.str("/due_at")) && mail.text.contains("signed in to your account"), "{}", mail.text);
        assert_eq!(ended(app, &person.access).await, "closed");
        assert_eq!(app.refresh(&person.refresh).await.refusal(), GONE);
        assert_eq!(app.get_as("/v1/admin/users", &key).await.refusal(), "401 token_invalid");
        assert_eq!(app.login(EMAIL, PASSWORD).await.refusal(), SUSPENDED);
        assert_eq!(app.login(EMAIL, "not the password at all").await.refusal(), "401 invalid_credentials");
        assert_eq!(reset(app, by_link(&reset_mail, "seven slow rivers hum")).await.refusal(), "422 reset_token_invalid");
        let by_mail = json!({ "token": token_of(&magic.links[0]) });
        assert_eq!(app.post("/v1/auth/magic-link/consume", by_mail).await.refusal(), DEAD);
        let shown = app.get_as(&of(&person, ""), &owner.access).await;
        assert_eq!(shown.json["suspension"]["reason"], "to be deleted", "{}", shown.text);
        assert_eq!(shown.json["deletion"]["due_at"], asked.json["due_at"], "{}", shown.text);
        let unsuspended = call(app, Method::POST, &of(&person, "/unsuspend"), &owner.access, &json!({})).await;
        assert_eq!(unsuspended.refusal(), CONFLICT);
        app.register(EMAIL).await;
        app.mail(EMAIL, "already_registered", 1).await;

        app.quiet().await;
        let before = mark(app).await;
        app.clock.advance(GRACE - MOMENT);
        app.quiet().await;
        assert!(there(app, &person).await, "not a moment early");
        whole(app, Some(before.clone())).await;
        app.clock.advance(MOMENT);
        until_gone(app, &person).await;

        let owner = again(app, "owner@example.com", &factor).await;
        assert_eq!(app.get_as(&of(&person, ""), &owner.access).await.status, 404);
        for (method, rest) in [(Method::POST, "/restore"), (Method::DELETE, "")] {
            assert_eq!(call(app, method, &of(&person, rest), &owner.access, &json!({})).await.status, 404, "{rest}");
        }
        for what in [EMAIL, NAME, CANARY] {
            assert_eq!(places(app, what).await, Vec::<String>::new(), "{what}");
        }
        assert_eq!((closings(app).await, shut_out(app).await), (0, 0));

        // The trail is whole, and one event says what happened.
        whole(app, Some(before)).await;
        assert_eq!(audit::verify(&app.app.db, &Stream::named(&person.id)).await.unwrap(), Verdict::Whole);
        let left = audit::list(&app.app.db, &Stream::named(&person.id), i64::MAX, 10).await.unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        let event = (left[0].kind.as_str(), left[0].actor.as_str(), left[0].address.as_str(), left[0].details.as_str());
        assert_eq!(event, ("user_deleted", person.id.as_str(), "", "{}"));

        // Applications are told once, and of nobody by name.
        app.until("they are told", || async { receiver.kinds().contains(&"user.deleted".to_owned()) }).await;
        app.quiet().await;
        let told: Vec<_> = receiver.taken().into_iter().filter(|one| one.kind() == "user.deleted").collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].body["data"], json!({ "user": { "id": person.id } }));
        let of_them: Vec<String> =
            receiver.taken().iter().filter(|one| one.user() == person.id).map(|one| one.kind().to_owned()).collect();
        assert_eq!(of_them.last().map(String::as_str), Some("user.deleted"), "{of_them:?}");
        assert_eq!(app.count("SELECT COUNT(*) FROM webhook_events WHERE type <> 'user.deleted' AND data LIKE '%closed%'").await, 0);

        // Nothing of before opens anything.
        assert_eq!(app.get_as(ME, &person.access).await.status, 401);
        assert_eq!(app.refresh(&person.refresh).await.refusal(), GONE);
        assert_eq!(app.get_as("/v1/admin/users", &key).await.refusal(), "401 token_invalid");
        assert_eq!(keep(app, &token_of(&mail.links[0])).await.refusal(), DEAD);
        assert_eq!(reset(app, by_link(&reset_mail, "seven slow rivers hum")).await.refusal(), "422 reset_token_invalid");
        assert_eq!(app.login(EMAIL, PASSWORD).await.refusal(), "401 invalid_credentials");

        // Whoever comes with the address is somebody else.
        let newcomer = anew(app, EMAIL).await;
        assert_ne!(newcomer.id, person.id);
        let me = app.get_as(ME, &newcomer.access).await;
        assert_eq!((&me.json["roles"], &me.json["mfa_enabled"], &me.json["metadata"]), (&json!(["student"]), &json!(false), &json!({})));
        let sessions = app.get_as("/v1/me/sessions", &newcomer.access).await;
        assert_eq!(sessions.json["items"].as_array().unwrap().len(), 1);
        for (path, list) in [("/v1/me/identities", "items"), ("/v1/me/passkeys", "items")] {
            assert_eq!(app.get_as(path, &newcomer.access).await.json[list], json!([]), "{path}");
        }
        let history = app.get_as("/v1/me/activity", &newcomer.access).await;
        assert!(!history.text.contains("closing_asked") && !history.text.contains(&person.session), "{}", history.text);
        assert_eq!(app.get_as(ME, &person.access).await.status, 401);
        assert_eq!(app.refresh(&person.refresh).await.refusal(), GONE);
    }
}

both! {
    async fn the_owner_keeps_it_by_the_mails_link(app: &TestApp) {
        academy(app).await;
        let ada = app.person("ada@example.com").await;
        give(app, &ada, "instructor", "").await;
        for (n, by_page) in [false, true].into_iter().enumerate() {
            let ada = Person::of(&app.login(&ada.email, PASSWORD).await);
            let (_, mail) = leave(app, &ada, n + 1).await;
            let token = token_of(&mail.links[0]);
            if by_page {
                let (tab, page) = Tab::open(app, &mail.links[0]).await;
                assert!(page.text.contains("<form") && page.text.contains(&ada.email), "{}", page.text);
                assert_eq!(closings(app).await, 1, "looking keeps nothing");
                let pressed = tab.press(app).await;
                assert!(pressed.status == 200 && pressed.text.contains("Your account stays"), "{}", pressed.text);
            } else {
                let kept = keep(app, &token).await;
                assert_eq!((kept.status, kept.text.as_str()), (204, ""));
            }
            assert_eq!((closings(app).await, shut_out(app).await), (0, 0));
            assert_eq!(keep(app, &token).await.refusal(), DEAD, "once");
            let (tab, page) = Tab::open(app, &mail.links[0]).await;
            assert!(page.text.contains("does not work any more"), "{}", page.text);
            assert_eq!(tab.press(app).await.status, 422);
            app.mail(&ada.email, "account_kept", n + 1).await;
            assert_eq!(app.get_as(ME, &ada.access).await.refusal(), GONE, "it signs nobody in");
        }
        let back = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(app.get_as(ME, &back.access).await.json["roles"], json!(["instructor", "student"]));
        let history = app.get_as("/v1/me/activity", &back.access).await.text;
        for kind in ["closing_asked", "closing_taken_back"] {
            assert_eq!(history.matches(&format!("\"{kind}\"")).count(), 2, "{kind}: {history}");
        }
        app.quiet().await;
        app.clock.advance(GRACE + DAY);
        app.quiet().await;
        assert!(there(app, &ada).await, "its time came, and it was taken back");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        for nonsense in ["", "pgz_", "nonsense", ada.refresh.as_str(), Secret::encode("pgz_", &[7; 32]).reveal()] {
            assert_eq!(keep(app, nonsense).await.refusal(), DEAD, "{nonsense}");
        }
    }
}

both! {
    async fn of_any_number_of_keeps_one_wins_and_none_when_its_time_has_come(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let (_, mail) = leave(app, &ada, 1).await;
        let token = token_of(&mail.links[0]);
        let answers = together((0..20).map(|_| keep(app, &token)).collect()).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 204).count(), 1);
        assert!(answers.iter().all(|answer| answer.status == 204 || answer.refusal() == DEAD));
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "account_kept"), 1);

        let ada = Person::of(&app.login(&ada.email, PASSWORD).await);
        let (_, mail) = leave(app, &ada, 2).await;
        let token = token_of(&mail.links[0]);
        app.clock.advance(GRACE);
        let answers = together((0..20).map(|_| keep(app, &token)).collect()).await;
        assert!(answers.iter().all(|answer| answer.refusal() == DEAD));
        until_gone(app, &ada).await;

        // Operators may as long as it is there: either they were first, and nothing is gone, or the end was.
        for n in 0..6 {
            let eve = app.person(&format!("eve{n}@example.com")).await;
            accounts::close(&app.app, id(&eve)).await.unwrap().unwrap();
            app.quiet().await;
            let restored = (0..4).map(|_| async { accounts::restore(&app.app, id(&eve)).await.unwrap().is_ok() });
            app.clock.advance(soon(app));
            let won = together(restored.collect()).await.into_iter().filter(|won| *won).count();
            app.quiet().await;
            assert!(won <= 1, "{won}");
            assert_eq!(there(app, &eve).await, won == 1, "{won}");
            assert_eq!((closings(app).await, shut_out(app).await), (0, 0));
        }
    }
}

both! {
    async fn who_asks_twice_at_once_is_told_once(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let answers = together((0..10).map(|_| close_own(app, &ada.access)).collect()).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 1);
        assert!(answers.iter().all(|answer| answer.status == 202 || answer.refusal() == GONE));
        app.quiet().await;
        assert_eq!((mails(app, &ada.email, "account_closing"), closings(app).await), (1, 1));
        app.sql("DELETE FROM suspensions").await;
        assert_eq!(close_own(app, &ada.access).await.refusal(), GONE);
    }
}

both! {
    async fn only_who_has_just_proven_who_they_are_leaves(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let odd = send_as(app, Method::DELETE, ME, &ada.access, json!({ "sure": true })).await;
        assert_eq!(odd.refusal(), "422 validation_failed");
        app.clock.advance(Duration::from_secs(601));
        let stale = Person::of(&app.refresh(&ada.refresh).await);
        assert_eq!(close_own(app, &stale.access).await.refusal(), NOT_FRESH);
        assert_eq!(app.get_as("/v1/me/export", &stale.access).await.refusal(), NOT_FRESH);
        let proof = json!({ "password": PASSWORD });
        let proven = Person::of(&send_as(app, Method::POST, "/v1/me/reauthenticate", &stale.access, proof).await);
        assert_eq!(app.get_as("/v1/me/export", &proven.access).await.status, 200);
        leave(app, &proven, 1).await;
    }
}

both! {
    async fn the_last_owner_stays(app: &TestApp) {
        let (boss, factor) = staff(app, "boss@example.com", "owner").await;
        assert_eq!(close_own(app, &boss.access).await.refusal(), CONFLICT);
        assert_eq!(call(app, Method::DELETE, &of(&boss, ""), &boss.access, &json!({})).await.refusal(), CONFLICT, "not so");
        assert_eq!(accounts::close(&app.app, id(&boss)).await.unwrap(), Err(Denied::LastOwner));
        assert_eq!(accounts::suspend(&app.app, id(&boss), "x").await.unwrap(), Err(Denied::LastOwner));
        assert_eq!((closings(app).await, shut_out(app).await), (0, 0));

        // Of two who leave at the same time one does.
        let other = operator(app, "other@example.com", "owner").await;
        let boss = again(app, &boss.email, &factor).await;
        let (one, two) = tokio::join!(close_own(app, &boss.access), close_own(app, &other.access));
        let mut both = [one.refusal(), two.refusal()];
        both.sort();
        assert_eq!((both[0].as_str(), both[1].as_str()), ("202 -", CONFLICT));
        let (leaves, stays) = if one.status == 202 { (&boss, &other) } else { (&other, &boss) };
        app.quiet().await;

        // Whoever is the last one by then waits until there is another.
        app.sql(&format!(
            "INSERT INTO suspensions (user_id, reason, suspended_at) SELECT user_id, 'test', 1 FROM user_emails WHERE address_key = '{}'",
            stays.email
        ))
        .await;
        app.clock.advance(GRACE);
        app.quiet().await;
        assert!(there(app, leaves).await && closings(app).await == 1);
        app.sql("DELETE FROM suspensions WHERE reason = 'test'").await;
        app.clock.advance(DAY);
        until_gone(app, leaves).await;
        assert!(there(app, stays).await);
        assert_eq!(app.count("SELECT COUNT(*) FROM user_roles WHERE role = 'owner'").await, 1);
    }
}

both! {
    async fn operators_have_accounts_deleted_and_keep_them(app: &TestApp) {
        academy(app).await;
        let (boss, factor) = staff(app, "boss@example.com", "admin").await;
        let peer = operator(app, "peer@example.com", "admin").await;
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::POST, &of(&ada, "/restore"), &boss.access, &json!({})).await.refusal(), CONFLICT);
        for method in [Method::DELETE, Method::POST] {
            let rest = if method == Method::POST { "/restore" } else { "" };
            assert_eq!(call(app, method.clone(), &of(&peer, rest), &boss.access, &json!({})).await.refusal(), DENIED, "{method}");
            assert_eq!(call(app, method.clone(), &of(&boss, rest), &ada.access, &json!({})).await.refusal(), DENIED, "{method}");
        }
        let asked = call(app, Method::DELETE, &of(&ada, ""), &boss.access, &json!({})).await;
        assert_eq!((asked.status, asked.str("/due_at")), (202, (app.clock.now() + soon(app)).to_string()), "{}", asked.text);
        assert_eq!(ended(app, &ada.access).await, "closed");
        let mail = app.mail(&ada.email, "account_closing", 1).await;
        assert!(mail.text.contains("whoever runs") && mail.links.len() == 1, "{}", mail.text);
        let feed = app.get("/v1/revocations").await;
        assert!(feed.text.contains(&ada.session) && feed.text.contains("\"closed\""), "{}", feed.text);
        app.quiet().await;
        app.clock.advance(MOMENT);
        let again_asked = call(app, Method::DELETE, &of(&ada, ""), &boss.access, &json!({})).await;
        assert_eq!((again_asked.status, again_asked.str("/due_at")), (202, asked.str("/due_at")), "the same moment");
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "account_closing"), 1);
        assert_eq!(call(app, Method::POST, &of(&ada, "/restore"), &boss.access, &json!({})).await.status, 204);
        app.mail(&ada.email, "account_kept", 1).await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        let by = format!("SELECT COUNT(*) FROM audit_events WHERE kind IN ('closing_asked', 'closing_taken_back') AND actor = '{}'", boss.id);
        assert_eq!(app.count(Box::leak(by.into_boxed_str())).await, 2);

        // Needs a fresh session, and the owner's link works here as well.
        app.quiet().await;
        app.clock.advance(Duration::from_secs(601));
        let stale = Person::of(&app.refresh(&boss.refresh).await);
        assert_eq!(call(app, Method::DELETE, &of(&ada, ""), &stale.access, &json!({})).await.refusal(), NOT_FRESH);
        let boss = again(app, &boss.email, &factor).await;
        assert_eq!(call(app, Method::DELETE, &of(&ada, ""), &boss.access, &json!({})).await.status, 202);
        let mail = app.mail(&ada.email, "account_closing", 2).await;
        assert_eq!(keep(app, &token_of(&mail.links[0])).await.status, 204);
        app.quiet().await;

        let boss = again(app, &boss.email, &factor).await;
        assert_eq!(call(app, Method::DELETE, &of(&ada, ""), &boss.access, &json!({})).await.status, 202);
        app.quiet().await;
        app.clock.advance(soon(app));
        until_gone(app, &ada).await;
        let left = audit::list(&app.app.db, &Stream::named(&ada.id), i64::MAX, 10).await.unwrap();
        assert_eq!((left.len(), left[0].actor.as_str()), (1, boss.id.as_str()));
    }
}

both! {
    async fn whoever_was_suspended_stays_so(app: &TestApp) {
        let hour = Duration::from_secs(3_600);
        let by = By::console();
        let until = |app: &TestApp, after: Duration| accounts::Suspension {
            reason: "a complaint".into(),
            until: Some(app.clock.now() + after),
        };
        let suspend = async |person: &Person, suspension: accounts::Suspension| {
            let (inner, user) = (app.app.clone(), id(person));
            app.app.db.write(move |tx| accounts::suspend_in(tx, &inner, &by, user, &suspension)).await.unwrap();
        };
        // Before, and without an end.
        let ada = app.person("ada@example.com").await;
        accounts::suspend(&app.app, id(&ada), "spam").await.unwrap().unwrap();
        accounts::close(&app.app, id(&ada)).await.unwrap().unwrap();
        assert!(accounts::unsuspend(&app.app, id(&ada)).await.unwrap().is_err());
        accounts::restore(&app.app, id(&ada)).await.unwrap().unwrap();
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), SUSPENDED);
        assert_eq!(accounts::unsuspend(&app.app, id(&ada)).await.unwrap(), Ok(true));
        // While it was to be deleted.
        accounts::close(&app.app, id(&ada)).await.unwrap().unwrap();
        accounts::suspend(&app.app, id(&ada), "spam").await.unwrap().unwrap();
        let mail = app.mail(&ada.email, "account_closing", 2).await;
        assert_eq!(keep(app, &token_of(&mail.links[0])).await.status, 204);
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), SUSPENDED);
        // With an end that comes while it is to be deleted: nobody comes back by that, but by keeping it.
        let eve = app.person("eve@example.com").await;
        suspend(&eve, until(app, hour / 6)).await;
        let (inner, user) = (app.app.clone(), id(&eve));
        app.app.db.write(move |tx| accounts::close_in(tx, &inner, &by, user)).await.unwrap().unwrap();
        app.sql(&format!("UPDATE closings SET due_at = due_at + {}", hour.as_micros())).await;
        app.clock.advance(hour / 6);
        app.until("its end is over", || async {
            app.count("SELECT COUNT(*) FROM jobs WHERE kind = 'accounts.lift_suspension'").await == 0
        })
        .await;
        assert_eq!(app.login(&eve.email, PASSWORD).await.refusal(), SUSPENDED);
        accounts::restore(&app.app, id(&eve)).await.unwrap().unwrap();
        assert_eq!(app.login(&eve.email, PASSWORD).await.status, 200);
    }
}

both_with! { true, "[closing]\ngrace = \"1h\"";
    async fn a_thief_does_not_delete_what_its_owner_can_have_back(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let thief = Person::of(&app.login(&ada.email, PASSWORD).await);
        let moved = json!({ "email": "mallory@example.net" });
        assert_eq!(send_as(app, Method::POST, "/v1/me/email", &thief.access, moved).await.status, 202);
        let code = app.mail("mallory@example.net", "email_change", 1).await.code;
        let confirmed = send_as(app, Method::POST, "/v1/me/email/confirm", &thief.access, json!({ "code": code })).await;
        assert_eq!(confirmed.status, 200, "{}", confirmed.text);
        let notice = app.mail(&ada.email, "email_changed", 1).await;
        let asked = close_own(app, &thief.access).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        // Not after an hour: the owner was told that they have a week.
        assert_eq!(asked.str("/due_at"), (app.clock.now() + 7 * DAY).to_string());
        app.mail("mallory@example.net", "account_closing", 1).await;
        app.quiet().await;
        app.clock.advance(6 * DAY);
        app.quiet().await;
        let (tab, page) = Tab::open(app, &notice.links[0]).await;
        assert!(page.text.contains("<form"), "{}", page.text);
        assert_eq!(tab.press(app).await.status, 200);
        assert_eq!((closings(app).await, shut_out(app).await), (0, 0));
        let back = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&back, "seven slow rivers hum")).await.status, 200);
        let me = Person::of(&app.login(&ada.email, "seven slow rivers hum").await);
        assert_eq!(me.id, ada.id);
        app.quiet().await;
        app.clock.advance(3 * DAY);
        app.quiet().await;
        assert!(there(app, &ada).await);
    }
}

both! {
    async fn that_was_not_me_does_not_undo_what_an_operator_decided(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let moved = json!({ "email": "ada@example.net" });
        assert_eq!(send_as(app, Method::POST, "/v1/me/email", &ada.access, moved).await.status, 202);
        let code = app.mail("ada@example.net", "email_change", 1).await.code;
        assert_eq!(send_as(app, Method::POST, "/v1/me/email/confirm", &ada.access, json!({ "code": code })).await.status, 200);
        let notice = app.mail(&ada.email, "email_changed", 1).await;
        accounts::close(&app.app, id(&ada)).await.unwrap().unwrap();
        let (tab, _) = Tab::open(app, &notice.links[0]).await;
        assert_eq!(tab.press(app).await.status, 200);
        assert_eq!((closings(app).await, shut_out(app).await), (1, 1));
        app.quiet().await;
        app.clock.advance(soon(app));
        until_gone(app, &ada).await;
        assert_eq!(places(app, &ada.email).await, Vec::<String>::new());
    }
}

both! {
    async fn mails_that_nobody_took_name_nobody_any_more(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let bob = app.person("da@example.com").await;
        app.quiet().await;
        // Given up, with what a server said of the address.
        let (one, other) = ("mail_0193aaaaaaaa7aaa8aaaaaaaaaaaaaaa", "mail_0193bbbbbbbb7bbb8bbbbbbbbbbbbbbb");
        for (n, mail, person) in [(1, one, &ada), (2, other, &bob)] {
            let hex = |id: &str| match app.engine {
                Engine::Sqlite => format!("X'{}'", &id[5..]),
                Engine::Postgres => format!("CAST('\\x{}' AS BYTEA)", &id[5..]),
            };
            app.sql(&format!(
                "INSERT INTO mail_deliveries (id, kind, recipient, state, provider, reference, detail, created_at, changed_at)
                    VALUES ({0}, 'x', '{1}', 'bounced', '', '', 'no such mailbox: {1}', {2}, {2});
                INSERT INTO dead_jobs (id, kind, unique_key, payload, attempts, created_at, died_at, reason, history, lane, deadline_at)
                    VALUES ({0}, 'mail.deliver', '{n}', '{{\"id\":\"{mail}\",\"sealed\":\"\"}}', 1, 1, 1, 'no such mailbox: {1}', '[]', 'mail', 1)",
                hex(mail), person.email, START.micros()
            ))
            .await;
        }
        accounts::close(&app.app, id(&bob)).await.unwrap().unwrap();
        app.quiet().await;
        app.clock.advance(soon(app));
        until_gone(app, &bob).await;
        let left = "SELECT COUNT(*) FROM dead_jobs WHERE reason LIKE '%: ada@example.com'";
        assert_eq!((app.count(left).await, app.count("SELECT COUNT(*) FROM dead_jobs").await), (1, 1), "somebody else's stays");
        assert_eq!(app.count("SELECT COUNT(*) FROM mail_deliveries WHERE recipient = 'da@example.com'").await, 0);
        app.sql("DELETE FROM dead_jobs").await;
    }
}

/// Which section of an export each table is in that holds something about a person.
const EXPORTED: [(&str, &str); 26] = [
    ("users", "profile"),
    ("user_emails", "address"),
    ("verified_emails", "address"),
    ("email_change_tokens", "address"),
    ("password_credentials", "password"),
    ("password_change_demands", "password"),
    ("totp_factors", "second_factors"),
    ("recovery_codes", "second_factors"),
    ("email_code_factors", "second_factors"),
    ("enrolment_graces", "second_factors"),
    ("factor_resets", "second_factors"),
    ("passkeys", "passkeys"),
    ("federated_identities", "identities"),
    ("sessions", "sessions"),
    ("ended_sessions", "ended_sessions"),
    ("devices", "devices"),
    ("trusted_devices", "devices"),
    ("user_roles", "roles"),
    ("api_keys", "api_keys"),
    ("imported_users", "import"),
    ("not_me_tokens", "notices"),
    ("new_device_notices", "notices"),
    ("factor_failures", "wrong"),
    ("code_failures", "wrong"),
    // Under another name, but theirs.
    ("password_guesses", "wrong"),
    ("sign_in_attempts", "sign_in_attempts"),
];
/// Why each of the others is in none.
const LEFT_OUT: [(&str, &str); 23] = [
    ("refresh_tokens", "digests of tokens; the session is there"),
    ("suspensions", "whoever is shut out does not get in to ask"),
    ("closings", "whoever is shut out does not get in to ask"),
    ("email_verification_tokens", "digests, and a password's hash that waits for a proof"),
    ("pending_identities", "waits for the same proof"),
    ("password_reset_tokens", "digests of what was mailed minutes ago"),
    ("magic_link_tokens", "digests of what was mailed minutes ago"),
    ("unlock_tokens", "a digest of what was mailed"),
    ("email_codes", "a digest of what was mailed minutes ago"),
    ("totp_enrolments", "a seed that waits for its first code"),
    ("half_logins", "digests of tokens of minutes"),
    ("link_tickets", "digests of tokens of minutes"),
    ("oauth_links", "digests of tokens of minutes"),
    ("pending_breach_checks", "says how the server works, and nothing of the person"),
    ("foreign_hashes", "says how the hash was made"),
    ("webhook_streams", "numbers of copies of the history"),
    ("webhook_events", "copies of the history"),
    ("webhook_positions", "how far applications have heard of it"),
    ("bulk_targets", "what operators do; what came of it is in the history"),
    ("impersonations", "an operator's session, which is there"),
    ("access_changes", "that roles changed, for minutes"),
    ("mailboxes", "counts, under a key that names nobody"),
    ("mails_asked", "counts, under a key that names nobody"),
];

both! {
    async fn what_is_stored_about_a_person_is_exported_or_it_is_said_why_not(app: &TestApp) {
        let by_person: BTreeSet<String> = columns(app)
            .await
            .into_iter()
            .filter(|(_, column, _)| ["user_id", "created_by", "operator_id", "recipient", "subject"].contains(&column.as_str()))
            .map(|(table, ..)| table)
            .collect();
        let sections: BTreeMap<&str, &str> = EXPORTED.into_iter().collect();
        let excused: BTreeMap<&str, &str> = LEFT_OUT.into_iter().collect();
        // Told by address, or by something that is no person.
        let others = ["mail_deliveries", "mail_suppressions", "mail_windows"];
        for table in &by_person {
            let table = table.as_str();
            let known = sections.contains_key(table) || excused.contains_key(table) || others.contains(&table);
            assert!(known, "{table}: is it in the export, or why not?");
        }
        let known: BTreeSet<String> = columns(app).await.into_iter().map(|(table, ..)| table).collect();
        for table in sections.keys().chain(excused.keys()) {
            assert!(known.contains(*table), "{table} is not there any more");
        }
        assert!(sections.keys().all(|table| !excused.contains_key(table)));
        let ada = app.person("ada@example.com").await;
        let export = app.get_as("/v1/me/export", &ada.access).await;
        let there = ["profile", "address", "password", "second_factors", "wrong", "mails", "activity"];
        let lists = ["passkeys", "identities", "sessions", "ended_sessions", "devices", "roles", "api_keys", "notices", "sign_in_attempts"];
        for section in there.iter().chain(&lists) {
            assert!(export.json.get(section).is_some(), "{section}: {}", export.text);
        }
        for section in sections.values() {
            assert!(there.contains(section) || lists.contains(section) || *section == "import", "{section}");
        }
    }
}

both! {
    async fn an_export_holds_everything_and_no_secret(app: &TestApp) {
        academy(app).await;
        let Full { person, key, recovery, seed, reset, magic } = full(app).await;
        let device = app.login(EMAIL, PASSWORD).await;
        assert_eq!(device.json["status"], "mfa_required");
        app.sql("INSERT INTO imported_users (user_id, source, imported_at) SELECT user_id, 'django', 1 FROM user_emails").await;
        app.until("attempts are written down", || async { app.count("SELECT COUNT(*) FROM sign_in_attempts").await >= 3 }).await;
        let export = app.get_as("/v1/me/export", &person.access).await;
        assert_eq!(export.status, 200, "{}", export.text);
        assert_eq!(export.header("content-disposition"), "attachment; filename=\"account.json\"");
        assert_eq!(export.header("cache-control"), "no-store");
        let all = &export.json;
        assert_eq!((&all["profile"]["display_name"], &all["profile"]["metadata"]["note"]), (&json!(NAME), &json!(CANARY)));
        assert_eq!((&all["address"]["email"], &all["profile"]["locale"]), (&json!(EMAIL), &json!("de-CH")));
        for given in ["/address/verified_at", "/password/set_at", "/second_factors/totp_since", "/import/source", "/made_at"] {
            assert!(all.pointer(given).is_some_and(Value::is_string), "{given}: {}", export.text);
        }
        for list in ["passkeys", "identities", "sessions", "devices", "roles", "api_keys", "mails", "sign_in_attempts", "activity", "notices"] {
            assert!(!all[list].as_array().unwrap().is_empty(), "{list}: {}", export.text);
        }
        assert_eq!(all["second_factors"]["recovery_codes"], 10);
        assert_eq!(all["api_keys"][0]["permissions"], json!(["users:read"]));
        let roles: Vec<_> = all["roles"].as_array().unwrap().iter().map(|one| (one["role"].clone(), one["resource"].clone())).collect();
        assert!(roles.contains(&(json!("instructor"), json!("course/42"))), "{roles:?}");
        assert!(all["mails"].as_array().unwrap().iter().any(|mail| mail["kind"] == "password_reset" && mail["state"] == "sent"));
        // All of the history, of what others did without from where and why.
        let events = format!("SELECT COUNT(*) FROM audit_events WHERE stream = '{}'", person.id);
        let events = app.count(Box::leak(events.into_boxed_str())).await;
        // And then it stands there that all of it was taken along.
        assert_eq!(i64::try_from(all["activity"].as_array().unwrap().len()).unwrap(), events - 1);
        assert_eq!(app.count("SELECT COUNT(*) FROM audit_events WHERE kind = 'exported'").await, 1);
        let given = all["activity"].as_array().unwrap().iter().find(|one| one["kind"] == "role_granted").unwrap();
        assert_eq!(given["address"], "");

        for secret in [&key, &recovery, &seed, &person.refresh, &token_of(&reset.links[0]), &token_of(&magic.links[0])] {
            assert!(!export.text.contains(secret.as_str()), "{secret}");
        }
        for word in ["$argon2", "digest", "sealed", "public_key", "password_hash", PASSWORD] {
            assert!(!export.text.contains(word), "{word}: {}", export.text);
        }
        let (_, other) = (app.person("eve@example.com").await, app.get_as("/v1/me/export", &person.access).await);
        assert!(!other.text.contains("eve@example.com"));
    }
}

both! {
    async fn roles_that_somebody_gave_outlive_them(app: &TestApp) {
        academy(app).await;
        let boss = operator(app, "boss@example.com", "owner").await;
        let other = operator(app, "other@example.com", "owner").await;
        let ada = app.person("ada@example.com").await;
        let change = json!({ "roles": [{ "role": "instructor" }] });
        assert_eq!(call(app, Method::PUT, &of(&ada, "/roles"), &boss.access, &change).await.status, 200);
        let take = Change::Take(("owner".into(), String::new()));
        access::change(&app.app, By::console(), id(&boss), take).await.unwrap().unwrap();
        let asked = call(app, Method::DELETE, &of(&boss, ""), &other.access, &json!({})).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        app.quiet().await;
        app.clock.advance(soon(app));
        until_gone(app, &boss).await;
        let me = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(app.get_as(ME, &me.access).await.json["roles"], json!(["instructor"]));
        assert_eq!(places(app, "boss@example.com").await, Vec::<String>::new());
        whole(app, None).await;
    }
}

both! {
    async fn an_owner_has_the_time_to_take_it_back_that_everybody_has(app: &TestApp) {
        let (boss, _) = staff(app, "boss@example.com", "owner").await;
        operator(app, "other@example.com", "owner").await;
        // As an operator one could have it done in minutes; not to oneself, and with no key of one's own.
        assert_eq!(call(app, Method::DELETE, &of(&boss, ""), &boss.access, &json!({})).await.refusal(), CONFLICT);
        let key = json!({ "name": "k", "permissions": ["users:write"] });
        let key = call(app, Method::POST, "/v1/admin/api-keys", &boss.access, &key).await.str("/key");
        assert_eq!(call(app, Method::DELETE, &of(&boss, ""), &key, &json!({})).await.refusal(), DENIED);
        assert_eq!(closings(app).await, 0);
        let (asked, _) = leave(app, &boss, 1).await;
        assert_eq!(asked.str("/due_at"), (app.clock.now() + GRACE).to_string());
    }
}

both! {
    async fn what_an_operator_asked_for_is_not_done_when_they_may_not_any_more(app: &TestApp) {
        academy(app).await;
        let (boss, factor) = staff(app, "boss@example.com", "owner").await;
        let thief = operator(app, "admin@example.com", "admin").await;
        let ada = app.person("ada@example.com").await;
        assert_eq!(call(app, Method::DELETE, &of(&ada, ""), &thief.access, &json!({})).await.status, 202);
        app.mail(&ada.email, "account_closing", 1).await;
        let suspend = json!({ "reason": "their session was stolen" });
        assert_eq!(call(app, Method::POST, &of(&thief, "/suspend"), &boss.access, &suspend).await.status, 204);
        app.quiet().await;
        app.clock.advance(soon(app));
        app.quiet().await;
        assert!(there(app, &ada).await && closings(app).await == 0, "nothing is done, also not later");
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), SUSPENDED);
        // Somebody looks at it.
        let boss = again(app, &boss.email, &factor).await;
        assert_eq!(call(app, Method::POST, &of(&thief, "/unsuspend"), &boss.access, &json!({})).await.status, 204);
        app.clock.advance(DAY);
        app.quiet().await;
        assert!(there(app, &ada).await, "nor when whoever asked is let in again");
        let boss = again(app, &boss.email, &factor).await;
        assert_eq!(call(app, Method::POST, &of(&ada, "/unsuspend"), &boss.access, &json!({})).await.status, 204);
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
    }
}

both! {
    async fn whoever_erases_somebody_does_not_erase_what_they_did_to_them(app: &TestApp) {
        academy(app).await;
        let (boss, _) = staff(app, "boss@example.com", "owner").await;
        let puppet = json!({ "email": "puppet@example.com", "email_verified": true });
        let made = call(app, Method::POST, "/v1/admin/users", &boss.access, &puppet).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let path = format!("/v1/admin/users/{}", made.str("/id"));
        let roles = json!({ "roles": [{ "role": "student" }, { "role": "moderator" }] });
        assert_eq!(call(app, Method::PUT, &format!("{path}/roles"), &boss.access, &roles).await.status, 200);
        let be = json!({ "reason": "x" });
        assert_eq!(call(app, Method::POST, &format!("{path}/impersonate"), &boss.access, &be).await.status, 200);
        assert_eq!(call(app, Method::DELETE, &path, &boss.access, &json!({})).await.status, 202);
        app.quiet().await;
        app.clock.advance(soon(app));
        app.until("they are gone", || async {
            app.count("SELECT COUNT(*) FROM user_emails WHERE address_key = 'puppet@example.com'").await == 0
        })
        .await;
        let server = audit::list(&app.app.db, &Stream::server(), i64::MAX, 100).await.unwrap();
        let acts: Vec<Value> = server.iter().filter(|event| event.kind == "acted" && event.actor == boss.id)
            .map(|event| serde_json::from_str(&event.details).unwrap())
            .filter(|details: &Value| details["on"] == made.json["id"])
            .collect();
        for did in ["user_made", "role_granted", "impersonated", "closing_asked"] {
            assert!(acts.iter().any(|act| act["did"] == did && act["session"] == json!(boss.session)), "{did}: {acts:?}");
        }
    }
}
