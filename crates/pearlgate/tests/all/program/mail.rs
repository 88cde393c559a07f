//! Mail through a real SMTP server: what goes out, how it is protected, and what happens when it does not go.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::child::{Call, PATIENCE, PUBLIC, serve, serve_on, until};
use super::smtp::SmtpServer;
use crate::support::environment;

/// Protected, and vouched for by the tests' own authority.
fn protected(data: &Path, smtp: &SmtpServer, tls: &str) -> Call {
    let call = SmtpServer::tell(smtp.port, serve(data)).set("mail.smtp.tls", tls);
    call.set("mail.smtp.ca_file", &environment("PEARLGATE_TEST_CA"))
}

/// Waits until a mail's job has failed `times` and is kept for another try; what went wrong.
async fn kept(data: &Path, times: i64) -> String {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    let failed =
        "SELECT history FROM jobs WHERE kind = 'mail.deliver' AND history <> '[]' AND attempts >= ?1";
    let asked = || async {
        assert_eq!(dead(data), Vec::<String>::new(), "it must be tried again");
        file.query_row(failed, [times], |row| row.get(0)).ok()
    };
    until("a delivery has failed", PATIENCE, asked).await
}

/// Why mails were given up.
fn dead(data: &Path) -> Vec<String> {
    let file = rusqlite::Connection::open(data.join("pearlgate.db")).unwrap();
    let mut reasons = file.prepare("SELECT reason FROM dead_jobs").unwrap();
    reasons.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_verification_mail_is_a_letter_to_one_person_and_its_code_works() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&[]).await;
    let call = SmtpServer::tell(smtp.port, serve(dir.path())).set("service.name", "Quay 7 \"Books\"");
    let server = call.set("mail.from", "Quay 7 <accounts@quay.example>").start().await;
    let verification = server.api.register("Ada@Example.com").await.str("/verification_id");
    let mail = smtp.message_to("Ada@example.com", 1).await;
    assert_eq!((&mail.to, mail.tls, mail.auth.as_str()), (&vec!["Ada@example.com".to_owned()], false, ""));
    assert_eq!(mail.header("To"), "Ada@example.com");
    assert_eq!(mail.header("From"), "\"Quay 7\" <accounts@quay.example>");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(
        mail.header("Message-ID").starts_with("<mail_")
            && mail.header("Message-ID").ends_with("@quay.example>")
    );
    assert!(mail.header("Subject").len() > 5 && mail.header("Date").len() > 20);

    let parts = mail.parts();
    let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["text/plain; charset=utf-8", "text/html; charset=utf-8"]);
    assert!(mail.link().starts_with(&format!("{PUBLIC}/verify-email?token=")), "{}", mail.link());
    let html = parts[1].1.replace("&#x2f;", "/").replace("&#x3a;", ":");
    assert!(html.contains(&mail.link()) && html.contains(&mail.code()), "{html}");
    assert!(
        mail.text().contains("Quay 7 \"Books\"") && !html.contains("Quay 7 \"Books\""),
        "escaped where it must be"
    );

    let wrong = if mail.code() == "000000" { "000001" } else { "000000" };
    assert_eq!(server.api.verify(&verification, wrong).await.refusal(), "422 verification_invalid");
    let verified = server.api.verify(&verification, &mail.code()).await;
    assert_eq!((verified.status, verified.json["user"]["email_verified"].as_bool()), (200, Some(true)));
    assert_eq!(server.api.login("ada@example.com").await.status, 200);
    server.stop().await;
    let again = smtp.messages().iter().filter(|mail| mail.link().contains("/verify-email")).count();
    assert_eq!(again, 1);
}

#[tokio::test]
async fn mail_travels_protected_and_signed_in() {
    for (ours, theirs) in [("starttls", vec!["--require-tls"]), ("implicit", vec![])] {
        let dir = tempfile::tempdir().unwrap();
        let smtp = SmtpServer::with_tls(
            ours,
            &[theirs.as_slice(), &["--user", "postman", "--password", "hunter2 ü"]].concat(),
        )
        .await;
        let call = protected(dir.path(), &smtp, ours)
            .set("mail.smtp.username", "postman")
            .set("mail.smtp.password", "hunter2 ü");
        let server = call.start().await;
        assert_eq!(server.api.register("ada@example.com").await.status, 202);
        let mail = smtp.message_to("ada@example.com", 1).await;
        assert_eq!((mail.tls, mail.auth.as_str()), (true, "postman"), "{ours}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_mail_server_that_nobody_vouches_for_gets_nothing() {
    for ours in ["starttls", "implicit"] {
        let dir = tempfile::tempdir().unwrap();
        let smtp = SmtpServer::with_tls(ours, &[]).await;
        // Without our authority only the public ones count.
        let server = protected(dir.path(), &smtp, ours).set("mail.smtp.ca_file", "").start().await;
        assert_eq!(server.api.register("ada@example.com").await.status, 202);
        let why = kept(dir.path(), 2).await;
        assert!(why.to_lowercase().contains("certificate"), "{why}");
        server.stop().await;
        assert!(smtp.messages().is_empty(), "neither protected nor plain");
    }
}

#[tokio::test]
async fn a_mail_server_without_tls_gets_nothing_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&[]).await;
    let server = protected(dir.path(), &smtp, "starttls").start().await;
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    kept(dir.path(), 2).await;
    assert!(smtp.messages().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_ours_to_mend_and_loses_no_mail() {
    let dir = tempfile::tempdir().unwrap();
    let mut smtp = SmtpServer::with_tls("starttls", &["--user", "postman", "--password", "new"]).await;
    let server = protected(dir.path(), &smtp, "starttls")
        .set("mail.smtp.username", "postman")
        .set("mail.smtp.password", "old")
        .start()
        .await;
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    let why = kept(dir.path(), 1).await;
    assert!(why.contains("535") && !why.contains("old"), "{why}");
    smtp.stop();
    let (cert, key) = (environment("PEARLGATE_TEST_CERT"), environment("PEARLGATE_TEST_KEY"));
    let mended =
        ["--tls", "starttls", "--cert", &cert, "--key", &key, "--user", "postman", "--password", "old"];
    let smtp = SmtpServer::on(smtp.port, &mended).await;
    smtp.message_to("ada@example.com", 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_recipient_whom_the_server_refuses_is_given_up_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&["--refuse-rcpt", "nobody@example.com"]).await;
    let server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    assert_eq!(server.api.register("nobody@example.com").await.status, 202, "registration cannot tell");
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    smtp.message_to("ada@example.com", 1).await;
    let given_up = until("the mail is given up", PATIENCE, || async { dead(dir.path()).pop() }).await;
    assert!(given_up.contains("550") || given_up.contains("No such mailbox"), "{given_up}");
    let dependencies = server.internal().await.get("/health/dependencies").await;
    assert_eq!(
        (dependencies.str("/items/0/name").as_str(), dependencies.str("/items/0/state").as_str()),
        ("mail.primary", "up")
    );
    server.stop().await;
    assert!(smtp.messages_to("nobody@example.com").is_empty());
}

#[tokio::test]
async fn not_now_is_not_never() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&["--greylist", "2"]).await;
    let server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    smtp.message_to("ada@example.com", 1).await;
    server.stop().await;
    assert_eq!((smtp.messages().len(), dead(dir.path()).len()), (1, 0));
}

#[tokio::test]
async fn a_mail_whose_receipt_was_lost_is_sent_again_under_the_same_id() {
    let dir = tempfile::tempdir().unwrap();
    let smtp = SmtpServer::start(&["--drop-after-data"]).await;
    let server = SmtpServer::tell(smtp.port, serve(dir.path())).start().await;
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    let second = smtp.message_to("ada@example.com", 2).await;
    let first = smtp.message_to("ada@example.com", 1).await;
    assert_eq!(first.header("Message-ID"), second.header("Message-ID"));
    assert_eq!((first.code(), first.link()), (second.code(), second.link()));
    server.stop().await;
}

#[tokio::test]
async fn a_mail_server_may_be_away_at_the_start_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let port = SmtpServer::away().await;
    let server = SmtpServer::tell(port, serve(dir.path())).start().await;
    assert_eq!(server.api.get("/health/ready").await.status, 200, "mail is nothing that readiness waits for");
    let asked = Instant::now();
    let verification = server.api.register("ada@example.com").await.str("/verification_id");
    assert!(asked.elapsed() < Duration::from_secs(5), "nobody waits for the mail server");
    kept(dir.path(), 1).await;
    let dependencies = server.internal().await.get("/health/dependencies").await;
    assert_eq!(dependencies.str("/items/0/state"), "down");
    assert!(
        !dependencies.str("/items/0/last_error").is_empty()
            && !dependencies.str("/items/0/degraded").is_empty()
    );

    let mut smtp = SmtpServer::on(port, &[]).await;
    let mail = smtp.message_to("ada@example.com", 1).await;
    assert_eq!(server.api.verify(&verification, &mail.code()).await.status, 200);

    smtp.stop();
    assert_eq!(server.api.register("eve@example.com").await.status, 202);
    kept(dir.path(), 1).await;
    let smtp = SmtpServer::on(port, &[]).await;
    smtp.message_to("eve@example.com", 1).await;
    server.stop().await;
    assert_eq!(smtp.messages().len(), 1, "nothing is sent twice");
}

#[tokio::test]
async fn a_mail_waits_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let port = SmtpServer::away().await;
    let server = SmtpServer::tell(port, serve(dir.path())).start().await;
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    server.stop().await;
    let smtp = SmtpServer::on(port, &[]).await;
    let server = SmtpServer::tell(port, serve(dir.path())).start().await;
    assert!(smtp.message_to("ada@example.com", 1).await.link().starts_with(PUBLIC));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_after_a_mail_was_taken_sends_that_one_again_and_no_other() {
    let (dir, smtp) = (tempfile::tempdir().unwrap(), SmtpServer::start(&[]).await);
    let start = |port: u16| {
        let call = SmtpServer::tell(smtp.port, serve_on(dir.path(), port));
        call.set("limits.registration_network.mode", "off").start()
    };
    let mut server = start(0).await;
    for round in 0..4 {
        for n in 0..5 {
            let email = format!("p{round}-{n}@example.com");
            assert_eq!(server.api.register(&email).await.status, 202);
        }
        let seen = smtp.messages().len();
        until("one more was taken", PATIENCE, || async {
            (smtp.messages().len() > seen || round > 2).then_some(())
        })
        .await;
        server.kill();
        // As if the time had passed for which what it held was held.
        let file = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
        file.execute("UPDATE jobs SET run_at = 0 WHERE kind = 'mail.deliver'", []).unwrap();
        drop(file);
        server = start(server.port).await;
    }
    let mut all: HashMap<String, Vec<String>> = HashMap::new();
    until("everybody has their mail", PATIENCE, || async {
        let to = |mail: &super::smtp::Message| mail.to[0].clone();
        (smtp.messages().iter().map(|mail| to(mail)).collect::<HashSet<_>>().len() == 20).then_some(())
    })
    .await;
    server.stop().await;
    for mail in smtp.messages() {
        all.entry(mail.to[0].clone()).or_default().push(mail.header("Message-ID"));
    }
    for (to, ids) in &all {
        assert!(ids.iter().all(|id| id == &ids[0]), "the same mail, and it says so: {to} {ids:?}");
    }
    // Each time it died it had eight under way at most.
    let twice = all.values().map(|ids| ids.len() - 1).sum::<usize>();
    assert!(twice <= 4 * 8, "what was under way, and no more: {twice}");
}
