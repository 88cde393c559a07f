//! A provider that lies, one part at a time, at both doors that an ID token comes in by: with a code, and in the hand of an
//! application. First the modules of the OpenID Foundation's `oidcc-client-basic-certification-test-plan`, a function each
//! under the module's name; where the plan leaves a choice, ours is to refuse.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::guessing::at_once;
use super::support::{clean, post};
use crate::support::browser::{Browser, parameter};
use crate::support::idp::{CLIENT, Idp, Key, SECRET, Seal};
use crate::support::soft_key::{b64, random, sha256, unb64};
use crate::support::{Answer, Engine, Person, TestApp};
use crate::with_idp;

const NO: &str = "401 token_invalid";
const AWAY: &str = "503 provider_unavailable";
const NATIVE: &str = "/v1/auth/oauth/idp/id-token";
const HOUR: Duration = Duration::from_secs(3_600);

/// Accounts, linked identities and sessions.
pub async fn people(app: &TestApp) -> [i64; 3] {
    [
        app.count("SELECT COUNT(*) FROM users").await,
        app.count("SELECT COUNT(*) FROM federated_identities").await,
        app.count("SELECT COUNT(*) FROM sessions").await,
    ]
}

/// A sign-in with a browser comes to nothing.
async fn refused(app: &TestApp, idp: &Idp, what: &str) {
    let before = people(app).await;
    let answer = Browser::new(app).arrive("idp", idp).await;
    clean(what, answer.status, &answer.text);
    assert_eq!((answer.refusal().as_str(), answer.header("location")), (NO, ""), "{what}: {}", answer.text);
    assert_eq!(people(app).await, before, "{what}");
}

fn fresh_nonce() -> String {
    b64(&random::<16>())
}

/// An application shows an ID token.
async fn show(app: &TestApp, token: &str, nonce: &str) -> Answer {
    post(app, NATIVE, &json!({ "id_token": token, "nonce": nonce })).await
}

/// Nor does one by an application that was handed such a token.
async fn shut(app: &TestApp, idp: &Idp, what: &str) {
    refused(app, idp, what).await;
    let (before, nonce) = (people(app).await, fresh_nonce());
    let answer = show(app, &idp.id_token(CLIENT, &nonce), &nonce).await;
    assert_eq!(answer.refusal(), NO, "{what}, by an application: {}", answer.text);
    assert_eq!(people(app).await, before, "{what}, by an application");
}

/// The trap: without the lie, both doors let in.
async fn open(app: &TestApp, idp: &Idp, what: &str) -> Answer {
    let entered = Browser::new(app).sign_in(idp).await;
    assert_eq!(entered.json["status"], "authenticated", "{what}: {}", entered.text);
    let nonce = fresh_nonce();
    let shown = show(app, &idp.id_token(CLIENT, &nonce), &nonce).await;
    assert_eq!(shown.status, 200, "{what}, by an application: {}", shown.text);
    assert_eq!(shown.str("/user/id"), entered.str("/user/id"), "{what}");
    entered
}

/// It shows other keys, and nobody remembers those of before.
fn publish(app: &TestApp, idp: &Idp, keys: Vec<Value>) {
    idp.publish(keys);
    app.clock.advance(2 * HOUR);
}

with_idp! { "";
    async fn oidcc_client_test(app: &TestApp, idp: &Idp) {
        let browser = Browser::new(app);
        let started = browser.start("idp", "return_to=%2Fcourses%3Fpage%3D2").await;
        let location = started.header("location");
        let asked = |name: &str| parameter(location, name).unwrap_or_default();
        assert_eq!(started.status, 302, "{}", started.text);
        assert!(location.starts_with(&format!("{}/authorize?", idp.url())), "{location}");
        assert!(asked("scope").split(' ').any(|scope| scope == "openid"), "{location}");
        assert_eq!(asked("redirect_uri"), format!("{}/v1/auth/oauth/idp/callback", app.url));
        assert!(asked("state").len() == 43 && !asked("nonce").is_empty() && asked("nonce") != asked("state"), "{location}");
        let arrived = browser.callback(&idp.authorize(location)).await;
        let code = browser.code_of(&arrived);
        assert!(arrived.header("location").ends_with(&format!("/courses?page=2&code={code}")), "{}", arrived.header("location"));
        let entered = browser.exchange(&code, json!({})).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        assert_eq!((entered.str("/user/email").as_str(), &entered.json["user"]["email_verified"]), ("v@ex.test", &json!(true)));
        assert_eq!((&entered.json["session"]["amr"], &entered.json["session"]["aal"]), (&json!(["fed"]), &json!(1)));
        assert_eq!((idp.complaints(), people(app).await), (Vec::new(), [1, 1, 1]));
    }
}

with_idp! { "";
    async fn oidcc_client_test_invalid_iss(app: &TestApp, idp: &Idp) {
        idp.claim("iss", json!("https://evil.test"));
        shut(app, idp, "another issuer").await;
        idp.honest();
        open(app, idp, "its own").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_missing_sub(app: &TestApp, idp: &Idp) {
        idp.without("sub");
        shut(app, idp, "nobody").await;
        idp.honest();
        open(app, idp, "somebody").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_invalid_aud(app: &TestApp, idp: &Idp) {
        idp.claim("aud", json!("somebody-else"));
        shut(app, idp, "for somebody else").await;
        idp.honest();
        open(app, idp, "for us").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_missing_iat(app: &TestApp, idp: &Idp) {
        idp.without("iat");
        shut(app, idp, "from no time").await;
        idp.honest();
        open(app, idp, "from now").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_kid_absent_single_jwks(app: &TestApp, idp: &Idp) {
        let key = Key::rsa("k1", "RS256");
        for (what, keys) in [
            ("one key with a name", vec![key.jwk()]),
            ("one key without", vec![key.nameless_jwk()]),
            ("one that fits, beside another kind", vec![Key::new("e1", "ES256").jwk(), key.jwk()]),
        ] {
            publish(app, idp, keys);
            idp.without_header("kid");
            open(app, idp, what).await;
            idp.seal(Seal::By(Key::other_rsa("k1", "RS256")));
            shut(app, idp, what).await;
            idp.honest();
        }
    }
}

with_idp! { "";
    async fn oidcc_client_test_kid_absent_multiple_jwks(app: &TestApp, idp: &Idp) {
        let (key, second) = (Key::rsa("k1", "RS256"), Key::other_rsa("k2", "RS256"));
        for (what, keys) in [
            ("two keys without names", vec![key.nameless_jwk(), second.nameless_jwk()]),
            ("the other way round", vec![second.nameless_jwk(), key.nameless_jwk()]),
            ("two with names", vec![key.jwk(), second.jwk()]),
        ] {
            publish(app, idp, keys);
            idp.without_header("kid");
            shut(app, idp, what).await;
            idp.honest();
        }
        open(app, idp, "with the name").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_idtoken_sig_rs256(app: &TestApp, idp: &Idp) {
        // And every other algorithm of the list, each under a key of its own.
        let mut keys: Vec<Key> = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].into_iter().map(|alg| Key::rsa(alg, alg)).collect();
        keys.extend(["ES256", "ES384", "EdDSA"].into_iter().map(|alg| Key::new(alg, alg)));
        publish(app, idp, keys.iter().map(Key::jwk).collect());
        for key in &keys {
            idp.seal(Seal::By(key.clone()));
            open(app, idp, key.alg).await;
            idp.mangle(break_signature);
            shut(app, idp, key.alg).await;
            idp.honest();
        }
    }
}

/// One bit of the signature's last third is another one.
fn break_signature(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = unb64(signature);
    let at = bytes.len() * 2 / 3;
    bytes[at] ^= 1;
    format!("{message}.{}", b64(&bytes))
}

/// One bit of the claims is another one; they are still JSON, and say that it is somebody else.
fn break_claims(token: &str) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(unb64(parts[1])).unwrap();
    let other = claims.replace("\"sub\":\"s1\"", "\"sub\":\"s0\"");
    assert_ne!(claims, other);
    format!("{}.{}.{}", parts[0], b64(other.as_bytes()), parts[2])
}

with_idp! { "";
    async fn oidcc_client_test_idtoken_sig_none(app: &TestApp, idp: &Idp) {
        idp.seal(Seal::Bytes(Vec::new()));
        shut(app, idp, "not signed").await;
        idp.honest();
        open(app, idp, "signed").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_invalid_sig_rs256(app: &TestApp, idp: &Idp) {
        idp.mangle(break_signature);
        shut(app, idp, "a broken signature").await;
        idp.honest();
        open(app, idp, "a whole one").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_userinfo_invalid_sub(app: &TestApp, idp: &Idp) {
        let said = json!({ "email": "v@ex.test", "email_verified": true, "name": "Vera" });
        for sub in [json!("s2"), json!("S1"), json!("s1 "), json!(""), json!(null), json!(["s1"]), json!(1)] {
            idp.thin();
            let mut other = said.clone();
            other["sub"] = sub.clone();
            idp.userinfo(other);
            refused(app, idp, &format!("userinfo is {sub}")).await;
            idp.honest();
        }
        idp.thin();
        idp.userinfo(said);
        refused(app, idp, "userinfo is nobody").await;
        idp.honest();
        idp.thin();
        let entered = Browser::new(app).sign_in(idp).await;
        assert_eq!((entered.status, entered.str("/user/email").as_str()), (200, "v@ex.test"), "{}", entered.text);
    }
}

with_idp! { "";
    async fn oidcc_client_test_nonce_invalid(app: &TestApp, idp: &Idp) {
        idp.claim("nonce", json!(fresh_nonce()));
        shut(app, idp, "another nonce").await;
        idp.honest();
        open(app, idp, "its own").await;
    }
}

with_idp! { "";
    async fn oidcc_client_test_scope_userinfo_claims(app: &TestApp, idp: &Idp) {
        let location = Browser::new(app).start("idp", "").await.header("location").to_owned();
        let scopes = parameter(&location, "scope").unwrap();
        assert_eq!(scopes.split(' ').collect::<Vec<_>>(), ["openid", "email", "profile"]);
        idp.thin();
        let entered = Browser::new(app).sign_in(idp).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        let user = &entered.json["user"];
        assert_eq!(
            (&user["email"], &user["email_verified"], &user["display_name"]),
            (&json!("v@ex.test"), &json!(true), &json!("Vera"))
        );
        assert_eq!(idp.asked("userinfo"), 1);
        idp.honest();
        open(app, idp, "all in the ID token").await;
        assert_eq!(idp.asked("userinfo"), 1, "nobody asks for what was said");
    }
}

with_idp! { "";
    async fn oidcc_client_test_client_secret_basic(app: &TestApp, idp: &Idp) {
        open(app, idp, "in the header").await;
        assert_eq!(idp.complaints(), [""; 0]);
        idp.auth("post");
        // That is nobody's lie: the settings are wrong, and nobody gets in by them.
        let answer = Browser::new(app).arrive("idp", idp).await;
        assert_eq!(answer.refusal(), "503 provider_unavailable", "{}", answer.text);
        assert_eq!(idp.complaints(), ["invalid_client"]);
    }
}

with_idp! { "client_auth = \"post\"";
    async fn a_secret_goes_into_the_body_where_that_was_agreed(app: &TestApp, idp: &Idp) {
        idp.auth("post");
        open(app, idp, "in the body").await;
        assert_eq!(idp.complaints(), [""; 0]);
    }
}

type Lie = (&'static str, fn(&Idp));

fn lie(what: &'static str, how: fn(&Idp)) -> Lie {
    (what, how)
}

/// Signed, named and wrapped in ways that prove nothing.
fn lies_about_signatures() -> Vec<Lie> {
    vec![
        lie("another key under the name of its own", |idp| idp.seal(Seal::By(Key::other_rsa("k1", "RS256")))),
        lie("another kind of key under its name", |idp| idp.seal(Seal::By(Key::new("k1", "ES256")))),
        lie("a key that nobody shows", |idp| idp.seal(Seal::By(Key::new("k9", "ES256")))),
        lie("its own key under another's name", |idp| idp.header("kid", json!("e1"))),
        lie("its own key under no name that there is", |idp| idp.header("kid", json!("../../dev/null"))),
        lie("a name that is none", |idp| idp.header("kid", json!(["k1"]))),
        lie("no signature", |idp| {
            idp.seal(Seal::Bytes(Vec::new()));
            idp.header("alg", json!("RS256"));
        }),
        lie("zeros for a signature", |idp| {
            idp.seal(Seal::Bytes(vec![0; 256]));
            idp.header("alg", json!("RS256"));
        }),
        lie("the client's secret", |idp| idp.seal(Seal::Secret(SECRET.into()))),
        lie("an empty secret", |idp| idp.seal(Seal::Secret(Vec::new()))),
        lie("the key in the header", |idp| {
            let key = Key::other_rsa("mine", "RS256");
            idp.header("jwk", key.jwk());
            idp.seal(Seal::By(key));
        }),
        lie("the key in the header, under its name", |idp| {
            idp.header("jwk", Key::other_rsa("k1", "RS256").jwk());
            idp.seal(Seal::By(Key::other_rsa("k1", "RS256")));
        }),
        lie("keys elsewhere", |idp| {
            for name in ["jku", "x5u"] {
                idp.header(name, json!(format!("{}/keys-of-mine", idp.url())));
            }
            idp.seal(Seal::By(Key::other_rsa("mine", "RS256")));
        }),
        lie("a certificate", |idp| {
            idp.header("x5c", json!(["MIIB"]));
            idp.seal(Seal::By(Key::other_rsa("mine", "RS256")));
        }),
        lie("something critical that nobody knows", |idp| {
            idp.header("crit", json!(["b64"]));
            idp.header("b64", json!(false));
        }),
        lie("a bit of the claims", |idp| idp.mangle(break_claims)),
        lie("a bit of the signature", |idp| idp.mangle(break_signature)),
        lie("half a signature", |idp| idp.mangle(|token| token[..token.len() - 170].to_owned())),
        lie("an empty signature", |idp| {
            idp.mangle(|token| format!("{}.", token.rsplit_once('.').unwrap().0));
        }),
        lie("two parts", |idp| idp.mangle(|token| token.rsplit_once('.').unwrap().0.to_owned())),
        lie("four parts", |idp| idp.mangle(|token| format!("{token}.AAAA"))),
        lie("five parts", |idp| idp.mangle(|token| format!("{token}.AAAA.AAAA"))),
        lie("padding", |idp| idp.mangle(|token| format!("{token}=="))),
        lie("no token at all", |idp| idp.mangle(|_| "token".to_owned())),
        lie("dots", |idp| idp.mangle(|_| "..".to_owned())),
        lie("a token in a token", |idp| {
            idp.mangle(|token| {
                let (header, rest) = token.split_once('.').unwrap();
                format!("{header}.{}.{}", b64(token.as_bytes()), rest.rsplit_once('.').unwrap().1)
            });
        }),
    ]
}

/// Well signed, and about somebody or something else.
fn lies_about_claims() -> Vec<Lie> {
    vec![
        lie("for others, too, and not said for whom", |idp| idp.claim("aud", json!([CLIENT, "other"]))),
        lie("for others, too, and for them", |idp| {
            idp.claim("aud", json!([CLIENT, "other"]));
            idp.claim("azp", json!("other"));
        }),
        lie("for us, and meant for another", |idp| idp.claim("azp", json!("other"))),
        lie("for us in another spelling", |idp| idp.claim("aud", json!("Pearl"))),
        lie("for us and more in one text", |idp| idp.claim("aud", json!("pearl other"))),
        lie("for others alone", |idp| idp.claim("aud", json!(["other", "another"]))),
        lie("a name of 256 letters", |idp| idp.claim("sub", json!("s".repeat(256)))),
        lie("the end as a text", |idp| idp.claim("exp", json!("4000000000"))),
    ]
}

with_idp! { "";
    async fn a22_cve_2026_9090_decode_without_verify(app: &TestApp, idp: &Idp) {
        publish(app, idp, vec![Key::rsa("k1", "RS256").jwk(), Key::new("e1", "ES256").jwk()]);
        open(app, idp, "before").await;
        for (what, how) in lies_about_signatures().into_iter().chain(lies_about_claims()) {
            how(idp);
            shut(app, idp, what).await;
            idp.honest();
        }
        let algs = ["none", "None", "NONE", "nOnE", "none ", "", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
            "ES256K", "EdDSA", "HS256", "HS384", "HS512", "RS1", "rs256", "RS256 ", "dir"];
        for alg in algs.into_iter().map(|alg| json!(alg)).chain([json!(null), json!([]), json!(["RS256"]), json!(1), json!({})]) {
            for (what, seal) in [("signed", Seal::By(Key::rsa("k1", "RS256"))), ("not signed", Seal::Bytes(Vec::new()))] {
                idp.seal(seal);
                idp.header("alg", alg.clone());
                shut(app, idp, &format!("alg {alg}, {what}")).await;
                idp.honest();
            }
        }
        idp.without_header("alg");
        shut(app, idp, "no alg").await;
        idp.honest();
        for (n, form) in Key::rsa("k1", "RS256").public_forms().into_iter().enumerate() {
            idp.seal(Seal::Secret(form));
            shut(app, idp, &format!("the public key for a secret, form {n}")).await;
            idp.honest();
        }
        for name in ["iss", "sub", "aud", "iat", "exp"] {
            idp.without(name);
            shut(app, idp, &format!("no {name}")).await;
            idp.honest();
            for odd in [json!(null), json!(true), json!(0), json!(-1), json!(""), json!([]), json!([""]), json!(["x"]), json!({})] {
                idp.claim(name, odd.clone());
                shut(app, idp, &format!("{name} is {odd}")).await;
                idp.honest();
            }
        }
        for odd in [json!("AAAAAAAAAAAAAAAAAAAAAA"), json!(""), json!(1), json!([])] {
            idp.claim("at_hash", odd.clone());
            refused(app, idp, &format!("at_hash is {odd}")).await;
            idp.honest();
        }
        assert_eq!(idp.asked("elsewhere"), 0, "nobody looks where a token says");
        // No token at all may also be taken for nonsense, that is for an outage.
        let before = people(app).await;
        for answer in [json!({ "access_token": "x", "token_type": "Bearer" }), json!({ "access_token": "x", "token_type": "Bearer", "id_token": 1 })] {
            idp.answer_token(200, answer);
            let arrived = Browser::new(app).arrive("idp", idp).await;
            assert!([NO, AWAY].contains(&arrived.refusal().as_str()), "{}", arrived.text);
            idp.honest();
            open(app, idp, "in between").await;
        }
        assert_eq!(people(app).await[..2], before[..2]);

        // The trap, also at the edges of what is right.
        idp.claim("aud", json!([CLIENT]));
        open(app, idp, "a list of us alone").await;
        idp.claim("aud", json!(["other", CLIENT]));
        idp.claim("azp", json!(CLIENT));
        open(app, idp, "for others, too, and for us").await;
        idp.honest();
        let long = "s".repeat(255);
        idp.person(json!({ "sub": long, "email": "long@ex.test", "email_verified": true, "name": "Long" }));
        open(app, idp, "a name of 255 letters").await;
        assert_eq!(app.count("SELECT COUNT(*) FROM federated_identities WHERE length(subject) = 255").await, 1);
    }
}

with_idp! { "";
    async fn a23_cve_2026_31813_attacker_chosen_issuer(app: &TestApp, idp: &Idp, evil: &Idp) {
        open(app, idp, "before").await;
        let url = idp.url().to_owned();
        let port = url.rsplit_once(':').unwrap().1.to_owned();
        let spelled = [evil.url().to_owned(), format!("{url}/"), format!("{url}//"), url.replace("http:", "HTTP:"), url.replace("http:", "https:"),
            url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "127.0.0.1."), format!("http://127.0.0.1:0{port}"),
            "http://127.0.0.1".into(), format!("{url}@evil.test"), format!("http://evil.test@127.0.0.1:{port}"),
            format!("http://127.0.0.1:{port}.evil.test"), format!("{url}?"), format!("{url}#"), format!(" {url}"), format!("{url} "),
            format!("{url}\n"), format!("{url}\0"), format!("{url}/../"), "https://accounts.google.com".into(), "{issuer}".into(), String::new()];
        for iss in spelled.into_iter().map(Value::from).chain([json!([url]), json!({ "iss": url }), json!(null), json!(1)]) {
            idp.claim("iss", iss.clone());
            shut(app, idp, &format!("iss is {iss}")).await;
            idp.honest();
        }

        // What another provider signed well, in the place of this one: under its own name, and under this one's.
        let asked = || ["discovery", "jwks", "token", "elsewhere"].map(|endpoint| evil.asked(endpoint));
        let before_all = asked();
        evil.rotate(Key::new("k1", "ES256"));
        for iss in [evil.url(), idp.url()] {
            evil.claim("iss", json!(iss));
            let (before, nonce) = (people(app).await, fresh_nonce());
            let token = evil.id_token(CLIENT, &nonce);
            assert_eq!(show(app, &token, &nonce).await.refusal(), NO, "{iss}");
            idp.mangle(move |_| token.clone());
            refused(app, idp, iss).await;
            idp.honest();
            assert_eq!(people(app).await, before, "{iss}");
        }
        assert_eq!(asked(), before_all, "nobody follows a token to its issuer");

        // A description that says it is somebody else's is not read on, neither for keys nor for where to go.
        let before = Browser::new(app).start("idp", "").await.header("location").split('?').next().unwrap().to_owned();
        idp.discovery("issuer", json!(evil.url()));
        for (name, at) in [("authorization_endpoint", "/authorize"), ("token_endpoint", "/token"), ("jwks_uri", "/jwks")] {
            idp.discovery(name, json!(format!("{}{at}", evil.url())));
        }
        app.clock.advance(2 * HOUR);
        let started = Browser::new(app).start("idp", "").await;
        let leads = started.header("location").split('?').next().unwrap().to_owned();
        assert!(started.refusal() == AWAY || (started.status == 302 && leads == before), "{} {leads}", started.status);
        assert_eq!((evil.asked("jwks"), evil.asked("token")), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_that_does_not_hold_is_none() {
    let elsewhere = Idp::start().await;
    let (mut idps, mut settings) = (Vec::new(), String::new());
    let endpoints = ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"];
    let inside = [
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "http://accounts.example.com/x",
        "https://10.0.0.1/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ];
    let mut wrong: Vec<(&str, Value)> =
        endpoints.iter().flat_map(|name| inside.iter().map(move |at| (*name, json!(at)))).collect();
    wrong.extend([("issuer", json!(elsewhere.url())), ("issuer", json!(null)), ("issuer", json!("/"))]);
    for (n, (name, value)) in wrong.iter().enumerate() {
        let idp = Idp::start().await;
        // Its own name, all but the slash.
        let value = if *value == "/" { json!(format!("{}/", idp.url())) } else { value.clone() };
        idp.discovery(name, value);
        settings.push_str(&idp.toml(&format!("p{n}"), ""));
        idps.push(idp);
    }
    let app = TestApp::with(Engine::Sqlite, true, &settings).await;
    for (n, (name, value)) in wrong.iter().enumerate() {
        let browser = Browser::new(&app);
        let started = browser.start(&format!("p{n}"), "").await;
        if *name == "authorization_endpoint" || *name == "issuer" {
            assert_eq!(started.refusal(), AWAY, "{name} is {value}: {}", started.header("location"));
        } else if started.status == 302 {
            // What the first step does not need may be looked at when it is needed.
            idps[n].follow(&app.clock);
            idps[n].thin();
            let arrived = browser.callback(&idps[n].authorize(started.header("location"))).await;
            assert_eq!(arrived.refusal(), AWAY, "{name} is {value}: {}", arrived.text);
        } else {
            assert_eq!(started.refusal(), AWAY, "{name} is {value}");
        }
    }
    assert_eq!((people(&app).await, elsewhere.asked("discovery")), ([0, 0, 0], 0));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_of_many_tenants_is_the_one_of_the_tokens_tenant() {
    const TENANT: &str = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490";
    const OTHER: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let idp = Idp::start().await;
        let template = format!("{}/{{tenantid}}/v2.0", idp.url());
        idp.discovery("issuer", json!(template));
        let settings = format!(
            "[providers.idp]\npreset = \"microsoft\"\nissuer = \"{template}\"\ntenant = \"common\"\nclient_id = \"{CLIENT}\"\nclient_secret = \"{SECRET}\"\n"
        );
        let app = TestApp::with(engine, true, &settings).await;
        idp.follow(&app.clock);
        let of = |tenant: &str| template.replace("{tenantid}", tenant);
        for (iss, tid) in [
            (of(OTHER), json!(TENANT)),
            (of(TENANT), json!(OTHER)),
            (of(TENANT), json!(null)),
            (of(TENANT), json!([TENANT])),
            (of("common"), json!("common")),
            (of("../evil"), json!("../evil")),
            (of(""), json!("")),
            (of(&TENANT.to_uppercase()), json!(TENANT.to_uppercase())),
            (format!("{}/", of(TENANT)), json!(TENANT)),
            (template.clone(), json!("{tenantid}")),
            (template.clone(), json!(TENANT)),
            (idp.url().to_owned(), json!(TENANT)),
        ] {
            idp.claim("iss", json!(iss));
            idp.claim("tid", tid.clone());
            shut(&app, &idp, &format!("iss is {iss}, tid is {tid}")).await;
            idp.honest();
        }
        let claims = || {
            idp.claim("iss", json!(of(TENANT)));
            idp.claim("tid", json!(TENANT));
        };
        // A key that is for another tenant's tokens signs none of this one's.
        claims();
        for key_issuer in [of(OTHER), "https://elsewhere.example".to_owned()] {
            let mut key = Key::rsa("k1", "RS256").jwk();
            key["issuer"] = json!(key_issuer);
            publish(&app, &idp, vec![key]);
            shut(&app, &idp, &format!("a key of {key_issuer}")).await;
        }
        for key_issuer in [template.clone(), of(TENANT)] {
            let mut key = Key::rsa("k1", "RS256").jwk();
            key["issuer"] = json!(key_issuer);
            publish(&app, &idp, vec![key]);
            open(&app, &idp, "as it should be").await;
        }
        // The same subject of another tenant is somebody else.
        let kept =
            app.count("SELECT COUNT(*) FROM federated_identities WHERE subject LIKE '8eaef023-%|s1'").await;
        assert_eq!(kept, 1);
        app.finish().await;
    }
}

with_idp! { "max_age = \"5m\"";
    async fn a26_ghsa_wxg7_w2v3_w38g_nonce_and_freshness(app: &TestApp, idp: &Idp) {
        let now = app.clock.now().seconds();
        idp.person(json!({ "sub": "s1", "email": "v@ex.test", "email_verified": true, "name": "Vera", "auth_time": now }));
        let browser = Browser::new(app);
        let started = browser.start("idp", "").await;
        assert_eq!(parameter(started.header("location"), "max_age").as_deref(), Some("300"));
        open(app, idp, "before").await;

        // Captured in one flow, shown in the next; and what a phone was given.
        let captured = idp.last_token();
        let nonce = fresh_nonce();
        let native = idp.id_token(CLIENT, &nonce);
        assert_eq!(show(app, &native, &nonce).await.status, 200);
        for (what, token) in [("replayed", captured), ("from a phone", native.clone())] {
            idp.mangle(move |_| token.clone());
            refused(app, idp, what).await;
            idp.honest();
        }
        idp.without("nonce");
        shut(app, idp, "no nonce").await;
        idp.honest();
        for odd in [json!(""), json!(null), json!(0), json!([]), json!("0"), json!(fresh_nonce())] {
            idp.claim("nonce", odd.clone());
            shut(app, idp, &format!("nonce is {odd}")).await;
            idp.honest();
        }
        // Right, but in another spelling: a list, and the digest that only applications may use.
        for hashed in [false, true] {
            let browser = Browser::new(app);
            let location = browser.start("idp", "").await.header("location").to_owned();
            let nonce = parameter(&location, "nonce").unwrap();
            idp.claim("nonce", if hashed { json!(HEXLOWER.encode(&sha256(nonce.as_bytes()))) } else { json!([nonce]) });
            let arrived = browser.callback(&idp.authorize(&location)).await;
            assert_eq!(arrived.refusal(), NO, "{}", arrived.text);
            idp.honest();
        }

        for (what, name, from_now) in [
            ("over", "exp", -90), ("long over", "exp", -86_400), ("not yet", "iat", 90), ("in ten minutes", "iat", 600), ("good from later on", "nbf", 90),
            ("of twelve minutes ago", "iat", -720), ("of yesterday", "iat", -86_400),
        ] {
            idp.claim(name, json!(now + from_now));
            shut(app, idp, what).await;
            idp.honest();
        }
        idp.without("auth_time");
        refused(app, idp, "signed in nobody knows when").await;
        idp.honest();
        for odd in [json!(now - 420), json!(now - 86_400), json!(0), json!(now.to_string()), json!(null), json!(true)] {
            idp.claim("auth_time", odd.clone());
            refused(app, idp, &format!("auth_time is {odd}")).await;
            idp.honest();
        }
        // The trap, at the edges.
        for (what, name, from_now) in [
            ("not before a moment", "nbf", 30),
            ("over a moment ago", "exp", -30),
            ("in a moment", "iat", 30),
            ("of nine minutes ago", "iat", -540),
            ("signed in four minutes ago", "auth_time", -240),
        ] {
            idp.claim(name, json!(now + from_now));
            if name == "exp" {
                idp.claim("iat", json!(now - 300));
            }
            open(app, idp, what).await;
            idp.honest();
        }

        // A nonce is good once, whatever token it is in, and whoever is first.
        let sessions = people(app).await[2];
        assert_eq!(show(app, &native, &nonce).await.refusal(), NO);
        assert_eq!(show(app, &idp.id_token(CLIENT, &nonce), &nonce).await.refusal(), NO);
        let nonce = fresh_nonce();
        let hashed = idp.id_token(CLIENT, &HEXLOWER.encode(&sha256(nonce.as_bytes())));
        assert_eq!(show(app, &hashed, &fresh_nonce()).await.refusal(), NO);
        let vera = Person::of(&show(app, &hashed, &nonce).await);
        assert_eq!((vera.email.as_str(), show(app, &hashed, &nonce).await.refusal().as_str()), ("v@ex.test", NO));
        // What stands in the token is for everybody to read.
        let read = HEXLOWER.encode(&sha256(nonce.as_bytes()));
        assert_eq!(show(app, &hashed, &read).await.refusal(), NO, "as it stands in the token");
        let plain = idp.id_token(CLIENT, &nonce);
        assert_eq!(show(app, &plain, &nonce).await.refusal(), NO, "the same one, not hashed");
        let nonce = fresh_nonce();
        let body = json!({ "id_token": idp.id_token(CLIENT, &nonce), "nonce": nonce });
        let requests = (0..20).map(|_| app.request(reqwest::Method::POST, NATIVE).json(&body));
        let answers = at_once(app, requests.collect()).await;
        let let_in = answers.iter().filter(|answer| answer.status == 200).count();
        // Twenty at once may also be too many.
        assert!(answers.iter().all(|answer| [200, 503].contains(&answer.status) || answer.refusal() == NO), "{answers:?}");
        assert_eq!((let_in, people(app).await[2]), (1, sessions + 2));
        for body in [json!({ "id_token": plain }), json!({ "id_token": plain, "nonce": "" })] {
            assert!([401, 422].contains(&post(app, NATIVE, &body).await.status), "{body}");
        }
        let empty = idp.id_token(CLIENT, "");
        assert!([401, 422].contains(&show(app, &empty, "").await.status), "no nonce is none");
    }
}
