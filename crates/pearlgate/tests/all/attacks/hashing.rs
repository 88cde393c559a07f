use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use unicode_normalization::UnicodeNormalization;

use super::mailed::{NEW, change_password, forgot, link_token, mailed, register, reset, verify};
use super::support::{OTHER, address, answers, host, post};
use crate::both;
use crate::program::child::{PATIENCE, Server, dev, until};
use crate::support::{Engine, PASSWORD, Person, TestApp};

const REFUSED: &str = "401 invalid_credentials";

/// Two hundred characters, among them a NUL, letters of several bytes, both cases, and spaces at both ends.
fn long() -> String {
    let words = " \u{c5}ngstr\u{f6}m counts nine brass kettles, Am\u{e9}lie hums over seven slow rivers; \0 the Heron waits for 42 otters, and ";
    let mut password: String = words.chars().chain("nobody in the Harbour has ever asked why, or where they went when the tide came back on a Tuesday evening".chars()).take(199).collect();
    password.extend(std::iter::repeat_n('z', 199 - password.chars().count()));
    password.push(' ');
    assert_eq!(password.chars().count(), 200);
    password
}

/// The longest beginning that is at most so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whatever is not it and has much of it.
fn nearly(p: &str) -> Vec<String> {
    let mut out: Vec<String> = [8, 16, 32, 55, 56, 63, 64, 71, 72, 73, 127, 128, 129, 199]
        .map(|bytes| beginning(p, bytes).to_owned())
        .into();
    let without_last: String = p.chars().take(p.chars().count() - 1).collect();
    let swapped = |c: char| {
        if c.is_lowercase() { c.to_uppercase().next().unwrap() } else { c.to_lowercase().next().unwrap() }
    };
    out.extend([
        format!("{p}x"),
        format!("{p} "),
        format!("{p}\0"),
        format!("{p}\n"),
        format!("{p}\u{301}"),
        format!("\0{p}"),
        format!(" {p}"),
        format!("\u{feff}{p}"),
        format!("{p}{p}"),
        p.split('\0').next().unwrap().to_owned(),
        p.split('\0').nth(1).unwrap().to_owned(),
        p.replace('\0', ""),
        p.replace('\0', " "),
        p.trim().to_owned(),
        p.trim_start().to_owned(),
        p.trim_end().to_owned(),
        p.replace("  ", " "),
        p.replace(' ', "+"),
        p.to_uppercase(),
        p.to_lowercase(),
        p.chars().map(swapped).collect(),
        p.replace('H', "h"),
        p.nfd().filter(char::is_ascii).collect(),
        p.replace('\u{e9}', "e"),
        p.replace('\u{f6}', "oe"),
        p.chars().rev().collect(),
        format!("{without_last}!"),
        without_last,
        "x".repeat(200),
        String::new(),
        HEXLOWER.encode(p.as_bytes()),
    ]);
    out.retain(|text| text != p);
    out
}

/// Nobody is let in with these.
async fn refused(app: &TestApp, email: &str, what: &str, attempts: &[String]) {
    for attempt in attempts {
        app.forgive().await;
        let login = post(app, "/v1/auth/login", &json!({ "email": email, "password": attempt })).await;
        assert_eq!(login.refusal(), REFUSED, "{what}: {attempt:?}");
    }
}

async fn lets_in(app: &TestApp, email: &str, password: &str) -> Person {
    let login = post(app, "/v1/auth/login", &json!({ "email": email, "password": password })).await;
    assert_eq!(login.status, 200, "{}: {password:?}", login.text);
    Person::of(&login)
}

/// Of exactly 72 bytes: all that bcrypt sees of a password.
const SEVENTY_TWO: &str = "Seventy-two bytes of brass kettles, seven herons and one slow river, ok?";
/// By libxcrypt's crypt(3), of `SEVENTY_TWO`; and, equal to it, of `SEVENTY_TWO` with anything behind it.
const OF_SEVENTY_TWO: &str = "$2b$04$Qk7Tq1vXyZ0aBcDeFgHiJu6sMzhZQOpGHIpoGQS9ZsEMi4hCv02ja";
/// Likewise, of what comes before a NUL and ends a C string.
const BEFORE_NUL: &str = "nine purple lanterns";
const OF_BEFORE_NUL: &str = "$2b$04$Wm3Lr9sPzK5nVbXcYdGfEubeBKVnL5cfzWNWldnRXe2AFPPbFItQO";

/// As the import leaves a person who comes with a hash.
async fn imported(app: &TestApp, email: &str, hash: &str) {
    app.person(email).await;
    let user = format!("(SELECT user_id FROM user_emails WHERE address = '{email}')");
    app.sql(&format!(
        "UPDATE password_credentials SET password_hash = '{hash}' WHERE user_id IN {user};
        INSERT INTO foreign_hashes (user_id, scheme) SELECT id, 'bcrypt:4' FROM users WHERE id IN {user}"
    ))
    .await;
}

both! {
    async fn a53_cve_2025_22228_truncation_of_passwords(app: &TestApp) {
        let p = long();
        assert!(p.len() > 200 && p.nfd().collect::<String>() != p, "the trap: two forms, more bytes than letters");
        let id = register(app, "ada@ex.test", &p).await;
        let mail = mailed(app, "ada@ex.test", "verify_email", 1).await;
        // What waits for its proof is as long as what was typed.
        for near in nearly(&p).iter().step_by(5) {
            app.forgive().await;
            assert_eq!(app.login("ada@ex.test", near).await.refusal(), REFUSED, "{near:?}");
        }
        app.forgive().await;
        assert_eq!(app.login("ada@ex.test", &p).await.refusal(), "403 email_not_verified");
        assert_eq!(verify(app, json!({ "verification_id": id, "code": mail.code })).await.status, 200);
        refused(app, "ada@ex.test", "registered", &nearly(&p)).await;

        // The same letters are the same password however a machine spells them; that is all that is folded.
        for form in [p.clone(), p.nfd().collect(), p.nfkd().collect(), p.nfc().collect(), p.nfkc().collect(), p.replace("nine", "\u{ff4e}\u{ff49}\u{ff4e}\u{ff45}")] {
            lets_in(app, "ada@ex.test", &form).await;
        }

        // Set on the other ways: what differs in its last letter, far behind every known cut, is another password.
        let ada = lets_in(app, "ada@ex.test", &p).await;
        let q = format!("{}!", p.strip_suffix(' ').unwrap());
        assert_eq!(change_password(app, &ada.access, &format!("{p}x"), &q).await.refusal(), REFUSED);
        assert_eq!(change_password(app, &ada.access, beginning(&p, 72), &q).await.refusal(), REFUSED);
        assert_eq!(change_password(app, &ada.access, &p, &q).await.status, 200);
        refused(app, "ada@ex.test", "changed", &[p.clone(), beginning(&q, 72).to_owned(), format!("{q}x")]).await;
        lets_in(app, "ada@ex.test", &q).await;
        let token = link_token(&forgot(app, "ada@ex.test", 1).await);
        assert_eq!(reset(app, &token, &p).await.status, 200);
        refused(app, "ada@ex.test", "reset", &nearly(&p)).await;
        refused(app, "ada@ex.test", "reset", &[q]).await;
        lets_in(app, "ada@ex.test", &p).await;
        // The longest that there may be, and one whose ends are NULs.
        for (n, edge) in [format!("{} {}", NEW, "\u{e9}x".repeat(332)), format!("\0{NEW}\0")].into_iter().enumerate() {
            let email = format!("edge{n}@ex.test");
            let id = register(app, &email, &edge).await;
            let mail = mailed(app, &email, "verify_email", 1).await;
            assert_eq!(verify(app, json!({ "verification_id": id, "code": mail.code })).await.status, 200);
            let mut near = vec![beginning(&edge, 72).to_owned(), beginning(&edge, edge.len() - 1).to_owned(), format!("{edge}x"), edge.trim_matches('\0').to_owned(), NEW.to_owned()];
            near.retain(|text| *text != edge);
            refused(app, &email, "edge", &near).await;
            lets_in(app, &email, &edge).await;
        }

        // Imported from a system whose hashes see 72 bytes and end at a NUL: what they cannot tell apart, nobody is let in by.
        assert_eq!(SEVENTY_TWO.len(), 72);
        imported(app, "bcrypt@ex.test", OF_SEVENTY_TWO).await;
        let longer: Vec<String> = ["x", " ", "\0", "\0x", "\u{301}", "!!!!!!!!"].map(|more| format!("{SEVENTY_TWO}{more}")).into();
        refused(app, "bcrypt@ex.test", "behind the 72nd byte", &longer).await;
        refused(app, "bcrypt@ex.test", "imported", &[SEVENTY_TWO[..71].to_owned(), SEVENTY_TWO.to_uppercase(), SEVENTY_TWO.repeat(2), format!("{SEVENTY_TWO}{}", "y".repeat(900)), String::new()]).await;
        imported(app, "nul@ex.test", OF_BEFORE_NUL).await;
        let behind: Vec<String> = ["\0", "\0drift", "\0\0\0", "\0\u{1f980}"].map(|more| format!("{BEFORE_NUL}{more}")).into();
        refused(app, "nul@ex.test", "behind a NUL", &behind).await;
        // `SEVENTY_TWO` cut in the middle of a letter of two bytes would be equal, too.
        let split = format!("{}\u{e9}", &SEVENTY_TWO[..71]);
        refused(app, "bcrypt@ex.test", "a letter across the cut", &[split]).await;
        assert_eq!(app.count("SELECT COUNT(*) FROM foreign_hashes").await, 2, "no wrong password made a hash anew");
        for (email, right, wrong) in [("bcrypt@ex.test", SEVENTY_TWO, &longer), ("nul@ex.test", BEFORE_NUL, &behind)] {
            lets_in(app, email, right).await;
            refused(app, email, "hashed anew", wrong).await;
            lets_in(app, email, right).await;
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM foreign_hashes").await, 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM password_credentials WHERE password_hash NOT LIKE '$argon2id$v=19$%'").await, 0);
    }
}

/// What a stored hash may ask for when somebody has written it there.
const HOSTILE: [&str; 8] = [
    "$argon2id$v=19$m=4194304,t=100,p=64",
    "$argon2id$v=19$m=4294967295,t=1,p=1",
    "$argon2id$v=19$m=1048577,t=1,p=1",
    "$argon2id$v=19$m=64,t=4294967295,p=1",
    "$argon2id$v=19$m=64,t=65,p=1",
    "$argon2id$v=19$m=134217728,t=1,p=16777215",
    "$argon2d$v=16$m=4194304,t=100,p=64",
    "$argon2i$m=4194304,t=100,p=64",
];
const SALT_AND_HASH: &str = "c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Of other systems: as much work as a number can say.
const FOREIGN: [&str; 5] = [
    "$2b$31$Qk7Tq1vXyZ0aBcDeFgHiJu6sMzhZQOpGHIpoGQS9ZsEMi4hCv02ja",
    "$scrypt$ln=30,r=64,p=64$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "pbkdf2_sha256$4000000000$salt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "$6$rounds=999999999$saltsalt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "$P$Usaltsalt.AAAAAAAAAAAAAAAAAAAAA",
];

/// Logins at the same time, and every how many-th of them hangs up on its answer.
const LOGINS: usize = 2_000;
const HANGS_UP: usize = 2;
const MIB: u64 = 1 << 20;

/// `VmHWM` (the most there was) or `VmRSS` (what there is) of a process, in bytes.
fn memory(server: &Server, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.0.id())).unwrap();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
    found.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How one login of many went: its status, whether a 503 said when to come back; nothing for who hung up.
async fn one_of_many(url: String, email: String, hangs_up: bool) -> Option<(u16, bool, String)> {
    let body = json!({ "email": email, "password": OTHER }).to_string();
    let request = format!(
        "POST /v1/auth/login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        host(&url),
        body.len()
    );
    let mut socket = TcpStream::connect(address(&url)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    if hangs_up {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return None;
    }
    let (mut reader, _writer) = socket.into_split();
    let mut bytes = Vec::new();
    let heard = tokio::time::timeout(2 * PATIENCE, reader.read_to_end(&mut bytes)).await;
    heard.expect("an answer within a minute").unwrap();
    let answer = answers(&bytes).into_iter().next().expect("an answer");
    Some((answer.status, answer.head.contains("\r\nretry-after: "), answer.body))
}

async fn the_program_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let call = dev(dir.path())
        .set("hashing.memory_kib", "19456")
        .set("hashing.iterations", "2")
        .set("hashing.threads", "2")
        // What holds when nothing but the queue does.
        .set("limits.sign_in.mode", "off")
        .set("limits.refresh.mode", "off")
        .set("lockout.mode", "off");
    let server = call.start().await;
    let ada = server.api.dev_person("ada@ex.test").await;
    server.api.dev_person("hostile@ex.test").await;
    let (access, mut token) = (ada.str("/access_token"), ada.str("/refresh_token"));

    let mut racing = JoinSet::new();
    for n in 0..LOGINS {
        let email = if n % 3 == 0 { "ada@ex.test".into() } else { format!("nobody{n}@ex.test") };
        racing.spawn(one_of_many(server.url.clone(), email, n % HANGS_UP == 1));
    }
    // Whoever is in is served all the while.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, api) = (stop.clone(), server.api.clone());
    let healthy = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::Relaxed) {
            let me = api.get_as("/v1/me", &access).await;
            assert_eq!(me.status, 200, "{}", me.text);
            let refreshed = api.refresh(&token).await;
            assert_eq!(refreshed.status, 200, "{}", refreshed.text);
            token = refreshed.str("/refresh_token");
            served += 1;
        }
        served
    });
    let (mut hung_up, mut statuses) = (0, BTreeMap::<u16, usize>::new());
    for one in racing.join_all().await {
        let Some((status, says_when, body)) = one else {
            hung_up += 1;
            continue;
        };
        assert!(
            status == 401 || (status == 503 && says_when && body.contains("\"overloaded\"")),
            "{status}: {body}"
        );
        *statuses.entry(status).or_default() += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let served: usize = healthy.await.unwrap();
    let most = memory(&server, "VmHWM");
    assert_eq!(hung_up, LOGINS / HANGS_UP);
    assert_eq!(statuses.values().sum::<usize>(), LOGINS - hung_up);
    assert!(statuses.get(&401).is_some_and(|n| *n > 0), "some were tried: {statuses:?}");
    assert!(
        statuses.get(&503).is_some_and(|n| *n > 0),
        "the trap: more came than fit, or nothing was bounded: {statuses:?}"
    );
    assert!(served >= 3, "refresh and session checks were answered {served} times");
    assert!(most < 256 * MIB, "{} MiB", most / MIB);
    let login = || async { (server.api.login("ada@ex.test").await.status == 200).then_some(()) };
    until("it is as it was", PATIENCE, login).await;

    // Hostile rows: refused as they are read, and the memory that they ask for is never taken.
    let file = rusqlite::Connection::open(dir.path().join("pearlgate.db")).unwrap();
    file.busy_timeout(Duration::from_secs(10)).unwrap();
    let before = memory(&server, "VmRSS");
    for hash in
        HOSTILE.iter().map(|start| format!("{start}${SALT_AND_HASH}")).chain(FOREIGN.map(str::to_owned))
    {
        let user = "(SELECT user_id FROM user_emails WHERE address = 'hostile@ex.test')";
        assert_eq!(
            file.execute(
                &format!("UPDATE password_credentials SET password_hash = ?1 WHERE user_id = {user}"),
                [&hash]
            )
            .unwrap(),
            1
        );
        let together: JoinSet<_> = (0..8)
            .map(|_| {
                let api = server.api.clone();
                async move { api.login("hostile@ex.test").await }
            })
            .collect();
        for login in together.join_all().await {
            assert_eq!(login.refusal(), REFUSED, "{hash}");
        }
    }
    let (now, most) = (memory(&server, "VmRSS"), memory(&server, "VmHWM"));
    assert!(
        now < before + 100 * MIB && most < 256 * MIB,
        "{} MiB before, {} now, {} at most",
        before / MIB,
        now / MIB,
        most / MIB
    );
    let metrics = server.api.get("/metrics").await.text;
    assert!(
        metrics.contains("password_hash_refused_total") && !metrics.contains("http_panics_total"),
        "{metrics}"
    );
    assert!(!metrics.contains("status=\"500\""), "something failed");
    assert!(server.child.0.id() > 0 && server.api.get("/health/live").await.status == 200);
    server.stop().await;
}

both! {
    async fn a55_cve_2026_54092_argon2_memory_dos(app: &TestApp) {
        // A row that somebody wrote lets nobody in, whatever it asks for, and is no reason to fail.
        let ada = app.person("ada@ex.test").await;
        for hash in HOSTILE.iter().map(|start| format!("{start}${SALT_AND_HASH}")).chain(FOREIGN.map(str::to_owned)) {
            app.sql(&format!("UPDATE password_credentials SET password_hash = '{hash}'")).await;
            app.forgive().await;
            assert_eq!(app.login("ada@ex.test", PASSWORD).await.refusal(), REFUSED, "{hash}");
            assert_eq!(change_password(app, &ada.access, PASSWORD, NEW).await.refusal(), REFUSED, "{hash}");
        }
        // Just within the bounds is computed; so it is the bounds that refuse the others.
        app.sql(&format!("UPDATE password_credentials SET password_hash = '$argon2id$v=19$m=65536,t=1,p=1${SALT_AND_HASH}'")).await;
        app.forgive().await;
        assert_eq!(app.login("ada@ex.test", PASSWORD).await.refusal(), REFUSED);
        assert_eq!(app.get_as("/v1/me", &ada.access).await.status, 200);
        let token = link_token(&forgot(app, "ada@ex.test", 1).await);
        assert_eq!(reset(app, &token, NEW).await.status, 200, "the owner has a way out");
        assert_eq!(app.login("ada@ex.test", NEW).await.status, 200);
        if app.engine == Engine::Sqlite && cfg!(target_os = "linux") {
            the_program_under_load().await;
        }
        // Not here: a cgroup's MemoryMax; what a process has taken at most says the same.
    }
}
