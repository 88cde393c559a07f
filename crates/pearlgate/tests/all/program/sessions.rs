//! Sessions in the hands of the program itself: databases that go away, kills, operators' commands.

use std::path::Path;

use reqwest::Method;
use serde_json::json;

use super::api::Api;
use super::child::{PATIENCE, dev, pearlgate, serve, until};
use super::cluster::Cluster;
use crate::support::{Answer, Person};

/// A command on a data directory.
fn command(data: &Path, args: &[&str]) -> super::child::Call {
    pearlgate(args).arg("--data").arg(data.to_str().unwrap())
}

async fn log_out(api: &Api, person: &Person) -> Answer {
    api.post("/v1/auth/logout", json!({ "refresh_token": person.refresh })).await
}

async fn why(api: &Api, person: &Person) -> String {
    let answer = api.refresh(&person.refresh).await;
    assert_eq!(answer.refusal(), "401 session_ended", "{}", answer.text);
    answer.str("/reason")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_out_that_cannot_be_stored_is_no_sign_out_and_a_stored_one_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::away();
    cluster.start().await;
    let start = || dev(dir.path()).set("database.url", &cluster.url()).set("database.connections", "4");
    let mut server = start().start().await;
    let ada = Person::of(&server.api.dev_person("ada@example.com").await);
    let other = Person::of(&server.api.login("ada@example.com").await);
    cluster.freeze();
    let refused = log_out(&server.api, &ada).await;
    assert_eq!(
        refused.refusal(),
        "503 dependency_unavailable",
        "nobody is told that they are out when they are not"
    );
    assert_eq!(server.api.get_as("/v1/me", &ada.access).await.status, 503, "and nobody is let in unchecked");
    assert_eq!(server.api.get("/.well-known/jwks.json").await.status, 200);
    cluster.thaw();
    let alive = || async { (server.api.get_as("/v1/me", &ada.access).await.status == 200).then_some(()) };
    until("the session is there as before", PATIENCE, alive).await;
    assert_eq!(log_out(&server.api, &ada).await.status, 204);
    server.kill();

    let server = start().start().await;
    assert_eq!(why(&server.api, &ada).await, "logged_out");
    assert_eq!(server.api.refresh(&other.refresh).await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_commands_reach_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let ada = Person::of(&server.api.dev_person("ada@example.com").await);
    let data = dir.path();

    let said = command(data, &["user", "suspend", "ada@example.com", "--reason", "spam"]).run().await;
    assert!(said.went_well().contains(&ada.id), "{said:?}");
    assert_eq!(why(&server.api, &ada).await, "suspended");
    assert_eq!(server.api.login("ada@example.com").await.refusal(), "403 account_suspended");
    command(data, &["user", "unsuspend", &ada.id]).run().await.went_well();
    let again = Person::of(&server.api.login("ada@example.com").await);
    command(data, &["user", "sign-out", "Ada@Example.com"]).run().await.went_well();
    assert_eq!(why(&server.api, &again).await, "revoked_by_admin");
    let nobody = command(data, &["user", "sign-out", "nobody@example.com"]).run().await;
    nobody.refused(&["nobody@example.com"]);
    let feed = server.api.get("/v1/revocations").await;
    assert_eq!(feed.json["items"].as_array().unwrap().len(), 2, "{}", feed.text);

    let first = command(data, &["keys", "list"]).run().await.went_well().to_owned();
    let kid = first.split_whitespace().next().unwrap().to_owned();
    assert!(first.contains("ES256  signing") && first.lines().count() == 1, "{first}");
    let rotated = command(data, &["keys", "rotate"]).run().await.went_well().to_owned();
    assert!(rotated.contains("signs from"), "{rotated}");
    let pending = command(data, &["keys", "rotate"]).run().await.went_well().to_owned();
    assert!(pending.contains("on its way already"), "{pending}");
    let both = || async {
        let set = server.api.get("/.well-known/jwks.json").await;
        (set.json["keys"].as_array().unwrap().len() == 2).then_some(())
    };
    until("the running server publishes it", PATIENCE, both).await;
    let stays = Person::of(&server.api.login("ada@example.com").await);
    command(data, &["keys", "revoke", "nonsense"]).run().await.refused(&["nonsense", "keys list"]);
    command(data, &["keys", "revoke", &kid]).run().await.went_well();
    let refused = || async {
        (server.api.get_as("/v1/me", &stays.access).await.refusal() == "401 token_invalid").then_some(())
    };
    until("what it signed is worth nothing", PATIENCE, refused).await;
    let next = server.api.refresh(&stays.refresh).await;
    assert_eq!(server.api.get_as("/v1/me", &next.str("/access_token")).await.status, 200);
    let resealed = command(data, &["keys", "reseal"]).run().await.went_well().to_owned();
    let nothing = "0 signing keys, 0 second factors, 0 providers and 0 webhook secrets";
    assert!(resealed.starts_with(nothing), "{resealed}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_just_registered_is_told_of_no_new_device() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    for number in 0..5 {
        server.api.dev_person(&format!("p{number}@example.com")).await;
    }
    // What was to be sent before this has been sent.
    server.api.login("p4@example.com").await;
    let told = || async {
        let messages = server.api.get("/dev/v1/messages?kind=new_device").await;
        Some(messages).filter(|messages| !messages.json["items"].as_array().unwrap().is_empty())
    };
    let told = until("the second device is told of", PATIENCE, told).await;
    assert_eq!(told.json["items"].as_array().unwrap().len(), 1, "{}", told.text);
    assert_eq!(told.str("/items/0/to"), "p4@example.com");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_master_key_costs_sessions_and_no_account() {
    use data_encoding::BASE64;
    let dir = tempfile::tempdir().unwrap();
    let key = |byte: u8| BASE64.encode(&[byte; 32]);
    let server = dev(dir.path()).set("secrets.master_key", &key(1)).start().await;
    let ada = Person::of(&server.api.dev_person("ada@example.com").await);
    server.stop().await;

    let lost = dev(dir.path()).set("secrets.master_key", &key(2));
    let refused = lost.run().await;
    refused.refused(&["cannot be opened", "old_master_keys", "keys revoke"]);
    let kid = refused.err.split("the signing key ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let revoke = command(dir.path(), &["keys", "revoke", &kid]).set("secrets.master_key", &key(2));
    revoke.run().await.went_well();
    let server = dev(dir.path()).set("secrets.master_key", &key(2)).start().await;
    assert_eq!(server.api.refresh(&ada.refresh).await.refusal(), "401 token_invalid");
    assert_eq!(server.api.login("ada@example.com").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_and_the_question_about_tokens_are_for_the_internal_listener() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).start().await;
    let internal = server.internal().await;
    assert_eq!(
        server.api.get("/v1/revocations").await.refusal(),
        "401 not_authenticated",
        "for keys that may"
    );
    assert_eq!(internal.get("/v1/revocations").await.json["items"], json!([]));
    let form = |api: &Api| {
        let request = api.request(Method::POST, "/v1/introspect");
        request.header("content-type", "application/x-www-form-urlencoded").body("token=x")
    };
    assert_eq!(server.api.send(form(&server.api)).await.refusal(), "404 not_found");
    assert_eq!(internal.send(form(&internal)).await.json, json!({ "active": false }));

    // Who follows is told when the server stops, and holds nothing up.
    let follow = internal.request(Method::GET, "/v1/revocations").header("accept", "text/event-stream");
    let mut following = follow.send().await.unwrap();
    let listening =
        tokio::spawn(async move { while following.chunk().await.is_ok_and(|chunk| chunk.is_some()) {} });
    server.stop().await;
    tokio::time::timeout(PATIENCE, listening).await.expect("the follower was left hanging").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_says_where_it_began_when_there_is_a_map() {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/places/places.mmdb");
    let dir = tempfile::tempdir().unwrap();
    let missing = dev(dir.path()).set("devices.places_file", "/nowhere/places.mmdb").run().await;
    missing.refused(&["devices.places_file", "/nowhere/places.mmdb"]);
    let server = dev(dir.path())
        .set("devices.places_file", map.to_str().unwrap())
        .set("server.trusted_proxies", "127.0.0.1")
        .start()
        .await;
    server.api.dev_person("ada@example.com").await;
    for (from, place) in [
        ("127.0.0.9", "Testville, TV"),
        ("192.0.2.7", "DE"),
        ("198.51.100.1", ""),
        ("203.0.113.5", ""),
        ("2001:db8::1", ""),
    ] {
        let body = json!({ "email": "ada@example.com", "password": crate::support::PASSWORD });
        let login =
            server.api.request(Method::POST, "/v1/auth/login").header("x-forwarded-for", from).json(&body);
        let here = Person::of(&server.api.send(login).await);
        let list = server.api.get_as("/v1/me/sessions?limit=1", &here.access).await;
        assert_eq!(
            (list.str("/items/0/place").as_str(), list.str("/items/0/address").as_str()),
            (place, from)
        );
    }
    let mail = server.api.mailbox("ada@example.com").await;
    assert_eq!(mail["kind"], "new_device");
    server.stop().await;
}
