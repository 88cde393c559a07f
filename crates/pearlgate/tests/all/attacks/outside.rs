//! What others make us ask, and what they tell us: addresses that lead inside, receivers that misbehave, forged events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foundation::kernel::Id;
use pearlgate::accounts::UserRow;
use pearlgate::{federation, webhooks};
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;

use crate::journeys::webhooks::{is_signed, settled};
use crate::support::receiver::{Manner, Receiver};
use crate::support::{PASSWORD, Person, TestApp, production};
use crate::{both, both_with};

/// Somebody inside who counts whoever comes.
async fn inside() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

/// Addresses that no stranger may make a server ask, as they are written to get past a look at their text.
fn leading_inside(port: u16) -> Vec<String> {
    let hosts = [
        "127.0.0.1",
        "[::1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "localhost.",
        "LOCALHOST",
    ];
    hosts.into_iter().map(|host| format!("https://{host}:{port}/")).collect()
}

fn of_another_kind(port: u16) -> Vec<String> {
    vec![
        format!("http://127.0.0.1:{port}/"),
        "http://example.com/".into(),
        format!("gopher://127.0.0.1:{port}/_"),
        "file:///etc/passwd".into(),
        format!("ftp://127.0.0.1:{port}/"),
        "https://user:word@example.com/".into(),
        "https://user@127.0.0.1/".into(),
        "data:text/plain,x".into(),
        "//example.com/".into(),
        "example.com".into(),
        String::new(),
    ]
}

/// Something happened to somebody.
async fn happen(app: &TestApp) {
    let inner = app.app.clone();
    let nobody: Id<UserRow> = Id::from_bytes([9; 16]);
    let done = app.app.db.write(move |tx| webhooks::tell(tx, &inner, nobody, "user.updated", &json!({})));
    done.await.unwrap();
}

both_with! { false, &production("", "");
    async fn a82_cve_2026_55671_addresses_that_lead_inside(app: &TestApp) {
        let (port, came) = inside().await;
        for url in of_another_kind(port) {
            assert!(webhooks::add(&app.app, &url, "*", "").await.is_err(), "{url}");
        }
        // What is a name is looked at when it is asked, each time: whoever changes what it means gains nothing.
        let mut kept = 0;
        for url in leading_inside(port) {
            if webhooks::add(&app.app, &url, "*", "").await.is_ok() {
                assert!(url.to_lowercase().contains("localhost"), "an address is refused at once: {url}");
                kept += 1;
            }
        }
        assert_eq!(kept, 3, "three that are names");
        // One that was allowed once and is not any more.
        app.sql(&format!("UPDATE webhook_endpoints SET url = 'https://127.0.0.1:{port}/' WHERE url LIKE 'https://localhost:%'")).await;
        happen(app).await;
        let tried = "SELECT COUNT(*) FROM webhook_deliveries WHERE state = 'waiting' AND attempts > 0";
        app.until("each was tried", || async { app.count(tried).await == kept }).await;
        for one in webhooks::list(&app.app).await.unwrap() {
            let said = webhooks::deliveries(&app.app, one.id, 9).await.unwrap().unwrap();
            assert!(said.iter().all(|one| one.state == "waiting" && !one.answer.contains("answered")), "{said:?}");
        }

        for (n, url) in leading_inside(port).into_iter().enumerate() {
            let settings = format!("issuer = {url:?}\nclient_id = \"x\"\nclient_secret = \"y\"");
            if federation::add_provider(&app.app, &format!("p{n}"), &settings).await.is_ok() {
                let answer = app.get(&format!("/v1/auth/oauth/p{n}/start?return_to=/")).await;
                assert_eq!(answer.refusal(), "503 provider_unavailable", "{url}: {}", answer.text);
                assert!(!answer.text.contains("127.0.0.1"), "nobody learns what is inside: {}", answer.text);
            }
        }
        for url in of_another_kind(port) {
            let settings = format!("issuer = {url:?}\nclient_id = \"x\"\nclient_secret = \"y\"");
            if federation::add_provider(&app.app, "other", &settings).await.is_ok() {
                let answer = app.get("/v1/auth/oauth/other/start?return_to=/").await;
                assert_eq!(answer.refusal(), "503 provider_unavailable", "{url}: {}", answer.text);
            }
        }
        assert_eq!(came.load(Ordering::SeqCst), 0, "nobody came inside");
        app.sql("DELETE FROM webhook_endpoints; DELETE FROM jobs WHERE kind = 'webhooks.deliver'").await;
    }
}

both! {
    async fn cve_2026_55671_a_receiver_sends_us_elsewhere_or_answers_without_end(app: &TestApp) {
        let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
        let (id, _) = webhooks::add(&app.app, &receiver.url, "user.updated", "").await.unwrap();
        for manner in [Manner::SendTo(elsewhere.url.clone()), Manner::Babble] {
            receiver.be(manner.clone());
            let before = receiver.all().len();
            app.clock.advance(Duration::from_secs(3_601));
            happen(app).await;
            receiver.hear(before + 1).await;
            settled(app).await;
        }
        let said = webhooks::deliveries(&app.app, id, 9).await.unwrap().unwrap();
        assert!(said.iter().any(|one| one.answer.contains("larger than allowed")), "{said:?}");
        assert!(elsewhere.all().is_empty(), "nobody follows");
        receiver.be(Manner::Take);
        app.clock.advance(Duration::from_secs(3_601));
        app.quiet().await;
    }
}

both! {
    async fn a86_cve_2024_40634_a_receiver_that_hangs_stalls_nobody(app: &TestApp) {
        let (slow, well) = (Receiver::start().await, Receiver::start().await);
        let others = [Receiver::start().await, Receiver::start().await];
        for one in others.iter().chain([&slow]) {
            one.be(Manner::Hang);
            webhooks::add(&app.app, &one.url, "*", "").await.unwrap();
        }
        webhooks::add(&app.app, &well.url, "*", "").await.unwrap();
        // More people than there are places for messages.
        let mut people = Vec::new();
        for n in 0..12 {
            people.push(app.person(&format!("p{n}@example.com")).await);
        }
        let told = tokio::time::timeout(Duration::from_secs(8), well.take(12)).await;
        assert!(told.is_ok(), "before the first of the others is given up: {:?}", well.kinds());
        let again = tokio::time::timeout(Duration::from_secs(8), app.person("last@example.com")).await;
        assert!(again.is_ok(), "mail does not wait for it");
        assert!(slow.all().len() <= 8, "what hangs has some places, and no more: {}", slow.all().len());
        let all = || others.iter().chain([&slow]);
        all().for_each(|one| one.be(Manner::Take));
        app.until("everybody was told", || async {
            app.clock.advance(Duration::from_secs(30));
            all().all(|one| one.taken().len() == 13)
        }).await;
        assert_eq!(well.taken().len(), 13);
    }
}

both! {
    async fn cve_2025_59538_what_a_receiver_can_check(app: &TestApp) {
        let receiver = Receiver::start().await;
        let (id, secret) = webhooks::add(&app.app, &receiver.url, "user.updated", "").await.unwrap();
        let ada = app.person("ada@example.com").await;
        let change = |name: &'static str, person: Person| async move {
            let request = app.request(Method::PATCH, "/v1/me").bearer_auth(&person.access);
            assert_eq!(app.send(request.json(&json!({ "display_name": name }))).await.status, 200);
        };
        receiver.be(Manner::Refuse(503));
        change("one", ada).await;
        receiver.hear(1).await;
        settled(app).await;
        receiver.be(Manner::Take);
        app.clock.advance(Duration::from_secs(400));
        let [first, second] = [&receiver.hear(2).await[0].clone(), &receiver.hear(2).await[1].clone()];
        assert!(is_signed(first, &secret) && is_signed(second, &secret));
        assert_eq!((&first.id, &first.raw), (&second.id, &second.raw), "the same message, and it says so");
        assert!(second.timestamp >= first.timestamp + 400, "signed anew: an old one replayed is too old");
        let forged = |change: fn(&mut crate::support::receiver::Heard)| {
            let mut one = second.clone();
            change(&mut one);
            one
        };
        for wrong in [
            forged(|one| one.raw.push(' ')),
            forged(|one| one.timestamp += 1),
            forged(|one| one.id.replace_range(4..5, "x")),
            forged(|one| one.signature = one.signature.replace("v1,", "v1a,")),
        ] {
            assert!(!is_signed(&wrong, &secret), "{wrong:?}");
        }
        let other = webhooks::rotate(&app.app, id).await.unwrap().unwrap();
        assert!(!is_signed(second, &other), "a secret knows nothing of what was signed with another");
        assert!(!second.raw.contains(PASSWORD) && !second.raw.contains("$argon2") && !second.raw.contains("pgr_"));
    }
}
