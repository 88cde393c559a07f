//! The ways back in, as their owners and their attackers go them: mails asked for, links opened, buttons pressed.

use data_encoding::HEXLOWER;
use foundation::db::Statement;
use foundation::mail::Kept;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::support::{ask, holds, post, token_of};
use crate::support::{Answer, Engine, Person, TestApp, filled};

/// What a dead reset is answered with, and every other dead link or code. The book's "410".
pub const RESET_DEAD: &str = "422 reset_token_invalid";
pub const DEAD: &str = "422 verification_invalid";
/// What the owner chooses when nobody else knows it.
pub const NEW: &str = "eleven brass kettles hum";
/// What mailed tokens begin with.
pub const MAILED: [&str; 10] =
    ["pgz_", "pgk_", "pgw_", "pgu_", "pgv_", "pgp_", "pgl_", "pge_", "pgn_", "pgs_"];
const FORM: &str = "application/x-www-form-urlencoded";

/// As `ask`; and no mailed token of any kind is in the answer's text.
pub async fn look(app: &TestApp, request: RequestBuilder) -> Answer {
    let answer = ask(app, request).await;
    for word in MAILED.into_iter().chain([NEW]) {
        assert!(!holds(&answer.text, word), "the answer holds {word:?}: {}", answer.text);
    }
    answer
}

/// A call of somebody who is signed in.
pub async fn call(app: &TestApp, method: Method, path: &str, access: &str, body: &Value) -> Answer {
    look(app, app.request(method, path).bearer_auth(access).json(body)).await
}

/// The `count`th mail of a kind, with nothing left on its way.
pub async fn mailed(app: &TestApp, to: &str, kind: &str, count: usize) -> Kept {
    let mail = app.mail(to, kind, count).await;
    app.quiet().await;
    mail
}

/// The token of a mail's one link.
pub fn link_token(mail: &Kept) -> String {
    assert_eq!(mail.links.len(), 1, "{:?}", mail.links);
    token_of(&mail.links[0])
}

pub async fn register(app: &TestApp, email: &str, password: &str) -> String {
    let answer = post(app, "/v1/auth/register", &json!({ "email": email, "password": password })).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.str("/verification_id")
}

pub async fn verify(app: &TestApp, body: Value) -> Answer {
    post(app, "/v1/auth/verify-email", &body).await
}

pub async fn forgot(app: &TestApp, email: &str, count: usize) -> Kept {
    let answer = post(app, "/v1/auth/forgot-password", &json!({ "email": email })).await;
    assert_eq!((answer.status, answer.str("/status").as_str()), (202, "reset_requested"));
    mailed(app, email, "password_reset", count).await
}

pub async fn reset(app: &TestApp, token: &str, password: &str) -> Answer {
    post(app, "/v1/auth/reset-password", &json!({ "token": token, "password": password })).await
}

pub async fn reset_by_code(app: &TestApp, email: &str, code: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "code": code, "password": password });
    post(app, "/v1/auth/reset-password", &body).await
}

/// The id, which is not in the mail, and the mail.
pub async fn magic(app: &TestApp, email: &str, count: usize) -> (String, Kept) {
    let answer = post(app, "/v1/auth/magic-link", &json!({ "email": email })).await;
    assert_eq!((answer.status, answer.str("/status").as_str()), (202, "magic_link_requested"));
    (answer.str("/magic_link_id"), mailed(app, email, "magic_link", count).await)
}

pub async fn consume(app: &TestApp, body: Value) -> Answer {
    post(app, "/v1/auth/magic-link/consume", &body).await
}

/// Asks for another address; the mail that arrives there.
pub async fn change_email(app: &TestApp, access: &str, to: &str, count: usize) -> Kept {
    let answer = call(app, Method::POST, "/v1/me/email", access, &json!({ "email": to })).await;
    assert_eq!((answer.status, answer.str("/status").as_str()), (202, "confirmation_required"));
    mailed(app, to, "email_change", count).await
}

pub async fn confirm(app: &TestApp, access: &str, body: Value) -> Answer {
    call(app, Method::POST, "/v1/me/email/confirm", access, &body).await
}

pub async fn change_password(app: &TestApp, access: &str, old: &str, new: &str) -> Answer {
    let body = json!({ "current_password": old, "new_password": new });
    call(app, Method::PUT, "/v1/me/password", access, &body).await
}

/// A browser that opened a mailed link: what it keeps, and the page it is shown.
pub struct Tab {
    pub path: String,
    pub cookie: String,
    pub moved: Answer,
    pub page: Answer,
}

pub async fn open(app: &TestApp, link: &str) -> Tab {
    let at = link.strip_prefix(&app.url).unwrap_or_else(|| panic!("{link} leads elsewhere"));
    let moved = look(app, app.request(Method::GET, at)).await;
    let path = moved.header("location").to_owned();
    assert_eq!((moved.status, path.as_str()), (303, at.split('?').next().unwrap()), "{link}");
    let cookie = moved.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = look(app, app.request(Method::GET, &path).header("cookie", &cookie)).await;
    assert_eq!(page.status, 200, "{}", page.text);
    Tab { path, cookie, moved, page }
}

/// Sends the form of the page that a tab shows; pages with nothing but a button take no notice of the password.
pub async fn press(app: &TestApp, tab: &Tab, password: &str) -> Answer {
    let request = app.request(Method::POST, &tab.path).header("cookie", &tab.cookie);
    let request = request.header("sec-fetch-site", "same-origin").header("content-type", FORM);
    look(app, request.body(filled(&tab.cookie, password))).await
}

/// There is no form behind this link, and nothing happens to who sends one all the same.
pub async fn leads_nowhere(app: &TestApp, link: &str) {
    let tab = open(app, link).await;
    assert!(!tab.page.text.contains("<form") && tab.page.text.contains("does not work"), "{}", tab.page.text);
    let pressed = press(app, &tab, NEW).await;
    assert_eq!(pressed.status, 422, "{}", pressed.text);
    assert!(!pressed.text.contains("<form"), "{}", pressed.text);
}

/// A session is over, for each of its tokens, and both say why.
pub async fn ended(app: &TestApp, person: &Person, reason: &str) {
    for answer in [app.refresh(&person.refresh).await, app.get_as("/v1/me", &person.access).await] {
        let why = answer.json["reason"].as_str().unwrap_or_default();
        assert_eq!((answer.refusal().as_str(), why), ("401 session_ended", reason), "{}", person.email);
    }
}

/// Everything that can be open for somebody whose address is proven.
pub struct Outstanding {
    pub reset: Kept,
    pub magic_id: String,
    pub magic: Kept,
    pub change: Kept,
}

/// Has a reset, a magic link and a change of address mailed; each for the first time.
pub async fn everything(app: &TestApp, email: &str, access: &str, to: &str) -> Outstanding {
    let reset = forgot(app, email, 1).await;
    let (magic_id, magic) = magic(app, email, 1).await;
    let change = change_email(app, access, to, 1).await;
    Outstanding { reset, magic_id, magic, change }
}

impl Outstanding {
    /// Nothing of it works, by link, by code or on a page. `email` is the account's address by now, `access` somebody
    /// who is signed in to it.
    pub async fn is_dead(&self, app: &TestApp, email: &str, access: Option<&str>) {
        let (reset_token, magic_token) = (link_token(&self.reset), link_token(&self.magic));
        assert_eq!(reset(app, &reset_token, NEW).await.refusal(), RESET_DEAD);
        assert_eq!(reset_by_code(app, email, &self.reset.code, NEW).await.refusal(), RESET_DEAD);
        assert_eq!(consume(app, json!({ "token": magic_token })).await.refusal(), DEAD);
        let by_code = json!({ "magic_link_id": self.magic_id, "code": self.magic.code });
        assert_eq!(consume(app, by_code).await.refusal(), DEAD);
        for mail in [&self.reset, &self.magic, &self.change] {
            leads_nowhere(app, &mail.links[0]).await;
        }
        if let Some(access) = access {
            let token = link_token(&self.change);
            assert_eq!(confirm(app, access, json!({ "token": token })).await.refusal(), DEAD);
            assert_eq!(confirm(app, access, json!({ "code": self.change.code })).await.refusal(), DEAD);
        }
    }
}

/// Open verifications, resets, magic links and changes of address, of anybody.
pub async fn open_rows(app: &TestApp) -> [i64; 4] {
    [
        app.count("SELECT COUNT(*) FROM email_verification_tokens").await,
        app.count("SELECT COUNT(*) FROM password_reset_tokens").await,
        app.count("SELECT COUNT(*) FROM magic_link_tokens").await,
        app.count("SELECT COUNT(*) FROM email_change_tokens").await,
    ]
}

/// Takes the proof of an address away behind the server's back: whoever is in is there as an attacker would be who
/// got in before the mailbox's owner came.
pub async fn unprove(app: &TestApp, email: &str) {
    let user = format!("(SELECT user_id FROM user_emails WHERE address = '{email}')");
    app.sql(&format!("DELETE FROM verified_emails WHERE user_id IN {user}")).await;
}

/// Bytes as SQL writes them.
pub fn blob(app: &TestApp, bytes: &[u8]) -> String {
    let hex = HEXLOWER.encode(bytes);
    match app.engine {
        Engine::Sqlite => format!("X'{hex}'"),
        Engine::Postgres => format!("CAST('\\x{hex}' AS BYTEA)"),
    }
}

static TABLES: Statement = Statement {
    name: "TABLES",
    text: "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename",
};

/// Whether something stands anywhere in what the database keeps: in the files of the one, pages that were freed
/// included; in any column of any row of the other, as text or as bytes.
pub async fn stored(app: &TestApp, what: &[u8]) -> bool {
    if app.engine == Engine::Sqlite {
        let holds = |name: &str| {
            let bytes = std::fs::read(app.dir.path().join(name)).unwrap_or_default();
            bytes.windows(what.len()).any(|window| window[0] == what[0] && window == what)
        };
        return holds("pearlgate.db") || holds("pearlgate.db-wal");
    }
    let tables: Vec<(String,)> = app.app.db.read_one(|tx| tx.all(&TABLES, &[])).await.unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    let hex = HEXLOWER.encode(what);
    let text = std::str::from_utf8(what).map_or_else(|_| hex.clone(), |text| text.replace('\'', "''"));
    let of = |(table,): &(String,)| {
        format!(
            "(SELECT COUNT(*) FROM {table} t WHERE strpos(CAST(t AS TEXT), '{text}') > 0 OR strpos(CAST(t AS TEXT), '{hex}') > 0)"
        )
    };
    let all: Vec<String> = tables.iter().map(of).collect();
    let question = format!("SELECT CAST({} AS BIGINT)", all.join(" + "));
    app.count(Box::leak(question.into_boxed_str())).await > 0
}
