//! Webhooks at the program itself: its commands, a foreign library that checks signatures, and `kill -9`.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::child::{Call, PATIENCE, Server, dev, dev_on, pearlgate, until};
use crate::support::environment;
use crate::support::receiver::{Heard, Manner, Receiver};

/// A command about the webhooks of a dev server's data, while it runs.
fn webhook(data: &Path, args: &[&str]) -> Call {
    let call = pearlgate(&[&["webhook"], args, &["--data", data.to_str().unwrap()]].concat());
    call.set("webhooks.private_hosts", "127.0.0.1")
}

/// Has a receiver told; its id and its secret.
async fn add(data: &Path, receiver: &Receiver) -> (String, String) {
    let said = webhook(data, &["add", &receiver.url, "--description", "books"]).run().await;
    let words: Vec<&str> = said.went_well().split_whitespace().collect();
    let word = |start: &str| words.iter().find(|word| word.starts_with(start)).unwrap().to_string();
    (word("whk_"), word("whsec_"))
}

async fn rename(server: &Server, access: &str, name: &str) -> Option<u16> {
    let request = server.api.request(Method::PATCH, "/v1/me").bearer_auth(access);
    server.api.try_send(request.json(&json!({ "display_name": name }))).await.map(|answer| answer.status)
}

/// What the Standard Webhooks library for JavaScript says of messages.
fn foreign(cases: &[Value]) -> Vec<String> {
    let mut node = Command::new(environment("PEARLGATE_TEST_NODE"));
    node.args(["--experimental-global-webcrypto", "--no-warnings"])
        .arg(environment("PEARLGATE_TEST_WEBHOOKS_JS"));
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    node.stdin.take().unwrap().write_all(json!(cases).to_string().as_bytes()).unwrap();
    let said = node.wait_with_output().unwrap();
    assert!(said.status.success());
    serde_json::from_slice(&said.stdout).unwrap()
}

fn case(secret: &str, heard: &Heard) -> Value {
    json!({
        "secret": secret, "body": heard.raw,
        "headers": {
            "webhook-id": heard.id, "webhook-timestamp": heard.timestamp.to_string(), "webhook-signature": heard.signature,
        },
    })
}

#[tokio::test]
async fn a_library_that_knows_nothing_of_us_believes_what_is_ours_and_nothing_else() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let server = dev(dir.path()).start().await;
    let (id, old) = add(dir.path(), &receiver).await;
    let ada = server.api.dev_person("ada@example.com").await.str("/access_token");
    let first = receiver.take(1).await[0].clone();
    let said = webhook(dir.path(), &["rotate", &id]).run().await;
    let new = said.went_well().split_whitespace().find(|word| word.starts_with("whsec_")).unwrap().to_owned();
    assert_eq!(rename(&server, &ada, "Ada").await, Some(200));
    let second = receiver.take(2).await[1].clone();
    let altered = |change: fn(&mut Heard)| {
        let mut one = second.clone();
        change(&mut one);
        case(&old, &one)
    };
    let said = foreign(&[
        case(&old, &first),
        case(&old, &second),
        case(&new, &second),
        case(&new, &first),
        altered(|one| one.raw.push(' ')),
        altered(|one| one.id.push('0')),
        altered(|one| one.timestamp -= 1),
        altered(|one| one.timestamp -= 360),
        altered(|one| one.signature.clear()),
    ]);
    assert_eq!(said[..3], ["ok", "ok", "ok"], "{said:?}");
    assert!(said[3..].iter().all(|words| words != "ok"), "{said:?}");
    assert!(said[7].contains("too old"), "{said:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_operator_sees_and_steers_what_an_application_is_told() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let server = dev(dir.path()).start().await;
    let data = dir.path();
    let run = |text: &str| webhook(data, &text.split(' ').collect::<Vec<_>>()).run();
    assert!(run("list").await.went_well().contains("No application"));
    let (id, secret) = add(dir.path(), &receiver).await;
    let listed = run("list").await;
    let listed = listed.went_well();
    assert!(listed.contains(&id) && listed.contains("books") && listed.contains("session.ended"), "{listed}");
    assert!(!listed.contains(&secret), "shown once");
    receiver.be(Manner::Refuse(500));
    server.api.dev_person("ada@example.com").await;
    receiver.hear(1).await;
    let waiting = until("it is written down", PATIENCE, || async {
        let said = run(&format!("deliveries {id}")).await.went_well().to_owned();
        said.contains("waiting").then_some(said)
    })
    .await;
    assert!(waiting.contains("user.created") && waiting.contains("it answered 500"), "{waiting}");
    assert!(run(&format!("pause {id} --reason moving")).await.went_well().contains("waits"));
    assert!(run("list").await.went_well().contains("(paused: moving)"));
    receiver.be(Manner::Take);
    assert!(run(&format!("resume {id}")).await.went_well().contains("told again"));
    receiver.take(1).await;
    run(&format!("replay {id} --since 1h")).await.went_well();
    let twice = receiver.take(2).await;
    assert_eq!(twice[0].id, twice[1].id);
    run(&format!("replay {id} --since soon")).await.refused(&["how long ago"]);
    run("pause whk_00000000000000000000000000000000").await.refused(&["no endpoint", "webhook list"]);
    run("remove ada").await.refused(&["whk_"]);
    run("add http://example.com/hook").await.refused(&["https"]);
    run("add https://example.com/hook --events user.exploded").await.refused(&["user.created"]);
    assert!(run(&format!("remove {id}")).await.went_well().contains("nothing any more"));
    server.stop().await;
}

#[tokio::test]
async fn a_killed_server_loses_and_reorders_nothing_that_it_had_to_tell() {
    let (dir, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let mut server = dev(dir.path()).start().await;
    let (id, _) = add(dir.path(), &receiver).await;
    let mut people = Vec::new();
    for n in 0..4 {
        people.push(server.api.dev_person(&format!("p{n}@example.com")).await.str("/access_token"));
    }
    let changed = AtomicUsize::new(people.len());
    for round in 0..5 {
        // Until the server is gone: some of it is told, some waits.
        let changing = async {
            for n in 0..60 {
                for access in &people {
                    if rename(&server, access, &format!("{round}-{n}")).await == Some(200) {
                        changed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        };
        let heard = receiver.all().len();
        tokio::select! {
            () = changing => {}
            _ = receiver.hear(heard + 20 + 7 * round) => {}
        }
        server.kill();
        server = dev_on(dir.path(), server.port).start().await;
    }
    let ledger = || {
        let file = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
        let mut rows = file
            .prepare(
                "SELECT lower(hex(user_id)), lower(hex(id)) FROM webhook_events ORDER BY user_id, number",
            )
            .unwrap();
        let rows =
            rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
        let mut by_person: HashMap<String, Vec<String>> = HashMap::new();
        for (user, event) in rows.map(Result::unwrap) {
            by_person.entry(format!("usr_{user}")).or_default().push(format!("msg_{event}"));
        }
        by_person
    };
    // What was on its way when it died is held for half a minute: that has passed now.
    let moved = server.api.post("/dev/v1/clock", json!({ "advance": "40s" })).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    let (stored, everything) = (ledger(), Duration::from_secs(60));
    let count: usize = stored.values().map(Vec::len).sum();
    let changed = changed.into_inner();
    assert!(count >= changed && changed > 100, "{count} events of {changed} acknowledged changes");
    let told = || {
        let mut by_person: HashMap<String, Vec<String>> = HashMap::new();
        for one in receiver.taken() {
            let events = by_person.entry(one.user().to_owned()).or_default();
            // A message may come twice; the first time is what counts.
            if !events.contains(&one.id) {
                events.push(one.id);
            }
        }
        by_person
    };
    let complete = || async { (told().values().map(Vec::len).sum::<usize>() >= count).then_some(()) };
    until("everything is told", everything, complete).await;
    assert_eq!(told(), stored, "each person's events, all of them, in their order");
    let twice = receiver.taken().len() - count;
    assert!(twice <= 5 * 8, "what was on its way when the server died, and no more: {twice}");
    webhook(dir.path(), &["remove", &id]).run().await.went_well();
    server.stop().await;
}
