//! Guesses at one account's password: as many as anybody likes to send, from wherever they like, one after the other
//! and all at once. What counts is how many of them are looked at. And the other side of it: what guessers cannot do to
//! the one who lives there, and what nobody learns from it.

use std::time::Duration;

use pearlgate::lockout::{self, Whose};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::mailed::{NEW, change_password, consume, forgot, link_token, look, magic, mailed, open, reset};
use super::support::{OTHER, ask, clean, post};
use crate::both_with;
use crate::support::{Answer, Engine, PASSWORD, TestApp, filled, together};

/// There is a proxy in front, which is believed: a story's people come from wherever they say.
pub const PROXIED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
pub const WRONG: &str = "401 invalid_credentials";
pub const LOCKED: &str = "423 account_locked";
const DEAD: &str = "422 verification_invalid";
const LOGIN: &str = "/v1/auth/login";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// The `n`th of many addresses, each a network of its own.
pub fn place(n: usize) -> String {
    format!("10.{}.{}.7", n / 250, n % 250)
}

pub fn login_from(app: &TestApp, place: &str, body: &Value) -> RequestBuilder {
    app.request(Method::POST, LOGIN).header("x-forwarded-for", place).json(body)
}

fn attempt(app: &TestApp, from: usize, email: &str, password: &str) -> RequestBuilder {
    login_from(app, &place(from), &json!({ "email": email, "password": password }))
}

/// A stranger's sign-in, from the `from`th address.
pub async fn guess(app: &TestApp, from: usize, email: &str, password: &str) -> Answer {
    ask(app, attempt(app, from, email, password)).await
}

/// A sign-in on a device that has a token.
pub async fn on_device(app: &TestApp, email: &str, password: &str, device: &str) -> Answer {
    ask(app, app.request(Method::POST, LOGIN).json(&with_device(email, password, device))).await
}

fn with_device(email: &str, password: &str, device: &str) -> Value {
    json!({ "email": email, "password": password, "device_token": device })
}

/// Signs in as a stranger; the device is known from then on.
pub async fn get_known(app: &TestApp, email: &str) -> String {
    let signed_in = app.login(email, PASSWORD).await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text);
    signed_in.str("/device_token")
}

/// Sends them all at the same time: none sets out before all are ready. The answers in the order of the requests.
pub async fn at_once(app: &TestApp, requests: Vec<RequestBuilder>) -> Vec<Answer> {
    let barrier = Barrier::new(requests.len());
    let ready = &barrier;
    let all = requests.into_iter().enumerate().map(|(n, request)| async move {
        ready.wait().await;
        (n, app.send(request).await)
    });
    let mut answers = together(all.collect()).await;
    answers.sort_by_key(|(n, _)| *n);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// How many of the guesses were looked at. All others were turned away, the same as each other; or the server had too
/// much to do for them, which looks at nothing either.
fn looked_at(answers: &[Answer]) -> usize {
    for answer in answers.iter().filter(|answer| answer.status != 503) {
        clean("a guess", answer.status, &answer.text);
        let refusal = answer.refusal();
        assert!([WRONG, LOCKED].contains(&refusal.as_str()), "{refusal}: {}", answer.text);
    }
    answers.iter().filter(|answer| answer.status == 401).count()
}

/// For how many seconds an answer sends somebody away; header and document say the same.
pub fn pause(answer: &Answer) -> u64 {
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert_eq!(answer.json["retry_after"], json!(seconds), "{}", answer.text);
    seconds
}

/// Strangers guess, each from another address, until one of them is turned away; how many were looked at.
async fn burst(app: &TestApp, from: usize, email: &str) -> usize {
    for n in 0..20 {
        let answer = guess(app, from + n, email, &format!("guess {n} from {from}")).await;
        match answer.refusal().as_str() {
            WRONG => {}
            LOCKED => {
                assert!((1..=3_600).contains(&pause(&answer)), "{}", answer.text);
                return n;
            }
            other => panic!("{other}: {}", answer.text),
        }
    }
    panic!("nobody is turned away from {email}");
}

/// Strangers guess, burst after burst, until nobody is let near the password any more however long they wait.
async fn use_up(app: &TestApp, email: &str) -> usize {
    let mut looked = 0;
    for round in 0..20 {
        looked += burst(app, round * 20, email).await;
        app.quiet().await;
        app.clock.advance(25 * HOUR);
    }
    assert_eq!(burst(app, 0, email).await, 0, "{email} is closed");
    looked
}

/// How many mails of a kind somebody got, once nothing is on its way.
async fn told(app: &TestApp, email: &str, kind: &str) -> usize {
    app.quiet().await;
    app.app.mailbox.as_ref().unwrap().list(Some(email), Some(kind)).len()
}

/// All that a stranger sees of a refusal, but for the request's own id and the time of day.
pub fn seen(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let own = ["x-request-id", "date"];
    let kept = answer.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let mut headers: Vec<(String, String)> =
        kept.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    headers.sort();
    (answer.status, answer.text.replace(&answer.str("/request_id"), ""), headers)
}

both_with! { true, PROXIED;
    async fn a44_cve_2024_4629_a_thousand_guesses_at_one_account(app: &TestApp) {
        for (email, places) in [("one@ex.test", 1), ("many@ex.test", 500)] {
            let ada = app.person(email).await;
            // One after the other, the right one late among them.
            let mut answers = Vec::new();
            for n in 0..1_000 {
                let password = if n == 700 { PASSWORD.to_owned() } else { format!("guess number {n}") };
                answers.push(guess(app, n % places, email, &password).await);
            }
            assert_eq!(looked_at(&answers), 5, "from {places} places");
            assert!(answers[..5].iter().all(|answer| answer.status == 401), "the first five");
            assert!(answers[5..].iter().all(|answer| seen(answer).1 == seen(&answers[5]).1 && pause(answer) == 60), "and the right one is told what all are told");
            // When the minute is over the password is what it was: the right one was right.
            app.clock.advance(MINUTE);
            let let_in = guess(app, 0, email, PASSWORD).await;
            assert_eq!((let_in.status, let_in.str("/user/id")), (200, ada.id), "{}", let_in.text);
            // From then on it begins anew; this time they come all at once.
            let wave = |count: usize| -> Vec<RequestBuilder> {
                (0..count).map(|n| attempt(app, n % places, email, &format!("guess number {n}"))).collect()
            };
            assert_eq!(looked_at(&at_once(app, wave(200)).await), 5, "from {places} places");
            let mut second = wave(199);
            second.push(attempt(app, 199 % places, email, PASSWORD));
            let second = at_once(app, second).await;
            assert_eq!(looked_at(&second), 0);
            assert!([423, 503].contains(&second[199].status), "the right one: {}", second[199].text);
            assert_eq!(guess(app, 0, email, PASSWORD).await.refusal(), LOCKED);
            assert_eq!(told(app, email, "account_locked").await, 2, "once for each time that it began");
        }
    }
}

both_with! { true, PROXIED;
    async fn cve_2024_4629_parallel_guesses_do_not_overshoot(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let row = "SELECT strangers * 1000 + devices FROM password_guesses";
        for (waves, looked) in [(0, 5), (1, 1), (2, 1), (3, 1)] {
            let guesses = (0..60).map(|n| attempt(app, n, &ada.email, &format!("guess {n} of wave {waves}")));
            assert_eq!(looked_at(&at_once(app, guesses.collect()).await), looked, "wave {waves}");
            assert_eq!(app.count(row).await, (5 + waves) * 1_000, "as many are counted as were looked at");
            app.clock.advance(MINUTE * 4);
        }
        // Nobody's password is guessed at no more often.
        let nobodys = (0..60).map(|n| attempt(app, n, "nobody@ex.test", &format!("guess {n}")));
        assert_eq!(looked_at(&at_once(app, nobodys.collect()).await), 5);
        // Nor on a device that is known.
        app.clock.advance(MINUTE * 4);
        let laptop = get_known(app, &ada.email).await;
        let stolen = (0..60).map(|n| app.request(Method::POST, LOGIN).json(&with_device(&ada.email, &format!("guess {n}"), &laptop)));
        let stolen = looked_at(&at_once(app, stolen.collect()).await);
        assert_eq!(stolen, 10 + 5, "ten of its own, and then it is a stranger like any other");
        assert_eq!(app.count("SELECT MAX(strangers * 1000 + devices) FROM password_guesses").await, 5_010);
    }
}

/// On PostgreSQL; one file has one server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2019_5421_two_servers_count_as_one() {
    let app = TestApp::with(Engine::Postgres, true, PROXIED).await;
    let ada = app.person("ada@ex.test").await;
    app.quiet().await;
    let twin = app.twin().await;
    let half = |n: usize| {
        let url = if n.is_multiple_of(2) { &app.url } else { &twin.url };
        let body = json!({ "email": ada.email, "password": format!("guess {n}") });
        app.client.post(format!("{url}{LOGIN}")).json(&body)
    };
    assert_eq!(looked_at(&at_once(&app, (0..200).map(half).collect()).await), 5);
    let elsewhere = app.client.post(format!("{}{LOGIN}", twin.url));
    let right = json!({ "email": ada.email, "password": PASSWORD });
    assert_eq!(app.send(elsewhere.json(&right)).await.refusal(), LOCKED, "both know");
    app.quiet().await;
    let boxes = [&app.app, &twin.app].map(|app| app.mailbox.as_ref().unwrap());
    let mails = boxes.map(|mails| mails.list(Some(&ada.email), Some("account_locked")).len());
    assert_eq!(mails.iter().sum::<usize>(), 1, "one mail, whichever of them sends it");
    twin.stop().await;
    app.finish().await;
}

both_with! { true, PROXIED;
    async fn however_long_they_take_strangers_have_eighty_guesses(app: &TestApp) {
        // Once an hour, so that it never begins anew; and then in five at a time, a day and an hour apart, so that it
        // always does.
        app.person("hourly@ex.test").await;
        let mut looked = 0;
        for hour in 0..120 {
            looked += burst(app, hour * 20, "hourly@ex.test").await;
            app.quiet().await;
            app.clock.advance(HOUR);
        }
        app.person("daily@ex.test").await;
        assert_eq!((looked, use_up(app, "daily@ex.test").await), (80, 80));
        for email in ["hourly@ex.test", "daily@ex.test"] {
            for _ in 0..3 {
                app.quiet().await;
                app.clock.advance(DAY);
                let right = guess(app, 0, email, PASSWORD).await;
                assert_eq!((right.refusal().as_str(), pause(&right)), (LOCKED, 3_600));
            }
            // Whoever reads the mailbox is no stranger, and a new password has not been guessed at.
            let mail = forgot(app, email, 1).await;
            assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
            assert_eq!(guess(app, 0, email, NEW).await.status, 200);
            assert_eq!(burst(app, 0, email).await, 5, "and it begins anew");
        }
    }
}

both_with! { true, PROXIED;
    async fn with_every_known_device_in_hand_there_are_a_hundred_guesses(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let mut devices = Vec::new();
        for _ in 0..3 {
            devices.push(get_known(app, &ada.email).await);
        }
        let mut looked = use_up(app, &ada.email).await;
        let mut each = Vec::new();
        for device in &devices {
            let mut of_this = 0;
            for n in 0..15 {
                let answer = on_device(app, &ada.email, &format!("guess {n}"), device).await;
                of_this += usize::from(answer.refusal() == WRONG);
                assert!([WRONG, LOCKED].contains(&answer.refusal().as_str()), "{}", answer.text);
            }
            each.push(of_this);
            looked += of_this;
        }
        assert_eq!((each.as_slice(), looked), (&[10, 10, 0][..], 100), "NIST SP 800-63B-4 §3.2.2");
        for _ in 0..3 {
            app.quiet().await;
            app.clock.advance(DAY);
            for device in &devices {
                assert_eq!(on_device(app, &ada.email, PASSWORD, device).await.refusal(), LOCKED);
            }
        }
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
        for device in &devices {
            assert_eq!(on_device(app, &ada.email, NEW, device).await.status, 200, "the mailbox opens it for all");
        }
    }
}

both_with! { true, PROXIED;
    async fn a45_cve_2022_39229_a_lock_is_no_weapon(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let laptop = get_known(app, &ada.email).await;
        // Somebody else calls themselves by Ada's address, and asks for it as their own: it stays the one name of hers.
        let named = json!({ "email": "m@evil.test", "password": OTHER, "display_name": ada.email });
        assert_eq!(post(app, "/v1/auth/register", &named).await.status, 202);
        let taken = json!({ "email": "ADA@ex.test", "password": OTHER });
        assert_eq!(post(app, "/v1/auth/register", &taken).await.status, 202);
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 2);

        // A thousand wrong ones from five hundred places over five hours. Ada comes and goes on her laptop.
        let (mut looked, mut longest) = (0, 0);
        for round in 0..50 {
            for n in 0..20 {
                let answer = guess(app, (round * 20 + n) % 500, &ada.email, &format!("guess {n} of {round}")).await;
                match answer.refusal().as_str() {
                    WRONG => looked += 1,
                    LOCKED => longest = longest.max(pause(&answer)),
                    other => panic!("{other}: {}", answer.text),
                }
            }
            if round % 10 == 0 {
                let here = on_device(app, &ada.email, PASSWORD, &laptop).await;
                assert_eq!((here.status, here.str("/user/id")), (200, ada.id.clone()), "{}", here.text);
            }
            app.clock.advance(MINUTE * 6);
        }
        assert!((6..=80).contains(&looked), "{looked}");
        assert_eq!(longest, 3_600, "never longer than an hour");
        assert_eq!(told(app, &ada.email, "account_locked").await, 1, "and one mail");

        // A new device: not by password as long as it lasts, by mailbox at once.
        burst(app, 0, &ada.email).await;
        assert_eq!(guess(app, 600, &ada.email, PASSWORD).await.refusal(), LOCKED);
        let (_, mail) = magic(app, &ada.email, 1).await;
        let by_link = consume(app, json!({ "token": link_token(&mail) })).await;
        assert_eq!((by_link.status, by_link.str("/user/id")), (200, ada.id.clone()), "{}", by_link.text);
        assert_eq!(on_device(app, &ada.email, PASSWORD, &by_link.str("/device_token")).await.status, 200, "known from then on");
        assert_eq!(guess(app, 600, &ada.email, PASSWORD).await.refusal(), LOCKED, "and nobody else");
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
        let anew = guess(app, 600, &ada.email, NEW).await;
        assert_eq!((anew.status, anew.str("/user/id")), (200, ada.id), "{}", anew.text);
        // A passkey gets in all the same: `journeys::passkeys`. Not yet: social sign-in.
    }
}

both_with! { true, PROXIED;
    async fn the_link_in_the_owners_mail_lets_strangers_try_again(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        burst(app, 0, &ada.email).await;
        let mail = mailed(app, &ada.email, "account_locked", 1).await;
        let token = link_token(&mail);
        assert!(token.starts_with("pgu_") && token.len() >= 4 + 43 && mail.code.is_empty(), "{}", mail.text);
        assert_eq!(mail.links[0], format!("{}/unlock?token={token}", app.app.settings.public_url));
        for _ in 0..3 {
            let page = open(app, &mail.links[0]).await.page;
            assert!(page.text.contains("<form") && page.text.contains(&ada.email) && !page.text.contains(&token), "{}", page.text);
        }
        let unlock = |token: String| async move { post(app, "/v1/auth/unlock", &json!({ "token": token })).await };
        for bad in ["nonsense".to_owned(), "pgu_".into(), format!("pgu_{}", "A".repeat(43)), format!("{token}x"), token.to_uppercase(), token.replace("pgu_", "pgn_")] {
            assert_eq!(unlock(bad).await.refusal(), DEAD);
        }
        assert_eq!(post(app, "/v1/auth/unlock", &json!({})).await.refusal(), "422 validation_failed");
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.refusal(), LOCKED, "looking unlocks nothing");
        let done = unlock(token.clone()).await;
        assert_eq!((done.status, &done.json), (200, &json!({ "status": "unlocked" })));
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.status, 200);
        assert_eq!(unlock(token).await.refusal(), DEAD, "once");

        // It has a day, and a new password ends it.
        for late in [false, true] {
            app.quiet().await;
            app.clock.advance(DAY);
            burst(app, 0, &ada.email).await;
            let token = link_token(&mailed(app, &ada.email, "account_locked", 2 + usize::from(late)).await);
            if late {
                app.quiet().await;
                app.clock.advance(DAY);
            } else {
                let mail = forgot(app, &ada.email, 1).await;
                assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
            }
            assert_eq!(unlock(token).await.refusal(), DEAD, "late: {late}");
        }
    }
}

/// Presses a button on the page behind a link, as a page of this or another site does.
async fn say(app: &TestApp, link: &str, answer: &str, site: &str) -> Answer {
    let tab = open(app, link).await;
    let shown_for = filled(&tab.cookie, "").split('&').next().unwrap().to_owned();
    let form =
        app.request(Method::POST, &tab.path).header("cookie", &tab.cookie).header("sec-fetch-site", site);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    look(app, form.body(format!("{shown_for}&answer={answer}"))).await
}

both_with! { true, PROXIED;
    async fn on_the_page_the_owner_says_whether_it_was_them(app: &TestApp) {
        let mut locked = Vec::new();
        for name in ["me", "other", "both"] {
            let person = app.person(&format!("{name}@ex.test")).await;
            let device = get_known(app, &person.email).await;
            burst(app, 0, &person.email).await;
            let link = mailed(app, &person.email, "account_locked", 1).await.links[0].clone();
            locked.push((person.email, device, link));
        }
        let [(me, _, my_link), (other, others_device, others_link), (both, _, both_link)] = &locked[..] else { panic!("three") };

        // It was me.
        assert_eq!(say(app, my_link, "me", "cross-site").await.refusal(), "403 permission_denied");
        assert_eq!(say(app, my_link, "perhaps", "same-origin").await.status, 400);
        assert_eq!(guess(app, 0, me, PASSWORD).await.refusal(), LOCKED, "nothing happened so far");
        let done = say(app, my_link, "me", "same-origin").await;
        assert!(done.status == 200 && done.text.contains("unlocked") && !done.text.contains("<form"), "{}", done.text);
        assert_eq!(guess(app, 0, me, PASSWORD).await.status, 200);
        assert!(!open(app, my_link).await.page.text.contains("<form"), "once");
        assert_eq!(say(app, my_link, "not_me", "same-origin").await.status, 422, "once");
        assert_eq!(guess(app, 0, me, PASSWORD).await.status, 200, "a used link locks nobody out");

        // It was not me.
        let kept = say(app, others_link, "not_me", "same-origin").await;
        assert!(kept.status == 200 && kept.text.contains("24 hours") && !kept.text.contains("<form"), "{}", kept.text);
        let right = guess(app, 0, other, PASSWORD).await;
        assert_eq!((right.refusal().as_str(), pause(&right)), (LOCKED, 3_600));
        // It was not me; and on second thoughts it was.
        assert_eq!(say(app, both_link, "not_me", "same-origin").await.status, 200);
        assert_eq!(guess(app, 0, both, PASSWORD).await.refusal(), LOCKED);
        assert_eq!(say(app, both_link, "me", "same-origin").await.status, 200);
        assert_eq!(guess(app, 0, both, PASSWORD).await.status, 200);

        app.clock.advance(DAY - Duration::from_secs(1));
        let right = guess(app, 0, other, PASSWORD).await;
        assert_eq!((right.refusal().as_str(), pause(&right)), (LOCKED, 1));
        assert_eq!(on_device(app, other, PASSWORD, others_device).await.status, 200, "the owner was in all the while");
        app.clock.advance(Duration::from_secs(1));
        assert_eq!(guess(app, 0, other, PASSWORD).await.status, 200);
    }
}

both_with! { true, PROXIED;
    async fn what_is_not_this_accounts_own_device_is_a_stranger(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let laptop = get_known(app, &ada.email).await;
        let eves = get_known(app, &app.person("eve@ex.test").await.email).await;
        burst(app, 0, &ada.email).await;
        let mut forged = laptop.clone();
        forged.replace_range(10..11, if &laptop[10..11] == "A" { "B" } else { "A" });
        for foreign in [eves.clone(), forged, laptop.to_uppercase(), "pgd_".into(), format!("pgd_{}", "A".repeat(43)), "nonsense".into(), String::new(), ada.refresh.clone()] {
            assert_eq!(on_device(app, &ada.email, PASSWORD, &foreign).await.refusal(), LOCKED, "{foreign}");
        }
        // In a browser its cookie says the same: from our own pages, and from nowhere else.
        let body = json!({ "email": ada.email, "password": PASSWORD });
        let in_browser = |cookie: &str| login_from(app, &place(0), &body).header("cookie", format!("__Host-pearlgate-device={cookie}"));
        assert_eq!(ask(app, in_browser(&laptop)).await.refusal(), LOCKED, "it does not say where it comes from");
        assert_eq!(ask(app, in_browser(&laptop).header("origin", "https://evil.test")).await.refusal(), "403 permission_denied");
        assert_eq!(ask(app, in_browser(&eves).header("origin", &app.url)).await.refusal(), LOCKED);
        assert_eq!(ask(app, in_browser(&laptop).header("origin", &app.url)).await.status, 200);
        assert_eq!(on_device(app, &ada.email, PASSWORD, &laptop).await.status, 200);
        // The address that it came from so far makes nobody known.
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), LOCKED);
    }
}

both_with! { true, PROXIED;
    async fn a_device_that_fails_ten_times_is_a_stranger(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let (laptop, phone) = (get_known(app, &ada.email).await, get_known(app, &ada.email).await);
        burst(app, 0, &ada.email).await;
        for n in 0..9 {
            assert_eq!(on_device(app, &ada.email, &format!("guess {n}"), &laptop).await.refusal(), WRONG);
        }
        assert_eq!(on_device(app, &ada.email, PASSWORD, &laptop).await.status, 200, "nine are no ten");
        for n in 0..10 {
            assert_eq!(on_device(app, &ada.email, &format!("guess {n}"), &laptop).await.refusal(), WRONG);
        }
        for password in ["one more guess", PASSWORD] {
            assert_eq!(on_device(app, &ada.email, password, &laptop).await.refusal(), LOCKED);
        }
        assert_eq!(on_device(app, &ada.email, PASSWORD, &phone).await.status, 200, "the other one knows nothing of it");
        let token = link_token(&mailed(app, &ada.email, "account_locked", 1).await);
        assert_eq!(post(app, "/v1/auth/unlock", &json!({ "token": token })).await.status, 200);
        burst(app, 0, &ada.email).await;
        assert_eq!(on_device(app, &ada.email, PASSWORD, &laptop).await.status, 200, "the owner of the mailbox forgave it");
    }
}

both_with! { true, PROXIED;
    async fn a_device_is_known_again_once_its_owner_got_in_on_it(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let laptop = get_known(app, &ada.email).await;
        for n in 0..10 {
            assert_eq!(on_device(app, &ada.email, &format!("guess {n}"), &laptop).await.refusal(), WRONG);
        }
        // Nobody is locked out, so the right one gets in as a stranger's does: ten in a row, and the row is over.
        let back = on_device(app, &ada.email, PASSWORD, &laptop).await;
        assert_eq!(back.status, 200, "{}", back.text);
        burst(app, 0, &ada.email).await;
        let again = on_device(app, &ada.email, PASSWORD, &back.str("/device_token")).await;
        assert_eq!(again.status, 200, "{}", again.text);
    }
}

both_with! { true, PROXIED;
    async fn stolen_sessions_have_twenty_guesses(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let mut sessions = vec![ada.access.clone()];
        for _ in 0..2 {
            sessions.push(app.login(&ada.email, PASSWORD).await.str("/access_token"));
        }
        let prove = |access: &str, password: String| {
            let request = app.request(Method::POST, "/v1/me/reauthenticate").bearer_auth(access);
            ask(app, request.json(&json!({ "password": password })))
        };
        let mut looked = Vec::new();
        for (access, tries) in sessions.iter().zip([12, 12, 3]) {
            let mut of_this = 0;
            for n in 0..tries {
                let answer = prove(access, format!("guess {n}")).await;
                of_this += usize::from(answer.refusal() == WRONG);
                assert!([WRONG, LOCKED, "429 too_many_attempts"].contains(&answer.refusal().as_str()), "{}", answer.text);
            }
            looked.push(of_this);
        }
        assert_eq!(looked, [10, 10, 0], "ten of each session, twenty in all");
        assert_eq!(prove(&sessions[2], PASSWORD.into()).await.refusal(), LOCKED);
        assert_eq!(change_password(app, &sessions[2], PASSWORD, NEW).await.refusal(), LOCKED, "the other way to ask is the same way");
        // Whoever knows the password signs in anew, and what was tried before is forgotten with a new password.
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.status, 200);
        let mail = forgot(app, &ada.email, 1).await;
        assert_eq!(reset(app, &link_token(&mail), NEW).await.status, 200);
        let anew = guess(app, 0, &ada.email, NEW).await.str("/access_token");
        assert_eq!(prove(&anew, NEW.into()).await.status, 200);
    }
}

/// Somebody with each kind of account, and an address that nobody has.
async fn everybody(app: &TestApp) -> [&'static str; 5] {
    let all =
        ["proven@ex.test", "unproven@ex.test", "suspended@ex.test", "passwordless@ex.test", "nobody@ex.test"];
    for email in [all[0], all[2], all[3]] {
        app.person(email).await;
    }
    assert_eq!(app.register(all[1]).await.status, 202);
    let of = |email: &str| format!("SELECT user_id FROM user_emails WHERE address_key = '{email}'");
    app.sql(&format!(
        "INSERT INTO suspensions (user_id, reason, suspended_at) SELECT user_id, 'test', 1 FROM ({}) AS s",
        of(all[2])
    ))
    .await;
    app.sql(&format!("DELETE FROM password_credentials WHERE user_id IN ({})", of(all[3]))).await;
    app.quiet().await;
    all
}

both_with! { true, PROXIED;
    async fn locked_or_not_nobody_answers_like_somebody(app: &TestApp) {
        let everybody = everybody(app).await;
        let minutes = |n: u32| (MINUTE * n, 2);
        let second = Duration::from_secs(1);
        let mut steps = vec![(Duration::ZERO, 7), (MINUTE - second, 1), (second, 2)];
        steps.extend([2, 4, 8, 16, 32, 60, 60, 60].map(minutes));
        steps.extend([(DAY - second, 3), (HOUR, 2), (DAY, 7), (second, 1)]);
        steps.extend([(25 * HOUR, 7); 16]);
        steps.extend([(MINUTE, 1), (HOUR, 1), (3 * DAY, 2)]);
        let (mut n, mut looked, mut last) = (0, 0, 0);
        for (step, (wait, times)) in steps.into_iter().enumerate() {
            app.clock.advance(wait);
            // A registration that nobody proves is forgotten after a week.
            let those: Vec<&str> = everybody.into_iter().filter(|email| step < 15 || *email != everybody[1]).collect();
            for time in 0..times {
                n += 1;
                let mut answers = Vec::new();
                for (k, email) in those.iter().enumerate() {
                    // Each from a place where nobody was before: the network's own counters say the same everywhere.
                    answers.push(guess(app, 1_000 * k + n, email, &format!("guess {time} of step {step}")).await);
                }
                for (answer, email) in answers.iter().zip(&those) {
                    assert_eq!(seen(answer), seen(&answers[0]), "{email}, step {step}, time {time}");
                }
                looked += looked_at(&answers[..1]);
                last = answers[0].status;
            }
        }
        assert_eq!((looked, last), (80, 423), "open at first, closed in the end");
        assert_eq!(told(app, "nobody@ex.test", "account_locked").await, 0);
        assert!(told(app, "proven@ex.test", "account_locked").await >= 2);
        assert_eq!(told(app, "unproven@ex.test", "account_locked").await, 0, "nobody has proven to read it");
    }
}

/// The sweep that is due by now has come and gone.
async fn swept(app: &TestApp) {
    let now = app.clock.now().micros();
    let made = "SELECT created_at FROM jobs WHERE kind = 'maintenance.sweep'";
    app.until("the sweep is done", || async { app.count(made).await >= now }).await;
}

both_with! { true, PROXIED;
    async fn an_address_that_nobody_has_is_remembered_as_long_as_an_account(app: &TestApp) {
        let everybody = everybody(app).await;
        for email in [everybody[0], everybody[4]] {
            assert_eq!(use_up(app, email).await, 80, "{email}");
        }
        for days in [31, 100, 300] {
            app.quiet().await;
            app.clock.advance(DAY * days);
            swept(app).await;
            let answers = [guess(app, 0, everybody[0], "a guess").await, guess(app, 1_000, everybody[4], "a guess").await];
            assert_eq!(seen(&answers[0]), seen(&answers[1]), "after {days} more days");
        }
    }
}

both_with! { true, PROXIED;
    async fn registering_a_locked_address_does_not_tell_whether_it_was_taken(app: &TestApp) {
        let everybody = everybody(app).await;
        for (n, email) in everybody.into_iter().enumerate() {
            assert_eq!(burst(app, n * 20, email).await, 5);
            assert_eq!(post(app, "/v1/auth/register", &json!({ "email": email, "password": OTHER })).await.status, 202);
        }
        app.quiet().await;
        let mut answers = Vec::new();
        for (n, email) in everybody.into_iter().enumerate() {
            answers.push(guess(app, 1_000 + n, email, "one more guess").await);
        }
        for (answer, email) in answers.iter().zip(everybody) {
            assert_eq!(seen(answer), seen(&answers[0]), "{email}");
        }
    }
}

both_with! { true, PROXIED;
    async fn an_attempt_that_nobody_waited_for_is_told_of_all_the_same(app: &TestApp) {
        // Whoever hangs up leaves an attempt that was spent and never looked at: five of them lock the account.
        let ada = app.person("ada@ex.test").await;
        let user = ada.id.parse().unwrap();
        for _ in 0..5 {
            let inner = app.app.clone();
            let spent = app.app.db.write(move |tx| {
                let whose = Whose::at(inner.code_key.current(), Some(user), "ada@ex.test");
                Ok(lockout::reserve(tx, &inner, (whose, "ada@ex.test"), None)?.is_ok())
            });
            assert!(spent.await.unwrap());
        }
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.refusal(), LOCKED);
        assert_eq!(told(app, &ada.email, "account_locked").await, 0, "nobody was there to say that it was wrong");
        app.clock.advance(MINUTE);
        let token = link_token(&mailed(app, &ada.email, "account_locked", 1).await);
        assert_eq!(post(app, "/v1/auth/unlock", &json!({ "token": token })).await.status, 200);
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.status, 200);
    }
}

both_with! { true, &format!("{PROXIED}[lockout]\nstrangers = 6");
    async fn that_nobody_may_try_any_more_is_said_when_it_happens(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        assert_eq!(burst(app, 0, &ada.email).await, 5);
        let first = mailed(app, &ada.email, "account_locked", 1).await;
        assert!(first.text.contains("for a while"), "{}", first.text);
        app.clock.advance(10 * MINUTE);
        assert_eq!(burst(app, 20, &ada.email).await, 1, "the sixth is the last");
        let second = mailed(app, &ada.email, "account_locked", 2).await;
        assert!(second.text.contains("until you unlock it") && !second.text.contains("for a while"), "{}", second.text);
        for (mail, status) in [(first, 422), (second, 200)] {
            let token = link_token(&mail);
            assert_eq!(post(app, "/v1/auth/unlock", &json!({ "token": token })).await.status, status);
        }
        assert_eq!(guess(app, 0, &ada.email, PASSWORD).await.status, 200);
    }
}

both_with! { true, &format!("{PROXIED}[lockout]\nstrangers = 6");
    async fn forgetting_who_never_proved_an_address_forgets_no_guess(app: &TestApp) {
        // Registered by somebody else, guessed at, and swept: what was nobody's before is as locked as what is somebody's.
        app.person("proven@ex.test").await;
        for email in ["proven@ex.test", "unproven@ex.test"] {
            assert_eq!(post(app, "/v1/auth/register", &json!({ "email": email, "password": OTHER })).await.status, 202);
            assert_eq!(burst(app, 0, email).await, 5);
        }
        app.quiet().await;
        app.clock.advance(2 * HOUR);
        app.quiet().await;
        app.clock.advance(9 * DAY);
        let unproven = || app.count("SELECT COUNT(*) FROM user_emails WHERE address_key = 'unproven@ex.test'");
        // What is just being looked at is swept the next time.
        app.until("the unproven one is swept", || async {
            app.clock.advance(10 * MINUTE);
            unproven().await == 0
        })
        .await;
        for (n, email) in ["proven@ex.test", "unproven@ex.test"].into_iter().enumerate() {
            assert_eq!(burst(app, 100 * n, email).await, 1, "{email}: the sixth is the last");
        }
    }
}

both_with! { true, PROXIED;
    async fn an_address_that_was_locked_before_anybody_had_it_is_its_owners(app: &TestApp) {
        assert_eq!(burst(app, 0, "ada@ex.test").await, 5);
        let ada = app.person("ada@ex.test").await;
        let elsewhere = guess(app, 0, &ada.email, PASSWORD).await;
        assert_eq!((elsewhere.status, elsewhere.str("/user/id")), (200, ada.id), "{}", elsewhere.text);
    }
}

async fn a_restart_forgives_nobody(engine: Engine) {
    let app = TestApp::with(engine, true, PROXIED).await;
    let ada = app.person("ada@ex.test").await;
    let laptop = get_known(&app, &ada.email).await;
    for email in [ada.email.as_str(), "nobody@ex.test"] {
        assert_eq!(burst(&app, 0, email).await, 5);
    }
    let app = app.restart(PROXIED).await;
    for email in [ada.email.as_str(), "nobody@ex.test"] {
        let right = guess(&app, 0, email, PASSWORD).await;
        assert_eq!((right.refusal().as_str(), pause(&right)), (LOCKED, 60), "{email}");
    }
    assert_eq!(on_device(&app, &ada.email, PASSWORD, &laptop).await.status, 200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_forgives_nobody_on_sqlite() {
    a_restart_forgives_nobody(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_forgives_nobody_on_postgres() {
    a_restart_forgives_nobody(Engine::Postgres).await;
}

both_with! { true, "[lockout]\nmode = \"report\"\n[limits.sign_in]\nmode = \"off\"\n";
    async fn a_lock_that_only_reports_stops_nobody(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        for n in 0..100 {
            assert_eq!(app.login(&ada.email, &format!("guess {n}")).await.refusal(), WRONG, "guess {n}");
        }
        assert_eq!(app.count("SELECT strangers FROM password_guesses").await, 100, "they are counted");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        assert_eq!(told(app, &ada.email, "account_locked").await, 0);
    }
}
