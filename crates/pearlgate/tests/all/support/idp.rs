//! An OpenID provider of ours, and a GitHub: it does what is right until a test tells it otherwise, and looks closely at
//! whoever asks.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use foundation::kernel::Clock;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::soft_key::{b64, der, random, raw, sha256, unsigned};
use super::{Engine, START, TestApp};

/// What we are called at the provider, and by what it knows us.
pub const CLIENT: &str = "pearl";
pub const SECRET: &str = "shh";
/// Longer than somebody waits who goes away.
const LATE: Duration = Duration::from_millis(400);
/// Longer than any budget.
const SLOW: Duration = Duration::from_millis(10_500);
/// More than any answer of a provider may be.
const HUGE: usize = 8 << 20;

/// A way in which an endpoint breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    None,
    Hang,
    Slow,
    /// The right answer, a moment later.
    Late,
    Error,
    Garbage,
    /// The right answer, and eight megabytes of nothing behind it.
    Huge,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Making one takes a while.
static RSA: LazyLock<Arc<Pair>> = LazyLock::new(rsa);
static OTHER_RSA: LazyLock<Arc<Pair>> = LazyLock::new(rsa);

fn rsa() -> Arc<Pair> {
    Arc::new(Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
}

/// A key under the name and for the algorithm that it is published with.
#[derive(Clone)]
pub struct Key {
    pub kid: String,
    pub alg: &'static str,
    pair: Arc<Pair>,
}

impl Key {
    fn of(kid: &str, alg: &'static str, pair: Arc<Pair>) -> Self {
        Self { kid: kid.to_owned(), alg, pair }
    }

    /// The provider's own RSA key.
    pub fn rsa(kid: &str, alg: &'static str) -> Self {
        Self::of(kid, alg, RSA.clone())
    }

    /// An RSA key that is another one.
    pub fn other_rsa(kid: &str, alg: &'static str) -> Self {
        Self::of(kid, alg, OTHER_RSA.clone())
    }

    /// A new key, for ES256, ES384 or EdDSA.
    pub fn new(kid: &str, alg: &'static str) -> Self {
        let pair = match alg {
            "ES256" => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            "ES384" => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
            _ => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
        };
        Self::of(kid, alg, Arc::new(pair))
    }

    /// Its public half (RFC 7517).
    pub fn jwk(&self) -> Value {
        let mut jwk = match &*self.pair {
            Pair::Rsa(pair) => {
                let mut rest = raw(pair.public_key());
                let mut inside = der(&mut rest, 0x30);
                let (n, e) = (der(&mut inside, 2), der(&mut inside, 2));
                json!({ "kty": "RSA", "n": b64(&unsigned(n)), "e": b64(&unsigned(e)) })
            }
            Pair::Ecdsa(pair) => {
                let point = &raw(pair.public_key())[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if self.alg == "ES256" { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": b64(x), "y": b64(y) })
            }
            Pair::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(raw(pair.public_key())) })
            }
        };
        (jwk["use"], jwk["alg"], jwk["kid"]) = (json!("sig"), json!(self.alg), json!(self.kid));
        jwk
    }

    /// The same without a name.
    pub fn nameless_jwk(&self) -> Value {
        let mut jwk = self.jwk();
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    }

    /// Everything that somebody who knows the public half could take for a secret.
    pub fn public_forms(&self) -> Vec<Vec<u8>> {
        let Pair::Rsa(pair) = &*self.pair else { panic!("only an RSA key is shown in many forms here") };
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let spki = spki.as_ref().to_vec();
        let text = BASE64.encode(&spki);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
        let jwk = self.jwk();
        let n = jwk["n"].as_str().unwrap().to_owned();
        vec![
            format!("{pem}\n").into_bytes(),
            pem.into_bytes(),
            spki,
            raw(pair.public_key()).to_vec(),
            jwk.to_string().into_bytes(),
            json!({ "keys": [jwk] }).to_string().into_bytes(),
            n.into_bytes(),
        ]
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &*self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match self.alg {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    other => panic!("an RSA key does not sign with {other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// What makes a token of header and claims.
#[derive(Clone)]
pub enum Seal {
    /// A signature with this key.
    By(Key),
    /// HS256 with a secret.
    Secret(Vec<u8>),
    /// These bytes in the place of a signature, and `alg: none`.
    Bytes(Vec<u8>),
}

type Changes = Vec<(String, Option<Value>)>;
type Mangle = Box<dyn Fn(&str) -> String + Send>;

/// Puts other values into an object, and takes some out.
fn change(of: &mut Value, changes: &Changes) {
    let object = of.as_object_mut().unwrap();
    for (name, to) in changes {
        match to {
            Some(value) => object.insert(name.clone(), value.clone()),
            None => object.remove(name),
        };
    }
}

/// What somebody agreed to, for whoever has the code.
struct Grant {
    client_id: String,
    redirect_uri: String,
    nonce: Option<String>,
    challenge: String,
    person: Value,
}

/// A question to an endpoint.
struct Asked {
    github: bool,
    authorization: String,
    form: HashMap<String, String>,
}

struct Knobs {
    url: String,
    clock: Clock,
    person: Value,
    emails: Value,
    main: Key,
    seal: Seal,
    keys: Vec<Value>,
    claims: Changes,
    header: Changes,
    discovery: Changes,
    mangle: Option<Mangle>,
    userinfo: Option<Value>,
    token_answer: Option<(u16, Value)>,
    says_iss: Option<String>,
    auth: &'static str,
    /// The public half of the key that signs a client's secret.
    apple: Option<(String, String)>,
    ignores_pkce: bool,
    broken: HashMap<&'static str, Broken>,
    asked: HashMap<&'static str, usize>,
    grants: HashMap<String, Grant>,
    tokens: HashMap<String, Value>,
    complaints: Vec<String>,
    last: String,
}

impl Knobs {
    /// Counts a question; how the endpoint is broken this time.
    fn heard(&mut self, endpoint: &'static str) -> Broken {
        *self.asked.entry(endpoint).or_default() += 1;
        self.broken.get(endpoint).copied().unwrap_or(Broken::None)
    }

    fn respond(&mut self, endpoint: &str, asked: &Asked) -> (u16, Value) {
        let bearer = asked.authorization.strip_prefix("Bearer ").unwrap_or_default();
        match endpoint {
            "discovery" => (200, self.document()),
            "jwks" => (200, json!({ "keys": self.keys })),
            "token" => self.token(asked),
            "userinfo" | "emails" => match self.tokens.get(bearer).cloned() {
                None => (401, json!({ "error": "invalid_token" })),
                Some(_) if endpoint == "emails" => (200, self.emails.clone()),
                Some(person) => (200, self.userinfo.clone().unwrap_or(person)),
            },
            _ => (404, json!({ "error": "there is nothing here" })),
        }
    }

    fn document(&self) -> Value {
        let url = &self.url;
        let mut document = json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "userinfo_endpoint": format!("{url}/userinfo"),
            "jwks_uri": format!("{url}/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "email", "profile"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "id_token_signing_alg_values_supported":
                ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"],
        });
        change(&mut document, &self.discovery);
        document
    }

    /// A code for tokens, once, of whoever asked for it (RFC 6749 §4.1.3, RFC 7636 §4.6).
    fn token(&mut self, asked: &Asked) -> (u16, Value) {
        let grant = self.grants.remove(asked.field("code"));
        let known = grant.is_some();
        let Some(grant) = grant.filter(|_| self.knows(asked)) else {
            let why = if known { "invalid_client" } else { "invalid_grant: no such code" };
            return self.complain(asked, why);
        };
        let verified = b64(&sha256(asked.field("code_verifier").as_bytes())) == grant.challenge;
        let wrong = [
            (asked.field("grant_type") != "authorization_code" && !asked.github, "another grant"),
            (asked.form.get("client_id").is_some_and(|id| *id != grant.client_id), "another client"),
            (asked.field("redirect_uri") != grant.redirect_uri, "another redirect_uri"),
            (!verified && !self.ignores_pkce, "another code_verifier"),
        ];
        if let Some((_, why)) = wrong.iter().find(|(is, _)| *is) {
            return self.complain(asked, &format!("invalid_grant: {why}"));
        }
        if let Some(answer) = &self.token_answer {
            return answer.clone();
        }
        let access = format!("at.{}", b64(&random::<16>()));
        self.tokens.insert(access.clone(), grant.person.clone());
        let mut answer = json!({ "access_token": access, "token_type": "Bearer", "expires_in": 3600 });
        if !asked.github {
            self.last = self.minted(&grant.client_id, grant.nonce.as_deref(), &grant.person, Some(&access));
            answer["id_token"] = json!(self.last);
        }
        (200, answer)
    }

    /// Whether a client shows its secret in the one way that was agreed upon.
    fn knows(&self, asked: &Asked) -> bool {
        let basic = format!("Basic {}", BASE64.encode(format!("{CLIENT}:{SECRET}").as_bytes()));
        let secret = asked.form.get("client_secret").map(String::as_str);
        let named = asked.field("client_id") == CLIENT;
        match if asked.github { "post" } else { self.auth } {
            "basic" => asked.authorization == basic && secret.is_none(),
            "apple" => {
                asked.authorization.is_empty() && named && secret.is_some_and(|secret| self.signed(secret))
            }
            "post" => asked.authorization.is_empty() && named && secret == Some(SECRET),
            _ => asked.authorization.is_empty() && named && secret.is_none(),
        }
    }

    /// Whether a secret is what Apple wants of one: a token that the client's own key signed a moment ago.
    fn signed(&self, secret: &str) -> bool {
        let Some((x, y)) = &self.apple else { return false };
        let key = jsonwebtoken::DecodingKey::from_ec_components(x, y).unwrap();
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        (rules.validate_exp, rules.validate_aud) = (false, false);
        let Ok(token) = jsonwebtoken::decode::<Value>(secret, &key, &rules) else { return false };
        let (claims, now) = (token.claims, self.clock.now().seconds());
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        (&claims["iss"], &claims["sub"], &claims["aud"], &claims["iat"])
            == (&json!("TEAM"), &json!(CLIENT), &json!("https://appleid.apple.com"), &json!(now))
            && token.header.kid.as_deref() == Some("KEY")
            && (1..=600).contains(&life)
    }

    fn complain(&mut self, asked: &Asked, why: &str) -> (u16, Value) {
        self.complaints.push(why.to_owned());
        let status = match why {
            _ if asked.github => 200,
            "invalid_client" => 401,
            _ => 400,
        };
        (status, json!({ "error": why.split(':').next(), "error_description": why }))
    }

    fn minted(&self, audience: &str, nonce: Option<&str>, person: &Value, access: Option<&str>) -> String {
        let now = self.clock.now().seconds();
        let mut claims = person.clone();
        (claims["iss"], claims["aud"]) = (json!(self.url), json!(audience));
        (claims["iat"], claims["exp"]) = (json!(now), json!(now + 600));
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        // Of another hash than SHA-256 it would be another half.
        if let Some(access) =
            access.filter(|_| matches!(&self.seal, Seal::By(key) if key.alg.ends_with("256")))
        {
            claims["at_hash"] = json!(b64(&sha256(access.as_bytes())[..16]));
        }
        change(&mut claims, &self.claims);
        let token = self.sealed(&claims);
        self.mangle.as_ref().map_or_else(|| token.clone(), |mangle| mangle(&token))
    }

    fn sealed(&self, claims: &Value) -> String {
        let (alg, kid) = match &self.seal {
            Seal::By(key) => (key.alg, &key.kid),
            Seal::Secret(_) => ("HS256", &self.main.kid),
            Seal::Bytes(_) => ("none", &self.main.kid),
        };
        let mut header = json!({ "typ": "JWT", "alg": alg, "kid": kid });
        change(&mut header, &self.header);
        let message =
            format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
        let signature = match &self.seal {
            Seal::By(key) => key.sign(message.as_bytes()),
            Seal::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            Seal::Bytes(bytes) => bytes.clone(),
        };
        format!("{message}.{}", b64(&signature))
    }
}

impl Asked {
    fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }
}

type Shared = Arc<Mutex<Knobs>>;

fn listen(listener: TcpListener, shared: Shared) -> JoinHandle<()> {
    let router = Router::new().fallback(answer).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = head.uri.path();
    let endpoint = match path {
        "/token" | "/login/oauth/access_token" => "token",
        "/jwks" => "jwks",
        "/userinfo" | "/api/v3/user" => "userinfo",
        "/api/v3/user/emails" => "emails",
        path if path.ends_with("/.well-known/openid-configuration") => "discovery",
        _ => "elsewhere",
    };
    let broken = shared.lock().unwrap().heard(endpoint);
    match broken {
        Broken::Hang => std::future::pending::<()>().await,
        Broken::Slow => tokio::time::sleep(SLOW).await,
        Broken::Late => tokio::time::sleep(LATE).await,
        Broken::Error => return say(500, "{}".to_owned()),
        Broken::Garbage => return say(200, "<html>good morning</html>".to_owned()),
        Broken::None | Broken::Huge => {}
    }
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let asked = Asked {
        github: path.starts_with("/login/"),
        authorization: authorization.unwrap_or_default().to_owned(),
        form: serde_urlencoded::from_bytes(&body).unwrap_or_default(),
    };
    let (status, value) = shared.lock().unwrap().respond(endpoint, &asked);
    let mut text = value.to_string();
    if broken == Broken::Huge {
        text.push_str(&" ".repeat(HUGE));
    }
    say(status, text)
}

/// Each answer ends its connection: who went away does not answer on an old one.
fn say(status: u16, text: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONNECTION, "close")];
    (StatusCode::from_u16(status).unwrap(), headers, text).into_response()
}

/// The provider.
pub struct Idp {
    url: String,
    shared: Shared,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Idp {
    fn drop(&mut self) {
        if let Some(server) = self.server.lock().unwrap().take() {
            server.abort();
        }
    }
}

impl Idp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let main = Key::rsa("k1", "RS256");
        let knobs = Knobs {
            url: url.clone(),
            clock: Clock::manual(START),
            person: json!({ "sub": "s1", "email": "v@ex.test", "email_verified": true, "name": "Vera" }),
            emails: json!([]),
            seal: Seal::By(main.clone()),
            keys: vec![main.jwk()],
            main,
            claims: Vec::new(),
            header: Vec::new(),
            discovery: Vec::new(),
            mangle: None,
            userinfo: None,
            token_answer: None,
            says_iss: None,
            auth: "basic",
            apple: None,
            ignores_pkce: false,
            broken: HashMap::new(),
            asked: HashMap::new(),
            grants: HashMap::new(),
            tokens: HashMap::new(),
            complaints: Vec::new(),
            last: String::new(),
        };
        let shared = Arc::new(Mutex::new(knobs));
        let server = Mutex::new(Some(listen(listener, shared.clone())));
        Self { url, shared, server }
    }

    /// Refuses connections from now on.
    pub async fn go_away(&self) {
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.abort();
            let _ = server.await;
        }
    }

    /// Is there again, at the same address.
    pub async fn come_back(&self) {
        let listener = TcpListener::bind(self.url.trim_start_matches("http://")).await.unwrap();
        *self.server.lock().unwrap() = Some(listen(listener, self.shared.clone()));
    }

    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.shared.lock().unwrap()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The keys of its section in the settings.
    pub fn settings(&self, more: &str) -> String {
        format!("issuer = \"{}\"\nclient_id = \"{CLIENT}\"\nclient_secret = \"{SECRET}\"\n{more}\n", self.url)
    }

    /// Its section in the settings.
    pub fn toml(&self, name: &str, more: &str) -> String {
        format!("[providers.{name}]\n{}", self.settings(more))
    }

    /// Its time is this one.
    pub fn follow(&self, clock: &Clock) {
        self.knobs().clock = clock.clone();
    }

    /// Who is signed in there; whoever comes back has this in the ID token.
    pub fn person(&self, person: Value) {
        self.knobs().person = person;
    }

    /// GitHub's list of somebody's addresses.
    pub fn emails(&self, emails: Value) {
        self.knobs().emails = emails;
    }

    pub fn claim(&self, name: &str, value: Value) {
        self.knobs().claims.push((name.to_owned(), Some(value)));
    }

    pub fn without(&self, name: &str) {
        self.knobs().claims.push((name.to_owned(), None));
    }

    /// The ID token says nothing but who it is; the rest is at userinfo.
    pub fn thin(&self) {
        ["email", "email_verified", "name"].into_iter().for_each(|name| self.without(name));
    }

    pub fn header(&self, name: &str, value: Value) {
        self.knobs().header.push((name.to_owned(), Some(value)));
    }

    pub fn without_header(&self, name: &str) {
        self.knobs().header.push((name.to_owned(), None));
    }

    pub fn seal(&self, seal: Seal) {
        self.knobs().seal = seal;
    }

    /// What becomes of a token when it is made.
    pub fn mangle(&self, how: impl Fn(&str) -> String + Send + 'static) {
        self.knobs().mangle = Some(Box::new(how));
    }

    /// Signs with another key from now on, and publishes it alone.
    pub fn rotate(&self, key: Key) {
        let mut knobs = self.knobs();
        (knobs.keys, knobs.seal) = (vec![key.jwk()], Seal::By(key.clone()));
        knobs.main = key;
    }

    /// The keys that it shows.
    pub fn publish(&self, keys: Vec<Value>) {
        self.knobs().keys = keys;
    }

    /// What else its description says.
    pub fn discovery(&self, name: &str, value: Value) {
        self.knobs().discovery.push((name.to_owned(), Some(value)));
    }

    /// What userinfo says instead of what is so.
    pub fn userinfo(&self, answer: Value) {
        self.knobs().userinfo = Some(answer);
    }

    /// What the token endpoint answers instead of tokens.
    pub fn answer_token(&self, status: u16, answer: Value) {
        self.knobs().token_answer = Some((status, answer));
    }

    /// What it says with the code about who it is (RFC 9207).
    pub fn says_iss(&self, iss: &str) {
        self.knobs().says_iss = Some(iss.to_owned());
    }

    /// How a client has to show its secret: "basic", "post" or "none".
    pub fn auth(&self, how: &'static str) {
        self.knobs().auth = how;
    }

    /// It wants secrets as Apple does, by a key of its client's: the private half, in PEM.
    pub fn like_apple(&self) -> String {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let (x, y) = raw(pair.public_key())[1..].split_at(32);
        let mut knobs = self.knobs();
        (knobs.auth, knobs.apple) = ("apple", Some((b64(x), b64(y))));
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(pkcs8.as_ref()))
    }

    /// Takes every code_verifier, as providers do that know nothing of it.
    pub fn ignore_pkce(&self) {
        self.knobs().ignores_pkce = true;
    }

    pub fn break_endpoint(&self, endpoint: &'static str, broken: Broken) {
        self.knobs().broken.insert(endpoint, broken);
    }

    /// Does what is right again. Person, keys, description and the way to show a secret stay as they are.
    pub fn honest(&self) {
        let mut knobs = self.knobs();
        knobs.seal = Seal::By(knobs.main.clone());
        knobs.claims.clear();
        knobs.header.clear();
        knobs.broken.clear();
        (knobs.mangle, knobs.userinfo, knobs.token_answer, knobs.says_iss) = (None, None, None, None);
        knobs.ignores_pkce = false;
    }

    /// How often an endpoint was asked.
    pub fn asked(&self, endpoint: &str) -> usize {
        self.knobs().asked.get(endpoint).copied().unwrap_or_default()
    }

    /// What the token endpoint had to say against whoever asked.
    pub fn complaints(&self) -> Vec<String> {
        self.knobs().complaints.clone()
    }

    /// The ID token that it handed out last.
    pub fn last_token(&self) -> String {
        self.knobs().last.clone()
    }

    /// An ID token as an application on a phone gets it from the provider itself.
    pub fn id_token(&self, audience: &str, nonce: &str) -> String {
        let knobs = self.knobs();
        knobs.minted(audience, Some(nonce), &knobs.person, None)
    }

    /// Somebody's browser comes with a request and says yes; where it is sent back to.
    pub fn authorize(&self, location: &str) -> String {
        assert!(
            location.starts_with(&format!("{}/", self.url)),
            "{location:?} does not lead to {}",
            self.url
        );
        let query: HashMap<String, String> =
            Url::parse(location).unwrap().query_pairs().into_owned().collect();
        let asked = |name: &str| query.get(name).cloned().unwrap_or_default();
        assert_eq!(
            (asked("response_type").as_str(), asked("client_id").as_str()),
            ("code", CLIENT),
            "{location}"
        );
        let method = asked("code_challenge_method");
        assert_eq!((method.as_str(), asked("code_challenge").len()), ("S256", 43), "{location}");
        assert!(!query.values().any(|value| value == SECRET), "{location}");
        let (code, mut knobs) = (b64(&random::<16>()), self.knobs());
        let grant = Grant {
            client_id: asked("client_id"),
            redirect_uri: asked("redirect_uri"),
            nonce: query.get("nonce").cloned(),
            challenge: asked("code_challenge"),
            person: knobs.person.clone(),
        };
        knobs.grants.insert(code.clone(), grant);
        let mut back = vec![("code", code), ("state", asked("state"))];
        back.extend(knobs.says_iss.clone().map(|iss| ("iss", iss)));
        format!("{}?{}", asked("redirect_uri"), serde_urlencoded::to_string(back).unwrap())
    }
}

/// Two providers, and a server that knows them as `idp` and `other`. What else the section of the first one says is `more`,
/// and what stands behind `[other]` in it is of the second one.
pub async fn begin(engine: Engine, more: &str) -> (TestApp, Idp, Idp) {
    let (idp, other) = (Idp::start().await, Idp::start().await);
    let (more, of_other) = more.split_once("[other]").unwrap_or((more, ""));
    let settings = format!("{}{}", other.toml("other", of_other), idp.toml("idp", more));
    let app = TestApp::with(engine, true, &settings).await;
    idp.follow(&app.clock);
    other.follow(&app.clock);
    (app, idp, other)
}

/// As `both!`, with a provider that is called `idp`, or with two, of which the second one is called `other`.
#[macro_export]
macro_rules! with_idp {
    ($more:expr;
        async fn $name:ident($app:ident: &TestApp, $idp:ident: &Idp $(, $other:ident: &Idp)?) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn story(
                $app: &$crate::support::TestApp,
                $idp: &$crate::support::idp::Idp,
                _second: &$crate::support::idp::Idp,
            ) {
                $(let $other = _second;)?
                $body
            }

            async fn run(engine: $crate::support::Engine) {
                let (app, first, second) = $crate::support::idp::begin(engine, $more).await;
                story(&app, &first, &second).await;
                app.finish().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run($crate::support::Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run($crate::support::Engine::Postgres).await;
            }
        }
    };
}
