//! What strangers learn of an account by asking for it: nothing. One table of everything that can be true of an address
//! and of every door that takes one: all answers of a door are one answer, and the request makes the database do one
//! thing. How long it takes is for `cargo xtask bench --timing` to say.
//!
//! A later issue that adds a state or a door adds its row here: invitations (an address that was invited is a state,
//! asking for one is a door) come with theirs.

use foundation::db::Statement;
use foundation::kernel::{Secret, sha256};
use serde_json::{Value, json};

use super::guessing::{LOCKED, WRONG};
use super::mailed::{DEAD, NEW, RESET_DEAD, blob, consume, forgot, link_token, magic, mailed, register};
use super::support::{OTHER, post};
use crate::both_with;
use crate::support::browser::Browser;
use crate::support::{Answer, PASSWORD, TestApp};

/// One password is tried with everybody here, from one place: there is no alarm about it.
const CALM: &str =
    "[alarms]\nat_least = 1000000\naccounts_per_network = 1000000\naccounts_per_password = 1000000\n";
const TOLD: &str = "202 -";
const INVALID: &str = "422 validation_failed";
const REFUSED: &str = "401 token_invalid";
const LOGIN: &str = "/v1/auth/login";
const REGISTER: &str = "/v1/auth/register";
const RESEND: &str = "/v1/auth/resend-verification";
const FORGOT: &str = "/v1/auth/forgot-password";
const MAGIC: &str = "/v1/auth/magic-link";
const COMPLETE: &str = "/v1/auth/oauth/complete";
const RESET: &str = "/v1/auth/reset-password";
const GUESS: &str = "not the right one";
/// With this one a lock begins.
const TRIES: usize = 5;
/// bcrypt, cost 4, of the tests' password; made with crypt(3).
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuufP0QE2gFf2dxRq0RzbuhyFmV4rE/Izy";

/// What can be true of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Nobody,
    /// Nobody any more.
    Deleted,
    /// Registered; the mail was not opened.
    Unproven,
    /// The same, with an identity of a provider in the place of a password.
    Pending,
    Proven,
    /// Proven by a magic link: there is no password.
    Passwordless,
    /// Made by somebody else's word for them: there is no password.
    Social,
    /// With another system's hash.
    Imported,
    /// Nobody could be asked about the password so far.
    Unchecked,
    /// The password has to be changed.
    Demanded,
    /// With a second factor.
    Factor,
    /// With a passkey.
    Keyed,
    Suspended,
    /// Its mailbox has had as many mails as an hour has.
    Capped,
    Locked,
    /// After as many wrong passwords for an address that nobody has.
    LockedNobody,
}

use State::{
    Capped, Deleted, Demanded, Factor, Imported, Keyed, Locked, LockedNobody, Nobody, Passwordless, Pending,
    Proven, Social, Suspended, Unchecked, Unproven,
};

const STATES: [State; 16] = [
    Nobody,
    Deleted,
    Unproven,
    Pending,
    Proven,
    Passwordless,
    Social,
    Imported,
    Unchecked,
    Demanded,
    Factor,
    Keyed,
    Suspended,
    Capped,
    Locked,
    LockedNobody,
];

impl State {
    /// The address at a door of which this is true.
    fn at(self, door: &str) -> String {
        format!("{self:?}@{door}.test").to_lowercase()
    }

    fn is_locked(self) -> bool {
        matches!(self, Locked | LockedNobody)
    }

    /// Whether there is an account that the mailbox's owner can be mailed about.
    fn is_mailed(self) -> bool {
        !matches!(self, Nobody | Deleted | LockedNobody | Capped)
    }

    /// Makes it true of an address.
    async fn come_true(self, app: &TestApp, email: &str) {
        let set = |values: &str| format!("{values} FROM user_emails WHERE address_key = '{email}'");
        match self {
            Nobody => {}
            Unproven => {
                register(app, email, PASSWORD).await;
            }
            Pending => {
                let completed =
                    post(app, COMPLETE, &completion(&Browser::new(app).completion().await, email)).await;
                assert_eq!(completed.refusal(), TOLD, "{}", completed.text);
                mailed(app, email, "verify_email", 1).await;
            }
            Passwordless => {
                register(app, email, OTHER).await;
                let (_, mail) = magic(app, email, 1).await;
                let signed_in = consume(app, json!({ "token": link_token(&mail) })).await;
                assert_eq!(signed_in.status, 200, "{}", signed_in.text);
            }
            Social => {
                let id = blob(app, &sha256(email.as_bytes()).truncated::<16>());
                app.sql(&format!(
                    "INSERT INTO users (id, display_name, locale, metadata, created_at) VALUES ({id}, 'Ada', '', '{{}}', 1);
                    INSERT INTO user_emails (user_id, address, address_key) VALUES ({id}, '{email}', '{email}');
                    INSERT INTO verified_emails (user_id, verified_at) VALUES ({id}, 1);
                    INSERT INTO federated_identities (provider, subject, user_id, linked_at) VALUES ('google', '{email}', {id}, 1)"
                ))
                .await;
            }
            LockedNobody => wrong_ones(app, email).await,
            _ => {
                app.person(email).await;
            }
        }
        let sql = match self {
            Deleted => {
                format!("DELETE FROM users WHERE id IN ({})", set("SELECT user_id"))
            }
            Imported => format!(
                "UPDATE password_credentials SET password_hash = '{BCRYPT}' WHERE user_id IN ({}); {}",
                set("SELECT user_id"),
                set("INSERT INTO foreign_hashes (user_id, scheme) SELECT user_id, 'bcrypt:4'")
            ),
            Unchecked => set("INSERT INTO pending_breach_checks (user_id, since) SELECT user_id, 1"),
            Demanded => set(
                "INSERT INTO password_change_demands (user_id, reason, demanded_at) SELECT user_id, 'test', 1",
            ),
            Factor => {
                let sealed = blob(app, &[7; 40]);
                set(&format!(
                    "INSERT INTO totp_factors (user_id, sealed, last_step, confirmed_at) SELECT user_id, {sealed}, 0, 0"
                ))
            }
            Keyed => {
                let (id, key) = (sha256(b"id").truncated::<8>(), sha256(email.as_bytes()));
                let id = blob(app, &[id, key.truncated::<8>()].concat());
                let (key, none) = (blob(app, key.as_bytes()), blob(app, &[0]));
                set(&format!(
                    "INSERT INTO passkeys (id, user_id, credential_id, public_key, sign_count, backup_eligible, backed_up, transports,
                        name, created_at, last_used_at) SELECT {id}, user_id, {key}, {none}, 0, 0, 0, '', '', 1, 0"
                ))
            }
            Suspended => {
                set("INSERT INTO suspensions (user_id, reason, suspended_at) SELECT user_id, 'test', 1")
            }
            _ => String::new(),
        };
        if !sql.is_empty() {
            app.sql(&sql).await;
        }
        match self {
            Imported => pearlgate::passwords::learn_foreign(&app.app).await.unwrap(),
            Locked => wrong_ones(app, email).await,
            Capped => {
                for n in 1..3 {
                    magic(app, email, n).await;
                    forgot(app, email, n).await;
                }
            }
            _ => {}
        }
        app.quiet().await;
    }
}

/// As many as lock strangers out.
async fn wrong_ones(app: &TestApp, email: &str) {
    for n in 0..TRIES {
        assert_eq!(try_password(app, email, &format!("guess {n}")).await.refusal(), WRONG);
    }
}

async fn try_password(app: &TestApp, email: &str, password: &str) -> Answer {
    post(app, LOGIN, &json!({ "email": email, "password": password })).await
}

/// What completes a sign-in at a provider that said too little.
fn completion(token: &str, email: &str) -> Value {
    json!({ "completion_token": token, "email": email, "display_name": "Mallory" })
}

/// A way to ask about an address.
struct Door {
    /// In its people's addresses, too.
    name: &'static str,
    path: &'static str,
    /// What everybody is asked for before, which may leave something at the address to be asked about.
    before: Option<&'static str>,
    /// The request for an address, with the id that was answered before.
    body: fn(&str, &str) -> Value,
    /// How everybody is answered who is not locked.
    answer: &'static str,
    /// Which mail arrives, if any.
    mail: fn(State) -> &'static str,
}

fn none(_: State) -> &'static str {
    ""
}

/// Signing in with a wrong password.
const SIGN_INS: [Door; 3] = [
    Door {
        name: "login",
        path: LOGIN,
        before: None,
        body: |email, _| json!({ "email": email, "password": GUESS }),
        answer: WRONG,
        mail: none,
    },
    Door {
        name: "browser",
        path: LOGIN,
        before: None,
        body: |email, _| json!({ "email": email.to_uppercase(), "password": "", "transport": "cookie" }),
        answer: WRONG,
        mail: none,
    },
    Door {
        name: "device",
        path: LOGIN,
        before: None,
        body: |email, _| {
            let nobodys = Secret::encode("pgd_", &[7; 32]);
            json!({ "email": email, "password": GUESS, "device_name": "laptop", "device_token": nobodys.reveal() })
        },
        answer: WRONG,
        mail: none,
    },
];

/// Everything else that takes an address, or an id that was given for one.
const DOORS: [Door; 11] = [
    Door {
        name: "passkey",
        path: "/v1/auth/passkey/start",
        before: None,
        body: |email, _| json!({ "email": email }),
        answer: "200 -",
        mail: none,
    },
    Door {
        name: "register",
        path: REGISTER,
        before: None,
        body: |email, _| json!({ "email": email, "password": OTHER, "display_name": "Mallory" }),
        answer: TOLD,
        mail: |state| match state {
            Nobody | Deleted | LockedNobody | Unproven | Pending => "verify_email",
            Capped => "",
            _ => "already_registered",
        },
    },
    Door {
        name: "complete",
        path: COMPLETE,
        before: None,
        body: |email, token| completion(token, email),
        answer: TOLD,
        mail: |state| match state {
            Nobody | Deleted | LockedNobody | Unproven | Pending => "verify_email",
            Capped => "",
            _ => "already_registered",
        },
    },
    Door {
        name: "resend",
        path: RESEND,
        before: None,
        body: |email, _| json!({ "email": email }),
        answer: TOLD,
        mail: |state| if matches!(state, Unproven | Pending) { "verify_email" } else { "" },
    },
    Door {
        name: "forgot",
        path: FORGOT,
        before: None,
        body: |email, _| json!({ "email": email }),
        answer: TOLD,
        mail: |state| if state.is_mailed() { "password_reset" } else { "" },
    },
    Door {
        name: "magic",
        path: MAGIC,
        before: None,
        body: |email, _| json!({ "email": email }),
        answer: TOLD,
        mail: |state| if state.is_mailed() { "magic_link" } else { "" },
    },
    Door {
        name: "reset",
        path: RESET,
        before: None,
        body: |email, _| json!({ "email": email, "code": "000000", "password": NEW }),
        answer: RESET_DEAD,
        mail: none,
    },
    Door {
        name: "asked-reset",
        path: RESET,
        before: Some(FORGOT),
        body: |email, _| json!({ "email": email, "code": "000000", "password": NEW }),
        answer: RESET_DEAD,
        mail: none,
    },
    Door {
        name: "short-reset",
        path: RESET,
        before: Some(FORGOT),
        body: |email, _| json!({ "email": email, "code": "000000", "password": "short" }),
        answer: RESET_DEAD,
        mail: none,
    },
    Door {
        name: "consume",
        path: "/v1/auth/magic-link/consume",
        before: Some(MAGIC),
        body: |_, id| json!({ "magic_link_id": id, "code": "000000" }),
        answer: DEAD,
        mail: none,
    },
    Door {
        name: "verify",
        path: "/v1/auth/verify-email",
        before: Some(REGISTER),
        body: |_, id| json!({ "verification_id": id, "code": "000000" }),
        answer: DEAD,
        mail: none,
    },
];

/// Everything in an answer but what is another in each: its ids, the time, how much of a limit is left.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    status: u16,
    headers: Vec<String>,
    body: String,
    length: usize,
}

fn heard(answer: &Answer) -> Heard {
    let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        let value = value.to_str().unwrap();
        match name.as_str() {
            "date" | "x-request-id" => name.to_string(),
            "ratelimit" => format!("{name}: {}", value.replace(|c: char| c.is_ascii_digit(), "")),
            "set-cookie" => format!("{name}: {}", value.split('=').next().unwrap()),
            _ => format!("{name}: {value}"),
        }
    };
    let mut headers: Vec<String> = answer.headers.iter().map(header).collect();
    headers.sort();
    let mut body = answer.text.clone();
    // What is another in each, and as long in each: ids, and what a passkey is asked.
    let other = ["/request_id", "/verification_id", "/magic_link_id", "/challenge_id", "/options/challenge"];
    for id in other.into_iter().chain(["/options/allowCredentials/0/id"]) {
        if let Some(id) = answer.json.pointer(id).and_then(Value::as_str) {
            body = body.replace(id, "");
        }
    }
    Heard { status: answer.status, headers, body, length: answer.text.len() }
}

/// The statements of each transaction, in order.
type Work = Vec<Vec<&'static str>>;

/// What the request itself did: not what a network's limit is where it is in the database, not what the server does by
/// itself, and nothing of a job that it left behind, which is nobody's to measure.
fn work(app: &TestApp) -> Work {
    let own = ["NEXT_LANE", "KEYS", "TAKE", "COUNT"];
    let by_itself = |one: &Vec<&str>| !one.is_empty() && one.iter().all(|name| own.contains(name));
    // Sign-ins are written down later, several at a time.
    let later = |one: &Vec<&str>| !one.is_empty() && one.iter().all(|name| *name == "NOTE");
    let all = app.app.db.observed().into_iter().take_while(|one| !one.contains(&"CLAIM"));
    all.filter(|one| !by_itself(one) && !later(one)).collect()
}

/// Sends one request while nothing else goes on.
async fn send(app: &TestApp, path: &str, body: &Value) -> (Answer, Work) {
    app.quiet().await;
    app.app.db.observed();
    let answer = post(app, path, body).await;
    (answer, work(app))
}

/// The kinds of all mails to an address, the newest first.
fn mails(app: &TestApp, email: &str) -> Vec<String> {
    let all = app.app.mailbox.as_ref().unwrap().list(Some(email), None);
    all.into_iter().map(|mail| mail.kind).collect()
}

/// What a door tells of each state, and does about it. Everything that is not alike is told together.
struct Compared {
    what: String,
    first: Option<(Heard, Work)>,
    wrong: Vec<String>,
}

impl Compared {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), first: None, wrong: Vec::new() }
    }

    fn add(&mut self, state: State, answer: &Answer, expected: &str, work: Work) {
        let what = &self.what;
        if answer.refusal() != expected {
            self.wrong.push(format!("{what}, {state:?}: {}", answer.text));
        }
        let this = (heard(answer), work);
        match &self.first {
            None => self.first = Some(this),
            Some((heard, work)) => {
                if *heard != this.0 {
                    self.wrong
                        .push(format!("{what}, {state:?} is answered\n  {:?}\nand not\n  {heard:?}", this.0));
                }
                if *work != this.1 {
                    self.wrong.push(format!("{what}, {state:?} does\n  {:?}\nand not\n  {work:?}", this.1));
                }
            }
        }
    }

    /// What was not alike; and that nothing was seen to be done, which compares nothing.
    fn wrong(self) -> Vec<String> {
        let Self { what, first, mut wrong } = self;
        if first.is_none_or(|(_, work)| work.is_empty()) {
            wrong.push(format!("{what}: nothing was observed"));
        }
        wrong
    }
}

/// Knocks at a door in every state.
async fn knock(app: &TestApp, door: &Door) -> Vec<String> {
    app.app.db.observe();
    let mut open = Compared::new(door.name);
    let mut locked = Compared::new(format!("{}, locked", door.name));
    let mut wrong = Vec::new();
    for state in STATES {
        let email = state.at(door.name);
        state.come_true(app, &email).await;
        let mut id = if door.path == COMPLETE { Browser::new(app).completion().await } else { String::new() };
        if let Some(path) = door.before {
            let body = if path == REGISTER {
                json!({ "email": email, "password": OTHER })
            } else {
                json!({ "email": email })
            };
            let asked = post(app, path, &body).await;
            assert_eq!(asked.refusal(), TOLD, "{}: {state:?}", door.name);
            let given =
                ["verification_id", "magic_link_id"].into_iter().find_map(|id| asked.json[id].as_str());
            id = given.unwrap_or_default().to_owned();
            app.quiet().await;
        }
        let before = mails(app, &email).len();
        let (answer, work) = send(app, door.path, &(door.body)(&email, &id)).await;
        let (group, expected) = match door.path {
            LOGIN if state.is_locked() => (&mut locked, LOCKED),
            _ => (&mut open, door.answer),
        };
        group.add(state, &answer, expected, work);
        app.quiet().await;
        let mut arrived = mails(app, &email);
        arrived.truncate(arrived.len() - before);
        let told: Vec<&str> = Some((door.mail)(state)).into_iter().filter(|kind| !kind.is_empty()).collect();
        if arrived != told {
            wrong.push(format!("{}, {state:?} is mailed {arrived:?} and not {told:?}", door.name));
        }
    }
    wrong.extend(open.wrong());
    if door.path == LOGIN {
        wrong.extend(locked.wrong());
    }
    wrong
}

async fn all_alike(app: &TestApp, doors: &[Door]) {
    let mut wrong = Vec::new();
    for door in doors {
        wrong.extend(knock(app, door).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the right password is told in each state; of a password that there is not, the one that was right once, or is
/// everybody else's.
fn truth(state: State) -> &'static str {
    match state {
        Proven | Imported | Unchecked | Capped => "200 -",
        Unproven => "403 email_not_verified",
        Suspended => "403 account_suspended",
        Factor | Keyed => "200 mfa_required",
        Demanded => INVALID,
        Locked | LockedNobody => LOCKED,
        Nobody | Deleted | Passwordless | Pending | Social => WRONG,
    }
}

both_with! { true, CALM;
    async fn a06_cve_2025_69413_a_refused_sign_in_says_nothing(app: &TestApp) {
        all_alike(app, &SIGN_INS).await;

        // What is true is told after the right password; the next wrong one is told nothing.
        let mut wrong = Compared::new("a wrong one after it");
        for state in STATES {
            let email = state.at("right");
            state.come_true(app, &email).await;
            let right = try_password(app, &email, PASSWORD).await;
            assert_eq!(right.refusal(), truth(state), "{state:?}: {}", right.text);
            if state == Demanded {
                assert_eq!(right.fields(), ["password:password_breached"]);
            }
            if !state.is_locked() {
                let (answer, work) = send(app, LOGIN, &json!({ "email": email, "password": GUESS })).await;
                wrong.add(state, &answer, WRONG, work);
            }
        }
        let wrong = wrong.wrong();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));

        // Fields come first: who is refused for one is refused alike, and nothing is looked for, hashed or counted.
        let guesses = "SELECT CAST(COALESCE(SUM(strangers * 1000 + in_a_row), 0) AS BIGINT) FROM password_guesses";
        let counted = app.count(guesses).await;
        let mut first: Vec<Heard> = Vec::new();
        for state in STATES {
            // Those of a moment ago: what was true of them is true still.
            let email = state.at("right");
            let bodies = [
                json!({ "email": email, "password": "x".repeat(1_025) }),
                json!({ "email": email, "password": PASSWORD, "device_name": "x".repeat(101) }),
                json!({ "email": email, "password": PASSWORD, "transport": "pigeon" }),
                json!({ "email": email, "password": PASSWORD, "remember": true }),
                json!({ "email": email, "password": 5 }),
                json!({ "email": email }),
                json!({ "email": format!("{email} "), "password": PASSWORD }),
            ];
            for (n, body) in bodies.iter().enumerate() {
                let (answer, work) = send(app, LOGIN, body).await;
                assert_eq!((answer.refusal().as_str(), work), (INVALID, Work::new()), "{state:?}: {}", answer.text);
                match first.get(n) {
                    None => first.push(heard(&answer)),
                    Some(first) => assert_eq!(heard(&answer), *first, "{state:?}"),
                }
            }
        }
        assert_eq!(app.count(guesses).await, counted);
    }
}

static HASHES: Statement = Statement {
    name: "HASHES",
    text: "SELECT password_hash FROM password_credentials UNION ALL SELECT password_hash FROM email_verification_tokens WHERE password_hash <> ''",
};

both_with! { true, CALM;
    async fn a07_cve_2024_39329_a_refusal_is_as_much_work_whosever_it_is(app: &TestApp) {
        app.app.db.observe();
        let those: Vec<State> = STATES.into_iter().filter(|state| !state.is_locked()).collect();
        for state in &those {
            state.come_true(app, &state.at("work")).await;
        }
        // Each of them, up to the one with which the lock begins, and beyond it.
        let mut wrong = Vec::new();
        for nth in 1..=TRIES + 2 {
            let mut alike = Compared::new(format!("wrong password {nth}"));
            for state in &those {
                let (answer, work) = send(app, LOGIN, &json!({ "email": state.at("work"), "password": GUESS })).await;
                alike.add(*state, &answer, if nth <= TRIES { WRONG } else { LOCKED }, work);
            }
            wrong.extend(alike.wrong());
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // And the hash: nobody's costs what everybody's costs who has one of ours; for those with another system's all
        // refusals are held back.
        let nobodys = app.app.hashes.work(None);
        let stored: Vec<(String,)> = app.app.db.read_one(|tx| tx.all(&HASHES, &[])).await.unwrap();
        let works: Vec<String> = stored.iter().map(|(hash,)| app.app.hashes.work(Some(hash))).collect();
        let (others, ours): (Vec<&String>, Vec<&String>) = works.iter().partition(|work| work.starts_with("bcrypt"));
        assert_eq!(others, ["bcrypt:4"]);
        assert_eq!(ours, [&nobodys; 8], "nobody's is {nobodys}");
        assert!(!app.app.hashes.held_back().is_zero());
        // In microseconds, idle and under load: `cargo xtask bench --timing`.
    }
}

both_with! { true, CALM;
    async fn a08_cve_2022_39307_asking_says_nothing(app: &TestApp) {
        all_alike(app, &DOORS).await;
    }
}

both_with! { true, CALM;
    async fn a_token_of_nobodys_says_nothing(app: &TestApp) {
        app.app.db.observe();
        // Refreshing: what is not a token of ours, of this kind, as it was given, is looked up nowhere.
        let ada = app.person("ada@ex.test").await;
        let signed_in = app.login(&ada.email, PASSWORD).await;
        let (id, mail) = magic(app, &ada.email, 1).await;
        let mut forged = ada.refresh.clone();
        forged.replace_range(10..11, if &ada.refresh[10..11] == "A" { "B" } else { "A" });
        let nobodys = Secret::encode("pgr_", &[7; 64]).reveal().to_owned();
        let others = [ada.access.clone(), signed_in.str("/device_token"), link_token(&mail), id, ada.id.clone(), ada.session.clone()];
        let garbage = ["", "pgr_", "nonsense", "null", ada.email.as_str()].map(str::to_owned);
        let mut first = None;
        for token in [nobodys, forged, ada.refresh.to_uppercase()].into_iter().chain(others).chain(garbage) {
            let (answer, work) = send(app, "/v1/auth/refresh", &json!({ "refresh_token": token })).await;
            assert_eq!((answer.refusal().as_str(), work), (REFUSED, Work::new()), "{token}: {}", answer.text);
            let this = heard(&answer);
            assert_eq!(this, *first.get_or_insert_with(|| heard(&answer)), "{token}");
        }
        assert_eq!(app.refresh(&ada.refresh).await.status, 200, "the trap: hers is one");

        // Unlocking: one that was used, one that is too old, and one that nobody ever had, of the same form.
        wrong_ones(app, &ada.email).await;
        let used = link_token(&mailed(app, &ada.email, "account_locked", 1).await);
        assert_eq!(post(app, "/v1/auth/unlock", &json!({ "token": used })).await.status, 200);
        wrong_ones(app, &ada.email).await;
        let old = link_token(&mailed(app, &ada.email, "account_locked", 2).await);
        app.sql("UPDATE unlock_tokens SET expires_at = 1").await;
        let nobodys = Secret::encode("pgu_", &[7; 32]).reveal().to_owned();
        let mut first = None;
        for token in [nobodys, used, old] {
            let (answer, work) = send(app, "/v1/auth/unlock", &json!({ "token": token })).await;
            assert_eq!(answer.refusal(), DEAD, "{}", answer.text);
            assert_eq!(work, [["BY_LINK"]]);
            let this = heard(&answer);
            assert_eq!(this, *first.get_or_insert_with(|| heard(&answer)));
        }
        // What does not look like one is answered like one, and looked up nowhere.
        let dead = first.unwrap();
        for garbage in ["", "pgu_", "nonsense", ada.refresh.as_str(), ada.access.as_str()] {
            let (answer, work) = send(app, "/v1/auth/unlock", &json!({ "token": garbage })).await;
            assert_eq!(heard(&answer), dead, "{garbage}");
            assert_eq!(work, Work::new(), "{garbage}");
        }
    }
}
