//! Steps that several stories take: a browser as far as the pages behind mailed links need one, a mailbox, two servers.

use foundation::mail::Kept;
use pearlgate::server::Running;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Engine, TestApp, filled};

/// The page behind a mailed link, open in a browser that keeps the one cookie.
pub struct Tab {
    path: String,
    cookie: String,
}

impl Tab {
    /// Follows the link.
    pub async fn open(app: &TestApp, link: &str) -> (Self, Answer) {
        let (path, token) = link.strip_prefix(app.url.as_str()).unwrap().split_once("?token=").unwrap();
        let moved = app.send(app.client.get(link)).await;
        assert_eq!((moved.status, moved.header("location")), (303, path), "{}", moved.text);
        let cookie = moved.header("set-cookie");
        for part in ["__Host-", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let tab = Self { path: path.to_owned(), cookie: cookie.split(';').next().unwrap().to_owned() };
        let page = tab.look(app).await;
        assert!(page.status == 200 && !page.text.contains(token), "the token is in the page");
        (tab, page)
    }

    /// Loads the page again.
    pub async fn look(&self, app: &TestApp) -> Answer {
        app.send(app.request(Method::GET, &self.path).header("cookie", &self.cookie)).await
    }

    /// Sends the form with its password.
    pub async fn submit(&self, app: &TestApp, password: &str) -> Answer {
        self.submit_from(app, &app.url, password).await
    }

    /// Sends the form of one button.
    pub async fn press(&self, app: &TestApp) -> Answer {
        self.submit(app, "").await
    }

    /// Sends the form with these fields.
    pub async fn fill(&self, app: &TestApp, fields: &[(&str, &str)]) -> Answer {
        let form =
            app.request(Method::POST, &self.path).header("cookie", &self.cookie).header("origin", &app.url);
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        let fields = serde_urlencoded::to_string(fields).unwrap();
        app.send(form.body(format!(
            "{}&{fields}",
            filled(&self.cookie, "").split('&').find(|part| part.starts_with("link=")).unwrap()
        )))
        .await
    }

    /// Sends the form as a page of this origin does.
    pub async fn submit_from(&self, app: &TestApp, origin: &str, password: &str) -> Answer {
        let form =
            app.request(Method::POST, &self.path).header("cookie", &self.cookie).header("origin", origin);
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        app.send(form.body(filled(&self.cookie, password))).await
    }
}

/// Every cookie that an answer sets.
pub fn cookies(answer: &Answer) -> Vec<String> {
    let all = answer.headers.get_all("set-cookie");
    all.iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

pub fn token_of(link: &str) -> String {
    link.split_once("token=").unwrap().1.to_owned()
}

pub fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

/// How many mails of a kind somebody got; ask when it is quiet.
pub fn mails(app: &TestApp, to: &str, kind: &str) -> usize {
    app.app.mailbox.as_ref().unwrap().list(Some(to), Some(kind)).len()
}

/// Sends something in the name of whoever holds the access token.
pub async fn send_as(app: &TestApp, method: Method, path: &str, access: &str, body: Value) -> Answer {
    app.send(app.request(method, path).bearer_auth(access).json(&body)).await
}

pub async fn register(app: &TestApp, email: &str, password: &str, name: &str) -> Answer {
    app.post("/v1/auth/register", json!({ "email": email, "password": password, "display_name": name })).await
}

/// A refusal with its fields, to be compared with [`says`].
pub fn refused(answer: &Answer) -> (String, Vec<String>) {
    (answer.refusal(), answer.fields())
}

/// A refusal of one field, as `field:code`.
pub fn says(field: &str) -> (String, Vec<String>) {
    ("422 validation_failed".into(), vec![field.into()])
}

/// Asks for a new password; the `count`th mail of that kind, with nothing on its way any more.
pub async fn forgot(app: &TestApp, email: &str, count: usize) -> Kept {
    let asked = app.post("/v1/auth/forgot-password", json!({ "email": email })).await;
    assert_eq!((asked.status, asked.text.as_str()), (202, r#"{"status":"reset_requested"}"#));
    let mail = app.mail(email, "password_reset", count).await;
    app.quiet().await;
    mail
}

pub async fn reset(app: &TestApp, body: Value) -> Answer {
    app.post("/v1/auth/reset-password", body).await
}

pub fn by_link(mail: &Kept, password: &str) -> Value {
    json!({ "token": token_of(&mail.links[0]), "password": password })
}

pub fn by_code(mail: &Kept, password: &str) -> Value {
    json!({ "email": mail.to, "code": mail.code, "password": password })
}

/// Why the session of an access token has ended.
pub async fn ended(app: &TestApp, access: &str) -> String {
    let me = app.get_as("/v1/me", access).await;
    assert_eq!(me.refusal(), "401 session_ended");
    me.str("/reason")
}

/// Everybody's account is suspended.
pub async fn suspend(app: &TestApp) {
    app.sql("INSERT INTO suspensions (user_id, reason, suspended_at) SELECT id, 'test', 1 FROM users").await;
}

/// Everybody has a second factor.
pub async fn second_factor(app: &TestApp) {
    let sealed = if app.engine == Engine::Sqlite { "x'00'" } else { "CAST('\\x00' AS BYTEA)" };
    let insert = "INSERT INTO totp_factors (user_id, sealed, last_step, confirmed_at)";
    app.sql(&format!("{insert} SELECT id, {sealed}, 0, 1 FROM users")).await;
}

/// The server, and on PostgreSQL a second one beside it. Either may deliver a mail, to a mailbox of its own.
pub struct Servers<'a> {
    app: &'a TestApp,
    twin: Option<Running>,
}

impl<'a> Servers<'a> {
    pub async fn start(app: &'a TestApp) -> Self {
        app.quiet().await;
        let twin = if app.engine == Engine::Postgres { Some(app.twin().await) } else { None };
        Self { app, twin }
    }

    /// Sends to one server or, when `n` is odd, to the other.
    pub async fn post(&self, n: usize, path: &str, access: &str, body: Value) -> Answer {
        let twin = self.twin.as_ref().filter(|_| n % 2 == 1);
        let url = twin.map_or(&self.app.url, |twin| &twin.url);
        let request = self.app.client.post(format!("{url}{path}")).json(&body);
        self.app.send(if access.is_empty() { request } else { request.bearer_auth(access) }).await
    }

    /// The address of the other server; of the only one where there is none.
    pub fn other(&self) -> &str {
        self.twin.as_ref().map_or(&self.app.url, |twin| &twin.url)
    }

    pub fn mails(&self, to: &str, kind: &str) -> Vec<Kept> {
        let apps = [Some(&self.app.app), self.twin.as_ref().map(|twin| &twin.app)];
        let boxes = apps.into_iter().flatten().filter_map(|app| app.mailbox.as_ref());
        boxes.flat_map(|mailbox| mailbox.list(Some(to), Some(kind))).collect()
    }

    /// The one mail of a kind to somebody, once it has arrived.
    pub async fn mail(&self, to: &str, kind: &str) -> Kept {
        self.app.until("a mail arrives", || async { !self.mails(to, kind).is_empty() }).await;
        self.mails(to, kind).remove(0)
    }

    /// Nobody is left waiting, then the second server stops.
    pub async fn stop(self) {
        self.app.quiet().await;
        if let Some(twin) = self.twin {
            twin.stop().await;
        }
    }
}
