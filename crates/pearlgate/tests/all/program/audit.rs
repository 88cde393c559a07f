//! The trail in an operator's hands: the program's commands while a server runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::child::{Call, Outcome, dev, pearlgate};

/// A command about a trail. It gets no master key: looking needs none.
fn audit(data: &Path, args: &[&str]) -> Call {
    pearlgate(&[&["audit"], args, &["--data", data.to_str().unwrap()]].concat())
}

/// Changes the database behind the server's back.
fn damage(data: &Path, sql: &str) {
    rusqlite::Connection::open(data.join("pearlgate.db")).unwrap().execute_batch(sql).unwrap();
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// It found something, and said so in its exit status.
#[track_caller]
fn found(outcome: &Outcome) -> &str {
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    &outcome.out
}

#[tokio::test]
async fn an_operator_checks_and_keeps_the_trail_of_a_server_that_runs() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (data, checkpoint) = (dir.path(), elsewhere.path().join("monday.ndjson"));
    let checkpoint = checkpoint.to_str().unwrap();
    audit(data, &["verify"]).run().await.refused(&["no database"]);
    let server = dev(data).start().await;
    let ada = server.api.dev_person("ada@example.com").await.str("/user/id");
    let ben = server.api.dev_person("ben@example.com").await.str("/user/id");

    let whole = audit(data, &["verify"]).run().await;
    assert!(whole.went_well().contains("nothing was changed"), "{whole:?}");
    let kept = audit(data, &["checkpoint", checkpoint]).run().await;
    assert!(kept.went_well().is_empty() && kept.err.contains("chains written"), "{kept:?}");
    assert_eq!(std::fs::metadata(checkpoint).unwrap().permissions().mode() & 0o777, 0o600);
    audit(data, &["checkpoint", checkpoint]).run().await.refused(&["new file"]);
    server.api.login("ada@example.com").await;
    let since = audit(data, &["verify", "--against", checkpoint]).run().await;
    assert!(since.went_well().contains("held against the checkpoint"), "{since:?}");
    let said = audit(data, &["verify", "--json"]).run().await;
    let said: Value = serde_json::from_str(said.went_well()).unwrap();
    assert_eq!((said["whole"].as_bool(), said["removed"].as_u64()), (Some(true), Some(0)), "{said}");
    assert!(said["streams"].as_u64() >= Some(3) && said["events"].as_u64() >= Some(5), "{said}");

    // What somebody did who could write to the database.
    damage(
        data,
        &format!("UPDATE audit_events SET address = '192.0.2.9' WHERE stream = '{ben}' AND seq = 2"),
    );
    let broken = audit(data, &["verify"]).run().await;
    assert!(found(&broken).contains(&format!("{ben} at 2: ")), "{broken:?}");
    let broken = audit(data, &["verify", "--json"]).run().await;
    let said: Value = serde_json::from_str(found(&broken)).unwrap();
    assert_eq!((said["whole"].as_bool(), said["broken"][0]["at"].as_i64()), (Some(false), Some(2)), "{said}");
    for gone in [&ada, &ben] {
        damage(
            data,
            &format!(
                "BEGIN IMMEDIATE; DELETE FROM audit_events WHERE stream = '{gone}';
                DELETE FROM audit_streams WHERE stream = '{gone}'; COMMIT"
            ),
        );
    }
    audit(data, &["verify"]).run().await.went_well();
    let broken = audit(data, &["verify", "--against", checkpoint]).run().await;
    assert!(found(&broken).contains(&ada) && broken.out.contains(&ben), "{broken:?}");
    let cut = elsewhere.path().join("cut.ndjson");
    std::fs::write(&cut, "{\"stream\":\"server\"").unwrap();
    let refused = audit(data, &["verify", "--against", cut.to_str().unwrap()]).run().await;
    refused.refused(&["--against", "not a whole checkpoint"]);
    server.stop().await;
}

#[tokio::test]
async fn an_operator_looks_through_the_trail_and_takes_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path(), dir.path().join("trail.ndjson"));
    let server = dev(data).start().await;
    let ada = server.api.dev_person("ada@example.com").await.str("/user/id");
    server.api.login("ada@example.com").await;
    server.api.login("nobody@example.com").await;

    let all = audit(data, &["list"]).run().await;
    assert!(all.went_well().contains("signing_key_published") && all.out.contains(&ada), "{all:?}");
    let of = audit(data, &["list", "--of", "Ada@Example.com", "--kind", "sign_in", "--json"]).run().await;
    let of = lines(of.went_well());
    assert_eq!(of.len(), 1, "{of:?}");
    assert_eq!((of[0]["stream"].as_str(), of[0]["actor"].as_str()), (Some(ada.as_str()), Some(ada.as_str())));
    let by = audit(data, &["list", "--by", "ada@example.com", "--limit", "2", "--json"]).run().await;
    let by = lines(by.went_well());
    assert!(by.len() == 2 && by.iter().all(|line| line["actor"] == ada.as_str()), "{by:?}");
    assert!(by[0]["at"].as_str() >= by[1]["at"].as_str(), "{by:?}");
    let stranger = audit(data, &["list", "--of", "nobody@example.com"]).run().await;
    assert!(stranger.went_well().contains("sign_in_failed"), "{stranger:?}");
    assert!(
        stranger.err.contains("nobody has the address") && stranger.err.contains("shard_"),
        "{stranger:?}"
    );
    let none = audit(data, &["list", "--kind", "exploded"]).run().await;
    assert_eq!(none.went_well().trim_end(), "There are no such events.");

    let written = audit(data, &["export", file.to_str().unwrap(), "--since", "1h"]).run().await;
    assert!(written.went_well().is_empty() && written.err.contains("events written"), "{written:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let everything = lines(&std::fs::read_to_string(&file).unwrap());
    assert!(everything.iter().any(|line| line["stream"] == "server"), "{everything:?}");
    let times: Vec<&str> = everything.iter().map(|line| line["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "oldest first: {times:?}");
    let of = audit(data, &["export", "--of", &ada]).run().await;
    let of = lines(of.went_well());
    let numbers: Vec<i64> = of.iter().map(|line| line["seq"].as_i64().unwrap()).collect();
    assert!(
        numbers.len() > 2 && numbers.iter().zip(1..).all(|(number, next)| *number == next),
        "{numbers:?}"
    );
    assert!(of.iter().all(|line| line["details"].is_object() && line["hash"].as_str().unwrap().len() == 64));

    audit(data, &["list", "--since", "soon"]).run().await.refused(&["--since", "how long ago"]);
    audit(data, &["list", "--by", "eve@example.com"]).run().await.refused(&["eve@example.com"]);
    audit(data, &["export", file.to_str().unwrap()]).run().await.refused(&["new file"]);

    // What stands in a row does not write on the operator's terminal.
    damage(
        data,
        &format!("UPDATE audit_events SET address = char(27) || '[31m' WHERE stream = '{ada}' AND seq = 1"),
    );
    let listed = audit(data, &["list", "--of", &ada]).run().await;
    assert!(!listed.went_well().contains('\u{1b}') && listed.out.contains("[31m"), "{listed:?}");
    server.stop().await;
}
