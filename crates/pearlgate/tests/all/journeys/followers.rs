//! Services that trust our tokens: they ask which sessions ended, follow the ends as they happen, or ask about a token.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::steps::Servers;
use crate::both;
use crate::support::{Answer, Engine, PASSWORD, PATIENCE, Person, TestApp};

const MINUTE: Duration = Duration::from_secs(60);

/// The sessions in an answer of the feed, each with its reason.
fn ends(answer: &Answer) -> Vec<(String, String)> {
    let items = answer.json["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            (item["session_id"].as_str().unwrap().to_owned(), item["reason"].as_str().unwrap().to_owned())
        })
        .collect()
}

async fn log_out(app: &TestApp, person: &Person) {
    let answer = app.post("/v1/auth/logout", json!({ "refresh_token": person.refresh })).await;
    assert_eq!(answer.status, 204);
}

both! {
    async fn a_service_hears_of_every_end_by_asking(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let [one, two, three] = [(), (), ()].map(|()| app.login(&ada.email, PASSWORD));
        let [one, two, three] = [Person::of(&one.await), Person::of(&two.await), Person::of(&three.await)];
        let nothing = app.get("/v1/revocations").await;
        assert_eq!((ends(&nothing).len(), nothing.str("/next_cursor").as_str()), (0, ""));
        log_out(app, &one).await;
        app.clock.advance(MINUTE);
        let answer = app.get(&format!("/v1/revocations?since={}", nothing.str("/until"))).await;
        assert_eq!(ends(&answer), [(one.session.clone(), "logged_out".to_owned())]);
        assert_eq!(answer.str("/items/0/user_id"), ada.id);
        let request = app.request(Method::DELETE, &format!("/v1/me/sessions/{}", two.session)).bearer_auth(&ada.access);
        assert_eq!(app.send(request).await.status, 204);
        let next = app.get(&format!("/v1/revocations?since={}", answer.str("/until"))).await;
        assert_eq!(ends(&next), [(two.session.clone(), "revoked_by_user".to_owned())], "and nothing that is long known");
        let again = app.get(&format!("/v1/revocations?since={}", next.str("/until"))).await;
        assert_eq!(ends(&again), ends(&next), "an end may become visible late, so the last seconds are told twice");
        app.clock.advance(9 * MINUTE + Duration::from_secs(11));
        assert_eq!(ends(&app.get("/v1/revocations").await).len(), 1, "what ended earlier than any living token was made is left out");
        log_out(app, &three).await;
        let all = app.get("/v1/revocations?since=2000-01-01T00:00:00Z").await;
        assert_eq!(ends(&all).len(), 2, "from whenever it was asked: {}", all.text);
        for bad in ["since=yesterday", "cursor=forged", "until=2000-01-01T00:00:00Z"] {
            assert_eq!(app.get(&format!("/v1/revocations?{bad}")).await.refusal(), "422 validation_failed", "{bad}");
        }
    }
}

both! {
    async fn many_ends_at_one_moment_are_all_told(app: &TestApp) {
        app.person("ada@example.com").await;
        let now = app.clock.now().micros();
        let (numbers, id) = match app.engine {
            Engine::Sqlite => ("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 6000) SELECT", "randomblob(16)"),
            Engine::Postgres => ("WITH n(n) AS (SELECT generate_series(1, 6000)) SELECT", "decode(md5(n::text || random()::text), 'hex')"),
        };
        for (moment, most) in [(now - 2, 6_000), (now - 1, 3)] {
            app.sql(&format!("INSERT INTO ended_sessions (id, user_id, reason, ended_at, kept_until) {numbers} {id}, (SELECT id FROM users), 'suspended', {moment}, {now} FROM n WHERE n <= {most}")).await;
        }
        let first = app.get("/v1/revocations").await;
        let rest = app.get(&format!("/v1/revocations?cursor={}", first.str("/next_cursor"))).await;
        assert_eq!((ends(&first).len(), ends(&rest).len(), rest.str("/next_cursor").as_str()), (6_000, 3, ""));
    }
}

/// A connection that hears of ends as they happen.
struct Follower {
    response: reqwest::Response,
    heard: String,
}

impl Follower {
    async fn at(app: &TestApp, url: &str, query: &str) -> Self {
        let request =
            app.client.get(format!("{url}/v1/revocations{query}")).header("accept", "text/event-stream");
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
            (200, "text/event-stream")
        );
        Self { response, heard: String::new() }
    }

    async fn hears(&mut self, what: &str) {
        let listening = async {
            while !self.heard.contains(what) {
                let chunk = self.response.chunk().await.unwrap().expect("the server hung up");
                self.heard.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, listening)
            .await
            .unwrap_or_else(|_| panic!("never heard of {what}: {}", self.heard));
    }
}

both! {
    async fn a_service_hears_of_an_end_as_it_happens(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let [one, two] = [app.login(&ada.email, PASSWORD).await, app.login(&ada.email, PASSWORD).await].map(|answer| Person::of(&answer));
        log_out(app, &one).await;
        let servers = Servers::start(app).await;
        let mut follower = Follower::at(app, servers.other(), "").await;
        follower.hears(&one.session).await;
        // One connection, and an end that was stored by another server.
        app.clock.advance(MINUTE);
        log_out(app, &two).await;
        follower.hears(&two.session).await;
        let event = follower.heard.split("\n\n").find(|event| event.contains(&two.session)).unwrap();
        let lines: Vec<&str> = event.lines().collect();
        assert_eq!((lines[0], lines[1]), ("event: session_ended", format!("id: {}", app.clock.now()).as_str()));
        let data: serde_json::Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data, json!({ "session_id": two.session, "user_id": ada.id, "reason": "logged_out", "ended_at": app.clock.now().to_string() }));
        assert_eq!(follower.heard.matches(&one.session).count(), 1, "in one connection each is told once");
        // Who comes back says where they were.
        let mut back = Follower::at(app, &app.url, &format!("?since={}", app.clock.now())).await;
        back.hears(&two.session).await;
        assert!(!back.heard.contains(&one.session));
        servers.stop().await;
        // And a server that stops does not wait for its followers: `finish` would not come back.
        back.response.chunk().await.ok();
    }
}

both! {
    async fn a_service_may_ask_what_a_token_is(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        let ask = |token: String| {
            let form = app.request(Method::POST, "/v1/introspect").header("content-type", "application/x-www-form-urlencoded");
            app.send(form.body(format!("token={token}")))
        };
        let known = ask(ada.access.clone()).await;
        assert_eq!((known.json["active"].as_bool(), known.str("/sub"), known.str("/sid")), (Some(true), ada.id.clone(), ada.session.clone()));
        assert_eq!((known.str("/token_type").as_str(), known.str("/iss"), known.json["exp"].as_i64()), ("Bearer", app.url.clone(), Some(app.clock.now().seconds() + 600)));
        let nothing = json!({ "active": false });
        for other in [ada.refresh.clone(), "garbage".into(), String::new(), format!("{}x", ada.access)] {
            assert_eq!(ask(other.clone()).await.json, nothing, "{other}");
        }
        let bare = app.send(app.request(Method::POST, "/v1/introspect").header("content-type", "application/x-www-form-urlencoded").body("")).await;
        assert_eq!(bare.fields(), ["token:required"]);
        let stays = Person::of(&app.login(&ada.email, PASSWORD).await);
        log_out(app, &ada).await;
        assert_eq!(ask(ada.access.clone()).await.json, nothing, "at once, and no reason: it is none of a stranger's business");
        assert_eq!(ask(stays.access.clone()).await.json["active"], true);
        app.clock.advance(10 * MINUTE);
        assert_eq!(ask(stays.access).await.json, nothing);
    }
}

both! {
    async fn the_public_keys_may_be_kept_and_are_asked_for_again(app: &TestApp) {
        let keys = app.get("/.well-known/jwks.json").await;
        assert_eq!((keys.status, keys.header("cache-control"), keys.header("access-control-allow-origin")), (200, "public, max-age=300", "*"));
        let tag = keys.header("etag").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            let same = app.send(app.request(Method::GET, "/.well-known/jwks.json").header("if-none-match", &known)).await;
            assert_eq!((same.status, same.text.as_str(), same.header("etag")), (304, "", tag.as_str()), "{known}");
        }
        let other = app.send(app.request(Method::GET, "/.well-known/jwks.json").header("if-none-match", "\"other\"")).await;
        assert_eq!(other.text, keys.text);
    }
}
