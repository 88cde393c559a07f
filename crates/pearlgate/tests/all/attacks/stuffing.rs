//! Lists of addresses with the passwords that they had elsewhere, one try each; and one common password tried at one
//! account after the other. No account sees enough of it to lock. All of them together do.

use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use foundation::kernel::{MacKey, sha256};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::guessing::{PROXIED, WRONG, at_once, get_known, login_from, on_device, place, seen};
use super::mailed::{blob, consume, mailed, stored};
use super::support::ask;
use crate::both_with;
use crate::program::child::dev;
use crate::support::{Answer, PASSWORD, TestApp};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// One that many people have chosen, and nobody can choose here.
const COMMON: &str = "correct horse battery staple";
const WORK: &str = "403 proof_of_work_required";
/// Twenty sign-ins are enough to tell.
const SOON: &str = "at_least = 20\n";

fn settings(alarms: &str) -> String {
    format!("{PROXIED}[alarms]\n{alarms}")
}

/// People who have been here for long, as many as it takes, each with the tests' password; their addresses.
async fn settle(app: &TestApp, count: u64) -> Vec<String> {
    app.person("first@ex.test").await;
    app.quiet().await;
    let emails: Vec<String> = (0..count).map(|n| format!("p{n}@people.test")).collect();
    let (mut users, mut addresses) = (Vec::new(), Vec::new());
    for (n, email) in (0_u64..).zip(&emails) {
        let mut bytes = [0x11; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let id = blob(app, &bytes);
        users.push(format!("({id}, '', '', '{{}}', 1)"));
        addresses.push(format!("({id}, '{email}', '{email}')"));
    }
    app.sql(&format!(
        "INSERT INTO users (id, display_name, locale, metadata, created_at) VALUES {};
        INSERT INTO password_credentials (user_id, password_hash, set_at)
            SELECT u.id, (SELECT c.password_hash FROM password_credentials c), 1 FROM users u WHERE u.created_at = 1;
        INSERT INTO verified_emails (user_id, verified_at) SELECT u.id, 1 FROM users u WHERE u.created_at = 1;
        INSERT INTO user_emails (user_id, address, address_key) VALUES {};",
        users.join(", "),
        addresses.join(", ")
    ))
    .await;
    assert_eq!(
        app.count("SELECT COUNT(*) FROM password_credentials").await,
        i64::try_from(count).unwrap() + 1
    );
    emails
}

/// One line of such a list, tried from the `from`th place. No two browsers are alike.
async fn try_line(app: &TestApp, from: usize, email: &str, password: &str) -> Answer {
    let request = login_from(app, &place(from), &json!({ "email": email, "password": password }));
    ask(app, request.header("user-agent", format!("Mozilla/5.0 (X11; Linux x86_64; rv:{from}.0)"))).await
}

/// So many wrong ones at so many addresses that nobody has, no two of anything alike.
async fn fail(app: &TestApp, from: usize, count: usize) {
    for n in from..from + count {
        let answer = try_line(app, n, &format!("nobody{n}@ex.test"), &format!("was elsewhere {n}")).await;
        assert!([WRONG, WORK].contains(&answer.refusal().as_str()), "{}", answer.text);
    }
}

/// How many alarms were recorded for a reason, or ("") in all.
async fn alarms(app: &TestApp, reason: &str) -> i64 {
    let all = "SELECT COUNT(*) FROM audit_events WHERE stream = 'server' AND kind = 'sign_in_alarm'";
    let sql =
        if reason.is_empty() { all.to_owned() } else { format!("{all} AND details LIKE '%\"{reason}\"%'") };
    app.count(Box::leak(sql.into_boxed_str())).await
}

/// Waits for the `count`th alarm for a reason.
async fn alarmed(app: &TestApp, reason: &str, count: i64) {
    app.until(&format!("alarm {count} for {reason}"), || async { alarms(app, reason).await >= count }).await;
    assert_eq!(alarms(app, reason).await, count, "{reason}");
}

both_with! { true, PROXIED;
    async fn a47_owasp_credential_stuffing_raises_one_alarm(app: &TestApp) {
        let people = settle(app, 300).await;
        // Three hundred accounts, a try each, from two hundred places; three in a hundred have the password they had
        // elsewhere.
        let mut let_in = 0;
        for (n, email) in people.iter().enumerate() {
            let right = n % 33 == 32;
            let password = if right { PASSWORD.to_owned() } else { format!("was elsewhere {n}") };
            let answer = try_line(app, n % 200, email, &password).await;
            assert_eq!(answer.status, if right { 200 } else { 401 }, "{email}: {}", answer.text);
            let_in += usize::from(right);
            if n == 150 {
                assert_eq!(alarms(app, "").await, 0, "too few to tell");
            }
        }
        assert_eq!(let_in, 9);
        alarmed(app, "failure_ratio", 1).await;
        // It goes on: the same alarm, told once.
        fail(app, 1_000, 60).await;
        app.quiet().await;
        assert_eq!((alarms(app, "failure_ratio").await, alarms(app, "").await), (1, 1));
        // Nobody is named in it.
        let named = "SELECT COUNT(*) FROM audit_events WHERE kind = 'sign_in_alarm' AND (details LIKE '%people.test%' OR details LIKE '%elsewhere%' OR details LIKE '%ex.test%')";
        assert_eq!(app.count(named).await, 0);
        // An hour later nobody remembers; the next wave is another alarm.
        app.clock.advance(HOUR);
        fail(app, 2_000, 210).await;
        alarmed(app, "failure_ratio", 2).await;
        // Whoever was let in on a device that nobody knew is told of it, as always.
        for email in people.iter().skip(32).step_by(33) {
            mailed(app, email, "new_device", 1).await;
        }
    }
}

both_with! { true, PROXIED;
    async fn a_busy_morning_is_no_alarm(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let laptop = get_known(app, &ada.email).await;
        for n in 0..240 {
            if n % 4 == 3 {
                fail(app, n, 1).await;
            } else {
                assert_eq!(on_device(app, &ada.email, PASSWORD, &laptop).await.status, 200);
            }
        }
        app.quiet().await;
        assert_eq!(alarms(app, "").await, 0, "one in four forgot their password");
    }
}

both_with! { true, PROXIED;
    async fn one_network_that_tries_many_accounts_is_an_alarm(app: &TestApp) {
        let people = settle(app, 60).await;
        for (n, email) in people.iter().enumerate() {
            assert_eq!(try_line(app, n % 3, email, &format!("was elsewhere {n}")).await.refusal(), WRONG);
        }
        app.quiet().await;
        assert_eq!(alarms(app, "").await, 0, "twenty accounts from each");
        for (n, email) in people.iter().enumerate() {
            assert_eq!(try_line(app, 0, email, &format!("was elsewhere, too {n}")).await.refusal(), WRONG);
        }
        alarmed(app, "accounts_per_network", 1).await;
        assert_eq!(alarms(app, "").await, 1);
    }
}

/// Everything that could stand for a password without a key: itself, and its digests in the forms they are written in.
fn traces(password: &str) -> Vec<Vec<u8>> {
    let of = |algorithm| digest::digest(algorithm, password.as_bytes()).as_ref().to_vec();
    let digests = [
        of(&digest::SHA256),
        of(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        of(&digest::SHA512),
        of(&digest::SHA384),
    ];
    let mut all = vec![password.as_bytes().to_vec(), BASE64.encode(password.as_bytes()).into_bytes()];
    for digest in digests {
        for text in [
            HEXLOWER.encode(&digest),
            HEXUPPER.encode(&digest),
            BASE64.encode(&digest),
            BASE64URL_NOPAD.encode(&digest),
        ] {
            all.push(text.into_bytes());
        }
        // Cut short it is as good for whoever has a list of passwords.
        all.push(digest[..8].to_vec());
        all.push(HEXLOWER.encode(&digest[..8]).into_bytes());
        all.push(digest);
    }
    all
}

both_with! { true, &settings("accounts_per_password = 20\n");
    async fn a48_owasp_password_spraying_is_seen_however_slow(app: &TestApp) {
        let people = settle(app, 40).await;
        // One common password, one account an hour, each from another place.
        for (n, email) in people.iter().enumerate() {
            assert_eq!(try_line(app, n, email, COMMON).await.refusal(), WRONG, "it is nobody's");
            if n == 14 {
                app.quiet().await;
                assert_eq!(alarms(app, "").await, 0, "people choose alike");
            }
            app.clock.advance(HOUR);
        }
        app.until("an alarm", || async { alarms(app, "accounts_per_password").await >= 1 }).await;
        assert_eq!(alarms(app, "failure_ratio").await + alarms(app, "accounts_per_network").await, 0, "nothing else gave it away");
        // Nobody has it, because nobody may.
        let body = json!({ "email": "new@ex.test", "password": COMMON });
        let refused = app.post("/v1/auth/register", body).await;
        assert_eq!(refused.fields(), ["password:password_breached"]);

        // How it is known again is nothing that anybody could look up.
        app.quiet().await;
        for trace in traces(COMMON) {
            assert!(!stored(app, &trace).await, "the password left {:?}", String::from_utf8_lossy(&trace));
        }
        assert!(stored(app, b"people.test").await, "what is stored is found");
    }
}

/// In a process of its own, whose log is ours to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sprayed_password_is_in_no_log_and_no_metric() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).set("log.level", "debug").start().await;
    for n in 0..40 {
        let body = json!({ "email": format!("nobody{n}@ex.test"), "password": COMMON });
        assert_eq!(server.api.post("/v1/auth/login", body).await.refusal(), WRONG);
    }
    let told = server.err.with("accounts_per_password").await;
    assert!(told.to_lowercase().contains("warn"), "loud enough to be heard: {told}");
    let metrics = server.api.get("/metrics").await.text;
    assert!(metrics.contains("sign_in_alarms_total{reason=\"accounts_per_password\"} 1"), "{metrics}");
    let mut written: Vec<Vec<u8>> =
        server.err.all().into_iter().chain(server.out.all()).map(String::into_bytes).collect();
    written.push(metrics.into_bytes());
    for name in ["pearlgate.db", "pearlgate.db-wal"] {
        written.push(std::fs::read(dir.path().join(name)).unwrap_or_default());
    }
    for trace in traces(COMMON) {
        for text in &written {
            let found = text.windows(trace.len()).any(|window| window[0] == trace[0] && window == trace);
            assert!(!found, "the password left {:?}", String::from_utf8_lossy(&trace));
        }
    }
    server.stop().await;
}

both_with! { true, &settings(&format!("{SOON}answer = \"mailed_code\"\n"));
    async fn a_stuffed_password_lets_nobody_in_without_the_mailbox(app: &TestApp) {
        let ada = app.person("ada@ex.test").await;
        let laptop = get_known(app, &ada.email).await;
        fail(app, 0, 10).await;
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200, "as long as nothing is wrong the password is enough");
        fail(app, 10, 30).await;
        alarmed(app, "failure_ratio", 1).await;
        app.quiet().await;
        let sessions = app.count("SELECT COUNT(*) FROM sessions").await;

        // Whoever has the right line is told that it is right, and that it is not enough.
        let stuffed = try_line(app, 500, &ada.email, PASSWORD).await;
        assert_eq!(stuffed.refusal(), "403 email_code_required", "{}", stuffed.text);
        let id = stuffed.str("/magic_link_id");
        assert!(id.starts_with("mgl_") && !stuffed.text.contains("_token") && stuffed.headers.get("set-cookie").is_none(), "{}", stuffed.text);
        let mail = mailed(app, &ada.email, "magic_link", 1).await;
        assert!(mail.code.len() == 6 && !stuffed.text.contains(&mail.code), "{}", stuffed.text);
        let wrong = if mail.code == "000000" { "000001" } else { "000000" };
        assert_eq!(consume(app, json!({ "magic_link_id": id, "code": wrong })).await.refusal(), "422 verification_invalid");
        assert_eq!(app.count("SELECT COUNT(*) FROM sessions").await, sessions, "nobody is in");
        // Wrong ones, at somebody's account and at nobody's, are answered as ever, and nobody is mailed.
        let answers = [try_line(app, 501, &ada.email, "a guess").await, try_line(app, 502, "nobody@ex.test", PASSWORD).await];
        assert_eq!((answers[0].refusal().as_str(), seen(&answers[0])), (WRONG, seen(&answers[1])));
        app.quiet().await;
        assert_eq!(app.app.mailbox.as_ref().unwrap().list(None, Some("magic_link")).len(), 1);

        // Ada on her laptop sees nothing of it; elsewhere she reads her mail.
        assert_eq!(on_device(app, &ada.email, PASSWORD, &laptop).await.status, 200);
        let by_code = consume(app, json!({ "magic_link_id": id, "code": mail.code })).await;
        assert_eq!((by_code.status, by_code.str("/user/id")), (200, ada.id.clone()), "{}", by_code.text);
        assert_eq!(consume(app, json!({ "magic_link_id": id, "code": mail.code })).await.refusal(), "422 verification_invalid", "once");
        assert_eq!(on_device(app, &ada.email, PASSWORD, &by_code.str("/device_token")).await.status, 200, "known from then on");
        // And when it is over it is over.
        app.clock.advance(HOUR);
        assert_eq!(try_line(app, 503, &ada.email, PASSWORD).await.status, 200);
    }
}

/// A challenge as the server gives it.
async fn challenge(app: &TestApp) -> Value {
    let answer = ask(app, app.request(Method::GET, "/v1/auth/challenge")).await;
    assert_eq!((answer.status, answer.str("/algorithm").as_str()), (200, "SHA-256"), "{}", answer.text);
    answer.json
}

fn hex(text: &str) -> String {
    HEXLOWER.encode(sha256(text.as_bytes()).as_bytes())
}

/// Its solution: what Altcha's widget sends, before it is put into base64.
fn solve(challenge: &Value) -> Value {
    let (salt, most) = (challenge["salt"].as_str().unwrap(), challenge["maxnumber"].as_u64().unwrap());
    assert!((1_000..=1_000_000).contains(&most), "work, and not a day's: {most}");
    let wanted = HEXLOWER.decode(challenge["challenge"].as_str().unwrap().as_bytes()).unwrap();
    let is_it = |n: &u64| sha256(format!("{salt}{n}").as_bytes()).as_bytes().as_slice() == wanted;
    let number = (0..=most).find(is_it).expect("a number that solves it");
    json!({
        "algorithm": challenge["algorithm"], "challenge": challenge["challenge"], "number": number,
        "salt": challenge["salt"], "signature": challenge["signature"],
    })
}

fn payload(solution: &Value) -> String {
    BASE64.encode(solution.to_string().as_bytes())
}

fn with_work(app: &TestApp, from: usize, email: &str, password: &str, work: &str) -> RequestBuilder {
    login_from(app, &place(from), &json!({ "email": email, "password": password, "proof_of_work": work }))
}

/// Somebody with a known device, and an alarm that asks strangers for work.
async fn asked_for_work(app: &TestApp) -> (String, String) {
    let ada = app.person("ada@ex.test").await;
    let laptop = get_known(app, &ada.email).await;
    fail(app, 0, 40).await;
    alarmed(app, "failure_ratio", 1).await;
    assert_eq!(try_line(app, 600, &ada.email, PASSWORD).await.refusal(), WORK, "the alarm is on");
    (ada.email, laptop)
}

both_with! { true, &settings(&format!("{SOON}answer = \"proof_of_work\"\n"));
    async fn stuffing_costs_work(app: &TestApp) {
        let (email, laptop) = asked_for_work(app).await;
        // Without it nothing is looked at: the same for whoever it is, right or wrong.
        let answers = [
            try_line(app, 700, &email, PASSWORD).await,
            try_line(app, 701, &email, "a guess").await,
            try_line(app, 702, "nobody@ex.test", "a guess").await,
        ];
        assert!(answers.iter().all(|answer| seen(answer) == seen(&answers[0])), "{answers:?}");
        assert_eq!(answers[0].refusal(), WORK);
        assert_eq!(on_device(app, &email, PASSWORD, &laptop).await.status, 200, "a known device does none");

        let work = payload(&solve(&challenge(app).await));
        let let_in = ask(app, with_work(app, 703, &email, PASSWORD, &work)).await;
        assert_eq!(let_in.status, 200, "{}", let_in.text);
        assert_eq!(ask(app, with_work(app, 703, &email, PASSWORD, &work)).await.refusal(), WORK, "once");
        // A try is a try: it is used up by a wrong password as well.
        let work = payload(&solve(&challenge(app).await));
        assert_eq!(ask(app, with_work(app, 704, &email, "a guess", &work)).await.refusal(), WRONG);
        for (email, password) in [(email.as_str(), PASSWORD), ("nobody@ex.test", PASSWORD)] {
            assert_eq!(ask(app, with_work(app, 704, email, password, &work)).await.refusal(), WORK, "once");
        }
        // All at once it is good for one, too.
        let work = payload(&solve(&challenge(app).await));
        let race = at_once(app, (0..20).map(|n| with_work(app, 710 + n, &email, PASSWORD, &work)).collect()).await;
        assert_eq!(race.iter().filter(|answer| answer.status == 200).count(), 1);
        assert!(race.iter().all(|answer| [200, 503].contains(&answer.status) || answer.refusal() == WORK), "{race:?}");

        // It has five minutes.
        let solved = [solve(&challenge(app).await), solve(&challenge(app).await)];
        app.clock.advance(5 * MINUTE - Duration::from_secs(1));
        assert_eq!(ask(app, with_work(app, 740, &email, PASSWORD, &payload(&solved[0]))).await.status, 200);
        app.clock.advance(Duration::from_secs(2));
        assert_eq!(ask(app, with_work(app, 741, &email, PASSWORD, &payload(&solved[1]))).await.refusal(), WORK);
        // And when the alarm is over nobody is asked.
        app.clock.advance(HOUR);
        assert_eq!(try_line(app, 742, &email, PASSWORD).await.status, 200);
    }
}

/// What is no proof of work, made of one that is.
fn forgeries(solved: &Value) -> Vec<String> {
    let (salt, number) = (solved["salt"].as_str().unwrap().to_owned(), solved["number"].as_u64().unwrap());
    let with = |changes: &[(&str, Value)]| {
        let mut forged = solved.clone();
        for (name, value) in changes {
            forged[*name] = value.clone();
        }
        payload(&forged)
    };
    let without = |name: &str| {
        let mut forged = solved.clone();
        forged.as_object_mut().unwrap().remove(name);
        payload(&forged)
    };
    // One's own challenge, which is solved by whoever makes it; signed with what is at hand.
    let own_salt = format!("{salt}x");
    let own = hex(&format!("{own_salt}1"));
    let signed = HEXLOWER.encode(MacKey::new(b"a key of one's own").mac(own.as_bytes()).as_bytes());
    let own_with = |signature: Value| {
        with(&[
            ("salt", json!(own_salt)),
            ("number", json!(1)),
            ("challenge", json!(own)),
            ("signature", signature),
        ])
    };
    let mut all: Vec<String> = vec![
        String::new(),
        "nonsense".into(),
        "%".into(),
        solved.to_string(),
        BASE64.encode(b"{}"),
        BASE64.encode(b"null"),
        BASE64.encode(b"[]"),
        BASE64.encode(b"\xff\xfe"),
        BASE64.encode(format!("[{solved}]").as_bytes()),
        BASE64.encode("[".repeat(10_000).as_bytes()),
        own_with(json!(signed)),
        own_with(solved["signature"].clone()),
        own_with(json!("")),
        own_with(json!("0".repeat(64))),
        with(&[("number", json!(number + 1))]),
        with(&[("number", json!(-1))]),
        with(&[("number", json!(1e300))]),
        with(&[("number", json!(null))]),
        with(&[("number", json!(""))]),
        with(&[("signature", json!(""))]),
        with(&[("signature", json!("0".repeat(64)))]),
        with(&[("signature", json!(null))]),
        with(&[("signature", json!(true))]),
        with(&[("salt", json!(""))]),
        with(&[("salt", json!(format!("{salt}&expires=99999999999")))]),
        with(&[("salt", json!(format!("{salt}{number}"))), ("number", json!(""))]),
        with(&[("challenge", json!(""))]),
        with(&[("challenge", json!(hex("")))]),
    ];
    all.extend(
        ["SHA-1", "SHA-512", "sha256", "none", ""].map(|algorithm| with(&[("algorithm", json!(algorithm))])),
    );
    all.extend(["algorithm", "challenge", "number", "salt", "signature"].map(without));
    all
}

both_with! { true, &settings(&format!("{SOON}answer = \"proof_of_work\"\n"));
    async fn forged_work_is_none(app: &TestApp) {
        let (email, _) = asked_for_work(app).await;
        let solved = solve(&challenge(app).await);
        for (n, forged) in forgeries(&solved).iter().enumerate() {
            let answer = ask(app, with_work(app, 900 + n, &email, PASSWORD, forged)).await;
            assert_eq!(answer.refusal(), WORK, "{forged}: {}", answer.text);
        }
        // Nothing of that used up the real one.
        let real = ask(app, with_work(app, 990, &email, PASSWORD, &payload(&solved))).await;
        assert_eq!(real.status, 200, "{}", real.text);
        // What is no text is no field.
        for wrong in [json!(1), json!(null), json!({}), json!([])] {
            let body = json!({ "email": email, "password": PASSWORD, "proof_of_work": wrong });
            assert_eq!(ask(app, login_from(app, &place(991), &body)).await.status, 422, "{body}");
        }
    }
}

/// The same text, cut in other places between salt and number: the same hash, under the same signature.
fn spliced(solved: &Value) -> Vec<Value> {
    let text = format!("{}{}", solved["salt"].as_str().unwrap(), solved["number"]);
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let mut all = Vec::new();
    for taken in 1..=digits.min(19) {
        let (salt, number) = text.split_at(text.len() - taken);
        let mut other = solved.clone();
        other["salt"] = json!(salt);
        let value: u64 = number.parse().unwrap();
        other["number"] = json!(value);
        // A number is written in one way.
        if value.to_string() == number && other != *solved {
            all.push(other);
        }
    }
    all
}

both_with! { true, &settings(&format!("{SOON}answer = \"proof_of_work\"\n"));
    async fn cve_2025_68113_work_that_was_cut_elsewhere_is_no_other_work(app: &TestApp) {
        let (email, _) = asked_for_work(app).await;
        let mut solved = solve(&challenge(app).await);
        for _ in 0..20 {
            if !spliced(&solved).is_empty() {
                break;
            }
            solved = solve(&challenge(app).await);
        }
        let others = spliced(&solved);
        assert!(!others.is_empty(), "no number could be cut: {solved}");
        for other in &others {
            assert_eq!(hex(&format!("{}{}", other["salt"].as_str().unwrap(), other["number"])), solved["challenge"].as_str().unwrap(), "the trap");
        }
        // Neither before it was used, nor after, nor when its time is over.
        let mut n = 0;
        for when in ["before", "after", "late"] {
            match when {
                "after" => assert_eq!(ask(app, with_work(app, 1_000, &email, PASSWORD, &payload(&solved))).await.status, 200),
                "late" => {
                    app.clock.advance(8 * MINUTE);
                }
                _ => {}
            }
            for other in &others {
                n += 1;
                let answer = ask(app, with_work(app, 2_000 + n, &email, PASSWORD, &payload(other))).await;
                assert_eq!(answer.refusal(), WORK, "{when}: {other}");
            }
        }
    }
}
