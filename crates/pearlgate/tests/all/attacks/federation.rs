//! Sign-ins at others: accounts that somebody prepared before their owner came, identities that are shown as another's, and
//! browsers that are sent with what is not theirs, or to where they should not go.

use std::time::Duration;

use pearlgate::federation::{add_provider, remove_provider, set_disabled};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::guessing::at_once;
use super::mailed::{
    DEAD, NEW, everything, link_token, mailed, open_rows, register, stored, unprove, verify,
};
use super::relying_party::people;
use super::support::{OTHER, clean, holds, post};
use crate::journeys::authenticator::{NOT_FRESH, enrol};
use crate::journeys::passkeys::{add, enter};
use crate::support::browser::{
    Browser, COMPLETE, COOKIE, EXCHANGE, IDENTITIES, hrefs, parameter, with_parameter,
};
use crate::support::idp::Idp;
use crate::support::soft_key::{SoftKey, b64, random, sha256};
use crate::support::{Answer, PASSWORD, Person, TestApp};
use crate::with_idp;

const V: &str = "v@ex.test";
const W: &str = "w@ex.test";
const M: &str = "m@evil.test";
const WRONG: &str = "401 invalid_credentials";
const NO: &str = "401 token_invalid";
const MALFORMED: &str = "400 malformed_request";
const CONFLICT: &str = "409 conflict";
const INVALID: &str = "422 validation_failed";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What a provider says of somebody whose address it has seen proven.
fn said(sub: &str, email: &str) -> Value {
    json!({ "sub": sub, "email": email, "email_verified": true, "name": "Somebody" })
}

/// Somebody comes by a provider; what the last step answers.
async fn told(app: &TestApp, provider: &str, idp: &Idp) -> Answer {
    let answer = Browser::new(app).enter(provider, idp).await;
    clean(provider, answer.status, &answer.text);
    answer
}

/// Somebody comes by a provider, and is in.
async fn come(app: &TestApp, provider: &str, idp: &Idp) -> Person {
    let entered = told(app, provider, idp).await;
    assert_eq!(entered.json["status"], "authenticated", "{}", entered.text);
    Person::of(&entered)
}

/// The same where the provider's part may be refused already.
async fn told_somehow(app: &TestApp, idp: &Idp) -> Answer {
    let browser = Browser::new(app);
    let arrived = browser.arrive("idp", idp).await;
    if arrived.status != 303 {
        return arrived;
    }
    browser.exchange(&browser.code_of(&arrived), json!({})).await
}

/// The provider said too little; with what to go on.
fn asks(answer: &Answer, missing: &str) -> String {
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("profile_required")), "{}", answer.text);
    assert_eq!((&answer.json["missing"], &answer.json["expires_in"]), (&json!([missing]), &json!(600)));
    answer.str("/completion_token")
}

/// It did not say for sure that this address is somebody's; with what to go on.
fn asks_for_email(answer: &Answer, suggested: &str) -> String {
    assert_eq!(answer.json["suggested"]["email"], suggested, "{}", answer.text);
    asks(answer, "email")
}

async fn complete(app: &TestApp, token: &str, email: &str) -> Answer {
    post(app, COMPLETE, &json!({ "completion_token": token, "email": email })).await
}

async fn name_it(app: &TestApp, token: &str) -> Answer {
    post(app, COMPLETE, &json!({ "completion_token": token, "display_name": "Somebody" })).await
}

/// A code for whoever has the verifier of this challenge.
async fn hand_off(browser: &Browser<'_>, idp: &Idp, challenge: &str) -> String {
    let back = browser.ahead("idp", &format!("code_challenge={challenge}"), idp).await;
    let arrived = browser.callback(&back).await;
    browser.code_of(&arrived)
}

/// No token of this person opens anything.
async fn out(app: &TestApp, person: &Person) {
    assert_eq!(app.get_as("/v1/me", &person.access).await.status, 401, "{}", person.email);
    assert_eq!(app.refresh(&person.refresh).await.status, 401, "{}", person.email);
}

/// The identities of whoever has an address.
async fn identities_of(app: &TestApp, email: &str) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM federated_identities f JOIN user_emails e ON e.user_id = f.user_id WHERE e.address = '{email}'"
    );
    app.count(Box::leak(sql.into_boxed_str())).await
}

with_idp! { "";
    async fn a11_sudhodanan_paverd_classic_federated_merge(app: &TestApp, idp: &Idp) {
        // An attempt that waits for its proof, in V's mailbox.
        let attempt = register(app, V, OTHER).await;
        let mail = mailed(app, V, "verify_email", 1).await;
        let v = come(app, "idp", idp).await;
        assert_eq!(v.email, V);
        assert_eq!(app.login(V, OTHER).await.refusal(), WRONG);
        let token = link_token(&mail);
        for body in [
            json!({ "verification_id": attempt, "code": mail.code }),
            json!({ "verification_id": attempt, "token": token }),
            json!({ "token": token, "password": OTHER }),
        ] {
            assert_eq!(verify(app, body).await.refusal(), DEAD);
        }
        assert_eq!(app.login(V, OTHER).await.refusal(), WRONG);
        assert_eq!(open_rows(app).await, [0; 4]);

        // An account with a password of its own, as an import makes them.
        app.person(W).await;
        unprove(app, W).await;
        assert_eq!(app.login(W, PASSWORD).await.status, 200, "the trap");
        idp.person(said("s2", W));
        let w = come(app, "idp", idp).await;
        assert_eq!((w.email.as_str(), app.login(W, PASSWORD).await.refusal().as_str()), (W, WRONG));
        assert_eq!(app.count("SELECT COUNT(*) FROM password_credentials").await, 0);
        assert_eq!(app.count("SELECT COUNT(*) FROM verified_emails").await, 2);
        assert_eq!(people(app).await, [2, 2, 2]);

        // Whoever comes later with a password finds that the address is somebody's.
        register(app, V, OTHER).await;
        mailed(app, V, "already_registered", 1).await;
        assert_eq!(app.login(V, OTHER).await.refusal(), WRONG);
        assert_eq!(app.get_as("/v1/me", &v.access).await.str("/email"), V);
    }
}

with_idp! { "";
    async fn prehijack_unexpired_session(app: &TestApp, idp: &Idp) {
        let first = app.person(V).await;
        let second = Person::of(&app.login(V, PASSWORD).await);
        unprove(app, V).await;
        let v = come(app, "idp", idp).await;
        out(app, &first).await;
        out(app, &second).await;
        assert_eq!(app.get_as("/v1/me", &v.access).await.status, 200);
        assert_eq!(people(app).await, [1, 1, 1]);
        assert_eq!(app.count("SELECT COUNT(*) FROM refresh_tokens").await, 1);
    }
}

with_idp! { "";
    async fn prehijack_trojan_identifier(app: &TestApp, idp: &Idp) {
        // An authenticator app and an identity of M's on V's account; a key of M's on W's.
        let planted = app.person(V).await;
        enrol(app, &planted).await;
        app.sql("INSERT INTO federated_identities (provider, subject, user_id, linked_at) SELECT 'idp', 'm1', user_id, 1 FROM user_emails").await;
        unprove(app, V).await;
        let planted = app.person(W).await;
        let mut key = SoftKey::p256();
        add(app, &planted.access, &mut key).await;
        unprove(app, W).await;

        let v = come(app, "idp", idp).await;
        assert_eq!(identities_of(app, V).await, 1, "and that is V's");
        idp.person(said("s2", W));
        let w = come(app, "idp", idp).await;
        for sql in ["SELECT COUNT(*) FROM totp_factors", "SELECT COUNT(*) FROM recovery_codes", "SELECT COUNT(*) FROM passkeys"] {
            assert_eq!(app.count(sql).await, 0, "{sql}");
        }
        assert_eq!(enter(app, &mut key).await.refusal(), WRONG);
        idp.person(said("m1", M));
        let m = come(app, "idp", idp).await;
        assert!(m.id != v.id && m.id != w.id && m.email == M, "{m:?}");
        out(app, &planted).await;
        assert_eq!(people(app).await, [3, 3, 3]);
    }
}

with_idp! { "";
    async fn prehijack_unexpired_email_change(app: &TestApp, idp: &Idp) {
        let planted = app.person(V).await;
        let open = everything(app, V, &planted.access, M).await;
        unprove(app, V).await;
        assert_eq!(open_rows(app).await, [0, 1, 1, 1], "the trap");
        let v = come(app, "idp", idp).await;
        assert_eq!(open_rows(app).await, [0; 4]);
        open.is_dead(app, V, Some(&v.access)).await;
        assert_eq!(app.get_as("/v1/me", &v.access).await.str("/email"), V);
        assert_eq!(app.login(M, PASSWORD).await.refusal(), WRONG);
    }
}

with_idp! { "";
    async fn an_identity_that_was_imported_lets_nobody_into_an_address_that_nobody_proved(app: &TestApp, idp: &Idp) {
        app.person(V).await;
        app.sql("INSERT INTO federated_identities (provider, subject, user_id, linked_at) SELECT 'idp', 's1', user_id, 1 FROM user_emails").await;
        unprove(app, V).await;
        let sessions = people(app).await[2];
        for person in [json!({ "sub": "s1", "name": "Vera" }), json!({ "sub": "s1", "name": "Vera", "email": V, "email_verified": false }), said("s1", M)] {
            idp.person(person.clone());
            assert_eq!(told(app, "idp", idp).await.refusal(), "403 email_not_verified", "{person}");
        }
        assert_eq!(people(app).await[2], sessions);
        assert_eq!(app.count("SELECT COUNT(*) FROM verified_emails").await, 0);
    }
}

with_idp! { "";
    async fn a15_cve_2020_26254_non_verifying_idp(app: &TestApp, idp: &Idp) {
        let odd = [None, Some(json!(false)), Some(json!(null)), Some(json!("true")), Some(json!("True")), Some(json!("yes")), Some(json!(1)),
            Some(json!([true])), Some(json!({ "verified": true }))];
        let mut answers = Vec::new();
        for there in [false, true] {
            if there {
                app.person(V).await;
            }
            let before = people(app).await;
            for (n, claim) in odd.iter().enumerate() {
                let mut person = json!({ "sub": format!("m{n}"), "email": V, "name": "Mallory" });
                if let Some(claim) = claim {
                    person["email_verified"] = claim.clone();
                }
                idp.person(person);
                for thin in [false, true] {
                    if thin {
                        idp.thin();
                    }
                    let mut answer = told(app, "idp", idp).await;
                    idp.honest();
                    asks_for_email(&answer, V);
                    answer.json["completion_token"] = json!("");
                    answers.push(answer.json);
                }
            }
            assert_eq!(people(app).await, before, "nothing is made, nothing is linked");
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "nobody learns who has an account: {answers:?}");

        // M goes on with V's address, and with W's, whom nobody knows.
        let token = asks_for_email(&told(app, "idp", idp).await, V);
        let known = complete(app, &token, V).await;
        mailed(app, V, "already_registered", 1).await;
        let token = asks_for_email(&told(app, "idp", idp).await, V);
        let unknown = complete(app, &token, W).await;
        let mail = mailed(app, W, "verify_email", 1).await;
        for answer in [&known, &unknown] {
            assert_eq!((answer.status, &answer.json["status"]), (202, &json!("verification_required")), "{}", answer.text);
            let wrong = if mail.code == "000000" { "000001" } else { "000000" };
            let body = json!({ "verification_id": answer.str("/verification_id"), "code": wrong });
            assert_eq!(verify(app, body).await.refusal(), DEAD);
        }
        assert_eq!(known.text.len(), unknown.text.len());
        let body = json!({ "verification_id": known.str("/verification_id"), "code": mail.code });
        assert_eq!(verify(app, body).await.refusal(), DEAD);
        // W opens the link, in a browser that knows nothing of M.
        let w = Person::of(&verify(app, json!({ "token": link_token(&mail), "password": NEW })).await);
        assert_eq!((w.email.as_str(), people(app).await[1]), (W, 0));
        assert_eq!(app.login(W, NEW).await.str("/user/id"), w.id);
        let body = json!({ "verification_id": unknown.str("/verification_id"), "code": mail.code });
        assert_eq!(verify(app, body).await.refusal(), DEAD);
        let token = asks_for_email(&told(app, "idp", idp).await, V);

        // With a mailbox of M's own M has an account of M's own.
        let own = complete(app, &token, M).await;
        let mail = mailed(app, M, "verify_email", 1).await;
        let m = Person::of(&verify(app, json!({ "verification_id": own.str("/verification_id"), "code": mail.code })).await);
        assert_eq!((m.email.as_str(), identities_of(app, M).await, people(app).await[1]), (M, 1, 1));
        assert_eq!(come(app, "idp", idp).await.id, m.id, "and what the provider says of V's address is nothing to it");
    }
}

with_idp! { "believe_email = false";
    async fn who_is_not_believed_proves_no_address(app: &TestApp, idp: &Idp) {
        for there in [false, true] {
            if there {
                app.person(V).await;
            }
            let before = people(app).await;
            asks_for_email(&told(app, "idp", idp).await, V);
            assert_eq!(people(app).await, before);
        }
    }
}

with_idp! { "[other]authoritative_for = [\"ex.test\"]";
    async fn a17_cve_2023_3128_link_by_a_mutable_address(app: &TestApp, idp: &Idp, other: &Idp) {
        let v = app.person(V).await;
        // By a provider that hands out no mailboxes: never.
        for (n, address) in [V, "V@EX.TEST", "V@Ex.Test"].into_iter().enumerate() {
            idp.person(said(&format!("m{n}"), address));
            assert_eq!(told(app, "idp", idp).await.refusal(), CONFLICT, "{address}");
        }
        for address in ["ｖ@ex.test", "v＠ex.test", "v@ex。test", "v@ex.test.", " v@ex.test", "v@ex.test\u{0}", "v@ex.test,m@evil.test",
            "\"v\"@ex.test", "Vera <v@ex.test>", "v\u{200b}@ex.test"] {
            idp.person(said(&format!("m-{address}"), address));
            let answer = told_somehow(app, idp).await;
            clean(address, answer.status, &answer.text);
            assert_ne!(answer.json["user"]["id"], v.id.as_str(), "{address:?}");
        }
        for name in ["preferred_username", "upn", "login", "unique_name", "mail", "emails"] {
            let mut person = json!({ "sub": name, "name": "Mallory", "email_verified": true });
            person[name] = json!(V);
            idp.person(person);
            asks_for_email(&told(app, "idp", idp).await, "");
        }
        assert_eq!(identities_of(app, V).await, 0);

        // By the one that hands out V's: for what it says in so many words, and for its own domain alone.
        for (n, odd) in [json!("true"), json!(1), json!([true]), json!(null), json!(false)].into_iter().enumerate() {
            let mut person = said(&format!("h{n}"), V);
            person["email_verified"] = odd;
            other.person(person);
            asks_for_email(&told(app, "other", other).await, V);
        }
        for (n, address) in ["w@a.ex.test", "w@notex.test", "w@ex.test.evil.test"].into_iter().enumerate() {
            app.person(address).await;
            other.person(said(&format!("w{n}"), address));
            assert_eq!(told(app, "other", other).await.refusal(), CONFLICT, "{address}");
        }
        assert_eq!(people(app).await[1], app.count("SELECT COUNT(*) FROM federated_identities WHERE subject LIKE 'm-%'").await);
        other.person(said("home", V));
        assert_eq!(come(app, "other", other).await.id, v.id, "the trap");
        mailed(app, V, "identity_changed", 1).await;
        other.person(said("second", V));
        assert_eq!(told(app, "other", other).await.refusal(), CONFLICT, "one of each provider");
        // Who it is is what the provider calls them, to the letter, and no address.
        other.person(said("home", "moved@else.test"));
        let again = come(app, "other", other).await;
        assert_eq!((again.id.as_str(), again.email.as_str()), (v.id.as_str(), V));
        for (n, (provider, at, sub)) in [("other", other, "HOME"), ("other", other, "home "), ("idp", idp, "home")].into_iter().enumerate() {
            at.person(said(sub, &format!("n{n}@else.test")));
            assert_ne!(come(app, provider, at).await.id, v.id, "{provider} {sub:?}");
        }

        // Sign in first, just now, then link.
        idp.person(said("private", "v@private.test"));
        app.clock.advance(11 * MINUTE);
        let stale = app.refresh(&v.refresh).await.str("/access_token");
        let browser = Browser::new(app);
        assert_eq!(browser.begin_link(&stale, "idp", json!({})).await.refusal(), NOT_FRESH);
        let native = json!({ "id_token": idp.id_token("pearl", "n1"), "nonce": "n1" });
        let request = app.request(Method::POST, &format!("{IDENTITIES}/idp")).bearer_auth(&stale).json(&native);
        assert_eq!(app.send(request).await.refusal(), NOT_FRESH);
        let fresh = app.login(V, PASSWORD).await.str("/access_token");
        let linked = browser.link(&fresh, "idp", idp).await;
        assert_eq!(parameter(linked.header("location"), "linked").as_deref(), Some("idp"));
        assert_eq!(come(app, "idp", idp).await.id, v.id);
    }
}

with_idp! { "";
    async fn a19_cve_2026_9087_link_proof_of_another_identity(app: &TestApp, idp: &Idp, _other: &Idp) {
        let (v, m) = (app.person(V).await, app.person(M).await);
        let (evil, victim) = (Browser::new(app), Browser::new(app));
        // M sends V what M began: V is told whose account it is, and what M agreed to is good in M's browser alone.
        let url = evil.begin_link(&m.access, "idp", json!({})).await.str("/url");
        let (page, confirmed) = evil.look(&url).await;
        assert!(page.text.contains(M) && !page.text.contains(V), "{}", page.text);
        let (page, _) = victim.look(&url).await;
        assert!(page.text.contains(M) && !page.text.contains(V), "{}", page.text);
        for (what, browser, to) in [
            ("agreed to elsewhere", &victim, confirmed.clone()),
            ("nothing agreed to", &evil, with_parameter(&confirmed, "confirmed", Some(&b64(&random::<32>())))),
            ("agreed to for another provider", &evil, confirmed.replace("/idp/", "/other/")),
            ("another link", &evil, with_parameter(&confirmed, "link", Some(&format!("pgt_{}", b64(&random::<32>()))))),
        ] {
            let answer = browser.get(&to).await;
            clean(what, answer.status, &answer.text);
            assert!(answer.status != 302 && answer.header("location").is_empty(), "{what}: {}", answer.status);
        }

        // Back in another browser; in a session that is over; too late; once more.
        let back = evil.half_linked(&m.access, "idp", idp).await;
        assert_eq!(victim.callback(&back).await.refusal(), MALFORMED);
        let back = evil.half_linked(&m.access, "idp", idp).await;
        let over = app.post("/v1/auth/logout", json!({ "refresh_token": m.refresh })).await;
        assert_eq!(over.status, 204);
        let arrived = evil.callback(&back).await;
        assert_eq!(parameter(arrived.header("location"), "error").as_deref(), Some("session_ended"), "{}", arrived.status);
        let m = Person::of(&app.login(M, PASSWORD).await);
        let url = evil.begin_link(&m.access, "idp", json!({})).await.str("/url");
        let (_, confirmed) = evil.look(&url).await;
        app.clock.advance(10 * MINUTE);
        for late in [url, confirmed] {
            assert_ne!(evil.get(&late).await.status, 302, "too late");
        }
        assert_eq!(people(app).await[1], 0);
        let (v, m) = (Person::of(&app.login(&v.email, PASSWORD).await), Person::of(&app.login(M, PASSWORD).await));
        idp.person(said("m1", M));
        let url = evil.begin_link(&m.access, "idp", json!({})).await.str("/url");
        let (_, confirmed) = evil.look(&url).await;
        let back = idp.authorize(evil.get(&confirmed).await.header("location"));
        let linked = evil.callback(&back).await;
        assert_eq!(parameter(linked.header("location"), "linked").as_deref(), Some("idp"), "the trap");
        let mail = mailed(app, M, "identity_changed", 1).await;
        assert!(mail.text.contains("idp"), "{}", mail.text);
        assert_eq!(evil.callback(&back).await.refusal(), MALFORMED, "once");
        assert_ne!(evil.get(&confirmed).await.status, 302, "once");

        // Nobody's identity becomes another's, and nobody has two of one provider.
        for (what, person, sub) in [("M's", &v, "m1"), ("a second one", &m, "m2")] {
            idp.person(said(sub, "else@evil.test"));
            let arrived = Browser::new(app).link(&person.access, "idp", idp).await;
            assert_eq!(parameter(arrived.header("location"), "error").as_deref(), Some("conflict"), "{what}");
            let nonce = b64(&random::<16>());
            let native = json!({ "id_token": idp.id_token("pearl", &nonce), "nonce": nonce });
            let request = app.request(Method::POST, &format!("{IDENTITIES}/idp")).bearer_auth(&person.access).json(&native);
            assert_eq!(app.send(request).await.refusal(), CONFLICT, "{what}");
        }
        assert_eq!((people(app).await[1], identities_of(app, M).await), (1, 1));
    }
}

with_idp! { "";
    async fn a21_cve_2025_64717_disabled_provider(app: &TestApp, idp: &Idp, other: &Idp) {
        let v = come(app, "idp", idp).await;
        let nonce = b64(&random::<16>());
        let native = json!({ "id_token": idp.id_token("pearl", &nonce), "nonce": nonce });
        let (underway, at_hand, asked) = (Browser::new(app), Browser::new(app), Browser::new(app));
        let back = underway.ahead("idp", "", idp).await;
        let code = at_hand.code("idp", idp).await;
        let linking = asked.begin_link(&v.access, "idp", json!({})).await.str("/url");
        idp.person(json!({ "sub": "s2", "email": W, "email_verified": true }));
        let half = asks(&told(app, "idp", idp).await, "display_name");
        let (before, tokens) = (people(app).await, idp.asked("token"));

        set_disabled(&app.app, "idp", true).await.unwrap();
        let arrived = underway.callback(&back).await;
        assert!([400, 404].contains(&arrived.status) && arrived.header("location").is_empty(), "{}", arrived.text);
        assert_eq!(at_hand.exchange(&code, json!({})).await.refusal(), DEAD);
        assert_eq!(name_it(app, &half).await.refusal(), DEAD);
        assert_eq!(asked.start("idp", "").await.refusal(), "404 not_found");
        assert_eq!(asked.begin_link(&v.access, "idp", json!({})).await.refusal(), "404 not_found");
        let opened = asked.get(&linking).await;
        assert!((400..500).contains(&opened.status), "{}", opened.text);
        let shown = post(app, "/v1/auth/oauth/idp/id-token", &native).await;
        assert!([401, 404].contains(&shown.status), "{}", shown.text);
        let methods = app.get("/v1/auth/methods").await;
        assert!(methods.json["providers"].as_array().unwrap().iter().all(|one| one["id"] != "idp"), "{}", methods.text);
        assert_eq!((people(app).await, idp.asked("token")), (before, tokens));
        other.person(said("o1", "o@ex.test"));
        come(app, "other", other).await;
        set_disabled(&app.app, "idp", false).await.unwrap();
        idp.person(said("s1", V));
        assert_eq!(come(app, "idp", idp).await.id, v.id, "the trap");

        // One that was added and is taken away.
        let late = Idp::start().await;
        late.follow(&app.clock);
        add_provider(&app.app, "late", &late.settings("")).await.unwrap();
        late.person(said("l1", "l@ex.test"));
        let first = come(app, "late", &late).await;
        let (underway, at_hand) = (Browser::new(app), Browser::new(app));
        let back = underway.ahead("late", "", &late).await;
        let code = at_hand.code("late", &late).await;
        assert_eq!(remove_provider(&app.app, "late").await, Ok(true));
        let arrived = underway.callback(&back).await;
        assert!([400, 404].contains(&arrived.status) && arrived.header("location").is_empty(), "{}", arrived.text);
        assert_eq!(at_hand.exchange(&code, json!({})).await.refusal(), DEAD);
        assert_eq!(underway.start("late", "").await.refusal(), "404 not_found");
        let me = app.get_as("/v1/me", &first.access).await;
        assert_eq!((me.status, late.asked("token")), (200, 2), "who is in stays in, and no other code went anywhere");
    }
}

with_idp! { "";
    async fn a25_cve_2015_9284_missing_and_foreign_state(app: &TestApp, idp: &Idp, _other: &Idp) {
        let evil = Browser::new(app);
        let evils = evil.ahead("idp", "", idp).await;
        let (before, tokens) = (people(app).await, idp.asked("token"));
        let state = |of: &str| parameter(of, "state").unwrap();
        for what in ["none", "empty", "M's", "made up", "shorter", "longer", "twice", "code twice", "at another provider"] {
            let browser = Browser::new(app);
            let back = browser.ahead("idp", "", idp).await;
            let own = state(&back);
            let to = match what {
                "none" => with_parameter(&back, "state", None),
                "empty" => with_parameter(&back, "state", Some("")),
                "M's" => with_parameter(&back, "state", Some(&state(&evils))),
                "made up" => with_parameter(&back, "state", Some(&b64(&random::<32>()))),
                "shorter" => with_parameter(&back, "state", Some(&own[..42])),
                "longer" => with_parameter(&back, "state", Some(&format!("{own}A"))),
                "twice" => format!("{back}&state={own}"),
                "code twice" => format!("{back}&code=x"),
                _ => back.replace("/oauth/idp/", "/oauth/other/"),
            };
            let answer = browser.callback(&to).await;
            clean(what, answer.status, &answer.text);
            assert_eq!((answer.refusal().as_str(), answer.header("location")), (MALFORMED, ""), "{what}");
        }
        // M's whole way back, in V's browser: one that begins just now, one without a cookie, one that has M's beside its own.
        let victim = Browser::new(app);
        victim.ahead("idp", "", idp).await;
        let both = format!("{}; {}", victim.cookie(), evil.cookie());
        for cookie in [victim.cookie(), String::new(), both, format!("{COOKIE}x"), format!("{COOKIE}\"{}\"", &evil.cookie()[COOKIE.len()..])] {
            let request = app.client.get(&evils).header("cookie", &cookie);
            assert_eq!(app.send(request).await.refusal(), MALFORMED, "{cookie}");
        }
        // The same as a form of another site, which a browser sends without cookies, and then by GET.
        let form = app.client.post(evils.split('?').next().unwrap()).header("origin", "https://evil.test").header("sec-fetch-site", "cross-site");
        let form = form.header("content-type", "application/x-www-form-urlencoded").body(evils.split_once('?').unwrap().1.to_owned());
        let moved = app.send(form).await;
        assert_eq!((moved.status, moved.headers.contains_key("set-cookie")), (303, false), "{}", moved.text);
        assert_eq!(victim.get(moved.header("location")).await.refusal(), MALFORMED);
        assert_eq!((people(app).await, idp.asked("token")), (before, tokens), "no code went anywhere");

        // Used, and too old.
        let browser = Browser::new(app);
        let back = browser.ahead("idp", "", idp).await;
        let arrived = browser.callback(&back).await;
        browser.code_of(&arrived);
        assert_eq!(browser.callback(&back).await.refusal(), MALFORMED, "once");
        let (late, early) = (browser.ahead("idp", "", idp).await, browser.ahead("idp", "", idp).await);
        app.clock.advance(10 * MINUTE - SECOND);
        let arrived = browser.callback(&early).await;
        browser.code_of(&arrived);
        app.clock.advance(2 * SECOND);
        assert_eq!(browser.callback(&late).await.refusal(), MALFORMED, "too old");

        // No two are the same, and nobody guesses one.
        let mut states = Vec::new();
        for _ in 0..20 {
            states.push(state(browser.start("idp", "").await.header("location")));
        }
        states.sort();
        states.dedup();
        assert!(states.len() == 20 && states.iter().all(|state| state.len() == 43), "{states:?}");
    }
}

with_idp! { "";
    async fn nobody_elses_page_begins_a_sign_in(app: &TestApp, idp: &Idp) {
        const BEGUN: &str = "SELECT COUNT(*) FROM oauth_sign_ins";
        let from = |fields: &[(&str, &str)]| {
            let request = app.request(Method::GET, "/v1/auth/oauth/idp/start?return_to=%2Fx");
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value))
        };
        let cross = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let page = app.send(from(&cross)).await;
        assert_eq!((page.status, page.header("location"), page.header("set-cookie")), (200, "", ""), "{}", page.text);
        assert_eq!(app.count(BEGUN).await, 0);
        for dest in ["image", "iframe", "embed", "script", "empty", ""] {
            let answer = app.send(from(&[("sec-fetch-site", "cross-site"), ("sec-fetch-dest", dest)])).await;
            assert_eq!(answer.refusal(), "403 permission_denied", "{dest}");
            let answer = app.send(from(&[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", dest)])).await;
            assert_eq!(answer.refusal(), "403 permission_denied", "{dest}");
        }
        assert_eq!(app.count(BEGUN).await, 0);
        let links = hrefs(&page.text);
        assert!(links.len() == 1 && page.text.contains("Continue with"), "{}", page.text);
        let browser = Browser::new(app);
        let started = browser.get(&links[0]).await;
        assert_eq!((started.status, app.count(BEGUN).await), (302, 1), "the trap");
        let arrived = browser.callback(&idp.authorize(started.header("location"))).await;
        assert!(arrived.header("location").contains("/x?code=pgo_"), "{}", arrived.header("location"));
        let clicked = [&cross[..], &[("sec-fetch-user", "?1")]].concat();
        assert_eq!(app.send(from(&clicked)).await.status, 302);
        // A cookie that is not one of ours is not taken over.
        for planted in ["x", "0000000000000000000000000000000000000000000=", ""] {
            let cookie = format!("{COOKIE}{planted}");
            let started = app.send(from(&[("cookie", cookie.as_str())])).await;
            assert!(started.header("set-cookie").starts_with(COOKIE), "{planted}");
            assert!(!started.header("set-cookie").starts_with(&format!("{cookie};")), "{planted}");
        }
    }
}

with_idp! { "";
    async fn a27_rfc_9700_code_injection(app: &TestApp, idp: &Idp) {
        // M's code in V's way back, and V's in M's: the provider's PKCE sees it; where there is none, the nonce.
        for pkce in [true, false] {
            let (v, m) = (Browser::new(app), Browser::new(app));
            idp.person(said("v1", V));
            let of_v = v.ahead("idp", "", idp).await;
            idp.person(said("m1", M));
            let of_m = m.ahead("idp", "", idp).await;
            let (first, second) = (v.ahead("idp", "", idp).await, v.ahead("idp", "", idp).await);
            if !pkce {
                idp.ignore_pkce();
            }
            let code = |of: &str| parameter(of, "code").unwrap();
            let (before, complaints) = (people(app).await, idp.complaints().len());
            for (what, browser, to, from) in
                [("M's code at V", &v, &of_v, &of_m), ("V's code at M", &m, &of_m, &of_v), ("swapped", &v, &first, &second), ("and back", &v, &second, &first)]
            {
                let answer = browser.callback(&with_parameter(to, "code", Some(&code(from)))).await;
                clean(what, answer.status, &answer.text);
                assert_eq!((answer.refusal().as_str(), answer.header("location")), (NO, ""), "{what}, pkce {pkce}");
            }
            assert_eq!(people(app).await, before);
            assert_eq!(idp.complaints().len() - complaints, if pkce { 4 } else { 0 }, "{:?}", idp.complaints());
            idp.honest();
        }

        // Each flow has its own verifier at the provider, whatever the application brings.
        let browser = Browser::new(app);
        let verifiers = [b64(&random::<32>()), b64(&random::<32>())];
        let challenge = |n: usize| b64(&sha256(verifiers[n].as_bytes()));
        let with = |challenge: &str| format!("code_challenge={challenge}");
        let mut seen = vec![challenge(0)];
        for _ in 0..10 {
            let started = browser.start("idp", &with(&challenge(0))).await;
            seen.push(parameter(started.header("location"), "code_challenge").unwrap());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 11);
        let cut = challenge(0)[..42].to_owned();
        for bad in [format!("{cut}AA"), format!("{cut}="), format!("{cut}%2B"), format!("{cut}%00"), "A".repeat(1_000), cut] {
            let started = browser.start("idp", &with(&bad)).await;
            assert_eq!(started.refusal(), INVALID, "{bad}");
            assert!(started.fields().iter().all(|field| field.starts_with("code_challenge:")), "{}", started.text);
        }
        idp.person(said("v1", V));
        let (first, second) = (hand_off(&browser, idp, &challenge(0)).await, hand_off(&browser, idp, &challenge(1)).await);
        let sessions = people(app).await[2];
        for (code, verifier) in [(&first, &verifiers[1]), (&first, &verifiers[0]), (&second, &verifiers[0]), (&second, &verifiers[1])] {
            assert_eq!(browser.exchange(code, json!({ "code_verifier": verifier })).await.refusal(), DEAD, "swapped, and killed by that");
        }
        let plain = hand_off(&browser, idp, &challenge(0)).await;
        assert_eq!(browser.exchange(&plain, json!({ "code_verifier": challenge(0) })).await.refusal(), DEAD, "not plain");
        let bare = hand_off(&browser, idp, &challenge(0)).await;
        assert_eq!(browser.exchange(&bare, json!({})).await.refusal(), DEAD, "the cookie is no verifier");
        assert_eq!(browser.exchange(&bare, json!({ "code_verifier": verifiers[0] })).await.refusal(), DEAD);
        assert_eq!(people(app).await[2], sessions);
        let code = hand_off(&browser, idp, &challenge(0)).await;
        let elsewhere = Browser::new(app).exchange(&code, json!({ "code_verifier": verifiers[0] })).await;
        assert_eq!(elsewhere.status, 200, "whoever has the verifier needs no cookie: {}", elsewhere.text);
    }
}

with_idp! { "";
    async fn a28_ghsa_x445_f3h2_j279_mix_up(app: &TestApp, idp: &Idp, other: &Idp) {
        let browser = Browser::new(app);
        other.discovery("authorization_response_iss_parameter_supported", json!(true));
        app.clock.advance(120 * MINUTE);
        let (before, tokens) = (people(app).await, idp.asked("token"));
        // Begun at one, delivered at the other, with the same cookie.
        let back = browser.ahead("idp", "", idp).await;
        assert_eq!(browser.callback(&back.replace("/oauth/idp/", "/oauth/other/")).await.refusal(), MALFORMED);
        // Delivered where it was begun, by somebody who says that they are another; each a flow of its own.
        let url = idp.url().to_owned();
        for iss in [
            other.url().to_owned(),
            format!("{url}/"),
            url.replace("http:", "https:"),
            url.replace("127.0.0.1", "localhost"),
            url.to_uppercase(),
            String::new(),
            format!("{url},{url}"),
        ] {
            idp.says_iss(&iss);
            let arrived = browser.arrive("idp", idp).await;
            assert_eq!((arrived.refusal().as_str(), arrived.header("location")), (NO, ""), "{iss}");
        }
        idp.honest();
        let failed = browser.ahead("idp", "", idp).await;
        let failed = with_parameter(&with_parameter(&failed, "code", None), "error", Some("access_denied"));
        let arrived = browser.callback(&with_parameter(&failed, "iss", Some(other.url()))).await;
        assert_eq!((arrived.refusal().as_str(), arrived.header("location")), (NO, ""), "another's error");
        let back = browser.ahead("idp", "", idp).await;
        assert_eq!(browser.callback(&format!("{back}&iss={url}&iss={}", other.url())).await.refusal(), MALFORMED, "two names");
        let other_back = browser.ahead("other", "", other).await;
        assert_eq!(browser.callback(&other_back).await.refusal(), NO, "it promised to say who it is");
        assert_eq!((people(app).await, idp.asked("token"), other.asked("token")), (before, tokens, 0), "no code went anywhere");

        for (provider, at) in [("idp", idp), ("other", other)] {
            let location = browser.start(provider, "").await.header("location").to_owned();
            let own = format!("{}/v1/auth/oauth/{provider}/callback", app.url);
            assert_eq!(parameter(&location, "redirect_uri").unwrap(), own, "each has its own way back");
            at.says_iss(at.url());
            at.person(said(provider, &format!("{provider}@ex.test")));
            come(app, provider, at).await;
        }
    }
}

/// Where a browser that stands at our callback is led to.
fn origin(app: &TestApp, location: &str) -> String {
    let at = Url::parse(&format!("{}/v1/auth/oauth/idp/callback", app.url)).unwrap();
    at.join(location).unwrap().origin().ascii_serialization()
}

with_idp! { "[federation]\nreturn_origins = [\"https://app.example.com\"]";
    async fn a29_cve_2026_5467_open_redirect(app: &TestApp, idp: &Idp) {
        let v = app.person(W).await;
        let asked = |to: &str| serde_urlencoded::to_string([("return_to", to)]).unwrap();
        let browser = Browser::new(app);
        for evil in ["//evil.test", "///evil.test", "/\\evil.test", "\\\\evil.test", "\\/evil.test", "https:evil.test", "https:/evil.test", "https:///evil.test",
            "https://evil.test", "HTTPS://EVIL.TEST", "http://app.example.com/", "https://app.example.com.evil.test/", "https://app.example.com@evil.test/",
            "https://evil.test@app.example.com/", "https://:x@app.example.com/", "https://app.example.com:444/", "https://app.example.com\\@evil.test/",
            "https://app.example.com%2eevil.test/", "https://app.example.com\u{0}.evil.test", "https://notapp.example.com/", "https://example.com/", "javascript:alert(1)",
            "JavaScript:alert(1)", "data:text/html,hi", "vbscript:x", "file:///etc/passwd", "/\t/evil.test", "\t//evil.test", "/\n/evil.test", "\r\n//evil.test",
            " //evil.test", "/\r\nLocation: https://evil.test", "/x\r\n\r\n<script>", "https://[::1]/", "https://[::ffff:7f00:1]/", "https://127.0.0.1/", "ftp://app.example.com/"] {
            let started = browser.start("idp", &asked(evil)).await;
            clean(evil, started.status, &started.text);
            assert_eq!((started.refusal().as_str(), started.header("location")), (INVALID, ""), "{evil:?}");
            assert!(started.fields().iter().all(|field| field.starts_with("return_to:")), "{}", started.text);
            assert_eq!(browser.start("dev", &asked(evil)).await.refusal(), INVALID, "{evil:?}");
            assert_eq!(browser.begin_link(&v.access, "idp", json!({ "return_to": evil })).await.refusal(), INVALID, "{evil:?}");
        }
        // What may be taken or not leads nowhere else when it is taken.
        let harmless = ["/%09/evil.test", "/%5cevil.test", "/%2f%2fevil.test", "/..//evil.test", "/.//evil.test", "/x//evil.test", "/x?to=//evil.test",
            "/@evil.test", "/:80", "/x#fragment", "/x?y#//evil.test", "", "evil.test", "x", "?x", "/é", "https://app.example.com#x", "https://app.example.com?x=1"];
        let mut queries: Vec<String> = harmless.into_iter().map(asked).collect();
        queries.push(asked(&format!("/{}", "a".repeat(12_000))));
        queries.extend(["return_to=/%ff%fe", "return_to=%", "return_to=/&return_to=//evil.test", "return_to[]=/", "return_to"].map(str::to_owned));
        for query in queries {
            let started = browser.start("idp", &query).await;
            clean(&query, started.status, &started.text);
            if started.status == 302 {
                let arrived = browser.callback(&idp.authorize(started.header("location"))).await;
                let at = arrived.header("location");
                assert!([app.url.as_str(), "https://app.example.com"].contains(&origin(app, at).as_str()), "{query}: {at}");
                browser.code_of(&arrived);
            } else {
                assert!((400..500).contains(&started.status), "{query}: {}", started.status);
            }
        }
        // The trap; and what a provider says went wrong leads to the same place.
        for (good, at) in [("/", app.url.as_str()), ("/courses/7?x=1&y=%2F", app.url.as_str()), ("https://app.example.com/after?x=1", "https://app.example.com")] {
            let back = browser.ahead("idp", &asked(good), idp).await;
            let arrived = browser.callback(&back).await;
            let location = arrived.header("location");
            assert_eq!(origin(app, location), at);
            assert!(location.contains(good) && location.contains("code=pgo_"), "{good}: {location}");
            let back = browser.ahead("idp", &asked(good), idp).await;
            let failed = with_parameter(&with_parameter(&back, "code", None), "error", Some("access_denied"));
            let arrived = browser.callback(&with_parameter(&failed, "error_description", Some("https://evil.test <b>"))).await;
            let location = arrived.header("location");
            assert_eq!((arrived.status, parameter(location, "error").as_deref()), (303, Some("access_denied")));
            assert_eq!(origin(app, location), at);
            assert!(location.contains(good) && !location.contains("evil") && !location.contains("code="), "{location}");
        }
        // No way back in the callback itself counts.
        let back = browser.ahead("idp", "", idp).await;
        let arrived = browser.callback(&format!("{back}&return_to=%2F%2Fevil.test")).await;
        assert_eq!(origin(app, arrived.header("location")), app.url);
    }
}

with_idp! { "";
    async fn a30_cve_2025_46815_hand_off_replay(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let arrived = browser.arrive("idp", idp).await;
        let (location, code) = (arrived.header("location"), browser.code_of(&arrived));
        // A code, and nothing else that opens anything or says who it is.
        assert!(location.split_once('?').unwrap().1.split('&').count() == 1 && !location.contains(['.', '#', '@']), "{location}");
        for word in ["pgr_", "pgd_", "pgi_"] {
            assert!(!holds(location, word), "{word} in {location}");
        }
        assert!(arrived.header("cache-control").contains("no-store"), "{:?}", arrived.headers);
        assert_eq!(arrived.header("referrer-policy"), "no-referrer");
        assert!(!stored(app, code.as_bytes()).await, "the code itself is nowhere");
        let entered = browser.exchange(&code, json!({})).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        assert!(entered.header("cache-control").contains("no-store"), "{:?}", entered.headers);
        let sessions = people(app).await[2];
        assert_eq!(browser.exchange(&code, json!({})).await.refusal(), DEAD, "twice");

        // In another browser, in one that has begun itself, in none: and then it is good in none.
        let begun = Browser::new(app);
        begun.start("idp", "").await;
        for (what, thief) in [("another", Browser::new(app)), ("one that has begun", begun)] {
            let code = browser.code("idp", idp).await;
            assert_eq!(thief.exchange(&code, json!({})).await.refusal(), DEAD, "{what}");
            assert_eq!(thief.exchange(&code, json!({ "code_verifier": b64(&random::<32>()) })).await.refusal(), DEAD, "{what}");
            assert_eq!(browser.exchange(&code, json!({})).await.refusal(), DEAD, "{what}: killed");
        }
        let refresh = entered.str("/refresh_token");
        let code = browser.code("idp", idp).await;
        let cut = code[..20].to_owned();
        for odd in [String::new(), "pgo_".into(), cut, code.to_uppercase(), format!("{code}A"), format!(" {code}"), refresh, "pgo_' OR 1=1 --".into()] {
            let answer = browser.exchange(&odd, json!({})).await;
            clean("an odd code", answer.status, "");
            assert!([DEAD, INVALID].contains(&answer.refusal().as_str()), "{odd:?}: {}", answer.refusal());
        }
        assert_eq!(people(app).await[2], sessions);
        assert_eq!(browser.exchange(&code, json!({})).await.status, 200, "the trap");

        // A minute, and not more.
        let (late, early) = (browser.code("idp", idp).await, browser.code("idp", idp).await);
        app.clock.advance(MINUTE - SECOND);
        assert_eq!(browser.exchange(&early, json!({})).await.status, 200);
        app.clock.advance(2 * SECOND);
        assert_eq!(browser.exchange(&late, json!({})).await.refusal(), DEAD);

        // Many at once.
        let (code, sessions) = (browser.code("idp", idp).await, people(app).await[2]);
        let one = || app.request(Method::POST, EXCHANGE).header("cookie", browser.cookie()).header("origin", app.url.as_str());
        let body = json!({ "code": code });
        let answers = at_once(app, (0..20).map(|_| one().json(&body)).collect()).await;
        let let_in = answers.iter().filter(|answer| answer.status == 200).count();
        assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status) || answer.refusal() == DEAD), "{answers:?}");
        assert_eq!((let_in, people(app).await[2]), (1, sessions + 1));

        // What a page goes on with when something is missing: once, ten minutes, and nothing that the database knows.
        idp.person(json!({ "sub": "s2", "email": W, "email_verified": true }));
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(asks(&told(app, "idp", idp).await, "display_name"));
        }
        assert!(!stored(app, tokens[0].as_bytes()).await);
        let w = name_it(app, &tokens[0]).await;
        assert_eq!(w.str("/user/email"), W);
        assert_eq!(name_it(app, &tokens[0]).await.refusal(), DEAD, "twice");
        app.clock.advance(10 * MINUTE);
        assert_eq!(name_it(app, &tokens[1]).await.refusal(), DEAD, "late");
        for odd in [String::new(), "pgi_".into(), tokens[2][..20].to_owned(), code] {
            assert!([DEAD, INVALID].contains(&name_it(app, &odd).await.refusal().as_str()), "{odd:?}");
        }
        assert_eq!(identities_of(app, W).await, 1);
    }
}
