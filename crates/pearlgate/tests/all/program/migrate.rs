//! The schema from the outside: brought up to date, checked, and refused when it is not this program's.

use std::path::Path;

use super::child::{Call, Outcome, pearlgate, serve};

fn migrate(data: &Path, more: &[&str]) -> Call {
    pearlgate(&[&["migrate", "--data", data.to_str().unwrap()], more].concat())
}

async fn check(data: &Path) -> Outcome {
    let checked = migrate(data, &["--check"]).run().await;
    assert_eq!(checked.err, "", "a check is an answer, not a complaint");
    checked
}

/// Behind the program's back.
fn tamper(data: &Path, sql: &str) {
    rusqlite::Connection::open(data.join("pearlgate.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_schema_is_made_once_and_checked_any_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let before = check(&data).await;
    assert_eq!(before.status.code(), Some(1));
    assert!(
        before.out.contains("no database yet") && before.out.contains(data.to_str().unwrap()),
        "{before:?}"
    );
    assert!(!data.exists(), "a check changes nothing");

    assert_eq!(
        migrate(&data, &[]).run().await.went_well().trim(),
        "applied 0001_people, 0002_operations, 0003_ways_back, 0004_sessions, 0005_limits, 0006_second_factors, 0007_passkeys, 0008_federation, 0009_outside, 0010_access, 0011_comings_and_goings"
    );
    let after = check(&data).await;
    assert_eq!(
        after.went_well(),
        "0001_people  applied\n0002_operations  applied\n0003_ways_back  applied\n0004_sessions  applied\n0005_limits  applied\n0006_second_factors  applied\n0007_passkeys  applied\n0008_federation  applied\n0009_outside  applied\n0010_access  applied\n0011_comings_and_goings  applied\n"
    );
    assert_eq!(migrate(&data, &[]).run().await.went_well().trim(), "up to date");

    let server = serve(&data).start().await;
    assert_eq!(check(&data).await.went_well(), after.out, "also while a server runs");
    migrate(&data, &[]).run().await.refused(&["another Pearlgate is running"]);
    server.stop().await;
}

#[tokio::test]
async fn a_step_that_is_missing_is_pending_and_the_next_start_applies_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    migrate(data, &[]).run().await.went_well();
    tamper(data, "DELETE FROM schema_migrations WHERE name = '0005_limits';
        DROP TABLE limits; DROP TABLE password_guesses; DROP TABLE unlock_tokens; DROP TABLE mails_asked; DROP TABLE mailboxes;
        DROP TABLE sign_in_attempts; ALTER TABLE devices DROP COLUMN failures;");
    let pending = check(data).await;
    assert_eq!(pending.status.code(), Some(1));
    assert!(pending.out.contains("0004_sessions  applied\n0005_limits  pending"), "{pending:?}");
    let server = serve(data).start().await;
    assert_eq!(server.api.get("/health/ready").await.status, 200);
    server.stop().await;
    assert_eq!(check(data).await.status.code(), Some(0));
}

#[tokio::test]
async fn a_schema_that_drifted_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    migrate(data, &[]).run().await.went_well();
    tamper(data, "UPDATE schema_migrations SET checksum = zeroblob(32) WHERE name = '0001_people'");
    let words = ["0001_people", "is not the one in this program", "backup"];
    migrate(data, &[]).run().await.refused(&words);
    serve(data).run().await.refused(&words);
    let checked = check(data).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        checked.out.contains("0001_people  DRIFTED") && checked.out.contains("0002_operations  applied"),
        "{checked:?}"
    );
    let ill = pearlgate(&["doctor", "--data", data.to_str().unwrap()]).run().await;
    assert!(ill.out.lines().any(|line| line.starts_with("wrong") && line.contains("0001_people")), "{ill:?}");
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    migrate(data, &[]).run().await.went_well();
    tamper(
        data,
        "INSERT INTO schema_migrations VALUES ('0099_the_future', zeroblob(32), 1); CREATE TABLE wonders (id INTEGER)",
    );
    let words = ["0099_the_future", "newer version", "Run that"];
    migrate(data, &[]).run().await.refused(&words);
    serve(data).run().await.refused(&words);
    let checked = check(data).await;
    assert_eq!(checked.status.code(), Some(1));
    assert!(checked.out.contains("0099_the_future  UNKNOWN"), "{checked:?}");
    tamper(data, "SELECT * FROM wonders");
}
