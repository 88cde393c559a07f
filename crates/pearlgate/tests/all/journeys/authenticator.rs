//! An authenticator app that is not ours, oathtool, and what somebody does who has one.

use std::process::Command;
use std::time::Duration;

use foundation::kernel::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::steps::send_as;
use crate::support::{Answer, Engine, Person, TestApp, environment};

pub const STEP: Duration = Duration::from_secs(30);
pub const WRONG: &str = "401 mfa_code_invalid";
pub const PAUSED: &str = "429 too_many_attempts";
pub const OFF: &str = "423 account_locked";
pub const USED_UP: &str = "401 mfa_token_expired";
pub const NOT_FRESH: &str = "403 reauthentication_required";

/// The codes of a moment's step and of so many after it.
fn codes(secret: &str, from: Timestamp, more: usize) -> Vec<String> {
    let moment = format!("{} UTC", from.to_string()[..19].replace('T', " "));
    let mut oathtool = Command::new(environment("PEARLGATE_TEST_OATHTOOL"));
    oathtool.args(["--totp", "-b", secret, "--now", &moment, "-w", &more.to_string()]);
    let output = oathtool.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

pub fn code_at(secret: &str, at: Timestamp) -> String {
    codes(secret, at, 0).remove(0)
}

/// What somebody keeps who set up a factor.
pub struct Factor {
    pub secret: String,
    pub recovery: Vec<String>,
}

impl Factor {
    pub fn code(&self, app: &TestApp) -> String {
        code_at(&self.secret, app.clock.now())
    }

    /// Waits for the next code.
    pub fn next(&self, app: &TestApp) -> String {
        app.clock.advance(STEP);
        self.code(app)
    }

    /// A code that is wrong now, whatever the clock of a phone says.
    pub fn wrong(&self, app: &TestApp) -> String {
        let right = codes(&self.secret, app.clock.now() - STEP, 2);
        (0..4).map(|n| format!("00000{n}")).find(|code| !right.contains(code)).unwrap()
    }
}

pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Sets up an authenticator app; what was there is replaced.
pub async fn enrol(app: &TestApp, person: &Person) -> Factor {
    let begun = send_as(app, Method::POST, "/v1/me/mfa/totp", &person.access, json!({})).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let secret = begun.str("/secret");
    let code = json!({ "code": code_at(&secret, app.clock.now()) });
    let confirmed = send_as(app, Method::POST, "/v1/me/mfa/totp/confirm", &person.access, code).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text);
    Factor { secret, recovery: strings(&confirmed.json["recovery_codes"]) }
}

/// An answer that asks for a second factor; its `mfa_token`.
pub fn due(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.json["status"].as_str()),
        (200, Some("mfa_required")),
        "{}",
        answer.text
    );
    answer.str("/mfa_token")
}

/// Signs in by password, half of the way.
pub async fn half(app: &TestApp, email: &str, password: &str) -> String {
    due(&app.login(email, password).await)
}

pub async fn finish(app: &TestApp, token: &str, kind: &str, code: &str) -> Answer {
    app.post("/v1/auth/mfa", json!({ "mfa_token": token, "type": kind, "code": code })).await
}

/// Signs in all the way, with the next code.
pub async fn sign_in(app: &TestApp, email: &str, password: &str, factor: &Factor) -> Answer {
    let token = half(app, email, password).await;
    let entered = finish(app, &token, "totp", &factor.next(app)).await;
    assert_eq!(entered.status, 200, "{}", entered.text);
    entered
}

pub async fn reauthenticate(app: &TestApp, access: &str, body: Value) -> Answer {
    send_as(app, Method::POST, "/v1/me/reauthenticate", access, body).await
}

pub fn by_totp(code: &str) -> Value {
    json!({ "type": "totp", "code": code })
}

/// A role that may do nothing, as an import leaves it.
pub fn declared(engine: Engine, role: &str) -> String {
    let id = format!("{:032x}", role.bytes().fold(7_u128, |sum, byte| sum * 31 + u128::from(byte)));
    let id = if engine == Engine::Sqlite { format!("X'{id}'") } else { format!("'\\x{id}'") };
    format!(
        "INSERT INTO roles (id, name, description, level, created_at, changed_at) VALUES ({id}, '{role}', '', 0, 1, 1)
            ON CONFLICT (name) DO NOTHING"
    )
}

/// Gives somebody a role.
pub async fn grant(app: &TestApp, person: &Person, role: &str) {
    let user = format!("SELECT user_id FROM user_emails WHERE address = '{}'", person.email);
    let insert = "INSERT INTO user_roles (user_id, role, granted_at)";
    app.sql(&format!(
        "{}; {insert} SELECT user_id, '{role}', 1 FROM ({user}) AS u",
        declared(app.engine, role)
    ))
    .await;
}
