//! Where somebody is signed in, ending that, and proving once more who they are.

use std::time::Duration;

use pearlgate::sessions::{self, Beginning, Begun, Proof};
use reqwest::Method;
use serde_json::{Value, json};

use super::steps::{Tab, by_link, cookies, ended, forgot, mails, reset, send_as, token_of};
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Signs in as a browser of its own does.
async fn login_with(app: &TestApp, body: Value, agent: &str) -> Answer {
    app.send(app.request(Method::POST, "/v1/auth/login").header("user-agent", agent).json(&body)).await
}

async fn reauthenticate(app: &TestApp, access: &str, password: &str) -> Answer {
    send_as(app, Method::POST, "/v1/me/reauthenticate", access, json!({ "password": password })).await
}

async fn delete(app: &TestApp, path: &str, access: &str) -> Answer {
    app.send(app.request(Method::DELETE, path).bearer_auth(access)).await
}

/// One person's id in the database's own terms.
async fn user_of(app: &TestApp, person: &Person) -> foundation::kernel::Id<pearlgate::accounts::UserRow> {
    pearlgate::accounts::find(&app.app, &person.id).await.unwrap().unwrap()
}

both! {
    async fn a_person_sees_where_they_are_signed_in(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.person("eve@example.com").await;
        app.clock.advance(MINUTE);
        let named = json!({ "email": ada.email, "password": PASSWORD, "device_name": "Ada's laptop" });
        let laptop = Person::of(&login_with(app, named, FIREFOX).await);
        app.clock.advance(MINUTE);
        let browser = login_with(app, json!({ "email": ada.email, "password": PASSWORD }), FIREFOX).await;
        let list = app.get_as("/v1/me/sessions", &laptop.access).await;
        let names: Vec<&str> = list.json["items"].as_array().unwrap().iter().map(|s| s["device"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["Firefox on Linux", "Ada's laptop", ""], "newest first, nobody else's");
        let current: Vec<bool> = list.json["items"].as_array().unwrap().iter().map(|s| s["current"].as_bool().unwrap()).collect();
        assert_eq!(current, [false, true, false]);
        let newest = &list.json["items"][0];
        assert_eq!((newest["id"].as_str(), newest["aal"].as_i64(), newest["amr"][0].as_str()), (browser.json["session"]["id"].as_str(), Some(1), Some("pwd")));
        assert_eq!((newest["place"].as_str(), newest["address"].as_str()), (Some(""), Some("127.0.0.1")));

        let pages = app.get_as("/v1/me/sessions?limit=2", &laptop.access).await;
        let rest = app.get_as(&format!("/v1/me/sessions?limit=2&cursor={}", pages.str("/next_cursor")), &laptop.access).await;
        assert_eq!((pages.json["items"].as_array().unwrap().len(), rest.json["items"].as_array().unwrap().len()), (2, 1));
        assert_eq!(rest.str("/next_cursor"), "");
        assert_eq!(app.get_as("/v1/me/sessions?limit=0", &laptop.access).await.refusal(), "422 validation_failed");
    }
}

both! {
    async fn when_a_session_was_last_seen_is_written_down_in_batches(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        app.clock.advance(5 * MINUTE);
        let before = app.clock.now();
        app.app.db.observe();
        for _ in 0..20 {
            assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        }
        let writes: Vec<&str> = app.app.db.observed().into_iter().flatten().filter(|name| name.contains("SEEN")).collect();
        assert!(writes.is_empty(), "a request writes nothing: {writes:?}");
        app.clock.advance(MINUTE);
        let written = "SELECT last_seen_at FROM sessions";
        app.until("it is written down", || async { app.count(written).await == before.micros() }).await;
        assert_eq!(app.get_as("/v1/me/sessions", &ada.access).await.str("/items/0/last_seen_at"), before.to_string());
        let first = app.get_as("/v1/me/sessions", &ada.access).await.str("/items/0/device/first_seen_at");
        assert_eq!(first, crate::support::START.to_string());
        assert_eq!(app.count("SELECT COUNT(*) FROM devices WHERE last_seen_at > first_seen_at").await, 1);
    }
}

both! {
    async fn sessions_can_be_ended_from_elsewhere_and_say_so(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let [one, two] = [app.login(&ada.email, PASSWORD).await, app.login(&ada.email, PASSWORD).await].map(|answer| Person::of(&answer));
        let eve = app.person("eve@example.com").await;
        for nothing in ["ses_garbage", "x", &format!("ses_{}", &eve.id[4..]), &eve.session] {
            assert_eq!(delete(app, &format!("/v1/me/sessions/{nothing}"), &ada.access).await.refusal(), "404 not_found", "{nothing}");
        }
        assert_eq!(app.get_as("/v1/me", &eve.access).await.status, 200, "nobody ends somebody else's");

        assert_eq!(delete(app, &format!("/v1/me/sessions/{}", one.session), &ada.access).await.status, 204);
        assert_eq!(ended(app, &one.access).await, "revoked_by_user");
        assert_eq!(app.refresh(&one.refresh).await.str("/reason"), "revoked_by_user");
        assert_eq!(delete(app, &format!("/v1/me/sessions/{}", one.session), &ada.access).await.refusal(), "404 not_found");
        assert_eq!(delete(app, "/v1/me/sessions", &ada.access).await.status, 204);
        assert_eq!(ended(app, &two.access).await, "revoked_by_user");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "one's own goes on");
        let history = app.get_as("/v1/me/activity?limit=1", &ada.access).await;
        assert_eq!(history.json["items"][0]["details"], json!({ "session": two.session, "reason": "revoked_by_user" }));
        assert_eq!(delete(app, &format!("/v1/me/sessions/{}", ada.session), &ada.access).await.status, 204);
        assert_eq!(ended(app, &ada.access).await, "revoked_by_user");
    }
}

both! {
    async fn whoever_is_not_fresh_ends_their_own_session_and_no_other(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let other = Person::of(&app.login(&ada.email, PASSWORD).await);
        app.clock.advance(10 * MINUTE + Duration::from_micros(1));
        let stale = Person::of(&app.refresh(&ada.refresh).await);
        for path in ["/v1/me/sessions".to_owned(), format!("/v1/me/sessions/{}", other.session)] {
            assert_eq!(delete(app, &path, &stale.access).await.refusal(), "403 reauthentication_required");
        }
        let fresh = reauthenticate(app, &stale.access, PASSWORD).await;
        assert_eq!(fresh.status, 200, "{}", fresh.text);
        let path = format!("/v1/me/sessions/{}", other.session);
        assert_eq!(delete(app, &path, &stale.access).await.refusal(), "403 reauthentication_required", "who copied a token from before has proven nothing");
        assert_eq!(app.get_as("/v1/me", &stale.access).await.status, 200, "though it stays valid");
        assert_eq!(delete(app, &path, &fresh.str("/access_token")).await.status, 204);
        app.clock.advance(10 * MINUTE + Duration::from_micros(1));
        let later = Person::of(&app.refresh(&fresh.str("/refresh_token")).await);
        assert_eq!(delete(app, "/v1/me/sessions", &later.access).await.refusal(), "403 reauthentication_required");
        assert_eq!(delete(app, &format!("/v1/me/sessions/{}", ada.session), &later.access).await.status, 204, "leaving is always possible");
    }
}

both! {
    async fn proving_it_again_keeps_the_session_and_replaces_its_token(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.clock.advance(5 * MINUTE);
        assert_eq!(reauthenticate(app, &ada.access, "not the right password").await.refusal(), "401 invalid_credentials");
        assert_eq!(reauthenticate(app, "garbage", PASSWORD).await.refusal(), "401 token_invalid");
        let answer = reauthenticate(app, &ada.access, PASSWORD).await;
        let anew = Person::of(&answer);
        assert_eq!((anew.session.as_str(), anew.id.as_str()), (ada.session.as_str(), ada.id.as_str()));
        assert_ne!(anew.refresh, ada.refresh);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "access tokens that are out stay good");
        assert_eq!(app.refresh(&ada.refresh).await.refusal(), "503 dependency_unavailable", "the old one gives nothing while the new one travels");
        let next = app.refresh(&anew.refresh).await;
        assert_eq!(next.status, 200);
        let reused = app.refresh(&ada.refresh).await;
        assert_eq!((reused.refusal().as_str(), reused.str("/reason").as_str()), ("401 session_ended", "refresh_token_reused"));
        app.mail(&ada.email, "refresh_token_reused", 1).await;
        let kinds = app.get_as("/v1/me/activity", &Person::of(&app.login(&ada.email, PASSWORD).await).access).await.text;
        assert!(kinds.contains("\"reauthenticated\"") && kinds.contains("\"reauthentication_failed\""), "{kinds}");
    }
}

both! {
    async fn a_lost_answer_signs_nobody_out_and_makes_no_thief_fresh(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.clock.advance(11 * MINUTE);
        let stale = Person::of(&app.refresh(&ada.refresh).await);
        let lost = reauthenticate(app, &stale.access, PASSWORD).await.str("/refresh_token");
        app.clock.advance(Duration::from_secs(30));
        assert_eq!(app.refresh(&stale.refresh).await.status, 503);
        app.clock.advance(Duration::from_micros(1));
        let answer = app.refresh(&stale.refresh).await;
        let back = Person::of(&answer);
        assert_eq!(back.session, ada.session, "the session goes on");
        assert_eq!(app.refresh(&stale.refresh).await.str("/refresh_token"), back.refresh, "and a repeated request gives the same");
        assert_eq!(delete(app, "/v1/me/sessions", &back.access).await.refusal(), "403 reauthentication_required", "as it was before");
        assert_eq!(app.refresh(&lost).await.str("/reason"), "refresh_token_reused", "two who hold tokens of one session are noticed");
        app.mail(&ada.email, "refresh_token_reused", 1).await;
    }
}

both! {
    async fn two_who_act_at_the_same_time_raise_no_alarm(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.clock.advance(5 * MINUTE);
        // One tab refreshes, another one proves who they are, and the first one's request is repeated.
        let next = app.refresh(&ada.refresh).await.str("/refresh_token");
        let one = reauthenticate(app, &ada.access, PASSWORD).await;
        app.clock.advance(Duration::from_secs(20));
        let two = reauthenticate(app, &ada.access, PASSWORD).await;
        assert_eq!(one.str("/refresh_token"), two.str("/refresh_token"), "twice at the same time is once");
        for late in [&ada.refresh, &next] {
            assert_eq!(app.refresh(late).await.refusal(), "503 dependency_unavailable");
        }
        app.clock.advance(Duration::from_secs(11));
        let three = reauthenticate(app, &ada.access, PASSWORD).await;
        assert_ne!(two.str("/refresh_token"), three.str("/refresh_token"));
        assert_eq!(app.refresh(&ada.refresh).await.status, 503, "what was before stays what was before");
        app.clock.advance(Duration::from_secs(31));
        assert_eq!(app.refresh(&ada.refresh).await.status, 200, "none of the answers arrived: nobody is signed out");
        assert_eq!(app.count("SELECT COUNT(*) FROM ended_sessions").await, 0);
    }
}

both! {
    async fn a_cookie_that_is_used_confirms_itself(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let login = json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" });
        let value = |answer: &Answer| cookies(answer)[0].split(';').next().unwrap().to_owned();
        let first = value(&app.post("/v1/auth/login", login).await);
        let refresh = |cookie: String| app.send(app.request(Method::POST, "/v1/auth/refresh").header("cookie", cookie).header("sec-fetch-site", "same-origin"));
        let second = value(&refresh(first.clone()).await);
        app.clock.advance(MINUTE);
        let get = |cookie: String| app.send(app.request(Method::GET, "/v1/me").header("cookie", cookie));
        // Another application of the site writes what it likes into its own cookies.
        assert_eq!(get(format!("theme=caf\u{e9}; {second}")).await.status, 200);
        let replayed = refresh(first).await;
        assert_eq!((replayed.refusal().as_str(), replayed.str("/reason").as_str()), ("401 session_ended", "refresh_token_reused"), "the one after it was in use");
        app.mail(&ada.email, "refresh_token_reused", 1).await;
    }
}

both! {
    async fn proving_it_again_with_the_cookie_answers_with_the_cookie(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let login = json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" });
        let value = |answer: &Answer| cookies(answer)[0].split(';').next().unwrap().to_owned();
        let first = value(&app.post("/v1/auth/login", login).await);
        let old = first.clone();
        let again = app.request(Method::POST, "/v1/me/reauthenticate").header("cookie", &first).header("sec-fetch-site", "same-origin");
        let again = app.send(again.json(&json!({ "password": PASSWORD }))).await;
        assert!(again.status == 200 && again.json.get("refresh_token").is_none(), "{}", again.text);
        let me = app.request(Method::GET, "/v1/me").header("cookie", value(&again));
        assert_eq!(app.send(me).await.status, 200);
        assert_eq!(app.send(app.request(Method::GET, "/v1/me").header("cookie", first)).await.refusal(), "401 token_expired");
        // Once the new one was used, the old one is nobody's way back.
        app.clock.advance(MINUTE);
        let me = app.request(Method::GET, "/v1/me").header("cookie", value(&again));
        assert_eq!(app.send(me).await.status, 200);
        let old = app.request(Method::POST, "/v1/auth/refresh").header("cookie", old).header("sec-fetch-site", "same-origin");
        assert_eq!(app.send(old).await.str("/reason"), "refresh_token_reused");
        app.mail(&ada.email, "refresh_token_reused", 1).await;
    }
}

both! {
    async fn whoever_is_put_out_is_out_of_all_of_it(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let login = json!({ "email": ada.email, "password": PASSWORD, "device_name": "see https://evil.example/now" });
        let first = login_with(app, login, FIREFOX).await;
        let mail = app.mail(&ada.email, "new_device", 1).await;
        assert!(mail.text.contains("see https   evil example now") && mail.links.len() == 1, "{}", mail.text);
        // A second session on the same device is no news to anybody.
        let device = first.str("/device_token");
        let known = json!({ "email": ada.email, "password": PASSWORD, "device_token": device });
        let second = Person::of(&login_with(app, known.clone(), FIREFOX).await);
        let (tab, _) = Tab::open(app, &mail.links[0]).await;
        assert!(tab.press(app).await.text.contains("whoever signed in knew it"));
        for thief in [&Person::of(&first), &second] {
            assert_eq!(ended(app, &thief.access).await, "revoked_by_user");
        }
        // Even with a session that is left somewhere, a disowned password sets no other.
        let change = json!({ "current_password": PASSWORD, "new_password": "the thief's own long password" });
        assert_eq!(send_as(app, Method::PUT, "/v1/me/password", &ada.access, change).await.refusal(), "401 invalid_credentials");
        let way_back = app.mail(&ada.email, "password_reset", 1).await;
        assert_eq!(reset(app, by_link(&way_back, "another purple lantern drifts")).await.status, 200);
        app.quiet().await;
        let told = mails(app, &ada.email, "new_device");
        let known = json!({ "email": ada.email, "password": "another purple lantern drifts", "device_token": device });
        assert_eq!(login_with(app, known, FIREFOX).await.status, 200);
        app.mail(&ada.email, "new_device", told + 1).await;
    }
}

both! {
    async fn who_was_away_for_years_is_told_of_a_device_too(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        app.clock.advance(401 * DAY);
        app.until("the device is forgotten", || async { app.count("SELECT COUNT(*) FROM devices").await == 0 }).await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        app.mail(&ada.email, "new_device", 1).await;
    }
}

both! {
    async fn many_sessions_end_as_fast_as_one(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let copy = |n: i64| match app.engine {
            Engine::Sqlite => format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {n}) INSERT INTO sessions (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address) SELECT randomblob(16), s.user_id, s.created_at, s.authenticated_at, s.expires_at, s.aal, s.amr, s.device_id, '', '' FROM n, sessions s"),
            Engine::Postgres => format!("INSERT INTO sessions (id, user_id, created_at, authenticated_at, expires_at, aal, amr, device_id, device_name, address) SELECT decode(md5(n::text), 'hex'), s.user_id, s.created_at, s.authenticated_at, s.expires_at, s.aal, s.amr, s.device_id, '', '' FROM generate_series(1, {n}) n, sessions s"),
        };
        app.sql(&copy(5_000)).await;
        app.app.db.observe();
        assert_eq!(delete(app, "/v1/me/sessions", &ada.access).await.status, 204);
        let work = app.app.db.observed().into_iter().find(|work| work.contains(&"END_OTHERS")).unwrap();
        assert!(work.len() < 10, "one statement for all of them: {work:?}");
        assert_eq!(app.count("SELECT COUNT(*) FROM ended_sessions WHERE reason = 'revoked_by_user'").await, 5_000);
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 1);
        let history = app.get_as("/v1/me/activity?limit=1", &ada.access).await;
        assert_eq!(history.json["items"][0]["details"], json!({ "count": 5_000, "reason": "revoked_by_user" }));
    }
}

both! {
    async fn the_cookie_opens_ones_own_account(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let login = json!({ "email": ada.email, "password": PASSWORD, "transport": "cookie" });
        let answer = app.post("/v1/auth/login", login.clone()).await;
        assert!(answer.json.get("refresh_token").is_none());
        let set = cookies(&answer);
        assert_eq!(set.len(), 2, "the session's and the device's: {set:?}");
        for cookie in &set {
            assert!(cookie.starts_with("__Host-") && cookie.contains("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age="), "{cookie}");
        }
        let session = set[0].split(';').next().unwrap().to_owned();
        let get = |cookie: String| app.send(app.request(Method::GET, "/v1/me").header("cookie", cookie));
        let me = get(session.clone()).await;
        assert_eq!((me.status, me.str("/email")), (200, ada.email.clone()));
        assert_eq!(get(format!("{session}; {session}")).await.refusal(), "401 not_authenticated", "two of one name are none");
        assert_eq!(get(String::new()).await.refusal(), "401 not_authenticated");
        assert_eq!(get("__Host-pearlgate-session=pgr_nonsense".into()).await.refusal(), "401 not_authenticated");

        let patch = |origin: &'static str, site: &'static str| {
            let mut request = app.request(Method::PATCH, "/v1/me").header("cookie", session.clone()).json(&json!({ "display_name": "Countess" }));
            if !origin.is_empty() { request = request.header("origin", origin); }
            if !site.is_empty() { request = request.header("sec-fetch-site", site); }
            app.send(request)
        };
        for (origin, site) in [("", ""), ("https://evil.example", ""), ("null", ""), ("", "cross-site"), ("", "same-site"), ("", "none"), ("https://evil.example", "cross-site")] {
            assert_eq!(patch(origin, site).await.refusal(), "403 permission_denied", "{origin} {site}");
        }
        assert_eq!(patch("", "same-origin").await.str("/display_name"), "Countess");

        // The token of the cookie is replaced like any other, and its predecessor is good for as long as that is given again.
        let refresh = |cookie: String| app.send(app.request(Method::POST, "/v1/auth/refresh").header("cookie", cookie).header("sec-fetch-site", "same-origin"));
        let next = cookies(&refresh(session.clone()).await)[0].split(';').next().unwrap().to_owned();
        assert_ne!(next, session);
        assert_eq!(get(session.clone()).await.status, 200, "another tab's request that was under way");
        app.clock.advance(Duration::from_secs(30) + Duration::from_micros(1));
        assert_eq!(get(session.clone()).await.refusal(), "401 token_expired");
        assert_eq!(get(next.clone()).await.status, 200);

        // Somebody else signs in with the same browser: the first one's session is over.
        let eve = app.person("eve@example.com").await;
        let other = app.request(Method::POST, "/v1/auth/login").header("cookie", &next).header("sec-fetch-site", "same-origin");
        let other = app.send(other.json(&json!({ "email": eve.email, "password": PASSWORD, "transport": "cookie" }))).await;
        assert_eq!(other.status, 200);
        let gone = get(next).await;
        assert_eq!((gone.refusal().as_str(), gone.str("/reason").as_str()), ("401 session_ended", "logged_out"));

        let left = cookies(&other)[0].split(';').next().unwrap().to_owned();
        app.quiet().await;
        app.clock.advance(31 * DAY);
        assert_eq!(get(left).await.str("/reason"), "idle");
    }
}

both! {
    async fn a_new_device_is_told_of_and_can_be_put_out(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let first = app.login(&ada.email, PASSWORD).await;
        let mail = app.mail(&ada.email, "new_device", 1).await;
        assert!(mail.text.contains("without a name") && mail.links.len() == 1, "{}", mail.text);
        let again = json!({ "email": ada.email, "password": PASSWORD, "device_token": first.str("/device_token") });
        assert_eq!(login_with(app, again, FIREFOX).await.status, 200);
        app.quiet().await;
        assert_eq!(mails(app, &ada.email, "new_device"), 1, "a known device is no news");

        let thief = Person::of(&login_with(app, json!({ "email": ada.email, "password": PASSWORD }), FIREFOX).await);
        let mail = app.mail(&ada.email, "new_device", 2).await;
        assert!(mail.text.contains("Firefox on Linux"), "{}", mail.text);
        // A thief who signs out has left, and still knows the password.
        let left = Person::of(&login_with(app, json!({ "email": ada.email, "password": PASSWORD }), FIREFOX).await);
        let after = app.mail(&ada.email, "new_device", 3).await;
        assert_eq!(app.post("/v1/auth/logout", json!({ "refresh_token": left.refresh })).await.status, 204);
        let (tab, page) = Tab::open(app, &mail.links[0]).await;
        assert!(page.text.contains("Firefox on Linux") && page.text.contains("end that session"), "{}", page.text);
        assert_eq!(app.get_as("/v1/me", &thief.access).await.status, 200, "looking at the page changes nothing");
        let done = tab.press(app).await;
        assert!(done.status == 200 && done.text.contains("The session has ended"), "{}", done.text);
        assert_eq!(ended(app, &thief.access).await, "revoked_by_user");
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200, "one's own sessions go on");
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "422 validation_failed", "whoever knew the password knows nothing any more");
        app.mail(&ada.email, "password_reset", 1).await;
        let (other, _) = Tab::open(app, &after.links[0]).await;
        assert!(other.press(app).await.text.contains("whoever signed in knew it"));
        let (_, twice) = Tab::open(app, &mail.links[0]).await;
        assert!(twice.text.contains("does not work any more"));
        app.quiet().await;
        app.clock.advance(DAY);
        let (_, late) = Tab::open(app, &app.mail(&ada.email, "new_device", 3).await.links[0]).await;
        assert!(late.text.contains("does not work any more"));
    }
}

both! {
    async fn a_new_device_that_came_by_mail_costs_no_password(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        assert_eq!(app.post("/v1/auth/magic-link", json!({ "email": ada.email })).await.status, 202);
        let link = app.mail(&ada.email, "magic_link", 1).await;
        let token = token_of(&link.links[0]);
        let reader = Person::of(&app.post("/v1/auth/magic-link/consume", json!({ "token": token })).await);
        let mail = app.mail(&ada.email, "new_device", 1).await;
        let (tab, _) = Tab::open(app, &mail.links[0]).await;
        assert!(tab.press(app).await.text.contains("did not use your password"));
        assert_eq!(ended(app, &reader.access).await, "revoked_by_user");
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
    }
}

/// A session of this proof, as a later way in will begin it.
async fn begin(app: &TestApp, person: &Person, proof: Proof) -> Answer {
    let user = user_of(app, person).await;
    let (inner, visit) = (app.app.clone(), sessions::Visit::nowhere());
    let begun = app.app.db.write(move |tx| {
        let with = Beginning { user, password_hash: None, proof, visit: visit.clone() };
        sessions::begin(tx, &inner, &with)
    });
    let Begun::In(started) = begun.await.unwrap().unwrap() else { panic!("a factor is due") };
    let let_in =
        sessions::let_in(&app.app, *started, Default::default(), &sessions::Visit::nowhere()).await.unwrap();
    let body = serde_json::to_value(let_in.body()).unwrap();
    Answer { status: 200, headers: Default::default(), text: body.to_string(), json: body }
}

both! {
    async fn an_operator_with_a_second_factor_has_a_day_and_an_idle_hour(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let strong = Proof::PASSWORD.and(Proof::FACTOR);
        let everybody = begin(app, &ada, strong).await;
        assert_eq!(everybody.json["refresh_expires_in"], 30 * 86_400, "whoever is no operator lives as long as anybody");
        app.sql(&crate::journeys::authenticator::declared(app.engine, "admin")).await;
        app.sql("INSERT INTO user_roles (user_id, role, granted_at) SELECT id, 'admin', 1 FROM users").await;
        let weak = begin(app, &ada, Proof::PASSWORD).await;
        assert_eq!(weak.json["refresh_expires_in"], 30 * 86_400, "without the factor nobody is let in as an operator");
        let idle = begin(app, &ada, strong).await;
        let used = begin(app, &ada, strong).await;
        assert_eq!((used.json["refresh_expires_in"].as_i64(), used.json["session"]["aal"].as_i64()), (Some(3_600), Some(2)));

        let mut token = used.str("/refresh_token");
        for _ in 0..24 {
            app.clock.advance(HOUR - Duration::from_micros(1));
            let next = app.refresh(&token).await;
            assert_eq!(next.status, 200, "{}", next.text);
            token = next.str("/refresh_token");
        }
        assert_eq!(app.refresh(&idle.str("/refresh_token")).await.str("/reason"), "idle");
        app.clock.advance(Duration::from_micros(23));
        let last = app.refresh(&token).await;
        assert_eq!(last.status, 200, "the last microsecond of the day: {}", last.text);
        assert_eq!(last.json["expires_in"], 0);
        app.clock.advance(Duration::from_micros(1));
        assert_eq!(app.refresh(&last.str("/refresh_token")).await.str("/reason"), "expired");
        assert_eq!(app.refresh(&weak.str("/refresh_token")).await.status, 200);
    }
}

async fn limited(engine: Engine) {
    let app = TestApp::with(engine, true, "[tokens]\nmax_sessions = 3").await;
    let ada = app.person("ada@example.com").await;
    let eve = app.person("eve@example.com").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        app.clock.advance(MINUTE);
        others.push(Person::of(&app.login(&ada.email, PASSWORD).await));
    }
    assert_eq!(ended(&app, &ada.access).await, "session_limit", "the oldest");
    assert_eq!(app.get_as("/v1/me", &eve.access).await.status, 200, "of that person alone");
    let history = app.get_as("/v1/me/activity", &others[0].access).await.text;
    assert!(history.contains("\"session_limit\""), "{history}");
    // Many at once do not slip through together.
    let logins = (0..8).map(|_| app.login(&ada.email, PASSWORD)).collect();
    for answer in crate::support::together(logins).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, 4);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_of_too_many_ends_on_sqlite() {
    limited(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_of_too_many_ends_on_postgres() {
    limited(Engine::Postgres).await;
}

both! {
    async fn a_clock_that_jumps_revives_nothing(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let out = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(app.post("/v1/auth/logout", json!({ "refresh_token": out.refresh })).await.status, 204);
        let noon = app.clock.now();
        app.clock.advance(HOUR);
        assert_eq!(app.refresh(&ada.refresh).await.status, 200, "an hour forward signs nobody out");
        app.clock.set(noon - HOUR);
        assert_eq!(app.refresh(&out.refresh).await.str("/reason"), "logged_out");
        assert_eq!(ended(app, &out.access).await, "logged_out");

        app.clock.set(noon);
        let idle = Person::of(&app.login(&ada.email, PASSWORD).await);
        app.quiet().await;
        app.clock.advance(30 * DAY);
        assert_eq!(app.refresh(&idle.refresh).await.str("/reason"), "idle");
        app.clock.set(noon + MINUTE);
        assert_eq!(app.refresh(&idle.refresh).await.str("/reason"), "idle", "what was seen to be over stays over");
        assert_eq!(ended(app, &idle.access).await, "idle");
    }
}

both! {
    async fn an_operator_shuts_somebody_out_and_lets_them_in_again(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let mail = forgot(app, &ada.email, 1).await;
        let user = user_of(app, &ada).await;
        pearlgate::accounts::suspend(&app.app, user, "spam").await.unwrap().unwrap();
        assert_eq!(ended(app, &ada.access).await, "suspended");
        assert_eq!(app.refresh(&ada.refresh).await.str("/reason"), "suspended");
        assert_eq!(app.login(&ada.email, PASSWORD).await.refusal(), "403 account_suspended");
        let reset = reset(app, by_link(&mail, "another purple lantern drifts")).await;
        assert_eq!(reset.refusal(), "422 reset_token_invalid", "what was mailed before opens nothing after");
        assert!(pearlgate::accounts::unsuspend(&app.app, user).await.unwrap().unwrap());
        assert!(!pearlgate::accounts::unsuspend(&app.app, user).await.unwrap().unwrap());
        let again = Person::of(&app.login(&ada.email, PASSWORD).await);
        assert_eq!(app.refresh(&ada.refresh).await.str("/reason"), "suspended", "what ended stays ended");
        pearlgate::accounts::sign_out(&app.app, user).await.unwrap();
        assert_eq!(ended(app, &again.access).await, "revoked_by_admin");
        let history = app.get_as("/v1/me/activity", &Person::of(&app.login(&ada.email, PASSWORD).await).access).await.text;
        for kind in ["suspended", "unsuspended", "revoked_by_admin"] {
            assert!(history.contains(&format!("\"{kind}\"")), "{kind}: {history}");
        }
    }
}
