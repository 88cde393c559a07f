//! Who plays, on which server, and dev mode's levers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use foundation::kernel::Entropy;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Answer, Client, Visitor};
use super::receiver::Receiver;
use super::tally::Tally;
use crate::cli::Failure;

/// Everybody whom the drill plays: people who are signed in, and helpers, who forget their passwords.
pub(super) struct Cast {
    /// In every address, so that one drill on a server does not meet another's people.
    run: String,
    pub(super) people: u32,
    helpers: u32,
    turns: AtomicU32,
    resets: AtomicU32,
}

impl Cast {
    pub(super) fn new(people: u32, helpers: u32) -> Self {
        let run = HEXLOWER.encode(&Entropy::System.bytes::<4>());
        Self { run, people, helpers, turns: AtomicU32::new(0), resets: AtomicU32::new(0) }
    }

    /// How many have an account before the drill begins.
    pub(super) fn everybody(&self) -> u32 {
        self.people + self.helpers
    }

    /// The address of one of them; the people come first.
    pub(super) fn person(&self, number: u32) -> String {
        format!("drill-{}-{number}@example.com", self.run)
    }

    /// One of the people, another one each time.
    pub(super) fn known(&self) -> String {
        self.person(self.turn() % self.people.max(1))
    }

    /// One of the helpers, another one each time: a mailbox gets few resets an hour.
    pub(super) fn helper(&self) -> String {
        self.person(self.people + self.resets.fetch_add(1, Ordering::Relaxed) % self.helpers.max(1))
    }

    /// Somebody who has no account yet.
    pub(super) fn newcomer(&self) -> String {
        format!("drill-{}-new-{}@example.com", self.run, self.turn())
    }

    fn turn(&self) -> u32 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

/// A server, and who plays there.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) cast: Cast,
    /// Who is told what happens there; nobody that we know of, at a server that is not ours.
    pub(super) receiver: Option<Receiver>,
}

impl Stage {
    /// How much of it has been told.
    pub(super) fn told(&self) -> u64 {
        self.receiver.as_ref().map_or(0, Receiver::told)
    }

    /// Somebody whom the server has not seen yet.
    pub(super) fn visitor(&self, tally: &Arc<Tally>) -> Visitor {
        self.at(self.cast.everybody() + self.cast.turn(), tally)
    }

    /// Whoever lives at this number: a network of the range that is for examples (RFC 3849).
    pub(super) fn at(&self, number: u32, tally: &Arc<Tally>) -> Visitor {
        let from = format!("2001:db8:{:x}:{:x}::1", number >> 16, number & 0xffff);
        Visitor { client: self.client.clone(), tally: tally.clone(), from, late: Duration::ZERO }
    }
}

impl Client {
    /// Refuses a server that is not in dev mode, before anything is done to it.
    pub(super) async fn is_dev(&self) -> Result<(), Failure> {
        let mailbox = self.send(self.request(Method::GET, "/dev/v1/messages")).await;
        let url = self.url();
        match mailbox.map(|answer| answer.status) {
            Ok(200) => Ok(()),
            Ok(_) => Err(Failure::Other(format!(
                "{url} is no Pearlgate in dev mode, and the drill breaks things: give it one that \
                 `pearlgate serve --dev` runs, or leave --url out"
            ))),
            Err(why) => Err(Failure::Other(format!("{url}: {why}. Is a server running there?"))),
        }
    }

    /// What the server says it can go on without.
    pub(super) async fn dependencies(&self) -> Result<Vec<String>, Failure> {
        let answer = self.pull("health", self.request(Method::GET, "/health/dependencies"), 200).await?;
        let items = answer.list_at("/items").unwrap_or_default();
        let names = items.iter().filter_map(|item| item.get("name").and_then(Value::as_str));
        Ok(names.map(str::to_owned).collect())
    }

    /// Breaks a dependency, or mends it: `none`.
    pub(super) async fn switch(&self, dependency: &str, fault: &str) -> Result<(), Failure> {
        let request = self.request(Method::PUT, &format!("/dev/v1/faults/{dependency}"));
        self.pull("the fault switch", request.json(&json!({ "fault": fault })), 204).await.map(drop)
    }

    pub(super) async fn switch_all(&self, fault: &str) -> Result<(), Failure> {
        for dependency in self.dependencies().await? {
            self.switch(&dependency, fault).await?;
        }
        Ok(())
    }

    /// Moves the clock by a minute: what waits for its next try is due.
    pub(super) async fn advance(&self) -> Result<(), Failure> {
        let request = self.request(Method::POST, "/dev/v1/clock").json(&json!({ "advance": "1m" }));
        self.pull("the clock", request, 200).await.map(drop)
    }

    async fn pull(&self, what: &str, request: RequestBuilder, right: u16) -> Result<Answer, Failure> {
        match self.send(request).await {
            Ok(answer) if answer.status == right => Ok(answer),
            Ok(answer) => Err(Failure::Other(format!("{what}: answered {}", answer.refusal()))),
            Err(why) => Err(Failure::Other(format!("{what}: {why}"))),
        }
    }
}

/// Does something for every number below `count`, `at_once` of them at a time; the first failure ends it.
pub(super) async fn for_all<T, F, Fut>(count: u32, at_once: u32, work: F) -> Result<Vec<T>, Failure>
where
    T: Send + 'static,
    F: Fn(u32) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut lanes = JoinSet::new();
    for lane in 0..at_once {
        let work = work.clone();
        lanes.spawn(async move {
            let mut done = Vec::new();
            for number in (lane..count).step_by(at_once as usize) {
                let doing = work(number);
                done.push(doing.await?);
            }
            Ok::<_, Failure>(done)
        });
    }
    let mut all = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        all.extend(lane.map_err(|e| Failure::Other(format!("the drill itself broke: {e}")))??);
    }
    Ok(all)
}
