//! Accounts that are deleted, and owners who stay, at the server's own machine.

use std::path::Path;

use serde_json::Value;

use super::child::{Call, Outcome, PUBLIC, dev, pearlgate};
use crate::support::{PASSWORD, Person};

/// A command on a data directory, which knows the server's address.
fn command(data: &Path, args: &[&str]) -> Call {
    let call = pearlgate(args).arg("--data").arg(data.to_str().unwrap());
    call.set("server.public_url", PUBLIC)
}

async fn run(data: &Path, args: &[&str]) -> Outcome {
    command(data, args).run().await
}

async fn events(data: &Path, kind: &str) -> Vec<Value> {
    let listed = run(data, &["audit", "list", "--kind", kind, "--json"]).await;
    listed.went_well().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_deleted_and_kept_at_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = dev(data).start().await;
    let ada = Person::of(&server.api.dev_person("ada@example.com").await);
    let who = "ada@example.com";

    run(data, &["user", "restore", who]).await.refused(&["Nothing was changed", "Nobody asked"]);
    run(data, &["user", "delete", who]).await.refused(&["Nothing was changed", "--yes", &ada.id]);
    assert_eq!(server.api.login(who).await.status, 200);
    let unknown = pearlgate(&["user", "delete", who, "--yes", "--data", data.to_str().unwrap()]).run().await;
    unknown.refused(&["Nothing was changed", "server.public_url"]);
    let said = run(data, &["user", "delete", who, "--yes"]).await;
    assert!(said.went_well().contains(&ada.id) && said.out.contains("user restore"), "{said:?}");
    let me = server.api.request(reqwest::Method::GET, "/v1/me").bearer_auth(&ada.access);
    let me = server.api.send(me).await;
    assert_eq!((me.refusal().as_str(), me.json["reason"].as_str()), ("401 session_ended", Some("closed")));
    assert_eq!(server.api.login(who).await.refusal(), "403 account_suspended");
    run(data, &["user", "unsuspend", who]).await.refused(&["Nothing was changed", "restore it first"]);
    let kept = run(data, &["user", "restore", who]).await;
    assert!(kept.went_well().contains("is not deleted"), "{kept:?}");
    assert_eq!(server.api.login(who).await.status, 200);
    let asked = events(data, "closing_asked").await;
    assert_eq!((asked.len(), asked[0]["actor"].as_str()), (1, Some("console")), "{asked:?}");
    assert_eq!(events(data, "closing_taken_back").await.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_machine_shuts_the_last_owner_out_by_accident() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (data, password) = (dir.path(), elsewhere.path().join("password"));
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    dev(data).start().await.stop().await;
    let made = command(data, &["admin", "create", "boss@example.com", "--name", "Boss"]);
    made.set("passwords.breach.url", "").reading(&password).run().await.went_well();
    let who = "boss@example.com";
    for args in [vec!["user", "suspend", who, "--reason", "x"], vec!["user", "delete", who, "--yes"]] {
        run(data, &args).await.refused(&["Nothing was changed", "last owner"]);
    }
    assert!(events(data, "suspended").await.is_empty() && events(data, "closing_asked").await.is_empty());

    // With another one it goes.
    let server = dev(data).start().await;
    server.api.dev_person("other@example.com").await;
    run(data, &["user", "grant", "other@example.com", "owner"]).await.went_well();
    run(data, &["user", "suspend", who, "--reason", "x"]).await.went_well();
    run(data, &["user", "suspend", "other@example.com", "--reason", "x"]).await.refused(&["last owner"]);
    server.stop().await;
}
