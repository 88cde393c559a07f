//! What people do: sign up, sign in, reset a password, come by way of a provider.

use std::sync::Arc;
use std::time::Duration;

use foundation::kernel::Clock;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::{Answer, Visitor};
use super::stage::{Stage, for_all};
use super::tally::{BOUND, Step, Stop, Tally};
use crate::cli::{Failure, progress};

pub(super) const PASSWORD: &str = "nine purple lanterns drift";
const OTHER_PASSWORD: &str = "twelve copper kettles sing";
/// A mail takes no longer while nothing is in its way.
const MAIL: Duration = Duration::from_secs(10);
const NO_MAIL: &str = "a mail that nothing was in the way of had not come after 10 s";
/// The kinds of the two mails.
const SIGN_UP: &str = "verify_email";
const RESET: &str = "password_reset";
/// How often the mailbox is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// People of a server that runs already who register at a time.
const AT_ONCE: u32 = 8;

/// What a session is used with.
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
    /// How long the access token is good.
    pub(super) good_for: Duration,
}

impl Tokens {
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        Some(Self {
            access: answer.at("/access_token")?.to_owned(),
            refresh: answer.at("/refresh_token")?.to_owned(),
            good_for: Duration::from_secs(answer.number_at("/expires_in")?),
        })
    }
}

impl Visitor {
    /// Gives the id of what has to be verified.
    pub(super) async fn register(&self, email: &str) -> Step<String> {
        let body = json!({ "email": email, "password": PASSWORD });
        let answer = self.ask("register", self.post("/v1/auth/register", &body), 202).await?;
        self.part("register", answer.at("/verification_id").map(str::to_owned))
    }

    async fn verify(&self, id: &str, code: &str) -> Step<Tokens> {
        let body = json!({ "verification_id": id, "code": code });
        let answer = self.ask("verify", self.post("/v1/auth/verify-email", &body), 200).await?;
        self.part("verify", Tokens::of(&answer))
    }

    pub(super) async fn login(&self, email: &str, password: &str) -> Step<Tokens> {
        let answer = self.ask("log in", self.login_request(email, password), 200).await?;
        self.part("log in", Tokens::of(&answer))
    }

    pub(super) fn login_request(&self, email: &str, password: &str) -> RequestBuilder {
        self.post("/v1/auth/login", &json!({ "email": email, "password": password }))
    }

    pub(super) async fn forgot(&self, email: &str) -> Step<()> {
        let request = self.post("/v1/auth/forgot-password", &json!({ "email": email }));
        self.ask("ask for a reset", request, 202).await.map(drop)
    }

    async fn reset(&self, email: &str, code: &str) -> Step<()> {
        let body = json!({ "email": email, "code": code, "password": OTHER_PASSWORD });
        self.ask("reset", self.post("/v1/auth/reset-password", &body), 200).await.map(drop)
    }

    /// Reads something of one's own.
    pub(super) async fn look(&self, path: &str, tokens: &Tokens) -> Step<()> {
        self.ask(path, self.get(path).bearer_auth(&tokens.access), 200).await.map(drop)
    }

    pub(super) async fn refresh(&self, tokens: &Tokens) -> Step<Tokens> {
        let request = self.post("/v1/auth/refresh", &json!({ "refresh_token": tokens.refresh }));
        let answer = self.ask("refresh", request, 200).await?;
        self.part("refresh", Tokens::of(&answer))
    }

    /// Uses a session, and ends it.
    async fn stay(&self, tokens: Tokens) -> Step<()> {
        self.look("/v1/me", &tokens).await?;
        let tokens = self.refresh(&tokens).await?;
        let request = self.post("/v1/auth/logout", &json!({ "refresh_token": tokens.refresh }));
        self.ask("log out", request, 204).await.map(drop)
    }

    /// Signs in at the pretend provider: its page, its form, back, and the code for tokens.
    async fn provider(&self) -> Step<Tokens> {
        let start = self.get("/v1/auth/oauth/dev/start?return_to=/");
        let page = self.ask("begin at dev", start, 200).await?;
        let field = page.text.split_once("name=\"state\" value=\"");
        let state = field.and_then(|(_, rest)| rest.split_once('"'));
        let (state, _) = self.part("begin at dev", state)?;
        let form = self
            .client
            .request(Method::POST, "/v1/auth/oauth/dev/callback")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", &page.cookie)
            .body(format!("state={state}&code=verified"));
        let back = self.ask("come back from dev", form, 303).await?;
        let code = back.location.split_once("code=").map(|(_, code)| code);
        let code = self.part("come back from dev", code)?;
        let exchange = self.post("/v1/auth/oauth/exchange", &json!({ "code": code }));
        let answer = self.ask("exchange", exchange.header("cookie", &page.cookie), 200).await?;
        self.part("exchange", Tokens::of(&answer))
    }

    /// The id and the code of the newest mail of a kind. The mailbox is dev mode's, so it is not counted.
    async fn newest(&self, email: &str, kind: &str) -> Option<(String, String)> {
        let path = format!("/dev/v1/messages?to={email}&kind={kind}");
        let answer = self.send(self.get(&path)).await.ok()?;
        Some((answer.at("/items/0/id")?.to_owned(), answer.at("/items/0/code")?.to_owned()))
    }

    /// The code of a mail that comes, another one than `before`.
    async fn code(&self, email: &str, kind: &str, before: &str, within: Duration) -> Step<String> {
        let since = Clock::stopwatch();
        loop {
            match self.newest(email, kind).await {
                Some((id, code)) if id != before => return Ok(code),
                _ if since.elapsed() >= within => return Err(Stop::Waiting),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Signs up where nothing is in the mail's way.
    pub(super) async fn sign_up(&self, email: &str) -> Step<Tokens> {
        let id = self.register(email).await?;
        let code = self.code(email, SIGN_UP, "", MAIL).await.map_err(|_| self.tally.fail(NO_MAIL))?;
        self.verify(&id, &code).await
    }

    /// What an answer with the right status has to have.
    fn part<T>(&self, what: &str, found: Option<T>) -> Step<T> {
        found.ok_or_else(|| self.tally.fail(&format!("{what}: an answer that lacks something")))
    }
}

/// Something that people do from beginning to end.
#[derive(Clone, Copy)]
pub(super) enum Flow {
    SignUp,
    Login,
    Reset,
    Provider,
}

/// Something that was asked for and waits for its mail.
pub(super) struct Errand {
    visitor: Visitor,
    email: String,
    asked: Asked,
}

enum Asked {
    /// With what has to be verified.
    SignUp(String),
    /// With the newest such mail of before.
    Reset(String),
}

/// Begins a flow; one without a mail is done then.
pub(super) async fn begin(flow: Flow, stage: Arc<Stage>, tally: Arc<Tally>) -> Step<Option<Errand>> {
    let visitor = stage.visitor(&tally);
    match flow {
        Flow::SignUp => {
            let email = stage.cast.newcomer();
            let asked = Asked::SignUp(visitor.register(&email).await?);
            Ok(Some(Errand { visitor, email, asked }))
        }
        Flow::Reset => {
            let email = stage.cast.helper();
            let before = visitor.newest(&email, RESET).await.map(|(id, _)| id).unwrap_or_default();
            visitor.forgot(&email).await?;
            Ok(Some(Errand { visitor, email, asked: Asked::Reset(before) }))
        }
        Flow::Login => {
            let tokens = visitor.login(&stage.cast.known(), PASSWORD).await?;
            visitor.stay(tokens).await.map(|()| None)
        }
        Flow::Provider => {
            let tokens = visitor.provider().await?;
            visitor.stay(tokens).await.map(|()| None)
        }
    }
}

impl Errand {
    /// Goes on with the mail's code, when it comes within this time.
    async fn finish(&self, within: Duration) -> Step<()> {
        let Self { visitor, email, asked } = self;
        match asked {
            Asked::SignUp(id) => {
                let code = visitor.code(email, SIGN_UP, "", within).await?;
                let tokens = visitor.verify(id, &code).await?;
                visitor.stay(tokens).await
            }
            Asked::Reset(before) => {
                let code = visitor.code(email, RESET, before, within).await?;
                visitor.reset(email, &code).await?;
                visitor.login(email, OTHER_PASSWORD).await.map(drop)
            }
        }
    }
}

/// Finishes what it can, and gives back what waits for its mail still.
pub(super) async fn finish(errands: Vec<Errand>, within: Duration) -> Vec<Errand> {
    let mut going = JoinSet::new();
    for errand in errands {
        going.spawn(async move { (errand.finish(within).await, errand) });
    }
    let mut waiting = Vec::new();
    while let Some(done) = going.join_next().await {
        if let Ok((Err(Stop::Waiting), errand)) = done {
            waiting.push(errand);
        }
    }
    waiting
}

/// The same where nothing is in the mails' way.
pub(super) async fn finish_now(errands: Vec<Errand>, tally: &Tally) {
    for _late in finish(errands, MAIL).await {
        tally.fail(NO_MAIL);
    }
}

/// Registers everybody for real, on a server that runs already.
pub(super) async fn register_everybody(stage: &Arc<Stage>) -> Result<(), Failure> {
    let everybody = stage.cast.everybody();
    let bar = progress::count("").with_message(format!("of {everybody} people registered"));
    let (inner, moving) = (stage.clone(), bar.clone());
    let done = for_all(everybody, AT_ONCE, move |number| {
        let (stage, bar, tally) = (inner.clone(), moving.clone(), Arc::new(Tally::new(BOUND, None)));
        async move {
            // Whatever comes of it is noted.
            let _ = stage.at(number, &tally).sign_up(&stage.cast.person(number)).await;
            bar.inc(1);
            sound(&tally)
        }
    });
    let done = done.await;
    bar.finish_and_clear();
    done.map(drop)
}

/// Whether everything works that is to be looked at when something is broken.
pub(super) async fn rehearse(stage: &Arc<Stage>) -> Result<(), Failure> {
    let tally = Arc::new(Tally::new(BOUND, None));
    for flow in [Flow::SignUp, Flow::Login, Flow::Reset, Flow::Provider] {
        let errand = begin(flow, stage.clone(), tally.clone()).await.ok().flatten();
        finish_now(errand.into_iter().collect(), &tally).await;
    }
    sound(&tally)
}

fn sound(tally: &Tally) -> Result<(), Failure> {
    let reasons = tally.counts().reasons();
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Failure::Other(format!("before anything was broken: {}", reasons.join("; "))))
}
