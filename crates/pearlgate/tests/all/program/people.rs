//! People who come from other systems, and who leave.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::api::Api;
use super::child::{Call, Outcome, pearlgate, serve};
use crate::support::{Engine, PASSWORD, PostgresDatabase};

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// The export's name, its file, and whether it has Eve's second factor.
const EXPORTS: [(&str, &str, bool); 7] = [
    ("pearlgate", "pearlgate.ndjson", true),
    ("keycloak", "keycloak-realm.json", true),
    ("auth0", "auth0.ndjson", true),
    ("firebase", "firebase.json", false),
    ("supabase", "supabase.ndjson", true),
    ("better-auth", "better-auth.json", false),
    ("django", "django.json", true),
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

/// Where people are brought: a data directory, and a database of its own when it is PostgreSQL.
struct House {
    dir: tempfile::TempDir,
    database: Option<PostgresDatabase>,
}

impl House {
    async fn build(engine: Engine) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::create().await),
        };
        Self { dir: tempfile::tempdir().unwrap(), database }
    }

    fn at(&self, call: Call) -> Call {
        let call = call.set("secrets.master_key", KEY).set("data.dir", self.dir.path().to_str().unwrap());
        match &self.database {
            Some(database) => call.set("database.url", &database.url),
            None => call,
        }
    }

    fn import(&self, file: &Path, from: &str, more: &[&str]) -> Call {
        let call = self.at(pearlgate(&["import", "users", file.to_str().unwrap(), "--from", from]));
        more.iter().fold(call, |call, arg| call.arg(arg))
    }

    async fn export(&self) -> Vec<Value> {
        let out = self.at(pearlgate(&["export", "users"])).run().await;
        out.went_well().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn leave(self) {
        if let Some(database) = self.database {
            database.drop().await;
        }
    }
}

fn people(outcome: &Outcome) -> String {
    outcome.out.lines().last().unwrap_or_default().to_owned()
}

async fn login(api: &Api, email: &str, password: &str) -> String {
    let answer = api.post("/v1/auth/login", json!({ "email": email, "password": password })).await;
    answer.refusal()
}

fn hash_of<'p>(people: &'p [Value], email: &str) -> &'p str {
    let person = people.iter().find(|person| person["email"] == email).unwrap();
    person["password_hash"].as_str().unwrap_or_default()
}

async fn come_along_and_sign_in(engine: Engine) {
    for (from, file, factor) in EXPORTS {
        let house = House::build(engine).await;
        let key = house.dir.path().join("signer.key");
        std::fs::write(
            &key,
            "DA2I0/fzbzFmsaEG0H5WPPl9Wie3EJZa1YnTldCkopfePfZPfYSn06MLebx3bzg17jAjsEd63ecUhV4LvQjgNg==\n",
        )
        .unwrap();
        let more: &[&str] = match from {
            "firebase" => &["--firebase-signer-key-file", key.to_str().unwrap(), "--firebase-mem-cost", "11"],
            _ => &[],
        };
        let dry = house.import(&fixture(file), from, more).arg("--dry-run").run().await;
        assert!(
            people(&dry).contains("5 would be imported, 0 have an account already")
                && people(&dry).contains("nothing was changed"),
            "{from}: {dry:?}"
        );
        let done = house.import(&fixture(file), from, more).run().await;
        assert!(people(&done).contains("5 imported, 0 have an account already"), "{from}: {done:?}");
        assert!(!done.out.contains("$2") && !done.out.contains("argon2id$"), "{from}: a hash is told");
        let again = house.import(&fixture(file), from, more).run().await;
        assert!(people(&again).contains("0 imported, 5 have an account already"), "{from}: {again:?}");

        let server = house.at(serve(house.dir.path())).start().await;
        let api = &server.api;
        assert_eq!(
            login(api, "ada@example.com", "nine purple lanterns").await,
            "401 invalid_credentials",
            "{from}"
        );
        assert_eq!(login(api, "ada@example.com", PASSWORD).await, "200 -", "{from}");
        assert_eq!(login(api, "ada@example.com", PASSWORD).await, "200 -", "{from}: by the new hash");
        assert_eq!(login(api, "ben@example.org", PASSWORD).await, "403 email_not_verified", "{from}");
        assert_eq!(login(api, "cleo@example.com", PASSWORD).await, "403 account_suspended", "{from}");
        let eve = if factor { "200 mfa_required" } else { "200 -" };
        assert_eq!(login(api, "eve@example.com", PASSWORD).await, eve, "{from}");
        assert_eq!(
            login(api, "dan@example.org", PASSWORD).await,
            "401 invalid_credentials",
            "{from}: has no password"
        );
        server.stop().await;

        let people = house.export().await;
        assert_eq!(people.len(), 5, "{from}");
        // Replaced, unless it is Argon2id already and not weaker than what these tests hash with.
        let (ada, ben) = (hash_of(&people, "ada@example.com"), hash_of(&people, "ben@example.org"));
        assert!(ada.starts_with("$argon2id$v=19$m="), "{from}: {ada}");
        assert!(!ben.is_empty() && !ben.contains("$m=64,t=1"), "{from}: nobody's is, before they come");
        let dan = people.iter().find(|person| person["email"] == "dan@example.org").unwrap();
        assert_eq!(
            dan["identities"].as_array().map_or(0, Vec::len),
            usize::from(from != "django"),
            "{from}: {dan}"
        );
        house.leave().await;
    }
}

#[tokio::test]
async fn people_of_every_exporter_come_along_and_sign_in_on_sqlite() {
    come_along_and_sign_in(Engine::Sqlite).await;
}

#[tokio::test]
async fn people_of_every_exporter_come_along_and_sign_in_on_postgres() {
    come_along_and_sign_in(Engine::Postgres).await;
}

#[tokio::test]
async fn a_bad_line_is_told_by_its_number_and_stops_nothing() {
    let house = House::build(Engine::Sqlite).await;
    let file = house.dir.path().join("people.ndjson");
    let lines = [
        r#"{"email":"one@example.com","email_verified":true,"password_hash":"$2b$04$abc"}"#,
        r#"not json"#,
        r#"{"email":"not an address"}"#,
        r#"{"email":"four@example.com","emial_verified":true}"#,
        r#"{"email":"five@example.com","password_hash":"hunter2hunter2"}"#,
        r#"{"email":"six@example.com","totp":{"secret":"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"},"identities":[{"provider":"google","subject":"1"}]}"#,
        r#"{"email":"seven@example.com","email_verified":true,"totp":{"secret":"short"}}"#,
        r#"{"email":"ONE@example.com"}"#,
        r#"{"email":"nine@example.com","email_verified":true,"identities":[{"provider":"google","subject":"9"}]}"#,
        r#"{"email":"ten@example.com","email_verified":true,"identities":[{"provider":"google","subject":"9"}]}"#,
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let done = house.import(&file, "pearlgate", &[]).run().await;
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(people(&done).contains("10 records: 5 imported, 1 have an account already, 4 bad"), "{done:?}");
    for told in [
        "2: bad",
        "3: bad: email",
        "4: bad",
        "7: bad: totp",
        "1: warning: without a password",
        "5: warning: without a password",
        "6: warning: the second factor",
        "10: warning: their identity at google",
    ] {
        assert!(done.out.lines().any(|line| line.starts_with(told)), "{told}: {}", done.out);
    }
    assert!(!done.out.contains("hunter2") && !done.out.contains("JBSWY3"), "a secret is told: {}", done.out);
    let server = house.at(serve(house.dir.path())).start().await;
    let resent = server.api.post("/v1/auth/resend-verification", json!({ "email": "six@example.com" })).await;
    assert_eq!(resent.status, 202);
    server.stop().await;
    house.import(&file, "nowhere", &[]).run().await.refused(&["--from", "keycloak", "better-auth"]);
    house.import(Path::new("no-such-file"), "django", &[]).run().await.refused(&["no-such-file"]);
    house.import(&fixture("django.json"), "keycloak", &[]).run().await;

    // What stands in somebody else's file neither stops us nor writes on our terminal.
    let hostile = r#"[{"email":"a@b.example","created_at":-9223372036854775808},{"email":"c@b.example","deleted_at":"\u001b[31m\n9: forged"},{"email":"d@b.example","banned_until":"2999-01-01","created_at":"-009999-01-02T00:00:00Z"}]"#;
    std::fs::write(&file, hostile).unwrap();
    let done = house.import(&file, "supabase", &[]).run().await;
    assert!(!done.err.contains("panicked") && people(&done).starts_with("3 records"), "{done:?}");
    assert!(
        !done.out.contains('\u{1b}') && !done.out.lines().any(|line| line.starts_with("9: forged")),
        "{done:?}"
    );
    std::fs::write(
        &file,
        "{\"email\":\"nul@example.com\",\"email_verified\":true,\"suspended\":{\"reason\":\"a\\u0000b\"}}\n",
    )
    .unwrap();
    let done = house.import(&file, "pearlgate", &[]).run().await;
    assert!(people(&done).contains("1 imported"), "{done:?}");
}

#[tokio::test]
async fn an_import_that_is_killed_goes_on_where_it_was() {
    let house = House::build(Engine::Sqlite).await;
    let file = house.dir.path().join("people.ndjson");
    let person = |n: u32| format!("{{\"email\":\"person{n}@example.com\",\"email_verified\":true}}\n");
    std::fs::write(&file, (0..8_000).map(person).collect::<String>()).unwrap();
    let mut first = house.import(&file, "pearlgate", &[]).background();
    let database = house.dir.path().join("pearlgate.db");
    let count = |sql: &str| -> i64 {
        let open =
            rusqlite::Connection::open(&database).and_then(|file| file.query_row(sql, [], |row| row.get(0)));
        open.unwrap_or(0)
    };
    super::child::until("some are there", super::child::PATIENCE, || async {
        (count("SELECT COUNT(*) FROM imports") > 0).then_some(())
    })
    .await;
    first.kill();
    let before = count("SELECT COUNT(*) FROM users");
    assert!(before > 0 && before % 500 == 0, "{before}: a batch is there whole or not at all");
    let second = house.import(&file, "pearlgate", &[]).run().await;
    assert!(second.status.success() && people(&second).starts_with("8000 records"), "{second:?}");
    if before < 8_000 {
        assert!(
            people(&second).contains(&format!(
                "{} imported, 0 have an account already, 0 bad, {before} done by an earlier run",
                8_000 - before
            )),
            "{second:?}"
        );
    }
    assert_eq!((count("SELECT COUNT(*) FROM users"), count("SELECT COUNT(*) FROM imports")), (8_000, 0));
}

async fn round_trip(engine: Engine) {
    let (here, there) = (House::build(engine).await, House::build(engine).await);
    here.import(&fixture("pearlgate.ndjson"), "pearlgate", &[]).run().await;
    let file = there.dir.path().join("everybody.ndjson");
    here.at(pearlgate(&["export", "users", file.to_str().unwrap()])).run().await.went_well();
    here.at(pearlgate(&["export", "users", file.to_str().unwrap()])).run().await.refused(&["new file"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let done = there.at(pearlgate(&["import", "users", "-"]).reading(&file)).run().await;
    assert!(people(&done).contains("5 imported"), "{done:?}");
    let sorted = |mut people: Vec<Value>| {
        people.sort_by_key(|person| person["email"].as_str().unwrap().to_owned());
        people
    };
    let (one, other) = (sorted(here.export().await), sorted(there.export().await));
    assert_eq!(one, other);
    assert!(one.iter().any(|person| person["totp"]["secret"] == "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"));
    here.leave().await;
    there.leave().await;
}

#[tokio::test]
async fn what_is_exported_can_be_imported_and_is_the_same_on_sqlite() {
    round_trip(Engine::Sqlite).await;
}

#[tokio::test]
async fn what_is_exported_can_be_imported_and_is_the_same_on_postgres() {
    round_trip(Engine::Postgres).await;
}

#[tokio::test]
async fn a_pepper_goes_into_new_hashes_and_is_changed_as_people_sign_in() {
    let house = House::build(Engine::Sqlite).await;
    house.import(&fixture("auth0.ndjson"), "auth0", &[]).run().await;
    let key = |seed: u8| data_encoding::BASE64.encode(&[seed; 32]);
    let (first, second) = (format!("one:{}", key(1)), format!("two:{}", key(2)));
    let visit = async |pepper: &str, old: &str| {
        let call = house.at(serve(house.dir.path())).set("hashing.pepper", pepper);
        let call = if old.is_empty() { call } else { call.set("hashing.old_peppers", old) };
        let server = call.start().await;
        let answer = login(&server.api, "ada@example.com", PASSWORD).await;
        let log = server.err.clone();
        server.stop().await;
        let hash = hash_of(&house.export().await, "ada@example.com").to_owned();
        (answer, hash, log)
    };
    let (answer, peppered, _) = visit(&first, "").await;
    assert_eq!((answer.as_str(), peppered.contains("keyid=")), ("200 -", true), "{peppered}");
    let (answer, turned, _) = visit(&second, &first).await;
    assert!(answer == "200 -" && turned.contains("keyid=") && turned != peppered, "{turned}");
    let (answer, same, _) = visit(&second, "").await;
    assert_eq!((answer.as_str(), same.as_str()), ("200 -", turned.as_str()), "the old one is needed no more");
    let (answer, _, log) = visit("", "").await;
    assert_eq!(answer, "401 invalid_credentials", "without its pepper a password lets nobody in");
    let told = log.with("hashing.old_peppers").await;
    assert!(told.contains("two") && !told.contains(&key(2)), "the operator is told which, not what: {told}");
    for text in [&first, &second] {
        assert!(!log.all().iter().any(|line| line.contains(&text[4..])), "a pepper is logged");
    }
}
