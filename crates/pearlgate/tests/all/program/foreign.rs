//! Our access tokens in the hands of software that is not ours: jose, PyJWT, and the applications under `examples/`.

use std::process::{Command, Stdio};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::api::Api;
use super::child::{Guarded, Lines, PATIENCE, Server, dev, pearlgate, until};
use crate::support::environment;

/// Somebody else's program, which must not look for this machine's own servers behind a proxy.
fn program(path: &str) -> Command {
    let mut command = Command::new(environment(path));
    command.stdin(Stdio::null());
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, "localhost,127.0.0.1");
    }
    command
}

/// A script for Node. Debian 12's has to be told what newer ones do by themselves: `crypto` is there, and `localhost`
/// has more than one address.
fn node(script: &str) -> Command {
    let mut command = program("PEARLGATE_TEST_NODE");
    command.args(["--experimental-global-webcrypto", "--dns-result-order=ipv4first", "--no-warnings"]);
    command.arg(environment(script));
    command
}

/// How a server's tokens are to be verified.
struct Rules<'s> {
    jwks: &'s str,
    issuer: &'s str,
    audience: &'s str,
}

/// What a verifier says of a token: its claims, or its own word for what is wrong.
fn ask(mut verifier: Command, rules: &Rules<'_>, token: &str) -> Result<Value, String> {
    let output = verifier.args([rules.jwks, rules.issuer, rules.audience, token]).output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap().trim().to_owned())
    }
}

fn jose(rules: &Rules<'_>, token: &str) -> Result<Value, String> {
    ask(node("PEARLGATE_TEST_FOREIGN_JS"), rules, token)
}

fn pyjwt(rules: &Rules<'_>, token: &str) -> Result<Value, String> {
    let mut python = program("PEARLGATE_TEST_PYTHON");
    python.arg(environment("PEARLGATE_TEST_FOREIGN_PY"));
    ask(python, rules, token)
}

/// The token with another first character in its signature; the last one has bits that mean nothing.
fn tampered(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", &signature[1..])
}

async fn verifies(algorithm: &str) {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).set("tokens.algorithm", algorithm).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let token = ada.str("/access_token");
    let header = BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["alg"], algorithm);

    let jwks = server.api.get("/.well-known/openid-configuration").await.str("/jwks_uri");
    let rules = Rules { jwks: &jwks, issuer: &server.url, audience: &server.url };
    for claims in [jose(&rules, &token), pyjwt(&rules, &token)] {
        let claims = claims.unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        assert_eq!(claims["sub"], ada.str("/user/id"), "{algorithm}");
        assert_eq!(claims["sid"], ada.str("/session/id"), "{algorithm}");
    }

    let refused = |word: &str| Err(word.to_owned());
    let wrong = tampered(&token);
    assert_eq!(jose(&rules, &wrong), refused("ERR_JWS_SIGNATURE_VERIFICATION_FAILED"), "{algorithm}");
    assert_eq!(pyjwt(&rules, &wrong), refused("InvalidSignatureError"), "{algorithm}");
    let elsewhere = Rules { audience: "https://elsewhere.example.com", ..rules };
    assert_eq!(jose(&elsewhere, &token), refused("ERR_JWT_CLAIM_VALIDATION_FAILED"), "{algorithm}");
    assert_eq!(pyjwt(&elsewhere, &token), refused("InvalidAudienceError"), "{algorithm}");
    server.stop().await;
}

#[tokio::test]
async fn a_token_verifies_with_jose_and_pyjwt_from_our_jwks() {
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        verifies(algorithm).await;
    }
}

/// A running example. It ends with the test.
struct Example {
    api: Api,
    _child: Guarded,
}

impl Example {
    /// Starts it on a free port, and waits until it has said which.
    async fn start(mut command: Command, server: &Server) -> Self {
        command.env("PEARLGATE_URL", &server.url).env("PORT", "0");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = Lines::of(child.stdout.take().unwrap());
        let child = Guarded(child);
        let line = out.with("listening on ").await;
        Self { api: Api::new(line.strip_prefix("listening on ").unwrap()), _child: child }
    }
}

#[tokio::test]
async fn an_express_app_and_an_axum_app_protect_a_route() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let mut express = node("PEARLGATE_TEST_EXPRESS");
    express.env("REVOCATIONS_URL", format!("{}/v1/revocations", server.url));
    let express = Example::start(express, &server).await;
    let axum = Example::start(program("PEARLGATE_TEST_AXUM"), &server).await;
    let ada = server.api.dev_person("ada@example.com").await;
    let (token, person, session) = (ada.str("/access_token"), ada.str("/user/id"), ada.str("/session/id"));
    let wrong = tampered(&token);
    for Example { api, .. } in [&express, &axum] {
        let courses = api.get_as("/courses", &token).await;
        assert_eq!(courses.status, 200, "{}", courses.text);
        assert_eq!(courses.json, json!({ "person": person, "session": session, "roles": [] }));
        let refused = [
            api.get("/courses").await,
            api.get_as("/courses", "garbage").await,
            api.get_as("/courses", &wrong).await,
        ];
        for answer in refused {
            assert_eq!(answer.status, 401, "{}", answer.text);
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{:?}", answer.headers);
        }
    }

    let body = json!({ "refresh_token": ada.str("/refresh_token") });
    assert_eq!(server.api.post("/v1/auth/logout", body).await.status, 204);
    // An application that follows the feed knows in a moment; one that does not trusts the token until it expires.
    until("the sign-out has reached the Express app", PATIENCE, || async {
        (express.api.get_as("/courses", &token).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(axum.api.get_as("/courses", &token).await.status, 200);
    drop((express, axum));
    server.stop().await;
}

#[tokio::test]
async fn a_browser_adds_a_passkey_and_signs_in_with_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let ada = server.api.dev_person("ada@example.com").await;
    let mut browser = node("PEARLGATE_TEST_PASSKEYS_JS");
    browser.args([
        environment("PEARLGATE_TEST_CHROMIUM").to_string(),
        server.url.clone(),
        ada.str("/access_token"),
    ]);
    let output = browser.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["signed_in"], "ada@example.com, aal 2, amr hwk mfa", "{said}");
    // What the page says is true: there is a key, it was used, and the password alone does not do any more.
    let kept = server.api.get_as("/v1/me/passkeys", &ada.str("/access_token")).await;
    let passkey = &kept.json["items"][0];
    assert!(said["added"].as_str().unwrap().starts_with(passkey["id"].as_str().unwrap()), "{said}");
    assert!(passkey["last_used_at"].is_string(), "{passkey}");
    let login = server.api.login("ada@example.com").await;
    assert_eq!(login.json["factors"], json!(["passkey", "recovery_code"]), "{}", login.text);
    server.stop().await;
}

/// `oidc-provider`, an OpenID provider that is not ours. It ends with the test.
struct Provider {
    issuer: String,
    control: String,
    _child: Guarded,
}

impl Provider {
    async fn start(redirect_uri: &str) -> Self {
        let mut command = node("PEARLGATE_TEST_PROVIDER_JS");
        let mut child = command.arg(redirect_uri).stdout(Stdio::piped()).spawn().unwrap();
        let out = Lines::of(child.stdout.take().unwrap());
        let child = Guarded(child);
        let after = |line: String, words: &str| line.strip_prefix(words).unwrap().to_owned();
        let issuer = after(out.with("listening on ").await, "listening on ");
        let control = after(out.with("control on ").await, "control on ");
        Self { issuer, control, _child: child }
    }
}

#[tokio::test]
async fn a_browser_signs_in_at_a_provider_that_is_not_ours_and_was_added_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).start().await;
    let back = format!("{}/v1/auth/oauth/acme/callback", server.url);
    let provider = Provider::start(&back).await;
    let settings = dir.path().join("acme.toml");
    let text = format!(
        "name = \"Acme\"\nissuer = {:?}\nclient_id = \"pearl\"\nclient_secret = \"shh\"\n",
        provider.issuer
    );
    std::fs::write(&settings, text).unwrap();
    let data = dir.path().to_str().unwrap();
    let file = settings.to_str().unwrap();
    let added = pearlgate(&["provider", "add", "acme", file, "--data", data]).run().await;
    assert!(added.went_well().contains("/v1/auth/oauth/acme/callback"), "{added:?}");
    let mut browser = node("PEARLGATE_TEST_SOCIAL_JS");
    browser.args([environment("PEARLGATE_TEST_CHROMIUM"), server.url.clone(), "acme".into()]);
    let output = browser.arg(&provider.control).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["first"]["email"], "vera@example.com", "{said}");
    assert_eq!(said["first"]["amr"], json!(["fed"]), "{said}");
    assert_eq!(said["second"], said["first"], "the same person, whatever their address is there by now");
    // An outage on the way ends in a page that says so, and is seen by whoever comes next.
    assert_eq!(said["away"]["status"], 503, "{said}");
    assert!(said["away"]["text"].as_str().unwrap().contains("Acme is not answering"), "{said}");
    let methods = server.api.get("/v1/auth/methods").await;
    let acme = methods.json["providers"].as_array().unwrap().iter().find(|one| one["id"] == "acme").unwrap();
    assert_eq!(*acme, json!({ "id": "acme", "name": "Acme", "state": "down" }));
    // It is back, and nobody has to do anything; what was seen meanwhile is in the operator's hands.
    let start = || server.api.get("/v1/auth/oauth/acme/start");
    server.api.put("/dev/v1/faults/oauth.acme", json!({ "fault": "down" })).await;
    for _ in 0..4 {
        assert_eq!(start().await.refusal(), "503 provider_unavailable");
    }
    let health = server.api.get("/health/dependencies").await;
    let all = health.json["items"].as_array().unwrap();
    let acme = all.iter().find(|one| one["name"] == "oauth.acme").unwrap();
    assert_eq!(
        (&acme["state"], acme["short_circuited"].as_u64() > Some(0)),
        (&json!("down"), true),
        "{acme}"
    );
    let metrics = server.api.get("/metrics").await.text;
    for line in [
        "outbound_up{dependency=\"oauth.acme\"} 0",
        "outbound_since_seconds{dependency=\"oauth.acme\"} 1",
        "outbound_calls_total{dependency=\"oauth.acme\",outcome=\"spared\"}",
    ] {
        assert!(metrics.lines().any(|one| one.starts_with(line)), "{line}: {metrics}");
    }
    server.api.put("/dev/v1/faults/oauth.acme", json!({ "fault": "none" })).await;
    server.api.post("/dev/v1/clock", json!({ "advance": "1m" })).await;
    assert_eq!(start().await.status, 302);
    let metrics = server.api.get("/metrics").await.text;
    assert!(metrics.contains("outbound_up{dependency=\"oauth.acme\"} 1"), "{metrics}");
    server.stop().await;
}
