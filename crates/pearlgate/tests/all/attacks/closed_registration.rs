//! Ways to an account where nobody registers, or where accounts have addresses of certain domains: one policy for all of them.

use std::io::Cursor;

use foundation::kernel::Entropy;
use pearlgate::transfer::{Extras, Importer, Preset, Said, Tally, import_users};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{ask, clean, mails, post, token_of};
use crate::journeys::access::call;
use crate::journeys::invitations::{INVITATIONS, accept, founder, invited};
use crate::journeys::newcomers::USERS;
use crate::support::browser::{Browser, COMPLETE, IDENTITIES};
use crate::support::idp::Idp;
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp};
use crate::with_idp;

const CLOSED: &str = "403 registration_closed";
const FOREIGN: &str = "email:domain_not_allowed";
const PEOPLE: &str = "SELECT COUNT(*) FROM users";
const STRANGERS: &str = "SELECT COUNT(*) FROM user_emails WHERE address_key NOT LIKE '%ex.test'";

async fn register(app: &TestApp, email: &str) -> Answer {
    post(app, "/v1/auth/register", &json!({ "email": email, "password": PASSWORD })).await
}

/// Somebody comes by the provider; what the last step answers.
async fn come(app: &TestApp, idp: &Idp, person: Value) -> Answer {
    idp.person(person);
    let answer = Browser::new(app).enter("idp", idp).await;
    clean("a provider", answer.status, &answer.text);
    answer
}

/// An operator brings people; what became of them, and what was said.
async fn import(app: &TestApp, lines: &[Value]) -> (Tally, Vec<String>) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let people = app.app.settings.people.clone();
    let importer = Importer::new(app.app.db.clone(), app.clock.clone(), Entropy::System, None, people);
    let (runtime, now) = (tokio::runtime::Handle::current(), app.clock.now());
    let importing = tokio::task::spawn_blocking(move || {
        let extras = Extras { firebase: None, assume_verified: false, now };
        let mut words = Vec::new();
        let mut said = |_: u64, what: Said| match what {
            Said::Bad(why) | Said::Warning(why) => words.push(why),
        };
        let from = (Preset::Pearlgate, &extras);
        let how = (None, false);
        let tally = import_users(&importer, from, Cursor::new(text), how, &runtime, &mut said, &mut |_| {});
        (tally.unwrap(), words)
    });
    importing.await.unwrap()
}

/// The answer, but for what is of its own request.
fn same(answer: &Answer) -> String {
    let mut json = answer.json.clone();
    json["request_id"] = json!("");
    format!("{} {json}", answer.status)
}

/// Somebody whom the owner makes, signed in.
async fn made(app: &TestApp, owner: &Person, email: &str) -> Person {
    let body = json!({ "email": email, "display_name": "Pat", "email_verified": true });
    let made = call(app, Method::POST, USERS, &owner.access, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    post(app, "/v1/auth/forgot-password", &json!({ "email": email })).await;
    let mail = app.mail(email, "password_reset", 1).await;
    let reset = json!({ "token": token_of(&mail.links[0]), "password": PASSWORD });
    assert_eq!(post(app, "/v1/auth/reset-password", &reset).await.status, 200);
    app.quiet().await;
    Person::of(&app.login(email, PASSWORD).await)
}

with_idp! { "native_client_ids = [\"phone\"]\n[registration]\nopen = false\ndomains = [\"ex.test\"]";
    async fn a05_cve_2024_49757_no_way_leads_in_where_registration_is_closed(app: &TestApp, idp: &Idp) {
        let owner = founder(app, "owner@ex.test").await;
        let pat = made(app, &owner, "pat@ex.test").await;
        let people = app.count(PEOPLE).await;
        assert_eq!(people, 2);
        let before = mails(app).await;

        // By a form: the same for an address that has an account, one that has none, and one of another domain.
        let answers = [register(app, "new@ex.test").await, register(app, "owner@ex.test").await, register(app, "new@evil.test").await];
        assert!(answers.iter().all(|answer| answer.refusal() == CLOSED), "{answers:?}");
        assert!(answers.iter().all(|answer| same(answer) == same(&answers[0])), "{answers:?}");

        // By a provider: whatever it says of them, in a browser and on a phone, all at once and in two steps.
        for person in [
            json!({ "sub": "s1", "email": "v@ex.test", "email_verified": true, "name": "Vera" }),
            json!({ "sub": "s2", "email": "v@evil.test", "email_verified": true, "name": "Vera" }),
            json!({ "sub": "s3", "email": "v@ex.test", "email_verified": false, "name": "Vera" }),
            json!({ "sub": "s4" }),
        ] {
            assert_eq!(come(app, idp, person.clone()).await.refusal(), CLOSED, "{person}");
            let token = idp.id_token("phone", &format!("nonce of {person}"));
            let body = json!({ "id_token": token, "nonce": format!("nonce of {person}") });
            assert_eq!(post(app, "/v1/auth/oauth/idp/id-token", &body).await.refusal(), CLOSED, "{person}");
        }
        let nameless = come(app, idp, json!({ "sub": "s5", "email": "v@ex.test", "email_verified": true })).await;
        assert_eq!(nameless.str("/status"), "profile_required");
        let body = json!({ "completion_token": nameless.str("/completion_token"), "display_name": "Vera", "email": "w@ex.test" });
        for refusal in [CLOSED, "422 verification_invalid"] {
            assert_eq!(post(app, COMPLETE, &body).await.refusal(), refusal, "it is used up");
        }

        // By what makes nobody: asked for, and nothing comes of it.
        for (path, body) in [
            ("/v1/auth/magic-link", json!({ "email": "new@ex.test" })), ("/v1/auth/forgot-password", json!({ "email": "new@ex.test" })),
            ("/v1/auth/resend-verification", json!({ "email": "new@ex.test" })),
        ] {
            assert_eq!(post(app, path, &body).await.status, 202, "{path}");
        }
        assert_eq!((app.count(PEOPLE).await, mails(app).await), (people, before), "nobody is there, and nothing was mailed");
        assert_eq!(app.count("SELECT COUNT(*) FROM federated_identities").await, 0);

        // By an operator, to another domain: neither asked, nor made, nor imported, nor moved there.
        for (path, body) in [
            (INVITATIONS, json!({ "email": "new@evil.test" })), (INVITATIONS, json!({ "email": "new@sub.ex.test" })),
            (USERS, json!({ "email": "new@evil.test" })), (USERS, json!({ "email": "new@ex.test.evil.test", "email_verified": true })),
        ] {
            let refused = call(app, Method::POST, path, &owner.access, &body).await;
            assert_eq!(refused.fields(), [FOREIGN], "{path} {body}");
        }
        let (tally, words) = import(app, &[
            json!({ "email": "bad@evil.test", "email_verified": true }), json!({ "email": "bad@evil.test@ex.test" }), json!({ "email": "good@ex.test", "email_verified": true }),
        ]).await;
        assert_eq!((tally.imported, tally.bad), (1, 2), "{words:?}");
        assert!(words.iter().any(|why| why.starts_with("email: accounts here have addresses of other domains")), "{words:?}");
        for to in ["pat@evil.test", "pat@exx.test", "pat@evil-ex.test"] {
            let request = app.request(Method::POST, "/v1/me/email").bearer_auth(&pat.access).json(&json!({ "email": to }));
            assert_eq!(ask(app, request).await.fields(), [FOREIGN], "{to}");
        }
        assert_eq!((app.count(PEOPLE).await, app.count(STRANGERS).await), (people + 1, 0));

        // The traps would shut: whoever is asked comes, whoever is here moves, links an identity, and signs in with it.
        let (_, link) = invited(app, &owner.access, "asked@ex.test", json!([]), 1).await;
        assert_eq!(accept(app, &link).await.status, 200);
        let browser = Browser::new(app);
        idp.person(json!({ "sub": "s7", "email": "pat@elsewhere.test", "email_verified": true, "name": "Pat" }));
        assert_eq!(browser.link(&pat.access, "idp", idp).await.header("location"), "/?linked=idp");
        assert_eq!(app.get_as(IDENTITIES, &pat.access).await.str("/items/0/subject"), "s7");
        assert_eq!(Browser::new(app).enter("idp", idp).await.str("/user/id"), pat.id, "registration is closed, not the door");
        let request = app.request(Method::POST, "/v1/me/email").bearer_auth(&pat.access).json(&json!({ "email": "patricia@ex.test" }));
        assert_eq!(ask(app, request).await.status, 202);
        app.mail("patricia@ex.test", "email_change", 1).await;
        assert_eq!((app.count(PEOPLE).await, app.count(STRANGERS).await), (people + 2, 0));
    }
}

with_idp! { "[registration]\ndomains = [\"ex.test\", \"*.org.test\"]";
    async fn addresses_of_other_domains_come_by_no_way(app: &TestApp, idp: &Idp) {
        // Somebody is here from before there was a policy: they stay, and nobody sees it by what strangers are told.
        let old = app.person("old@ex.test").await;
        app.sql("UPDATE user_emails SET address = 'old@evil.test', address_key = 'old@evil.test' WHERE address_key = 'old@ex.test'").await;
        let (known, unknown) = (register(app, "old@evil.test").await, register(app, "new@evil.test").await);
        assert_eq!((known.refusal().as_str(), known.fields()), ("422 validation_failed", vec![FOREIGN.to_owned()]));
        assert_eq!(same(&known), same(&unknown));
        assert_eq!(app.login("old@evil.test", PASSWORD).await.str("/user/id"), old.id);
        for refused in ["x@org.test", "x@evilorg.test", "x@sub.ex.test", "x@ex.test.evil.test"] {
            assert_eq!(register(app, refused).await.fields(), [FOREIGN], "{refused}");
        }
        for fine in ["x@EX.test", "x@a.b.org.test"] {
            assert_eq!(register(app, fine).await.status, 202, "{fine}");
        }
        let people = app.count(PEOPLE).await;
        let person = json!({ "sub": "s1", "email": "v@evil.test", "email_verified": true, "name": "Vera" });
        assert_eq!(come(app, idp, person).await.fields(), [FOREIGN]);
        let asked = come(app, idp, json!({ "sub": "s2", "name": "Vera" })).await;
        let complete = |email: &str| json!({ "completion_token": asked.str("/completion_token"), "email": email });
        for refused in ["v@evil.test", "old@evil.test"] {
            assert_eq!(post(app, COMPLETE, &complete(refused)).await.fields(), [FOREIGN], "{refused}");
        }
        assert_eq!(app.count(PEOPLE).await, people, "no row");
        assert_eq!(post(app, COMPLETE, &complete("v@ex.test")).await.status, 202);
        app.mail("v@ex.test", "verify_email", 1).await;
        let person = json!({ "sub": "s3", "email": "w@ex.test", "email_verified": true, "name": "Wera" });
        assert_eq!(come(app, idp, person).await.status, 200, "the trap");
    }
}

/// Whoever registered before the door was closed does not come in by asking for mail after mail.
async fn a_foot_in_the_door(engine: Engine) {
    let app = TestApp::with(engine, true, "").await;
    register(&app, "early@ex.test").await;
    app.mail("early@ex.test", "verify_email", 1).await;
    let ada = app.person("ada@ex.test").await;
    app.quiet().await;
    let app = app.restart("[registration]\nopen = false\n").await;
    for email in ["early@ex.test", &ada.email] {
        for path in ["/v1/auth/resend-verification", "/v1/auth/forgot-password", "/v1/auth/magic-link"] {
            assert_eq!(post(&app, path, &json!({ "email": email })).await.status, 202, "{path}");
        }
    }
    app.mail(&ada.email, "password_reset", 1).await;
    app.mail(&ada.email, "magic_link", 1).await;
    app.quiet().await;
    assert_eq!(app.app.mailbox.as_ref().unwrap().list(Some("early@ex.test"), None).len(), 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_registered_before_the_door_was_closed_stays_outside_on_sqlite() {
    a_foot_in_the_door(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_registered_before_the_door_was_closed_stays_outside_on_postgres() {
    a_foot_in_the_door(Engine::Postgres).await;
}
