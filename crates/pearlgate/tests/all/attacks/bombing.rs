//! Mails that strangers have sent to somebody else: of whatever kind, from wherever, under whatever spelling of the
//! address. There are few of them, nobody is told that there will be no more, and what the owner asked for works.

use std::time::Duration;

use foundation::kernel::Timestamp;
use foundation::mail::Kept;
use pearlgate::app::App;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::guessing::{LOCKED, PROXIED, at_once, get_known, guess, on_device, place};
use super::mailed::{
    NEW, RESET_DEAD, call, change_email, change_password, confirm, consume, forgot, link_token, magic,
    mailed, reset, reset_by_code, verify,
};
use super::support::{OTHER, ask, post};
use crate::support::{Answer, Engine, PASSWORD, TestApp};
use crate::{both, both_with};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const V: &str = "v@ex.test";
const M: &str = "m@evil.test";
/// The kinds that a stranger can have sent.
const ASKED_FOR: [&str; 7] = [
    "verify_email",
    "already_registered",
    "password_reset",
    "magic_link",
    "email_change",
    "email_change_taken",
    "account_locked",
];
const WAYS: usize = 5;

fn arrived(app: &App) -> Vec<Kept> {
    app.mailbox.as_ref().unwrap().list(None, None)
}

/// Whose mailbox an address leads to: what stands behind a + is for its owner to sort by.
fn mailbox_of(address: &str) -> String {
    let address = address.to_lowercase();
    let (local, domain) = address.split_once('@').unwrap();
    format!("{}@{domain}", local.split('+').next().unwrap())
}

/// When the mails came that strangers can have sent to a mailbox, the first one first.
fn received(mails: &[Kept], mailbox: &str) -> Vec<Timestamp> {
    let asked_for = |mail: &&Kept| ASKED_FOR.contains(&mail.kind.as_str()) && mailbox_of(&mail.to) == mailbox;
    let mut at: Vec<Timestamp> =
        mails.iter().filter(asked_for).map(|mail| Timestamp::parse(&mail.created_at).unwrap()).collect();
    at.sort();
    at
}

/// How many came in the worst hour, or day.
fn most_within(at: &[Timestamp], window: Duration) -> usize {
    let from = |first: Timestamp| at.iter().filter(|at| **at >= first && **at < first + window).count();
    at.iter().map(|first| from(*first)).max().unwrap_or(0)
}

/// How many of them V has had so far, once nothing is on its way.
async fn so_far(app: &TestApp) -> usize {
    app.quiet().await;
    received(&arrived(&app.app), V).len()
}

/// The `n`th of many requests that each have a mail sent to V: five ways, in five spellings, from a hundred places.
/// Asking for an address of one's own takes somebody who is signed in.
fn request(app: &TestApp, n: usize, access: &str) -> RequestBuilder {
    let email = match n / WAYS % 5 {
        0 => V.to_owned(),
        1 => "V@ex.test".to_owned(),
        2 => format!("v+{n}@ex.test"),
        3 => "v@EX.test".to_owned(),
        _ => "v+news@ex.test".to_owned(),
    };
    let ask_at = |path: &str| app.request(Method::POST, path).header("x-forwarded-for", place(n % 100));
    match n % WAYS {
        0 => ask_at("/v1/auth/register").json(&json!({ "email": email, "password": OTHER })),
        1 => ask_at("/v1/auth/resend-verification").json(&json!({ "email": email })),
        2 => ask_at("/v1/auth/forgot-password").json(&json!({ "email": email })),
        3 => ask_at("/v1/auth/magic-link").json(&json!({ "email": email })),
        _ => ask_at("/v1/me/email").bearer_auth(access).json(&json!({ "email": email })),
    }
}

/// What a stranger sees of an answer: its status, its length, what it says, and the names of its headers.
type Shape = (u16, usize, String, Vec<String>);

fn shape(answer: &Answer) -> Shape {
    let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    (answer.status, answer.text.len(), answer.str("/status"), names)
}

/// V, whose address was proven a moment ago, gets all the mails that an hour has.
async fn fill(app: &TestApp) {
    for n in 1..3 {
        magic(app, V, n).await;
        forgot(app, V, n).await;
    }
    assert_eq!(so_far(app).await, 5);
}

/// Requests that all answer as the first of their way did.
struct Flood<'a> {
    app: &'a TestApp,
    sent: usize,
    first: Vec<Shape>,
}

impl<'a> Flood<'a> {
    fn on(app: &'a TestApp) -> Self {
        Self { app, sent: 0, first: Vec::new() }
    }

    async fn send(&mut self, count: usize, access: &str) {
        for _ in 0..count {
            let answer = ask(self.app, request(self.app, self.sent, access)).await;
            assert_eq!(answer.status, 202, "{}: {}", self.sent, answer.text);
            if self.sent < WAYS {
                self.first.push(shape(&answer));
            }
            assert_eq!(shape(&answer), self.first[self.sent % WAYS], "request {}", self.sent);
            self.sent += 1;
        }
    }
}

/// Somebody signs in anew on their own device, and may do what is sensitive.
async fn in_again(app: &TestApp, email: &str, device: &str) -> String {
    on_device(app, email, PASSWORD, device).await.str("/access_token")
}

both_with! { true, PROXIED;
    async fn a73_forgejo_split_limits_do_not_bomb_a_mailbox(app: &TestApp) {
        app.person(M).await;
        let device = get_known(app, M).await;
        app.person(V).await;
        // More than five hundred in an hour.
        let mut flood = Flood::on(app);
        for _ in 0..60 {
            let access = in_again(app, M, &device).await;
            flood.send(9, &access).await;
            app.quiet().await;
            app.clock.advance(MINUTE);
        }
        assert_eq!(so_far(app).await, 5, "and not one more");
        // And five hundred in thirty hours.
        for _ in 0..30 {
            let access = in_again(app, M, &device).await;
            flood.send(17, &access).await;
            app.quiet().await;
            app.clock.advance(HOUR);
        }
        assert_eq!(flood.sent, 540 + 510);
        let at = received(&arrived(&app.app), V);
        let worst = (most_within(&at, HOUR), most_within(&at, DAY));
        assert!(worst.0 <= 5 && worst.1 <= 15, "{worst:?}");
        assert!(at.len() > 15, "a new day has new ones: {}", at.len());
        let kinds: Vec<String> = arrived(&app.app).into_iter().filter(|mail| mailbox_of(&mail.to) == V).map(|mail| mail.kind).collect();
        assert!(kinds.iter().all(|kind| ASKED_FOR.contains(&kind.as_str())), "nothing else came either: {kinds:?}");
        assert_eq!(app.login(V, PASSWORD).await.status, 200, "and nothing was changed");
        assert_eq!(app.login(V, OTHER).await.status, 401);
        // Codes as a second step have a cap of their own: `journeys::second_factors`. Not yet: invitations.
    }
}

both_with! { true, PROXIED;
    async fn the_last_link_that_was_mailed_outlives_the_flood(app: &TestApp) {
        let v = app.person(V).await;
        let m = app.person(M).await;
        let mut flood = Flood::on(app);
        // As long as mails are sent, a newer one replaces an older one: one after the other.
        for _ in 0..20 {
            flood.send(1, &m.access).await;
            app.quiet().await;
        }
        assert_eq!(so_far(app).await, 5);
        flood.send(480, &m.access).await;
        assert_eq!((so_far(app).await, flood.sent), (5, 500));
        let newest = |kind: &str| app.app.mailbox.as_ref().unwrap().list(Some(V), Some(kind)).remove(0);
        let signed_in = consume(app, json!({ "token": link_token(&newest("magic_link")) })).await;
        assert_eq!((signed_in.status, signed_in.str("/user/id")), (200, v.id), "{}", signed_in.text);
        let mail = newest("password_reset");
        let done = reset_by_code(app, V, &mail.code, NEW).await;
        assert_eq!(done.status, 200, "its code, too: {}", done.text);
        assert_eq!(app.login(V, NEW).await.status, 200);
    }
}

both_with! { true, PROXIED;
    async fn a_registration_beyond_the_cap_replaces_nothing(app: &TestApp) {
        let m = app.person(M).await;
        // Others came first; the owner's own registration is the last that a mail was sent for.
        for n in 1..3 {
            assert_eq!(post(app, "/v1/auth/register", &json!({ "email": V, "password": OTHER, "display_name": "Mallory" })).await.status, 202);
            mailed(app, V, "verify_email", n).await;
            magic(app, V, n).await;
        }
        let registered = app.register(V).await;
        let verification = registered.str("/verification_id");
        let mail = mailed(app, V, "verify_email", 3).await;
        let people = app.count("SELECT COUNT(*) FROM users").await;

        let mut others = Vec::new();
        for n in 0..50 {
            let spelling = if n % 2 == 0 { V } else { "V@ex.test" };
            let late = json!({ "email": spelling, "password": OTHER, "display_name": "Mallory", "locale": "de", "metadata": { "n": n } });
            let answer = post(app, "/v1/auth/register", &late).await;
            assert_eq!(shape(&answer), shape(&registered), "{}", answer.text);
            others.push(answer.str("/verification_id"));
            post(app, "/v1/auth/register", &json!({ "email": format!("v+{n}@ex.test"), "password": OTHER })).await;
            post(app, "/v1/auth/resend-verification", &json!({ "email": V })).await;
            if n % 10 == 0 {
                call(app, Method::POST, "/v1/me/email", &m.access, &json!({ "email": V })).await;
            }
        }
        assert_eq!(so_far(app).await, 5);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, people, "nor is anybody registered whom no mail will reach");
        assert_eq!(app.count("SELECT COUNT(*) FROM email_change_tokens").await, 1, "Mallory's own, whose secrets nobody has");
        for id in &others {
            let refused = verify(app, json!({ "verification_id": id, "code": mail.code })).await;
            assert_eq!(refused.refusal(), "422 verification_invalid");
        }
        let proven = verify(app, json!({ "verification_id": verification, "code": mail.code })).await;
        assert_eq!(proven.status, 200, "{}", proven.text);
        let me = app.get_as("/v1/me", &proven.str("/access_token")).await;
        assert_eq!((me.str("/email").as_str(), me.str("/display_name").as_str(), &me.json["metadata"]), (V, "Ada", &json!({})));
        assert_eq!((app.login(V, PASSWORD).await.status, app.login(V, OTHER).await.status), (200, 401));

        // In the next hour somebody may register again, and be mailed.
        app.clock.advance(HOUR);
        assert_eq!(post(app, "/v1/auth/register", &json!({ "email": V, "password": OTHER })).await.status, 202);
        mailed(app, V, "already_registered", 1).await;
    }
}

both! {
    async fn a_change_of_address_beyond_the_cap_looks_like_any_other(app: &TestApp) {
        // Whoever asks sees what became of their own change: by it nobody learns what others had sent to that mailbox,
        // and so whether it has an account.
        app.person(V).await;
        let m = app.person(M).await;
        fill(app).await;
        for (n, wanted) in [V, "nobody@ex.test"].into_iter().enumerate() {
            let own = change_email(app, &m.access, &format!("m{n}@evil.test"), 1).await;
            let asked = call(app, Method::POST, "/v1/me/email", &m.access, &json!({ "email": wanted })).await;
            assert_eq!((asked.status, asked.str("/status").as_str()), (202, "confirmation_required"));
            let confirmed = confirm(app, &m.access, json!({ "token": link_token(&own) })).await;
            assert_eq!(confirmed.refusal(), "422 verification_invalid", "the newer one took its place: {wanted}");
            let activity = app.get_as("/v1/me/activity", &m.access).await.text;
            assert_eq!(activity.matches("email_change_requested").count(), 2 * (n + 1), "{wanted}");
        }
        assert_eq!(so_far(app).await, 5);
        // Asked for again, the change that was mailed last is what it was.
        let own = change_email(app, &m.access, "m2@evil.test", 1).await;
        for _ in 0..5 {
            call(app, Method::POST, "/v1/me/email", &m.access, &json!({ "email": "m2@evil.test" })).await;
        }
        app.quiet().await;
        let newest = app.app.mailbox.as_ref().unwrap().list(Some("m2@evil.test"), Some("email_change")).remove(0);
        assert_eq!(confirm(app, &m.access, json!({ "token": link_token(&own) })).await.refusal(), "422 verification_invalid");
        assert_eq!(confirm(app, &m.access, json!({ "token": link_token(&newest) })).await.status, 200);
        assert_eq!(app.get_as("/v1/me", &m.access).await.str("/email"), "m2@evil.test");
    }
}

both_with! { true, PROXIED;
    async fn what_really_happened_is_told_whatever_the_cap(app: &TestApp) {
        let v = app.person(V).await;
        let laptop = get_known(app, V).await;
        fill(app).await;
        // A new device, a replayed token, another password: the owner hears of each.
        let news = app.app.mailbox.as_ref().unwrap().list(Some(V), Some("new_device")).len();
        let elsewhere = app.login(V, PASSWORD).await;
        mailed(app, V, "new_device", news + 1).await;
        let second = app.refresh(&elsewhere.str("/refresh_token")).await.str("/refresh_token");
        assert_eq!(app.refresh(&second).await.status, 200);
        assert_eq!(app.refresh(&elsewhere.str("/refresh_token")).await.str("/reason"), "refresh_token_reused");
        mailed(app, V, "refresh_token_reused", 1).await;
        assert_eq!(change_password(app, &v.access, PASSWORD, NEW).await.status, 200);
        let notice = mailed(app, V, "password_changed", 1).await;
        assert_eq!(notice.links.len(), 1);
        // A lock is no less of a lock because nobody is told of it.
        for n in 0..5 {
            assert_eq!(guess(app, n, V, &format!("guess {n}")).await.status, 401);
        }
        assert_eq!(guess(app, 9, V, NEW).await.refusal(), LOCKED);
        assert_eq!(on_device(app, V, NEW, &laptop).await.status, 200);
        assert_eq!((so_far(app).await, app.count("SELECT COUNT(*) FROM unlock_tokens").await), (5, 0));
    }
}

both! {
    async fn asking_all_at_once_does_not_overshoot(app: &TestApp) {
        app.person(V).await;
        app.quiet().await;
        let twin = if app.engine == Engine::Postgres { Some(app.twin().await) } else { None };
        let other = twin.as_ref().map_or(&app.url, |twin| &twin.url);
        let asking = (0..60).map(|n| {
            let url = if n % 2 == 0 { &app.url } else { other };
            let path = ["/v1/auth/magic-link", "/v1/auth/magic-link", "/v1/auth/forgot-password"][n % 3];
            app.client.post(format!("{url}{path}")).json(&json!({ "email": V }))
        });
        let answers = at_once(app, asking.collect()).await;
        assert!(answers.iter().all(|answer| [202, 503].contains(&answer.status)), "{answers:?}");
        app.quiet().await;
        let mut mails = arrived(&app.app);
        mails.extend(twin.iter().flat_map(|twin| arrived(&twin.app)));
        assert_eq!(received(&mails, V).len(), 5);
        assert_eq!(app.count("SELECT COUNT(*) FROM mails_asked").await, 5);
        if let Some(twin) = twin {
            twin.stop().await;
        }
    }
}

both! {
    async fn nobodys_mailbox_answers_as_somebodys_does(app: &TestApp) {
        app.person(V).await;
        assert_eq!(app.register("waiting@ex.test").await.status, 202);
        let everybody = [V, "waiting@ex.test", "nobody@ex.test"];
        for path in ["/v1/auth/forgot-password", "/v1/auth/magic-link", "/v1/auth/resend-verification"] {
            for round in 0..8 {
                let mut shapes = Vec::new();
                for email in everybody {
                    shapes.push(shape(&post(app, path, &json!({ "email": email })).await));
                    app.quiet().await;
                }
                assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{path}, round {round}: {shapes:?}");
            }
        }
        let counted = everybody.map(|email| received(&arrived(&app.app), email).len());
        assert_eq!(counted, [5, 5, 0]);
        let mut shapes = Vec::new();
        for email in everybody.into_iter().chain(everybody) {
            shapes.push(shape(&post(app, "/v1/auth/register", &json!({ "email": email, "password": OTHER })).await));
        }
        assert!(shapes.iter().all(|shape| *shape == shapes[0]), "{shapes:?}");
    }
}

both! {
    async fn when_no_more_is_sent_the_last_link_works_for_whoever_asks(app: &TestApp) {
        app.person(V).await;
        // Somebody has everything sent that a day has.
        for _ in 0..20 {
            for path in ["/v1/auth/forgot-password", "/v1/auth/magic-link", "/v1/auth/register"] {
                let body = if path.ends_with("register") { json!({ "email": V, "password": OTHER }) } else { json!({ "email": V }) };
                assert_eq!(post(app, path, &body).await.status, 202);
                app.quiet().await;
            }
            app.clock.advance(HOUR);
        }
        let so_many = so_far(app).await;
        assert!(so_many <= 15, "{so_many}");
        let newest = |kind: &str| app.app.mailbox.as_ref().unwrap().list(Some(V), Some(kind)).remove(0);
        let (link, code) = (link_token(&newest("password_reset")), newest("password_reset").code);
        assert_eq!(reset(app, &link, NEW).await.refusal(), RESET_DEAD, "it is hours old");
        // Then V asks, gets nothing, and goes back to the last mail there is.
        assert_eq!(post(app, "/v1/auth/forgot-password", &json!({ "email": V })).await.status, 202);
        assert_eq!(so_far(app).await, so_many);
        assert_eq!(reset_by_code(app, V, &code, NEW).await.refusal(), RESET_DEAD, "six digits are not for a day");
        assert_eq!(reset(app, &link, NEW).await.status, 200);
        assert_eq!(app.login(V, NEW).await.status, 200);
    }
}

both_with! { true, "[limits.mails]\nper_hour = 1\nper_day = 2\n";
    async fn the_caps_are_settings(app: &TestApp) {
        app.person(V).await;
        let ask_for_everything = async || {
            for path in ["/v1/auth/magic-link", "/v1/auth/forgot-password"] {
                assert_eq!(post(app, path, &json!({ "email": V })).await.status, 202);
                app.quiet().await;
            }
            so_far(app).await
        };
        assert_eq!(ask_for_everything().await, 1, "the one that proved the address");
        app.clock.advance(HOUR);
        assert_eq!(ask_for_everything().await, 2);
        app.clock.advance(HOUR);
        assert_eq!(ask_for_everything().await, 2, "a day has no more");
        app.clock.advance(DAY - 2 * HOUR - Duration::from_secs(1));
        assert_eq!(ask_for_everything().await, 2);
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(ask_for_everything().await, 3, "the first is a day old");
    }
}

async fn nobody_is_stopped(mode: &str) {
    let more = format!("[limits.mails]\nmode = \"{mode}\"\n");
    let app = TestApp::with(Engine::Sqlite, true, &more).await;
    app.person(V).await;
    for n in 1..=20 {
        magic(&app, V, n).await;
    }
    let mail = forgot(&app, V, 1).await;
    assert_eq!(reset(&app, &link_token(&mail), NEW).await.status, 200);
    assert_eq!(so_far(&app).await, 22);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_that_only_report_stop_nobody() {
    nobody_is_stopped("report").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_that_are_off_stop_nobody() {
    nobody_is_stopped("off").await;
}
