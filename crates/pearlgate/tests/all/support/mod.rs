//! A real server in this process, on a free port, with a database of its own, a clock that stands still until it is
//! moved, and cheap hashes. Every answer is checked against the API's own description.

pub mod browser;
pub mod carrier;
mod contract;
pub mod idp;
mod listening;
mod postgres;
pub mod receiver;
pub mod soft_key;

use std::sync::Mutex;
use std::time::Duration;

use foundation::jobs;
use foundation::kernel::{Clock, Entropy, Timestamp};
use foundation::mail::Kept;
use pearlgate::app::App;
use pearlgate::server::{self, Running};
use pearlgate::settings::{self, Purpose, Settings};
use reqwest::Method;
use serde_json::{Value, json};

pub use contract::{called, contract};
pub use postgres::{PostgresDatabase, environment};

/// A Monday morning.
pub const START: Timestamp = Timestamp::from_micros(1_795_430_000_000_000);
pub const PASSWORD: &str = "nine purple lanterns drift";

/// Jobs that always wait: for their next turn, or for a moment that may never come.
pub const RECURRING: [&str; 6] =
    [TURNS[0], TURNS[1], "lockout.look_again", "mfa.reset", "mfa.grace_over", "accounts.erase"];
/// Those of them that every server plans when it starts.
const TURNS: [&str; 2] = ["maintenance.sweep", "sessions.rotate_keys"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Writes a test once and runs it on both databases.
#[macro_export]
macro_rules! both {
    ($(#[$meta:meta])* async fn $name:ident($app:ident: &TestApp) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn story($app: &$crate::support::TestApp) $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let app = $crate::support::TestApp::start($crate::support::Engine::Sqlite).await;
                story(&app).await;
                app.finish().await;
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let app = $crate::support::TestApp::start($crate::support::Engine::Postgres).await;
                story(&app).await;
                app.finish().await;
            }
        }
    };
}

/// As `both!`, in dev mode or not, with settings laid over.
#[macro_export]
macro_rules! both_with {
    ($dev:expr, $more:expr; async fn $name:ident($app:ident: &TestApp) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn story($app: &$crate::support::TestApp) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let app = $crate::support::TestApp::with($crate::support::Engine::Sqlite, $dev, $more).await;
                story(&app).await;
                app.finish().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let app = $crate::support::TestApp::with($crate::support::Engine::Postgres, $dev, $more).await;
                story(&app).await;
                app.finish().await;
            }
        }
    };
}

pub struct TestApp {
    pub url: String,
    pub app: App,
    pub clock: Clock,
    pub engine: Engine,
    pub client: reqwest::Client,
    pub dir: tempfile::TempDir,
    running: Running,
    database: Option<PostgresDatabase>,
    twins: Mutex<Vec<tempfile::TempDir>>,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    /// The status and the code of a refusal, as `"401 invalid_credentials"`; or that a second step is due.
    pub fn refusal(&self) -> String {
        let due = self.json["status"].as_str().filter(|status| *status == "mfa_required");
        format!("{} {}", self.status, self.json["code"].as_str().or(due).unwrap_or("-"))
    }

    /// The field errors as `field:code`.
    pub fn fields(&self) -> Vec<String> {
        let fields = self.json["fields"].as_array().cloned().unwrap_or_default();
        fields
            .iter()
            .map(|f| format!("{}:{}", f["field"].as_str().unwrap(), f["code"].as_str().unwrap()))
            .collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn str(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.text))
            .to_owned()
    }
}

/// Somebody with a verified account, signed in.
#[derive(Debug, Clone)]
pub struct Person {
    pub email: String,
    pub id: String,
    pub session: String,
    pub access: String,
    pub refresh: String,
}

impl Person {
    pub fn of(answer: &Answer) -> Self {
        Self {
            email: answer.str("/user/email"),
            id: answer.str("/user/id"),
            session: answer.str("/session/id"),
            access: answer.str("/access_token"),
            refresh: answer.str("/refresh_token"),
        }
    }
}

/// Settings for a test: dev mode, cheap hashes, a free port; `more` is TOML laid over them.
pub fn test_settings(dir: &std::path::Path, database: Option<&str>, dev: bool, more: &str) -> Settings {
    let mut layers = settings::layers(None, []).unwrap();
    let basics = "[server]\nlisten = \"127.0.0.1:0\"\ndrain = \"3s\"\n[hashing]\nmemory_kib = 64\niterations = 1\nthreads = 2\n[log]\nlevel = \"error\"";
    layers.text("the test", basics).unwrap();
    layers.option("data", "data.dir", dir.to_str().unwrap()).unwrap();
    if let Some(url) = database {
        layers.option("database", "database.url", url).unwrap();
    }
    layers.text("the test", more).unwrap();
    Settings::check(&layers, if dev { Purpose::Dev } else { Purpose::Production }).unwrap()
}

/// The settings of a server as it is in production, where networks are held to their limits. It has no mailbox.
pub fn production(proxies: &str, more: &str) -> String {
    let key = data_encoding::BASE64.encode(&[7; 32]);
    format!(
        "[server]\npublic_url = \"https://accounts.example.test\"\ntrusted_proxies = [{proxies}]\n\
         [secrets]\nmaster_key = \"{key}\"\n[passwords.breach]\nurl = \"\"\n{more}"
    )
}

/// Why a job was given up that nobody tried.
const TOO_LATE: [&str; 2] =
    ["its deadline passed before it was tried", "it was of no use any more before anybody took it"];

/// A client that follows nothing and takes no connection again that the server is about to give up: that happens ten
/// seconds after the last answer, and a request that crosses it has no answer.
pub fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .pool_idle_timeout(Duration::from_secs(3))
        .no_proxy()
}

impl TestApp {
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, true, "").await
    }

    pub async fn with(engine: Engine, dev: bool, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::prepared().await),
        };
        let settings = test_settings(dir.path(), database.as_ref().map(|d| d.url.as_str()), dev, more);
        let clock = Clock::manual(START);
        foundation::telemetry::start_logging(false, settings.log_level);
        let running = server::start(settings, clock.clone(), Entropy::System).await.unwrap();
        ready(&running.app).await;
        let (url, app) = (running.url.clone(), running.app.clone());
        let client = client().build().unwrap();
        Self { url, app, clock, engine, client, dir, running, database, twins: Mutex::default() }
    }

    /// A second server on the same database, as a second process would be one.
    pub async fn twin(&self) -> Running {
        self.twin_with(true, "").await
    }

    /// A second server on the same database, with settings of its own.
    pub async fn twin_with(&self, dev: bool, more: &str) -> Running {
        let url = self.database.as_ref().expect("only PostgreSQL can be shared").url.clone();
        let dir = tempfile::tempdir().unwrap();
        if let Ok(key) = std::fs::read_to_string(self.dir.path().join("dev-master.key")) {
            std::fs::write(dir.path().join("dev-master.key"), key).unwrap();
        }
        let settings = test_settings(dir.path(), Some(&url), dev, more);
        let settings = Settings { public_url: self.app.settings.public_url.clone(), ..settings };
        self.twins.lock().unwrap().push(dir);
        let running = server::start(settings, self.clock.clone(), Entropy::System).await.unwrap();
        ready(&running.app).await;
        running
    }

    /// The same data served anew under other settings; the clock goes on.
    pub async fn restart(self, more: &str) -> Self {
        self.quiet().await;
        let public_url = self.app.settings.public_url.clone();
        let Self { clock, engine, client, dir, running, database, twins, .. } = self;
        running.stop().await;
        let settings = test_settings(dir.path(), database.as_ref().map(|d| d.url.as_str()), true, more);
        let running =
            server::start(Settings { public_url, ..settings }, clock.clone(), Entropy::System).await.unwrap();
        ready(&running.app).await;
        let (url, app) = (running.url.clone(), running.app.clone());
        Self { url, app, clock, engine, client, dir, running, database, twins }
    }

    /// PostgreSQL's address, when this is a test on it.
    pub fn database_url(&self) -> Option<&str> {
        self.database.as_ref().map(|d| d.url.as_str())
    }

    pub async fn finish(self) {
        // The last mail may have arrived a moment before its job was taken off the list; whatever waits longer than
        // that was left behind.
        self.quiet().await;
        let mut dead = jobs::dead(&self.app.db).await.unwrap();
        // Where a story lets a day pass at once, a machine that has much to do has not begun everything by then.
        dead.retain(|(_, why)| !TOO_LATE.contains(&why.as_str()));
        self.running.stop().await;
        if let Some(database) = self.database {
            database.drop().await;
        }
        assert!(dead.is_empty(), "jobs were given up: {dead:?}");
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status, headers, text, json };
        contract(&self.url).check(&method, &path, &answer);
        if path == "/v1/auth/register" && status == 202 {
            self.registered().await;
        }
        answer
    }

    /// What was registered is stored by a job, a moment after the answer; tests look then.
    async fn registered(&self) {
        self.until("it is registered", || async {
            let waiting = jobs::waiting(&self.app.db).await.unwrap_or_default();
            waiting.iter().all(|(kind, _)| kind != "registration.register")
        })
        .await;
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn get_as(&self, path: &str, access: &str) -> Answer {
        self.send(self.request(Method::GET, path).bearer_auth(access)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn register(&self, email: &str) -> Answer {
        self.post("/v1/auth/register", json!({ "email": email, "password": PASSWORD, "display_name": "Ada" }))
            .await
    }

    pub async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/v1/auth/login", json!({ "email": email, "password": password })).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/auth/refresh", json!({ "refresh_token": token })).await
    }

    /// Registers, reads the mail, verifies, and is signed in.
    pub async fn person(&self, email: &str) -> Person {
        let verification = self.register(email).await.str("/verification_id");
        let mail = self.mail(email, "verify_email", 1).await;
        let body = json!({ "verification_id": verification, "code": mail.code });
        let answer = self.post("/v1/auth/verify-email", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Person::of(&answer)
    }

    /// Waits for the `count`th mail of a kind to somebody and gives it.
    pub async fn mail(&self, to: &str, kind: &str, count: usize) -> Kept {
        let mailbox = self.app.mailbox.as_ref().expect("dev mode has a mailbox");
        let arrived = async {
            loop {
                let next = mailbox.next_arrival();
                let mails = mailbox.list(Some(to), Some(kind));
                if let Some(newest) = mails.first().filter(|_| mails.len() >= count) {
                    return newest.clone();
                }
                next.await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived)
            .await
            .unwrap_or_else(|_| panic!("no {kind} mail {count} to {to}"))
    }

    /// Waits until no job but the recurring ones is waiting.
    pub async fn quiet(&self) {
        self.until("jobs are done", || async {
            // Some wait for a moment that has not come; what is due is done, and then what came of it.
            let now = self.clock.now().micros();
            let due =
                format!("SELECT COUNT(*) FROM jobs WHERE kind IN ('lockout.look_again', 'mfa.reset', 'mfa.grace_over', 'accounts.erase') AND (run_at <= {now} OR attempts > 0)");
            if self.count(Box::leak(due.into_boxed_str())).await > 0 {
                return false;
            }
            let waiting = jobs::waiting(&self.app.db).await.unwrap();
            // A server that has just started plans its turns a moment later; that is its own work and no request's.
            let planned = |turn: &&str| waiting.iter().any(|(kind, _)| kind == *turn);
            TURNS.iter().all(planned) && waiting.iter().all(|(kind, _)| RECURRING.contains(&kind.as_str()))
        })
        .await;
    }

    pub async fn until<F: Future<Output = bool>>(&self, what: &str, so: impl Fn() -> F) {
        until(what, so).await;
    }

    /// Waits until so many mails wait for another try, and none is on its way. A try that is over stands in the job's history;
    /// what was put off because nobody is asked just now is none.
    pub async fn mails_wait(&self, count: i64) {
        self.until("mails wait for another try", || async { self.mails_between_tries().await == count })
            .await;
    }

    async fn mails_between_tries(&self) -> i64 {
        let waiting = format!(
            "SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver' AND run_at > {}
                AND (attempts = 0 OR history LIKE '%\"attempt\":' || CAST(attempts AS TEXT) || ',%')",
            self.clock.now().micros()
        );
        self.count(Box::leak(waiting.into_boxed_str())).await
    }

    /// Lets time pass until no mail waits. The first one after an outage is a trial, and those that come to it meanwhile wait a
    /// little longer; no step is made while one is on its way.
    pub async fn mails_go(&self) {
        self.until("the mails go out", || async {
            let all = self.count("SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver'").await;
            if all > 0 && self.mails_between_tries().await == all {
                self.clock.advance(Duration::from_secs(10));
            }
            all == 0
        })
        .await;
    }

    /// Breaks (or mends) a dependency.
    pub async fn put_fault(&self, dependency: &str, fault: &str) {
        let path = format!("/dev/v1/faults/{dependency}");
        let answer = self.send(self.request(Method::PUT, &path).json(&json!({ "fault": fault }))).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
    }

    /// The one number that a query gives, from the database itself.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let statement: &'static foundation::db::Statement =
            Box::leak(Box::new(foundation::db::Statement { name: "COUNT", text: sql }));
        self.app.db.read_one(move |tx| tx.one::<(i64,)>(statement, &[])).await.unwrap().0
    }

    /// Forgets what counts against anybody: for a story that is about something else than limits.
    pub async fn forgive(&self) {
        self.sql("DELETE FROM password_guesses; DELETE FROM limits; DELETE FROM mails_asked; UPDATE devices SET failures = 0")
            .await;
    }

    /// Changes the database behind the server's back.
    pub async fn sql(&self, sql: &str) {
        self.app.db.batch(sql.to_owned()).await.unwrap();
    }
}

/// Waits until a server can do its work (`/health/ready`): a start waits for the database only so long, and a machine that
/// has much to do may take longer to make its tables. Then until it has its connections to PostgreSQL, each busy for a
/// moment so that the next has to be another: one takes longer to open there than a request waits for it. A story is about
/// something else.
async fn ready(app: &App) {
    static BUSY: foundation::db::Statement =
        foundation::db::Statement { name: "BUSY", text: "SELECT CAST(1 AS BIGINT) FROM pg_sleep(0.1)" };
    until("it can do its work", || async { app.access_tokens.published().is_some() && app.db.ready().await })
        .await;
    if app.settings.database_url.is_none() {
        return;
    }
    until("there are connections", || async {
        let all = (0..app.settings.database_connections)
            .map(|_| app.db.read_one(|tx| tx.one::<(i64,)>(&BUSY, &[])));
        together(all.collect()).await.iter().all(Result::is_ok)
    })
    .await;
}

/// A migrated database and a clock, without a server.
pub struct Bare {
    pub db: foundation::db::Db,
    pub clock: Clock,
    pub url: Option<String>,
    _dir: tempfile::TempDir,
    database: Option<PostgresDatabase>,
}

impl Bare {
    pub async fn open(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::prepared().await),
        };
        let url = database.as_ref().map(|d| d.url.clone());
        let bare = Self { db: Self::connect(url.as_deref(), dir.path()), clock, url, _dir: dir, database };
        bare.db.migrate(pearlgate::app::MIGRATIONS, START).await.unwrap();
        bare
    }

    fn connect(url: Option<&str>, dir: &std::path::Path) -> foundation::db::Db {
        match url {
            None => foundation::db::Db::sqlite(&dir.join("pearlgate.db"), true).unwrap(),
            Some(url) => postgres::connect(url),
        }
    }

    /// The database as another process has it: on SQLite, where there is none, the same one.
    pub async fn elsewhere(&self) -> foundation::db::Db {
        match &self.url {
            None => self.db.clone(),
            Some(url) => {
                let db = Self::connect(Some(url), self._dir.path());
                db.migrate(pearlgate::app::MIGRATIONS, START).await.unwrap();
                db
            }
        }
    }

    pub async fn close(self) {
        if let Some(database) = self.database {
            database.drop().await;
        }
    }
}

/// Longer than anything takes here, also beside much else; whoever waits this long waits in vain.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until it is so; a test that waits in vain fails.
pub async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let asking = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Writes a test once and runs it on both databases, without a server.
#[macro_export]
macro_rules! on_both {
    (async fn $name:ident($bare:ident: &Bare) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn story($bare: &$crate::support::Bare) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let bare = $crate::support::Bare::open($crate::support::Engine::Sqlite).await;
                story(&bare).await;
                bare.close().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let bare = $crate::support::Bare::open($crate::support::Engine::Postgres).await;
                story(&bare).await;
                bare.close().await;
            }
        }
    };
}

/// Waits for all of them at the same time; the answers come in the order in which they were ready.
pub async fn together<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

/// The form's body; the passwords here have nothing in them but letters, spaces and apostrophes.
pub fn filled(cookie: &str, password: &str) -> String {
    let token = foundation::kernel::Secret::new(cookie.split('=').nth(1).unwrap_or_default().to_owned());
    let link = data_encoding::HEXLOWER.encode(&token.digest().truncated::<16>());
    format!("link={link}&answer=me&password={}", password.replace(' ', "+").replace('\'', "%27"))
}
