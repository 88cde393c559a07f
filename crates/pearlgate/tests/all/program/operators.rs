//! What operators do at the server's own machine: roles, the first of them, jobs, sessions, and what a shell completes.

use std::path::Path;

use data_encoding::BASE64;
use foundation::kernel::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use super::child::{Call, Outcome, PATIENCE, Server, dev, dev_on, pearlgate, serve, until};
use super::smtp::SmtpServer;
use crate::journeys::authenticator::code_at;
use crate::support::browser::forms;
use crate::support::{Answer, PASSWORD, Person};

/// A command on a data directory.
fn command(data: &Path, args: &[&str]) -> Call {
    pearlgate(args).arg("--data").arg(data.to_str().unwrap())
}

async fn run(data: &Path, args: &[&str]) -> Outcome {
    command(data, args).run().await
}

/// The document that it printed.
#[track_caller]
fn document(outcome: &Outcome) -> Value {
    serde_json::from_str(outcome.went_well()).unwrap_or_else(|e| panic!("{e}: {outcome:?}"))
}

#[track_caller]
fn items(outcome: &Outcome) -> Vec<Value> {
    document(outcome)["items"].as_array().unwrap_or_else(|| panic!("{outcome:?}")).clone()
}

/// It refused in words, with this exit code.
#[track_caller]
fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    outcome.refused(words);
    assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
}

/// The newest events of a kind, as the trail has them.
async fn events(data: &Path, kind: &str) -> Vec<Value> {
    let listed = run(data, &["audit", "list", "--kind", kind, "--json"]).await;
    listed.went_well().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn apply(data: &Path, file: &Path, more: &[&str]) -> Outcome {
    run(data, &[&["roles", "apply", file.to_str().unwrap()], more].concat()).await
}

async fn role_names(data: &Path) -> Vec<String> {
    let listed = items(&run(data, &["roles", "list", "--json"]).await);
    listed.iter().map(|role| role["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_are_as_a_file_says_and_nobody_loses_one_by_it() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = dir.path();
    let academy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/academy/roles.toml");
    refused(&apply(data, &academy, &[]).await, 1, &["no database"]);
    let server = dev(data).start().await;
    let ada = Person::of(&server.api.dev_person("ada@example.com").await);

    // What it would do, what it does, and nothing the second time.
    let dry = apply(data, &academy, &["--dry-run"]).await;
    let would = "+ role instructor (level 10)";
    assert!(dry.went_well().contains(would) && dry.out.contains("default: student"), "{dry:?}");
    assert!(dry.out.contains("Nothing was changed: this was a dry run."), "{dry:?}");
    assert_eq!(role_names(data).await, ["owner"]);
    let done = apply(data, &academy, &[]).await;
    assert!(done.went_well().contains(would) && done.out.trim_end().ends_with("Done."), "{done:?}");
    let mut names = role_names(data).await;
    names.sort();
    assert_eq!(names, ["admin", "instructor", "moderator", "owner", "student"]);
    let again = apply(data, &academy, &[]).await;
    assert!(again.went_well().contains("Nothing was changed"), "{again:?}");
    let again = document(&apply(data, &academy, &["--json"]).await);
    assert_eq!(again, json!({ "changed": false, "lines": [] }));

    // Who has one, for one thing alone.
    let who = "ada@example.com";
    let given = run(data, &["user", "grant", who, "instructor", "--on", "course/42"]).await;
    assert!(given.went_well().contains("the role instructor on course/42"), "{given:?}");
    let shown = document(&run(data, &["user", "show", who, "--json"]).await);
    assert_eq!(
        (shown["id"].as_str(), shown["email"].as_str()),
        (Some(ada.id.as_str()), Some(who)),
        "{shown}"
    );
    let roles = shown["roles"].as_array().unwrap();
    assert!(roles.contains(&json!({ "role": "instructor", "resource": "course/42" })), "{shown}");
    let check = ["roles", "check", who, "course:publish"];
    let yes = run(data, &[&check[..], &["--on", "course/42"]].concat()).await;
    assert!(yes.went_well().starts_with("yes: role instructor"), "{yes:?}");
    let no = run(data, &check).await;
    assert!(no.went_well().starts_with("no: "), "{no:?}");
    let told = document(&run(data, &[&check[..], &["--json"]].concat()).await);
    assert_eq!(told["allowed"], json!(false), "{told}");
    let may = json!({ "permission": "course:publish", "resource": "course/42" });
    let asked = server.api.request(Method::POST, "/v1/authorize").bearer_auth(&ada.access).json(&may);
    assert_eq!(
        server.api.send(asked).await.json["allowed"],
        json!(true),
        "the server that runs says the same"
    );
    refused(&run(data, &["user", "grant", who, "emperor"]).await, 1, &["no role \"emperor\""]);
    refused(&run(data, &["user", "grant", "eve@example.com", "student"]).await, 1, &["eve@example.com"]);

    // A file without it takes it from nobody.
    let less = elsewhere.path().join("less.toml");
    std::fs::write(&less, "default = [\"student\"]\n[roles.student]\npermissions = [\"course:view\"]\n")
        .unwrap();
    for more in [&["--prune"][..], &["--prune", "--dry-run"]] {
        refused(&apply(data, &less, more).await, 1, &["instructor", "take it away from them first"]);
    }
    assert_eq!(role_names(data).await.len(), 5, "all or nothing");
    let taken = run(data, &["user", "revoke", who, "instructor", "--on", "course/42"]).await;
    assert!(taken.went_well().contains("does not have the role instructor on course/42"), "{taken:?}");
    let pruned = apply(data, &less, &["--prune"]).await;
    assert!(pruned.went_well().contains("- role instructor"), "{pruned:?}");
    let mut names = role_names(data).await;
    names.sort();
    assert_eq!(names, ["owner", "student"]);
    std::fs::write(&less, "[roles.student]\npermissions = \"everything\"\n").unwrap();
    refused(&apply(data, &less, &[]).await, 1, &["less.toml"]);
    server.stop().await;
}

/// Makes somebody the owner, their password on standard input.
fn founding(data: &Path, email: &str, password: &Path) -> Call {
    let call = command(data, &["admin", "create", email, "--name", "Ada"]);
    call.set("passwords.breach.url", "").reading(password)
}

const ONCE: &[&str] = &["The first operator was set up before", "this is done once", "pearlgate user grant"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_operator_is_made_at_the_machine_once_for_ever() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = dir.path();
    let (good, bad) = (elsewhere.path().join("good"), elsewhere.path().join("bad"));
    std::fs::write(&good, format!("{PASSWORD}\n")).unwrap();
    std::fs::write(&bad, "password\n").unwrap();
    refused(&founding(data, "ada@example.com", &good).run().await, 1, &["no database"]);
    dev(data).start().await.stop().await;

    refused(&founding(data, "ada@example.com", &bad).run().await, 1, &["password"]);
    refused(&founding(data, "nobody", &good).run().await, 1, &["the address"]);
    let both = tokio::join!(
        founding(data, "ada@example.com", &good).run(),
        founding(data, "bob@example.com", &good).run()
    );
    let (won, lost) = if both.0.status.success() { (both.0, both.1) } else { (both.1, both.0) };
    assert!(won.went_well().contains("is the owner") && !won.out.contains(PASSWORD), "{won:?}");
    refused(&lost, 1, ONCE);
    refused(&founding(data, "eve@example.com", &good).run().await, 1, ONCE);
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    let count = |what: &str| -> i64 { file.query_row(what, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT COUNT(*) FROM user_roles WHERE role = 'owner'"), 1);
    assert_eq!(count("SELECT COUNT(*) FROM users"), 1, "whoever lost has no account");
    let written = events(data, "first_operator").await;
    assert_eq!((written.len(), written[0]["actor"].as_str()), (1, Some("console")), "{written:?}");

    let server = dev(data).start().await;
    let email = if count("SELECT COUNT(*) FROM user_emails WHERE address = 'ada@example.com'") == 1 {
        "ada@example.com"
    } else {
        "bob@example.com"
    };
    let signed_in = server.api.login(email).await;
    assert_eq!((signed_in.status, signed_in.str("/user/email").as_str()), (200, email), "{}", signed_in.text);
    server.stop().await;

    // Whoever deletes the first operator does not open the door again.
    file.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM users").unwrap();
    assert_eq!(count("SELECT COUNT(*) FROM user_roles"), 0);
    refused(&founding(data, "eve@example.com", &good).run().await, 1, ONCE);
    let link = command(data, &["admin", "link"]).set("server.public_url", "https://accounts.example.com");
    refused(&link.run().await, 1, ONCE);
    assert_eq!(count("SELECT COUNT(*) FROM users"), 0);
    let server = dev(data).start().await;
    let said = server.out.clone();
    server.stop().await;
    assert!(!said.all().iter().any(|line| line.contains("/setup")), "{:?}", said.all());
}

/// Opens a link as a browser does: the cookie that it was given, and the page behind it.
async fn open(server: &Server, link: &str) -> (String, Answer) {
    let path = link.strip_prefix(&server.url).unwrap_or_else(|| panic!("the link is {link:?}"));
    let moved = server.api.get(path).await;
    assert_eq!((moved.status, moved.header("location")), (303, "/setup"), "{}", moved.text);
    let cookie = moved.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = server.api.request(Method::GET, "/setup").header("cookie", cookie.as_str());
    (cookie, server.api.send(page).await)
}

/// Fills its form in.
async fn fill_in(server: &Server, cookie: &str, page: &Answer, password: &str) -> Answer {
    let link = forms(&page.text)[0]["link"].clone();
    let fields = [
        ("link", link.as_str()),
        ("email", "boss@example.com"),
        ("password", password),
        ("display_name", "The Boss"),
    ];
    let form = server.api.request(Method::POST, "/setup").header("cookie", cookie);
    let form = form.header("origin", server.url.as_str());
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    server.api.send(form.body(serde_urlencoded::to_string(fields).unwrap())).await
}

async fn post_as(server: &Server, path: &str, access: &str, body: Value) -> Answer {
    server.api.send(server.api.request(Method::POST, path).bearer_auth(access).json(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_sets_the_owner_up_who_operates_once_they_have_shown_a_factor() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = dev(data).start().await;
    let announced = server.out.with("first operator, once").await;
    let first = announced.split_whitespace().last().unwrap().to_owned();
    assert!(first.starts_with(&format!("{}/setup?token=pgf_", server.url)), "{announced}");

    refused(&run(data, &["admin", "link"]).await, 1, &["server.public_url"]);
    let link = || command(data, &["admin", "link"]).set("server.public_url", &server.url).run();
    let printed = link().await;
    let second = printed.went_well().lines().next().unwrap().to_owned();
    assert_ne!(first, second);
    let (_, page) = open(&server, &first).await;
    assert!(page.text.contains("does not work any more"), "a newer one replaced it: {}", page.text);
    let (cookie, page) = open(&server, &second).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let weak = fill_in(&server, &cookie, &page, "password").await;
    assert_eq!(weak.status, 422, "{}", weak.text);
    assert!(weak.text.contains("boss@example.com"), "what was typed is there: {}", weak.text);
    let done = fill_in(&server, &cookie, &weak, PASSWORD).await;
    assert!(done.status == 200 && done.text.contains("The first operator is set up"), "{}", done.text);
    let twice = fill_in(&server, &cookie, &page, PASSWORD).await;
    assert_eq!(twice.status, 422, "{}", twice.text);
    refused(&link().await, 1, ONCE);

    // They sign in, are told what they need and by when, and do nothing before they have it.
    let boss = Person::of(&server.api.login("boss@example.com").await);
    let needs = server.api.get_as("/v1/me/mfa", &boss.access).await;
    assert_eq!(
        (&needs.json["required"], &needs.json["totp"]),
        (&json!(true), &json!(false)),
        "{}",
        needs.text
    );
    assert!(!needs.str("/required_from").is_empty(), "{}", needs.text);
    assert_eq!(server.api.get_as("/v1/admin/users", &boss.access).await.refusal(), "403 mfa_required");
    let begun = post_as(&server, "/v1/me/mfa/totp", &boss.access, json!({})).await;
    let code = code_at(&begun.str("/secret"), Clock::System.now());
    let confirmed = post_as(&server, "/v1/me/mfa/totp/confirm", &boss.access, json!({ "code": code })).await;
    let code = confirmed.str("/recovery_codes/0");
    let asked = server.api.login("boss@example.com").await;
    assert_eq!(asked.refusal(), "200 mfa_required", "{}", asked.text);
    let shown = json!({ "mfa_token": asked.str("/mfa_token"), "type": "recovery_code", "code": code });
    let boss = Person::of(&server.api.post("/v1/auth/mfa", shown).await);
    let people = server.api.get_as("/v1/admin/users", &boss.access).await;
    assert_eq!(
        (people.status, people.str("/items/0/email").as_str()),
        (200, "boss@example.com"),
        "{}",
        people.text
    );
    let shown = document(&run(data, &["user", "show", "boss@example.com", "--json"]).await);
    assert_eq!(shown["roles"], json!([{ "role": "owner", "resource": "" }]), "{shown}");
    refused(&run(data, &["user", "revoke", "boss@example.com", "owner"]).await, 1, &["the last owner"]);

    // The next start prints no link.
    let port = server.port;
    server.stop().await;
    let server = dev_on(data, port).start().await;
    let said = server.out.clone();
    server.stop().await;
    assert!(!said.all().iter().any(|line| line.contains("/setup")), "{:?}", said.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_looked_at_tried_again_and_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let smtp = SmtpServer::start(&["--refuse-rcpt", "nobody@example.com"]).await;
    let server = SmtpServer::tell(smtp.port, serve(data)).start().await;
    let key = BASE64.encode(&[7; 32]);
    let run = |args: &[&str]| command(data, args).set("secrets.master_key", &key).run();
    assert_eq!(server.api.register("nobody@example.com").await.status, 202);
    let given_up = || async {
        let listed = items(&run(&["job", "list", "--state", "dead", "--json"]).await);
        listed.into_iter().next()
    };
    let dead = until("a mail is given up", PATIENCE, given_up).await;
    let id = dead["id"].as_str().unwrap();
    assert_eq!(
        (dead["kind"].as_str(), dead["state"].as_str()),
        (Some("mail.deliver"), Some("dead")),
        "{dead}"
    );
    assert_eq!((dead["run_at"].as_str(), dead["died_at"] == ""), (Some(""), false), "{dead}");
    assert!(dead["attempts"].as_i64() >= Some(1) && dead["reason"] != "", "{dead}");
    assert!(dead.get("payload").is_none() && !dead.to_string().contains("token="), "{dead}");
    // Nobody takes a job from here on.
    server.stop().await;
    let mails = items(&run(&["mail", "list", "--to", "nobody@example.com", "--json"]).await);
    assert_eq!((mails.len(), mails[0]["to"].as_str()), (1, Some("nobody@example.com")), "{mails:?}");
    let mail = mails[0]["id"].as_str().unwrap();
    assert_eq!(document(&run(&["mail", "show", mail, "--json"]).await), mails[0]);
    items(&run(&["mail", "suppressions", "--json"]).await);

    let shown = run(&["job", "show", id]).await;
    assert!(shown.went_well().contains("mail.deliver") && shown.out.contains("given up"), "{shown:?}");
    assert_eq!(document(&run(&["jobs", "show", id, "--json"]).await), dead);
    assert!(run(&["job", "list"]).await.went_well().contains(id));
    let one = items(&run(&["job", "list", "--limit", "1", "--json"]).await);
    assert_eq!(one.len(), 1, "{one:?}");
    let all = items(&run(&["job", "list", "--json"]).await);
    let turn = all.iter().find(|job| job["kind"] == "maintenance.sweep").unwrap();
    refused(&run(&["job", "remove", turn["id"].as_str().unwrap()]).await, 1, &["it stays"]);
    refused(&run(&["job", "retry", turn["id"].as_str().unwrap()]).await, 1, &["was not given up"]);

    assert!(run(&["job", "retry", id]).await.went_well().contains(id));
    let shown = document(&run(&["job", "show", id, "--json"]).await);
    assert_eq!((shown["state"].as_str(), shown["attempts"].as_i64()), (Some("waiting"), Some(0)), "{shown}");
    assert_eq!(shown["died_at"], json!(""), "{shown}");
    let waiting = items(&run(&["job", "list", "--state", "waiting", "--json"]).await);
    assert!(waiting.iter().any(|job| job["id"] == id), "{waiting:?}");
    refused(&run(&["job", "retry", id]).await, 1, &["was not given up"]);
    assert!(run(&["job", "remove", id]).await.went_well().contains("it is not done"));
    for args in [["job", "show", id], ["job", "retry", id], ["job", "remove", id]] {
        refused(&run(&args).await, 1, &["there is no job", "pearlgate job list"]);
    }
    refused(&run(&["job", "remove", "ada"]).await, 1, &["job_"]);
    let none = run(&["job", "list", "--state", "dead"]).await;
    assert_eq!(none.went_well().trim_end(), "There are no such jobs.");
    for kind in ["job_retried", "job_removed"] {
        let written = events(data, kind).await;
        assert_eq!(written.len(), 1, "{kind}: {written:?}");
        let (by, of) = (written[0]["actor"].as_str(), written[0]["stream"].as_str());
        assert_eq!((by, of), (Some("console"), Some("server")), "{written:?}");
        assert_eq!(written[0]["details"], json!({ "job": id, "kind": "mail.deliver" }), "{written:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_seen_and_ended_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = dev(data).start().await;
    let first = Person::of(&server.api.dev_person("ada@example.com").await);
    let second = Person::of(&server.api.login("ada@example.com").await);
    let ben = Person::of(&server.api.dev_person("ben@example.com").await);
    let who = "ada@example.com";

    let listed = items(&run(data, &["session", "list", who, "--json"]).await);
    let ids: Vec<_> = listed.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&second.session, &first.session], "the newest first");
    assert_eq!((&listed[0]["trusted_until"], &listed[0]["aal"]), (&json!(""), &json!(1)), "{listed:?}");
    assert_eq!(listed[0]["address"], json!("127.0.0.1"), "{listed:?}");
    let text = run(data, &["sessions", "list", &ben.id]).await;
    assert!(text.went_well().contains(&ben.session) && text.out.lines().count() == 1, "{text:?}");

    refused(&run(data, &["session", "end", who, &ben.session]).await, 1, &["has no session", "session list"]);
    refused(&run(data, &["session", "end", who, "nonsense"]).await, 1, &["ses_"]);
    let ended = run(data, &["session", "end", who, &second.session]).await;
    assert!(ended.went_well().contains(&second.session), "{ended:?}");
    let why = server.api.refresh(&second.refresh).await;
    assert_eq!(
        (why.refusal().as_str(), why.str("/reason").as_str()),
        ("401 session_ended", "revoked_by_admin")
    );
    assert_eq!(server.api.get_as("/v1/me", &first.access).await.status, 200, "the other one goes on");
    refused(&run(data, &["session", "end", who, &second.session]).await, 1, &["has no session"]);

    let all = run(data, &["session", "end", &first.id]).await;
    assert!(all.went_well().contains("Every session"), "{all:?}");
    let why = server.api.refresh(&first.refresh).await;
    assert_eq!(
        (why.refusal().as_str(), why.str("/reason").as_str()),
        ("401 session_ended", "revoked_by_admin")
    );
    assert_eq!(server.api.refresh(&ben.refresh).await.status, 200);
    let none = run(data, &["session", "list", who]).await;
    assert!(none.went_well().contains("signed in nowhere"), "{none:?}");
    assert!(items(&run(data, &["session", "list", who, "--json"]).await).is_empty());
    let written = events(data, "signed_out").await;
    let details: Vec<_> = written.iter().map(|one| one["details"].clone()).collect();
    assert_eq!(details, [json!({}), json!({ "of": second.session })], "{written:?}");
    for one in &written {
        let (by, of) = (one["actor"].as_str(), one["stream"].as_str());
        assert_eq!((by, of), (Some("console"), Some(first.id.as_str())), "{one}");
    }

    for lists in ["webhook", "provider"] {
        items(&run(data, &[lists, "list", "--json"]).await);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_exit_code_tells_a_refusal_from_a_misspelt_command() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    for args in [
        &["job", "list"][..],
        &["session", "list", "ada@example.com"],
        &["roles", "list"],
        &["user", "show", "ada@example.com"],
        &["admin", "link"],
        &["mail", "list"],
        &["webhook", "list"],
        &["provider", "list"],
    ] {
        refused(&run(data, args).await, 1, &["no database"]);
    }
    for args in [
        &["job", "list", "--state", "asleep"][..],
        &["job", "list", "--limit", "many"],
        &["job", "show"],
        &["session", "list"],
        &["roles", "apply"],
        &["user", "grant", "ada@example.com"],
        &["completions", "cmd"],
        &["completions"],
    ] {
        let misspelt = pearlgate(args).run().await;
        refused(&misspelt, 2, &[]);
        assert!(misspelt.err.contains("--help"), "{misspelt:?}");
    }
}

#[tokio::test]
async fn shells_complete_every_command() {
    let help = pearlgate(&["--help"]).run().await;
    let (_, after) = help.went_well().split_once("Commands:\n").unwrap();
    let listed = after.split("\nOptions:").next().unwrap().lines();
    let commands: Vec<&str> = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    for known in ["serve", "job", "session", "roles", "admin", "audit", "completions"] {
        assert!(commands.contains(&known), "{commands:?}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = pearlgate(&["completions", shell]).run().await;
        for command in &commands {
            assert!(script.went_well().contains(command), "{command} is not in the script for {shell}");
        }
        assert!(script.out.contains("dry-run"), "{shell}");
        assert_eq!(script.err, "");
    }
}
